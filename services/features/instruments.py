"""What features measures; declared in `driftloop.telemetry.metrics`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from driftloop.contracts import Message, Record
from driftloop.contracts.features.v1.features_pb2 import TRIGGER_CLOCK, FeatureUpdate
from driftloop.messaging.host_instruments import HostInstruments
from driftloop.messaging.hosting import Heart
from driftloop.telemetry import Instruments
from services.features.aggregation import Aggregation
from services.features.rekeying import Rekeying

_ANY_VIEW = {"view": "any"}  # the heart counts late events over all views


class RekeyingInstruments(HostInstruments):
    """Metrics of the first stage."""

    def __init__(self, declared: Instruments) -> None:
        super().__init__(declared, "rekeying")

    def gauged(self, group: int, heart: Heart) -> None:
        """See `HostInstruments.gauged`."""
        super().gauged(group, heart)
        if isinstance(heart, Rekeying):
            self.repeated(group, heart.duplicates)


class AggregationInstruments(HostInstruments):
    """Metrics of the second stage."""

    def __init__(self, declared: Instruments) -> None:
        super().__init__(declared, "aggregation")
        self._updates = declared.counter("updates")
        self._late = declared.counter("late_events")
        self._overflowed = declared.counter("overflowed_events")
        self._late_before: dict[int, int] = {}
        self._overflowed_before: dict[int, int] = {}

    def folded(
        self, group: int, heart: Heart, records: Sequence[Record], outputs: Sequence[Message[Any]], seconds: float
    ) -> None:
        """See `Watcher.folded`."""
        super().folded(group, heart, records, outputs, seconds)
        seen: Counter[tuple[str, int]] = Counter()
        for message in outputs:
            if isinstance(message.payload, FeatureUpdate):
                seen[(message.payload.view, message.payload.trigger)] += 1
        for (view, trigger), count in seen.items():
            self._updates.add(count, {"view": view, "trigger": "clock" if trigger == TRIGGER_CLOCK else "event"})

    def gauged(self, group: int, heart: Heart) -> None:
        """See `HostInstruments.gauged`."""
        super().gauged(group, heart)
        if isinstance(heart, Aggregation):
            self.repeated(group, heart.repeated)
            late = heart.late - self._late_before.get(group, heart.late)
            self._late_before[group] = heart.late
            if late > 0:
                self._late.add(late, _ANY_VIEW)
            overflowed = heart.overflowed - self._overflowed_before.get(group, heart.overflowed)
            self._overflowed_before[group] = heart.overflowed
            if overflowed > 0:
                self._overflowed.add(overflowed)


class OnlineInstruments:
    """Metrics of the write-behind into Feast's online store."""

    def __init__(self, declared: Instruments) -> None:
        self.write_seconds = declared.histogram("online_write_seconds")
        self.rows = declared.counter("online_rows")
        self._behind = declared.gauge("online_behind_rows")

    def behind(self, by_partition: dict[int, int]) -> None:
        """Takes the updates that wait, per partition."""
        for partition, rows in by_partition.items():
            self._behind.set(rows, {"partition": str(partition)})
