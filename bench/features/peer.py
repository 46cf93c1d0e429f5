"""The peer: quixstreams with counts, means and quantiles by key in windows, in an environment of its own.

`python peer.py BOOTSTRAP INPUT OUTPUT GROUP STATE_DIR KIND SECONDS…`, until it is killed. It imports nothing of ours.
"""

import sys
from bisect import insort
from math import ceil

from quixstreams import Application
from quixstreams.dataframe.windows import Count, Mean
from quixstreams.dataframe.windows.aggregations import Aggregator


class Quantile(Aggregator):  # type: ignore[misc]
    """Nearest-rank 90 % of the window's values, kept in order: exact, as ours."""

    def initialize(self) -> list[float]:
        return []

    def agg(self, old: list[float], new: dict[str, float], timestamp: int) -> list[float]:
        insort(old, new["amount"])
        return old

    def result(self, value: list[float]) -> float | None:
        return value[ceil(0.9 * len(value)) - 1] if value else None


def main() -> None:
    servers, source, target, group, state, kind, *seconds = sys.argv[1:]
    app = Application(
        broker_address=servers,
        consumer_group=group,
        auto_offset_reset="earliest",
        state_dir=state,
        auto_create_topics=True,
        loglevel="WARNING",
        # What our service sets, too.
        producer_extra_config={"compression.type": "lz4", "acks": "all", "enable.idempotence": True},
    )
    frame = app.dataframe(app.topic(source, value_deserializer="json"))
    values = app.topic(target, value_serializer="json")
    for each in map(int, seconds):
        make = frame.tumbling_window if kind == "tumbling" else frame.sliding_window
        windows = make(duration_ms=each * 1000, grace_ms=3_600_000, name=f"{kind}{each}")
        windows.agg(count=Count(), mean=Mean("amount"), p90=Quantile("amount")).current().to_topic(values)
    app.run()


if __name__ == "__main__":
    main()
