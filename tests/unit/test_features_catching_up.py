"""Features behind by much reads one partition ahead of another: what its values promise meanwhile, and what they do not."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from driftloop.contracts import Message, Record, from_value
from driftloop.contracts.features.v1.features_pb2 import FeatureUpdate
from driftloop.usecase import HOUR_US, MINUTE_US, load_use_case
from services.features.aggregation import Aggregation
from services.features.packing import Pack
from tests.parts import part

FLIGHTS = load_use_case("flights")
ORIGIN = "flight_departed_delay_by_origin"
NAMES = [f.name.removeprefix(f"{ORIGIN}__") for view in FLIGHTS.views if view.name == ORIGIN for f in view.features]

Known = tuple[int, int, float]
"""An event of one entity: the partition of `events` that it lies in, when it was known, its value."""


def record(offset: int, source: int, number: int, known_at_us: int, value: float) -> Record:
    """The part of one event that a view needs, as rekeying sends it."""
    pack = Pack("flights", FLIGHTS.views, source, 0)
    pack.add(part(ORIGIN, f"{ORIGIN}|EWR", number, f"e{number}", known_at_us, known_at_us, (value,)))
    message = pack.take()
    assert message is not None
    return Record("keyed", 0, offset, message)


def read(events: Sequence[Known], order: Sequence[int]) -> list[tuple[Known, Message[FeatureUpdate]]]:
    """Each event with what features says of it; `order` names the partition to read next, what is left is read behind it."""
    waiting = [deque((n, e) for n, e in enumerate(events) if e[0] == source) for source in range(2)]
    heart = Aggregation(FLIGHTS, 0, 2)
    said = []
    for source in [*order, *[0] * len(events), *[1] * len(events)]:
        if waiting[source]:
            number, event = waiting[source].popleft()
            (update,) = heart.fold([record(len(said), source, number, event[1], event[2])])
            said.append((event, update))
    return said


def values(update: Message[FeatureUpdate]) -> tuple[float, float]:
    """Count and mean of twelve hours."""
    found = dict(zip(NAMES, map(from_value, update.payload.values), strict=True))
    count, mean = found["count_12h"], found["mean_12h"]
    assert isinstance(count, float)
    assert isinstance(mean, float)
    return count, mean


def test_a_value_may_lack_what_a_partition_behind_has_of_its_time_and_the_newest_lacks_nothing():
    events = [(0, HOUR_US, 1.0), (1, HOUR_US + MINUTE_US, 5.0), (0, HOUR_US + 2 * MINUTE_US, 9.0)]
    said = [update for _, update in read(events, [0, 0, 1])]
    assert [update.known_at_us for update in said] == [HOUR_US, HOUR_US + 2 * MINUTE_US, HOUR_US + 2 * MINUTE_US]
    assert [values(update) for update in said] == [(1.0, 1.0), (2.0, 5.0), (3.0, 5.0)]


@given(
    st.lists(st.tuples(st.integers(0, 1), st.integers(0, 60), st.floats(-1e6, 1e6)), min_size=1, max_size=12),
    st.lists(st.integers(0, 1), max_size=12),
)
def test_however_far_one_is_ahead_no_value_is_known_too_early_and_the_newest_is_exact(drawn, order):
    events = sorted(((s, HOUR_US + m * MINUTE_US, value) for s, m, value in drawn), key=lambda event: event[1])
    read_so_far: list[Known] = []
    for event, update in read(events, order):
        read_so_far.append(event)
        assert max(known_at_us for _, known_at_us, _ in read_so_far) == update.known_at_us
        assert values(update) == (len(read_so_far), math.fsum(value for _, _, value in read_so_far) / len(read_so_far))
    assert len(read_so_far) == len(events)
