"""What ingest's heart decides about ids, the clock and its bounds, and what the log gives back after a restart."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftloop.contracts import UNSET_US, Message, decode, encode, watermark
from driftloop.contracts.event.v1.event_pb2 import Event
from driftloop.messaging import MemoryBus
from driftloop.usecase import Event as EventType
from driftloop.usecase import Field
from services.ingest.admission import Admission, Duplicate, NotAdmitted, OnItsWay, Rejected, Taken
from services.ingest.errors import ClockGoesBack, ClockIsLive, NoRoom, UnknownUseCase
from services.ingest.gateways import MemoryLog, restore
from tests.unit.ingest_twin import NOON_US, SPREAD, STEP_US, orders, wire_event


def admission(mode: str = "replay", window_ids_max: int = 1_000, in_flight_max: int = 100) -> Admission:
    return Admission(orders(mode), SPREAD, window_ids_max, in_flight_max)


def take(heart: Admission, event: Event, now_us: int = NOON_US) -> Taken:
    return heart.take([event.SerializeToString()], now_us)


def refusal(heart: Admission, event: Event, now_us: int = NOON_US) -> NotAdmitted | None:
    """What becomes of an event, None if it is admitted; it then stays in flight."""
    return take(heart, event, now_us).others.get(0)


def write(heart: Admission, event: Event, now_us: int = NOON_US) -> Message[Event]:
    """Takes an event that must be admitted and settles it; the message that its record is read as."""
    taken = take(heart, event, now_us)
    assert not taken.others, taken.others
    heart.settle(taken, written=True)
    return decode("events", *taken.records[0])


def rules(decision: object) -> list[str]:
    assert isinstance(decision, Rejected), decision
    return [violation.rule for violation in decision.violations]


def test_a_new_event_becomes_the_record_that_the_contract_asks_for() -> None:
    event = wire_event()
    event.source = ""
    taken = admission().take([event.SerializeToString()], 0, "00-trace")
    message = decode("events", *taken.records[0])
    assert (message.topic, message.key, message.id, message.source) == ("events", "order-7", "a1", "producer")
    assert (message.time_us, message.known_at_us, message.traceparent) == (NOON_US, NOON_US + 1, "00-trace")
    assert message.payload == event
    expected = encode(message)
    assert (taken.records[0].key, sorted(taken.records[0].headers)) == (expected.key, sorted(expected.headers))


def test_the_senders_bytes_are_kept_as_they_are() -> None:
    fields = [wire_event(note="b").SerializeToString(), Event(source="test").SerializeToString()]
    unusual = b"".join(fields) + b"\xf8\x01\x07"  # a field twice, and one that we do not know
    (record,) = admission().take([unusual], 0).records
    assert record.value == unusual
    (record,) = admission("live").take([unusual], NOON_US + 9).records
    assert record.value.startswith(unusual)
    assert Event.FromString(record.value).known_at_us == NOON_US + 9


def test_a_retry_of_what_is_in_the_log_is_a_duplicate_even_after_the_clock_has_passed_it() -> None:
    heart = admission()
    write(heart, wire_event())
    heart.advance("orders", NOON_US + 200 * 86_400_000_000)
    assert isinstance(refusal(heart, wire_event()), Duplicate)


def test_the_same_id_with_other_content_is_taken() -> None:
    heart = admission()
    write(heart, wire_event())
    decision = refusal(heart, wire_event(price=13.0))
    assert isinstance(decision, Rejected)
    assert decision.id_taken
    assert [violation.field for violation in decision.violations] == ["id"]


@pytest.mark.parametrize(
    ("first", "then"), [((-1.0, 3.0), (-2.0, 3.0)), ((-1.0, -2.0), (-2.0, -1.0)), ((-1, 1), (-2, 1))]
)
def test_minus_one_and_minus_two_are_other_content(first: tuple[float, float], then: tuple[float, float]) -> None:
    """Python's hash of the one is that of the other."""
    reading = EventType("reading", "order", {"inside": Field(float), "outside": Field(float)})
    use_case = replace(orders(), events=[*orders().events, reading])
    heart = Admission(use_case, SPREAD, 1_000, 100)

    def told(inside: float, outside: float) -> Event:
        event = wire_event()
        event.type = "reading"
        event.fields.clear()
        event.fields["inside"].number, event.fields["outside"].number = inside, outside
        return event

    write(heart, told(*first))
    assert isinstance(refusal(heart, told(*first)), Duplicate)
    assert rules(refusal(heart, told(*then))) == ["id_taken"]


def test_an_invalid_event_under_a_taken_id_is_told_its_faults() -> None:
    heart = admission()
    write(heart, wire_event())
    decision = refusal(heart, wire_event(price=-1.0))
    assert rules(decision) == ["range"]


def test_while_an_event_is_in_flight_its_retry_waits_and_then_is_a_duplicate() -> None:
    heart = admission()
    taken = take(heart, wire_event())
    assert refusal(heart, wire_event()) == OnItsWay(taken.number)
    heart.settle(taken, written=True)
    assert isinstance(refusal(heart, wire_event()), Duplicate)


def test_an_event_that_was_lost_is_as_if_it_had_never_come() -> None:
    heart = admission()
    heart.settle(take(heart, wire_event()), written=False)
    assert refusal(heart, wire_event(price=13.0)) is None


def test_of_events_of_one_id_in_one_call_the_first_goes_ahead() -> None:
    heart = admission()
    taken = heart.take([wire_event().SerializeToString(), wire_event(price=13.0).SerializeToString()], 0)
    assert taken.ids == ["a1", "a1"]
    assert taken.others == {1: OnItsWay(taken.number)}


def test_no_more_events_are_in_flight_than_the_bound() -> None:
    heart = admission(in_flight_max=2)
    first = take(heart, wire_event("a"))
    take(heart, wire_event("b"))
    with pytest.raises(NoRoom):
        take(heart, wire_event("c"))
    heart.settle(first, written=True)
    assert refusal(heart, wire_event("c")) is None


def test_what_found_no_room_in_the_queue_is_as_if_it_had_never_come() -> None:
    heart = admission()
    taken = heart.take([wire_event(name).SerializeToString() for name in "abc"], 0)
    heart.give_back(taken, 1)
    assert heart.in_flight == 1
    heart.settle(taken, written=True)
    assert isinstance(refusal(heart, wire_event("a")), Duplicate)
    assert refusal(heart, wire_event("c")) is None


def test_bytes_that_are_no_event_are_malformed_and_stop_nothing_else() -> None:
    taken = admission().take([b"\xff\xff", wire_event().SerializeToString()], 0)
    assert taken.ids == ["", "a1"]
    assert rules(taken.others[0]) == ["malformed"]
    assert list(taken.admitted) == ["a1"]


def test_the_same_event_serialised_otherwise_is_the_same_event() -> None:
    heart = admission()
    write(heart, wire_event())
    event, other = wire_event(), Event()
    for name in reversed(list(event.fields)):
        other.fields[name].CopyFrom(event.fields[name])
    event.ClearField("fields")
    taken = heart.take([other.SerializeToString() + event.SerializeToString()], 0)
    assert isinstance(taken.others[0], Duplicate)


def test_a_redriven_event_becomes_known_now_whatever_it_said() -> None:
    heart = admission()
    heart.advance("orders", NOON_US + 50)
    event = wire_event(known_at_us=NOON_US + 10)
    taken = heart.take([event.SerializeToString()], 0, redriven=True)
    message = decode("events", *taken.records[0])
    assert (message.known_at_us, message.payload.known_at_us) == (NOON_US + 51, NOON_US + 51)
    assert message.time_us == event.event_time_us
    heart.settle(taken, written=True)
    assert isinstance(refusal(heart, event), Duplicate)


def test_the_window_forgets_the_oldest_ids() -> None:
    heart = admission(window_ids_max=3)
    for number in range(4):
        write(heart, wire_event(f"a{number}"))
    assert heart.window_ids == 3
    assert isinstance(refusal(heart, wire_event("a1")), Duplicate)
    assert refusal(heart, wire_event("a0")) is None


def test_advance_writes_a_watermark_to_every_partition_and_the_same_time_writes_them_again() -> None:
    heart = admission()
    for _ in range(2):
        marks = heart.advance("orders", NOON_US).watermarks
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
    assert rules(refusal(heart, wire_event(known_at_us=NOON_US))) == ["known_at"]
    assert refusal(heart, wire_event(known_at_us=NOON_US + 1)) is None


def test_a_live_event_is_stamped_now_and_always_after_the_last_watermark() -> None:
    heart = admission("live")
    event = wire_event(known_at_us=NOON_US)
    assert write(heart, event, now_us=NOON_US + 5).known_at_us == NOON_US + 5
    heart.tick(NOON_US + 50)
    late = wire_event("a2", known_at_us=NOON_US)
    assert write(heart, late, now_us=NOON_US + 7).payload.known_at_us == NOON_US + 51


def test_the_stamp_is_no_part_of_a_live_events_content() -> None:
    heart = admission("live")
    write(heart, wire_event(known_at_us=NOON_US), now_us=NOON_US + 5)
    retry = wire_event(known_at_us=NOON_US)
    retry.known_at_us = 0
    assert isinstance(refusal(heart, retry, NOON_US + 9), Duplicate)


def test_a_live_clock_stands_still_when_the_machines_clock_goes_back() -> None:
    heart = admission("live")
    heart.tick(NOON_US)
    assert [mark.known_at_us for mark in heart.tick(NOON_US - 1).watermarks] == [NOON_US] * SPREAD


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
        taken = take(heart, event)
        decision = taken.others.get(0)
        content = Event()
        content.CopyFrom(event)
        content.known_at_us = 0
        if decision is None:
            assert event.known_at_us > marked_us
            assert event.id not in written
            heart.settle(taken, written=True)
            written[event.id] = content
        elif isinstance(decision, Duplicate):
            assert written[event.id] == content
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
        bus.append(write(heart, event))
        if clock_every and (number + 1) % clock_every == 0:
            for mark in heart.advance("orders", event.known_at_us).watermarks:
                bus.append(mark)
    return bus


def _restored(bus: MemoryBus, records_max: int) -> tuple[Admission, int]:
    heart = admission(window_ids_max=100_000)
    return heart, restore(heart, MemoryLog(bus), records_max)


def test_after_a_restart_the_clock_and_the_newest_ids_are_known_again() -> None:
    heart, found = _restored(_log(100, clock_every=10), records_max=30)
    assert heart.clock_us == NOON_US + 100
    assert 20 <= found < 100
    retry = wire_event("a99", NOON_US + 100)
    retry.entity = "order-99"
    assert isinstance(refusal(heart, retry), Duplicate)
    other = wire_event("a99", NOON_US + 100, price=1.0)
    assert isinstance(refusal(heart, other), Rejected)


def test_a_watermark_far_behind_the_tail_is_found() -> None:
    heart, _ = _restored(_log(500, clock_every=100), records_max=7)
    assert heart.clock_us == NOON_US + 500
    bus = _log(0)
    for partition in range(SPREAD):
        bus.append(watermark("events", partition, "ingest", NOON_US))
    for number in range(200):
        event = wire_event(f"b{number}", NOON_US + number + 1)
        event.entity = f"order-{number}"
        bus.append(write(admission(), event))
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
    bus.delete_before({("events", partition): bus.end(("events", partition)) for partition in range(SPREAD)})
    assert _restored(bus, 10)[0].clock_us == UNSET_US
