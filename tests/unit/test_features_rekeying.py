"""The first stage of features: each event once, each view its part."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from driftloop.contracts import Message, Record, to_wire, watermark
from driftloop.contracts.event.v1.event_pb2 import Event
from driftloop.usecase import DAY_US, load_use_case
from services.features.rekeying import Rekeying

FLIGHTS = load_use_case("flights")
DEPARTED = {"carrier": "UA", "origin": "EWR", "dest": "IAH", "delay": 3.0}
ARRIVED = DEPARTED | {"tail_number": "N1"}


def event(offset: int, event_id: str, kind: str = "flight_departed", known_at_us: int = 10, fields=None) -> Record:
    payload = Event(
        use_case="flights",
        id=event_id,
        type=kind,
        entity="f1",
        event_time_us=known_at_us,
        known_at_us=known_at_us,
        fields=to_wire(DEPARTED if fields is None else fields, FLIGHTS.event_types[kind].fields),
    )
    return Record("events", 0, offset, Message("events", "f1", payload, event_id, "test", known_at_us, known_at_us))


def mark(offset: int, clock_us: int) -> Record:
    return Record("events", 0, offset, watermark("events", 0, "ingest", clock_us))


def test_every_view_of_an_event_type_gets_its_part_under_its_own_key():
    keyed = Rekeying(FLIGHTS, 0, 2).fold([event(0, "a")])
    assert [message.payload.key for message in keyed] == [
        "flight_departed_delay_by_origin|EWR",
        "flight_departed_delay_by_carrier_origin|UA|EWR",
        "flight_departed_delay_by_dest|IAH",
    ]
    assert all(message.causes == ("a",) and message.payload.values[0].number == 3.0 for message in keyed)


def test_a_view_whose_key_field_is_absent_gets_nothing():
    assert Rekeying(FLIGHTS, 0, 2).fold([event(0, "a", "flight_arrived", fields=DEPARTED)]) == []


def test_the_same_id_again_is_dropped_and_counted():
    heart = Rekeying(FLIGHTS, 0, 2)
    first = heart.fold([event(0, "a")])
    assert heart.fold([event(1, "a")]) == []
    assert (len(first), heart.applied, heart.duplicates) == (3, 1, 1)
    assert [record.offset for record in heart.take_accepted()] == [0]
    assert heart.take_accepted() == []


def test_an_event_without_views_is_accepted_for_the_offline_log_all_the_same():
    heart = Rekeying(FLIGHTS, 0, 2)
    assert heart.fold([event(0, "c", "flight_cancelled", fields={"carrier": "UA", "origin": "EWR"})]) == []
    assert len(heart.take_accepted()) == 1


def test_the_watermark_goes_to_every_partition_of_keyed_once():
    heart = Rekeying(FLIGHTS, 1, 3)
    marks = heart.fold([mark(0, 50), mark(1, 50), mark(2, 40)])
    assert [(m.partition, m.payload.writer, m.payload.known_at_us) for m in marks] == [
        (p, "rekeying/1", 50) for p in range(3)
    ]


def test_ids_are_forgotten_after_the_dedupe_horizon():
    heart = Rekeying(FLIGHTS, 0, 2)
    heart.fold([event(0, "a", known_at_us=10), mark(1, 10 + 8 * DAY_US)])
    assert heart.snapshot()["seen"] == []


@given(st.lists(st.integers(0, 8), max_size=30), st.integers(1, 7))
def test_folding_a_batch_equals_folding_one_at_a_time_also_across_a_restore(ids, cut):
    records = [event(offset, f"e{i}", known_at_us=offset) for offset, i in enumerate(ids)] + [mark(len(ids), 100)]
    whole = Rekeying(FLIGHTS, 0, 2)
    expected = whole.fold(records)
    one = Rekeying(FLIGHTS, 0, 2)
    found = [message for record in records[:cut] for message in one.fold([record])]
    other = Rekeying(FLIGHTS, 0, 2)
    other.restore(one.snapshot())
    found += other.fold(records[cut:])
    assert found == expected
    assert other.snapshot() == whole.snapshot()
