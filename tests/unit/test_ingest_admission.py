"""What ingest's heart decides about ids, the clock and its bounds, and what the log gives back after a restart."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftloop.contracts import UNSET_US, watermark
from driftloop.contracts.event.v1.event_pb2 import Event
from driftloop.messaging import MemoryBus
from services.ingest.admission import Admission, Admitted, Duplicate, NoRoom, OnItsWay, Rejected
from services.ingest.errors import CannotStart, ClockGoesBack, ClockIsLive, UnknownUseCase
from services.ingest.gateways import restore
from tests.unit.ingest_twin import NOON_US, SPREAD, STEP_US, orders, wire_event


def admission(mode: str = "replay", window_ids_max: int = 1_000, in_flight_max: int = 100) -> Admission:
    return Admission(orders(mode), SPREAD, window_ids_max, in_flight_max)


def write(heart: Admission, event: Event, now_us: int = NOON_US) -> Admitted:
    decision = heart.decide(event, now_us)
    assert isinstance(decision, Admitted), decision
    heart.settle(event.id, written=True)
    return decision


def rules(decision: object) -> list[str]:
    assert isinstance(decision, Rejected), decision
    return [violation.rule for violation in decision.violations]


def test_a_new_event_becomes_a_message_keyed_by_its_entity() -> None:
    event = wire_event()
    event.source = ""
    decision = admission().decide(event, 0, "00-trace")
    assert isinstance(decision, Admitted)
    message = decision.message
    assert (message.topic, message.key, message.id, message.source) == ("events", "order-7", "a1", "producer")
    assert (message.time_us, message.known_at_us, message.traceparent) == (NOON_US, NOON_US + 1, "00-trace")
    assert message.payload is event


def test_a_retry_of_what_is_in_the_log_is_a_duplicate_even_after_the_clock_has_passed_it() -> None:
    heart = admission()
    write(heart, wire_event())
    heart.advance("orders", NOON_US + 200 * 86_400_000_000)
    assert isinstance(heart.decide(wire_event(), 0), Duplicate)


def test_the_same_id_with_other_content_is_taken() -> None:
    heart = admission()
    write(heart, wire_event())
    decision = heart.decide(wire_event(price=13.0), 0)
    assert isinstance(decision, Rejected)
    assert decision.id_taken
    assert [violation.field for violation in decision.violations] == ["id"]


def test_an_invalid_event_under_a_taken_id_is_told_its_faults() -> None:
    heart = admission()
    write(heart, wire_event())
    decision = heart.decide(wire_event(price=-1.0), 0)
    assert rules(decision) == ["range"]


def test_while_an_event_is_in_flight_its_retry_waits_and_then_is_a_duplicate() -> None:
    heart = admission()
    assert isinstance(heart.decide(wire_event(), 0), Admitted)
    assert isinstance(heart.decide(wire_event(), 0), OnItsWay)
    heart.settle("a1", written=True)
    assert isinstance(heart.decide(wire_event(), 0), Duplicate)


def test_an_event_that_was_lost_is_as_if_it_had_never_come() -> None:
    heart = admission()
    assert isinstance(heart.decide(wire_event(), 0), Admitted)
    heart.settle("a1", written=False)
    assert isinstance(heart.decide(wire_event(price=13.0), 0), Admitted)


def test_no_more_events_are_in_flight_than_the_bound() -> None:
    heart = admission(in_flight_max=2)
    heart.decide(wire_event("a"), 0)
    heart.decide(wire_event("b"), 0)
    assert isinstance(heart.decide(wire_event("c"), 0), NoRoom)
    heart.settle("a", written=True)
    assert isinstance(heart.decide(wire_event("c"), 0), Admitted)


def test_the_window_forgets_the_oldest_ids() -> None:
    heart = admission(window_ids_max=3)
    for number in range(4):
        write(heart, wire_event(f"a{number}"))
    assert heart.window_ids == 3
    assert isinstance(heart.decide(wire_event("a1"), 0), Duplicate)
    assert isinstance(heart.decide(wire_event("a0"), 0), Admitted)


def test_advance_writes_a_watermark_to_every_partition_and_the_same_time_writes_them_again() -> None:
    heart = admission()
    for _ in range(2):
        marks = heart.advance("orders", NOON_US)
        assert [(m.partition, m.payload.writer, m.payload.known_at_us) for m in marks] == [
            (0, "ingest", NOON_US),
            (1, "ingest", NOON_US),
        ]
        assert all(mark.is_watermark for mark in marks)
    assert heart.clock_us == NOON_US


def test_the_clock_never_goes_back_and_stays_within_calendars() -> None:
    heart = admission()
    heart.advance("orders", NOON_US)
    for known_at_us in (NOON_US - 1, 0, -1, 1 << 62):
        with pytest.raises(ClockGoesBack):
            heart.advance("orders", known_at_us)
    assert heart.clock_us == NOON_US


def test_a_live_clock_is_moved_by_nobody_and_another_use_cases_clock_neither() -> None:
    with pytest.raises(ClockIsLive):
        admission("live").advance("orders", NOON_US)
    with pytest.raises(UnknownUseCase):
        admission().advance("parcels", NOON_US)


def test_an_event_known_at_or_before_the_clock_comes_too_late() -> None:
    heart = admission()
    heart.advance("orders", NOON_US)
    assert rules(heart.decide(wire_event(known_at_us=NOON_US), 0)) == ["known_at"]
    assert isinstance(heart.decide(wire_event(known_at_us=NOON_US + 1), 0), Admitted)


def test_a_live_event_is_stamped_now_and_always_after_the_last_watermark() -> None:
    heart = admission("live")
    event = wire_event(known_at_us=NOON_US)
    assert write(heart, event, now_us=NOON_US + 5).message.known_at_us == NOON_US + 5
    heart.tick(NOON_US + 50)
    late = wire_event("a2", known_at_us=NOON_US)
    assert write(heart, late, now_us=NOON_US + 7).message.payload.known_at_us == NOON_US + 51


def test_the_stamp_is_no_part_of_a_live_events_content() -> None:
    heart = admission("live")
    write(heart, wire_event(known_at_us=NOON_US), now_us=NOON_US + 5)
    retry = wire_event(known_at_us=NOON_US)
    retry.known_at_us = 0
    assert isinstance(heart.decide(retry, NOON_US + 9), Duplicate)


def test_a_live_clock_stands_still_when_the_machines_clock_goes_back() -> None:
    heart = admission("live")
    heart.tick(NOON_US)
    assert [mark.known_at_us for mark in heart.tick(NOON_US - 1)] == [NOON_US] * SPREAD


@settings(max_examples=50)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("event"), st.integers(0, 9), st.integers(1, 3 * STEP_US)),
            st.tuples(st.just("advance"), st.integers(0, 0), st.integers(1, 3 * STEP_US)),
        ),
        max_size=60,
    )
)
def test_whatever_is_sent_the_log_keeps_its_promises(steps: list[tuple[str, int, int]]) -> None:
    heart = admission()
    marked_us, written = UNSET_US, {}
    for kind, number, after_us in steps:
        if kind == "advance":
            try:
                heart.advance("orders", NOON_US + after_us)
            except ClockGoesBack:
                assert NOON_US + after_us < marked_us
            else:
                marked_us = NOON_US + after_us
            continue
        event = wire_event(f"a{number}", NOON_US + after_us)
        decision = heart.decide(event, 0)
        if isinstance(decision, Admitted):
            assert event.known_at_us > marked_us
            assert event.id not in written
            heart.settle(event.id, written=True)
            written[event.id] = event.SerializeToString(deterministic=True)
        elif isinstance(decision, Duplicate):
            assert written[event.id] == event.SerializeToString(deterministic=True)
        else:
            assert isinstance(decision, Rejected)
            assert decision.id_taken == (event.id in written and not _too_far(event, marked_us))


def _too_far(event: Event, clock_us: int) -> bool:
    return clock_us != UNSET_US and event.known_at_us > clock_us + STEP_US + 300_000_000


def _log(events: int, clock_every: int = 0, start_us: int = NOON_US) -> MemoryBus:
    bus, heart = MemoryBus("orders", SPREAD), admission(window_ids_max=100_000)
    for number in range(events):
        event = wire_event(f"a{number}", start_us + number + 1)
        event.entity = f"order-{number}"
        bus.append(write(heart, event).message)
        if clock_every and (number + 1) % clock_every == 0:
            for mark in heart.advance("orders", event.known_at_us):
                bus.append(mark)
    return bus


def _restored(bus: MemoryBus, records_max: int, oldest: dict[int, int] | None = None) -> tuple[Admission, int]:
    heart = admission(window_ids_max=100_000)
    found = restore(heart, bus.reader(["events"]), oldest or dict.fromkeys(range(SPREAD), 0), records_max, 10.0)
    return heart, found


def test_after_a_restart_the_clock_and_the_newest_ids_are_known_again() -> None:
    heart, found = _restored(_log(100, clock_every=10), records_max=30)
    assert heart.clock_us == NOON_US + 100
    assert 20 <= found < 100
    retry = wire_event("a99", NOON_US + 100)
    retry.entity = "order-99"
    assert isinstance(heart.decide(retry, 0), Duplicate)
    other = wire_event("a99", NOON_US + 100, price=1.0)
    assert isinstance(heart.decide(other, 0), Rejected)


def test_a_watermark_far_behind_the_tail_is_found() -> None:
    heart, _ = _restored(_log(500, clock_every=100), records_max=7)
    assert heart.clock_us == NOON_US + 500
    bus = _log(0)
    for partition in range(SPREAD):
        bus.append(watermark("events", partition, "ingest", NOON_US))
    for number in range(200):
        event = wire_event(f"b{number}", NOON_US + number + 1)
        event.entity = f"order-{number}"
        bus.append(write(admission(), event).message)
    heart, found = _restored(bus, records_max=10)
    assert heart.clock_us == NOON_US
    assert found == 2 * 10


def test_a_crash_between_two_partitions_watermarks_counts_as_advanced() -> None:
    bus = _log(20, clock_every=10)
    bus.append(watermark("events", 1, "ingest", NOON_US + 30))
    assert _restored(bus, records_max=100)[0].clock_us == NOON_US + 30


def test_an_empty_or_expired_log_leaves_the_clock_unset() -> None:
    assert _restored(_log(0), 10)[0].clock_us == UNSET_US
    bus = _log(50, clock_every=10)
    ends = {partition: len(bus.records("events", partition)) for partition in range(SPREAD)}
    assert _restored(bus, 10, oldest=ends)[0].clock_us == UNSET_US


def test_a_log_that_does_not_come_in_time_stops_the_start() -> None:
    class Silent:
        def end_offsets(self) -> dict[tuple[str, int], int]:
            return {("events", 0): 5}

        def seek(self, offsets: object) -> None: ...

        def poll(self, timeout_s: float, max_records: int) -> list[object]:
            return []

    with pytest.raises(CannotStart, match="partitions \\[0\\]"):
        restore(admission(), Silent(), {0: 0}, 10, timeout_s=0.01)  # type: ignore[arg-type]
