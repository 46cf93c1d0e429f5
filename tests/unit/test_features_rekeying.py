"""The first stage of features: each event once, each view its part."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from driftloop.contracts import MAX_RECORD_BYTES, Message, OffsetRange, Record, to_wire, watermark
from driftloop.contracts.event.v1.event_pb2 import Event
from driftloop.usecase import DAY_US, load_use_case
from services.features.packing import latest_values
from services.features.rekeying import Rekeying
from tests.parcels import PARCELS

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


def scanned(offset: int, event_id: str, fields) -> Record:
    wire = to_wire(fields, PARCELS.event_types["scanned"].fields)
    payload = Event(use_case="parcels", id=event_id, type="scanned", event_time_us=10, known_at_us=10, fields=wire)
    return Record("events", 0, offset, Message("events", "p", payload, event_id, "test", 10, 10))


def mark(offset: int, clock_us: int) -> Record:
    return Record("events", 0, offset, watermark("events", 0, "ingest", clock_us))


class Part(NamedTuple):
    key: str
    source_offset: int
    event_id: str
    event_time_us: int
    known_at_us: int
    values: tuple


def parts(messages: list[Message]) -> list[tuple[str, Part]]:
    """View and part of all that was keyed, in order of source and view."""
    found = [
        (columns.view, Part(columns.keys[place], *part))
        for message in messages
        if not message.is_watermark
        for columns in message.payload.views
        for place, *part in zip(
            columns.key,
            columns.source_offset,
            columns.event_id,
            columns.event_time_us,
            columns.known_at_us,
            latest_values(columns),
            strict=True,
        )
    ]
    return sorted(found, key=lambda one: (one[1].source_offset, one[0]))


def test_every_view_of_an_event_type_gets_its_part_under_its_own_key():
    keyed = Rekeying(FLIGHTS, 0, 2).fold([event(0, "a")])
    assert {part.key for _, part in parts(keyed)} == {
        "flight_departed_delay_by_origin|EWR",
        "flight_departed_delay_by_carrier_origin|UA|EWR",
        "flight_departed_delay_by_dest|IAH",
    }
    assert all(message.causes == ("a",) for message in keyed)
    assert {part.values for _, part in parts(keyed)} == {(3.0,)}


def test_a_fold_sends_one_record_to_each_partition_between_two_watermarks():
    keyed = Rekeying(FLIGHTS, 1, 2).fold(
        [event(0, "a"), event(1, "b"), mark(2, 20), *(event(n, f"c{n}") for n in range(3, 30))]
    )
    assert [message.is_watermark for message in keyed] == [False, False, True, True, False, False]
    assert [message.causes for message in keyed[:2]] == [("a", "b")] * 2
    assert {message.partition for message in keyed[-2:]} == {0, 1}
    assert all(message.ranges == (OffsetRange("events", 1, 3, 29),) and not message.causes for message in keyed[-2:])


def test_what_is_too_much_for_one_record_goes_into_several():
    long = [event(n, f"{n}-" + "x" * 250) for n in range(1_000)]
    keyed = Rekeying(FLIGHTS, 0, 1).fold(long)
    assert len(keyed) > 1
    assert all(len(message.payload.SerializeToString()) < MAX_RECORD_BYTES for message in keyed)
    assert [part.source_offset for _, part in parts(keyed)[::3]] == list(range(1_000))


def test_an_absent_number_is_no_part_of_a_window_and_an_absent_value_is_kept_absent():
    absent = Rekeying(PARCELS, 0, 1).fold([scanned(0, "a", {"depot": "x", "lane": "y", "carrier": "z"})])
    assert [(view, part.values) for view, part in parts(absent)] == [
        ("scanned_carrier_by_depot", ("z",)),
        ("scanned_carrier_sketched_by_lane", ("z",)),
        ("scanned_latest_by_depot", (None, None, "z")),
        ("scanned_since_by_depot_lane", ()),
    ]
    texts = Rekeying(PARCELS, 0, 1).fold([scanned(0, "b", {"depot": "x", "lane": "y", "weight": 2.0})])
    assert dict(parts(texts))["scanned_latest_by_depot"].values == (2.0, None, None)


def test_a_sampled_trace_goes_with_its_event():
    traced = event(1, "b")
    traced.message.traceparent = "00-1-2-01"
    (keyed,) = Rekeying(FLIGHTS, 0, 1).fold([event(0, "a"), traced])
    assert keyed.traceparent == "00-1-2-01"
    assert [dict(columns.traceparents) for columns in keyed.payload.views] == [{1: "00-1-2-01"}] * 3


def test_a_view_whose_key_field_is_absent_gets_nothing():
    assert Rekeying(FLIGHTS, 0, 2).fold([event(0, "a", "flight_arrived", fields=DEPARTED)]) == []


def test_the_same_id_again_is_dropped_and_counted():
    heart = Rekeying(FLIGHTS, 0, 2)
    first = heart.fold([event(0, "a")])
    assert heart.fold([event(1, "a")]) == []
    assert (len(parts(first)), heart.applied, heart.duplicates) == (3, 1, 1)
    assert [record.offset for record in heart.take_accepted()] == [0]
    assert heart.take_accepted() == []


def test_an_event_without_views_is_accepted_for_the_offline_log_all_the_same():
    heart = Rekeying(FLIGHTS, 0, 2)
    assert heart.fold([event(0, "c", "flight_diverted", fields={"carrier": "UA", "origin": "EWR"})]) == []
    assert len(heart.take_accepted()) == 1


def test_the_watermark_goes_to_every_partition_of_keyed_once():
    heart = Rekeying(FLIGHTS, 1, 3)
    marks = heart.fold([mark(0, 50), mark(1, 50), mark(2, 40)])
    assert [(m.partition, m.payload.writer, m.payload.known_at_us) for m in marks] == [
        (p, "rekeying/1", 50) for p in range(3)
    ]


def test_an_id_is_remembered_for_as_long_as_its_event_can_still_change_a_value():
    patient = replace(FLIGHTS, policy=replace(FLIGHTS.policy, lateness="30d", dedupe_horizon="7d"))
    heart = Rekeying(patient, 0, 1)
    heart.fold([event(0, "a"), mark(1, 20 * DAY_US)])
    assert parts(heart.fold([event(2, "a", known_at_us=21 * DAY_US)])) == []
    assert (heart.applied, heart.duplicates) == (1, 1)


def test_ids_are_forgotten_after_the_dedupe_horizon():
    heart = Rekeying(FLIGHTS, 0, 2)
    heart.fold([event(0, "a", known_at_us=10), mark(1, 10 + 8 * DAY_US)])
    assert heart.snapshot()["seen"] == ([], [])


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
    assert parts(found) == parts(expected)
    assert [m for m in found if m.is_watermark] == [m for m in expected if m.is_watermark]
    assert other.snapshot() == whole.snapshot()


@given(st.lists(st.integers(0, 8), max_size=30), st.integers(0, 7))
def test_a_snapshot_told_while_folding_goes_on_is_of_the_moment_at_which_it_was_begun(ids, begun):
    records = [event(offset, f"e{i}", known_at_us=offset) for offset, i in enumerate(ids)]
    heart = Rekeying(FLIGHTS, 0, 2)
    heart.fold(records[:begun])
    expected, told = heart.snapshot(), heart.begin_snapshot()
    heart.fold([*records[begun:], mark(len(ids), 30 * DAY_US)])
    assert {**told, "seen": tuple(map(list, told["seen"]))} == expected
