"""The second stage of features: windows and latest values, held against a brute-force computation."""

from __future__ import annotations

import gc
import math
import tracemalloc
from collections.abc import Sequence
from itertools import islice

import msgpack
from hypothesis import given, settings
from hypothesis import strategies as st

from driftloop.contracts import OffsetRange, Record, from_value, watermark
from driftloop.contracts.features.v1.features_pb2 import TRIGGER_CLOCK
from driftloop.usecase import (
    HOUR_US,
    MINUTE_US,
    Event,
    Field,
    Label,
    Latest,
    Prediction,
    Since,
    Sketch,
    UseCase,
    Window,
    before,
    load_use_case,
)
from driftloop.usecase.features import View
from services.features.aggregation import Aggregation
from services.features.packing import Pack
from tests.parcels import PARCELS
from tests.parts import part
from tests.unit.window_statistics import plain

FLIGHTS = load_use_case("flights")
VIEWS = {view.name: view for view in FLIGHTS.views}
ORIGIN = "flight_departed_delay_by_origin"
TAIL = "flight_arrived_latest_by_tail_number"
KEY = f"{ORIGIN}|EWR"


def keyed(
    offset: int, at_us: int, value: float, *, known_us: int | None = None, view: str = ORIGIN, source=(0, None)
) -> Record:
    """One part of one event in a record of its own."""
    return packed(offset, [(source[1] if source[1] is not None else offset, at_us, value, known_us)], view, source[0])


def packed(offset: int, events, view: str = ORIGIN, source: int = 0, origin: str = "EWR") -> Record:
    """Parts of events in one record: (source offset, event time, value, known time or None for the same)."""
    pack = Pack("flights", FLIGHTS.views, source, 0)
    for place, at_us, value, known_us in events:
        pack.add(
            part(view, f"{view}|{origin}", place, f"e{place}", at_us, at_us if known_us is None else known_us, (value,))
        )
    message = pack.take()
    assert message is not None
    return Record("keyed", 0, offset, message)


def marks(offset: int, clock_us: int) -> list[Record]:
    return [Record("keyed", 0, offset + p, watermark("keyed", 0, f"rekeying/{p}", clock_us)) for p in range(2)]


def values(message) -> dict[str, float | None]:
    view = VIEWS[message.payload.view]
    names = [feature.name.removeprefix(f"{view.name}__") for feature in view.features]
    return dict(zip(names, [from_value(v) for v in message.payload.values], strict=True))


def updates(messages) -> list:
    return [message for message in messages if not message.is_watermark]


def test_an_event_changes_the_values_at_once_and_is_their_cause():
    (update,) = Aggregation(FLIGHTS, 0, 2).fold([keyed(7, HOUR_US, 12.0)])
    assert values(update)["mean_1h"] == 12.0
    assert values(update)["count_12h"] == 1.0
    assert (update.causes, update.known_at_us, update.partition) == (("e7",), HOUR_US, 0)


def test_a_record_says_the_newest_value_of_an_entity_once_and_the_log_gets_them_all():
    heart = Aggregation(FLIGHTS, 0, 1)
    (said,) = heart.fold([packed(4, [(n, HOUR_US + n, float(n), None) for n in range(20)])])
    assert values(said)["count_1h"] == 20.0
    assert said.causes == tuple(f"e{n}" for n in range(4, 20))
    assert said.ranges == (OffsetRange("keyed", 0, 4, 4),)
    updates = heart.updates[ORIGIN]
    assert [update.values[1] for update in updates] == [float(n) for n in range(1, 21)]
    assert [update.sequence for update in updates] == sorted({update.sequence for update in updates})
    assert (updates[-1].id, updates[-1].sequence) == (said.id, said.payload.sequence)
    assert heart.fold(marks(5, HOUR_US)[:1])[0].is_watermark
    assert heart.updates[ORIGIN] == []


def test_the_sequence_of_a_key_rises_from_record_to_record():
    heart = Aggregation(FLIGHTS, 0, 1)
    said = heart.fold([keyed(0, HOUR_US, 1.0), packed(1, [(1, HOUR_US, 2.0, None), (2, HOUR_US, 3.0, None)])])
    said += heart.fold([*marks(2, 3 * HOUR_US)[:1], keyed(3, 3 * HOUR_US, 4.0)])
    sequences = [message.payload.sequence for message in updates(said)]
    assert sequences == sorted(set(sequences))


def test_the_clock_moves_an_event_out_of_its_window_and_says_so():
    heart = Aggregation(FLIGHTS, 0, 2)
    heart.fold([keyed(0, HOUR_US, 12.0)])
    out = heart.fold(marks(1, 2 * HOUR_US))
    (update,) = updates(out)
    assert values(update)["count_1h"] == 0.0
    assert values(update)["mean_1h"] is None
    assert values(update)["mean_3h"] == 12.0
    assert (update.payload.trigger, update.causes, update.known_at_us) == (TRIGGER_CLOCK, ("e0",), 2 * HOUR_US)
    assert out[-1].is_watermark
    assert out[-1].payload.writer == "aggregation/0"


def test_an_entity_that_nothing_is_left_of_is_forgotten():
    heart = Aggregation(FLIGHTS, 0, 2)
    heart.fold([keyed(0, HOUR_US, 12.0), *marks(1, 14 * HOUR_US)])
    assert len(heart) == 0


def test_the_clock_is_the_least_of_its_writers():
    heart = Aggregation(FLIGHTS, 0, 2)
    first, second = marks(0, 5 * HOUR_US)
    assert heart.fold([first]) == []
    assert [m.payload.known_at_us for m in heart.fold([second])] == [5 * HOUR_US]


def test_a_record_written_again_after_a_crash_is_dropped():
    heart = Aggregation(FLIGHTS, 0, 2)
    heart.fold([keyed(0, HOUR_US, 1.0, source=(1, 5)), keyed(1, HOUR_US, 2.0, source=(0, 5))])
    assert heart.fold([keyed(2, HOUR_US, 1.0, source=(1, 5)), keyed(3, HOUR_US, 1.0, source=(1, 4))]) == []
    assert heart.repeated == 2


def test_an_older_observation_never_overwrites_a_newer_one():
    heart = Aggregation(FLIGHTS, 0, 2)
    heart.fold([keyed(0, 2 * HOUR_US, 5.0, view=TAIL)])
    assert heart.fold([keyed(1, HOUR_US, 9.0, known_us=3 * HOUR_US, view=TAIL)]) == []
    assert heart.late == 1


def test_a_latest_value_goes_missing_at_its_age():
    heart = Aggregation(FLIGHTS, 0, 2)
    heart.fold([keyed(0, HOUR_US, 5.0, view=TAIL)])
    (update,) = updates(heart.fold(marks(1, 11 * HOUR_US)))
    assert values(update) == {"delay": None}


def test_a_latest_value_takes_no_more_room_for_more_events_within_its_age():
    heart, sizes = Aggregation(FLIGHTS, 0, 1), []
    tracemalloc.start()
    try:
        for first, last in ((0, 200), (200, 3_000)):
            for offset in range(first, last):
                heart.fold([keyed(offset, HOUR_US + offset, 1.0, view=TAIL)])
            gc.collect()
            sizes.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert sizes[1] - sizes[0] < 50_000
    (update,) = updates(heart.fold(marks(3_000, 12 * HOUR_US)[:1]))
    assert (values(update), update.known_at_us, len(heart)) == ({"delay": None}, 12 * HOUR_US, 0)


READING = Event("reading", "room", {name: Field(float) for name in ("hot", "wet", "dark")} | {"room": Field(str)})
ASKED = Event("asked", "question", {"room": Field(str), "at": Field("time")})


def rooms(*views: View) -> UseCase:
    told = Event("told", "question", {"right": Field(bool)})
    asked = Prediction(on=ASKED, at=before("at", "1m"))
    return UseCase("rooms", [READING, ASKED, told], asked, list(views), Label(told, lambda e: bool(e["right"])))


def measured(use_case: UseCase, offset: int, minute: int, values: Sequence[float]) -> Record:
    """A reading for every view, as it is keyed under a declaration."""
    pack, at_us = Pack("rooms", use_case.views, 0, 0), minute * MINUTE_US
    for view in use_case.views:
        of = values[: len(view.of)] if isinstance(view, Latest) else values[:1]
        pack.add(part(view.name, f"{view.name}|r1", offset, f"e{offset}", at_us, at_us, of))
    return Record("keyed", 0, offset, pack.take())


def test_what_is_held_of_a_view_that_is_declared_otherwise_now_is_said_anew_by_its_new_declaration():
    hourly = Sketch(pane="1h")
    before_it = rooms(
        Latest(READING, by="room", of=["hot", "wet"], max_age="5h"),
        Window(READING, by="room", of="hot", over=["2h"], stats=["mean"]),
        Window(READING, by="room", of="wet", over=["2h"], stats=["mean"], sketch=hourly),
        Window(READING, by="room", of="dark", over=["2h"], stats=["p50"], sketch=hourly),
    )
    since = rooms(
        Latest(READING, by="room", of=["wet", "hot", "dark"], max_age="5h"),
        Window(READING, by="room", of="hot", over=["30m", "1h"], stats=["count", "mean"]),
        Window(READING, by="room", of="wet", over=["1h", "2h"], stats=["mean"], sketch=hourly),
        Window(READING, by="room", of="dark", over=["2h"], stats=["p50", "distinct"], sketch=hourly),
    )
    old, new = Aggregation(before_it, 0, 1), Aggregation(since, 0, 1)
    old.fold(
        [measured(before_it, n, minute, [value, -value]) for n, (minute, value) in enumerate([(70, 1.0), (110, 3.0)])]
    )
    new.restore(msgpack.unpackb(msgpack.packb(old.snapshot())))
    said = updates(new.fold(marks(2, 111 * MINUTE_US)[:1]))
    found = {m.payload.view: list(map(from_value, m.payload.values)) for m in said}
    assert found == {
        "reading_latest_by_room": [-3.0, 3.0, None],
        "reading_hot_by_room": [1.0, 3.0, 2.0, 2.0],
        "reading_wet_sketched_by_room": [2.0, 2.0],
    }


def test_what_was_keyed_before_a_view_had_more_fields_lacks_the_new_ones():
    fewer, more = (
        rooms(Latest(READING, by="room", of=of, max_age="5h")) for of in (["hot", "wet"], ["hot", "wet", "dark"])
    )
    (said,) = Aggregation(more, 0, 1).fold([measured(fewer, 3, 112, [7.0, 8.0])])
    assert list(map(from_value, said.payload.values)) == [7.0, 8.0, None]


def test_an_event_older_than_any_window_changes_nothing_and_is_counted():
    heart = Aggregation(FLIGHTS, 0, 2)
    heart.fold(marks(0, 20 * HOUR_US))
    assert heart.fold([keyed(5, HOUR_US, 1.0, known_us=21 * HOUR_US)]) == []
    assert heart.late == 1


def test_the_time_since_an_event_is_said_at_every_step_until_it_is_too_old():
    (view,) = (view for view in PARCELS.views if isinstance(view, Since))  # in steps of 20 minutes, up to 3 hours
    heart = Aggregation(PARCELS, 0, 1)
    pack = Pack("parcels", PARCELS.views, 0, 0)
    pack.add(part(view.name, f"{view.name}|a|x", 0, "e0", HOUR_US, HOUR_US + 25 * MINUTE_US, ()))
    said = heart.fold([Record("keyed", 0, 0, pack.take())])
    for offset, minute in enumerate((30, 39, 40, 125, 179, 180), 1):
        said += updates(heart.fold(marks(offset, HOUR_US + minute * MINUTE_US)[:1]))
    found = [(m.known_at_us // MINUTE_US - 60, *map(from_value, m.payload.values), m.causes) for m in said]
    assert found == [
        (25, 1_200.0, ("e0",)),
        (40, 2_400.0, ("e0",)),
        (125, 7_200.0, ("e0",)),
        (179, 9_600.0, ("e0",)),
        (180, None, ("e0",)),
    ]
    assert len(heart) == 0


def test_current_values_can_be_said_again():
    heart = Aggregation(FLIGHTS, 0, 2)
    (said,) = heart.fold([keyed(0, HOUR_US, 12.0)])
    (again,) = heart.current(heart.keys())
    assert (again.id, again.payload.values) == (said.id, said.payload.values)


def brute_force(events: list[tuple[int, float]], clock_us: int) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for window in (1, 3, 12):
        inside = sorted(v for at_us, v in events if clock_us - window * HOUR_US < at_us <= clock_us)
        found[f"mean_{window}h"] = math.fsum(inside) / len(inside) if inside else None
        found[f"count_{window}h"] = float(len(inside))
        found[f"p90_{window}h"] = inside[math.ceil(0.9 * len(inside)) - 1] if inside else None
    return found


event_lists = st.lists(
    st.tuples(st.integers(0, 20 * 60), st.integers(0, 120), st.integers(-100, 1000)), min_size=1, max_size=25
).map(lambda rows: sorted((known + late, known, float(value)) for known, late, value in rows))


@settings(max_examples=60)
@given(event_lists, st.integers(0, 24), st.lists(st.integers(0, 3), max_size=30))
def test_a_snapshot_told_while_folding_goes_on_is_of_the_moment_at_which_it_was_begun(rows, begun, told):
    heart, snapshot, entities, expected = Aggregation(FLIGHTS, 0, 2), {}, iter(()), []
    tells = iter(told)
    found = []
    for i, (known, at, value) in enumerate(rows):
        if i == begun:
            expected = heart.snapshot()
            snapshot = heart.begin_snapshot()
            entities = snapshot["entities"]
        heart.fold([packed(3 * i, [(3 * i, at * MINUTE_US, value, known * MINUTE_US)], origin=f"o{value % 3:.0f}")])
        found += islice(entities, next(tells, 1))
        heart.fold(marks(3 * i + 1, known * MINUTE_US))
    found += entities
    if snapshot:
        assert sorted(found) == sorted(expected["entities"])
        assert {**snapshot, "entities": []} == {**expected, "entities": []}


@settings(max_examples=60)
@given(event_lists, st.integers(0, 35 * 60))
def test_values_at_any_clock_are_those_of_a_brute_force_window(rows, clock_min):
    heart = Aggregation(FLIGHTS, 0, 2)
    known = [(k * MINUTE_US, at * MINUTE_US, value) for k, at, value in rows if k <= clock_min]
    said = heart.fold([keyed(i, at_us, value, known_us=known_us) for i, (known_us, at_us, value) in enumerate(known)])
    said += heart.fold(marks(100, clock_min * MINUTE_US))
    expected = brute_force([(at_us, value) for _, at_us, value in known], clock_min * MINUTE_US)
    newest = updates(said)[-1] if updates(said) else None
    if newest is None:
        assert all(not value for value in expected.values())
    else:
        assert values(newest) == expected


@settings(max_examples=40)
@given(event_lists, st.randoms(use_true_random=False))
def test_values_at_a_step_do_not_depend_on_the_order_within_it(rows, random):
    shuffled = list(rows)
    random.shuffle(shuffled)
    results = []
    for order in (rows, shuffled):
        heart = Aggregation(FLIGHTS, 0, 2)
        heart.fold(
            [
                keyed(i, at * MINUTE_US, value, known_us=known * MINUTE_US, source=(0, i))
                for i, (known, at, value) in enumerate(order)
            ]
        )
        heart.fold(marks(100, 24 * 60 * MINUTE_US))
        results.append([values(message) for message in heart.current(heart.keys())])
    assert results[0] == results[1]


def one_at_a_time(heart: Aggregation, records: list[Record]) -> tuple[list, list]:
    """Messages and updates of folding every record by itself."""
    messages, told = [], []
    for record in records:
        messages += heart.fold([record])
        told += [update for found in heart.updates.values() for update in found]
    return messages, told


@settings(max_examples=40)
@given(event_lists, st.integers(0, 24))
def test_folding_a_batch_equals_folding_one_at_a_time_also_across_a_restore(rows, cut):
    records = []
    for i, (known, at, value) in enumerate(rows):
        records.append(keyed(3 * i, at * MINUTE_US, value, known_us=known * MINUTE_US))
        records += marks(3 * i + 1, known * MINUTE_US)
    whole = Aggregation(FLIGHTS, 0, 2)
    expected = whole.fold(records)
    told = [update for found in whole.updates.values() for update in found]
    one = Aggregation(FLIGHTS, 0, 2)
    found, said = one_at_a_time(one, records[:cut])
    other = Aggregation(FLIGHTS, 0, 2)
    other.restore(one.snapshot())
    found += other.fold(records[cut:])
    said += [update for found in other.updates.values() for update in found]
    assert found == expected
    assert said == told
    assert other.snapshot() == whole.snapshot()


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([f"{ORIGIN}|EWR", f"{ORIGIN}|JFK", f"{ORIGIN}|LGA", f"{TAIL}|N1", f"{TAIL}|N2"]),
            st.integers(0, 40 * 60),
            st.integers(0, 40 * 60),
            st.floats(-1e6, 1e6),
        ),
        max_size=60,
    ),
    st.lists(st.integers(1, 12), min_size=1, max_size=5),
    st.integers(0, 30 * 60),
)
def test_how_a_stream_is_cut_into_records_does_not_change_any_update(rows, sizes, clock_min):
    """Keys and views that take turns, late, tied and out of order: one event at a time, and in packs of any sizes."""
    told = []
    for cuts in ([1], sizes):
        heart, found, first, offset = Aggregation(FLIGHTS, 0, 1), [], 0, 1
        heart.fold(marks(0, clock_min * MINUTE_US)[:1])
        while first < len(rows):
            last = first + cuts[offset % len(cuts)]
            pack = Pack("flights", FLIGHTS.views, 0, 0)
            for place, (key, at, known, value) in enumerate(rows[first:last], first):
                name = key.partition("|")[0]
                pack.add(part(name, key, place, f"e{place % 7}{place}", at * MINUTE_US, known * MINUTE_US, (value,)))
            heart.fold([Record("keyed", 0, offset, pack.take())])
            found += [update for of_view in heart.updates.values() for update in of_view]
            first, offset = last, offset + 1
        by_key = {}
        for update in found:
            by_key.setdefault(update.key, []).append((update.event_time_us, update.known_at_us, update.values))
        held = {key: (state[0], *state[2:]) for key, _, state in heart.snapshot()["entities"]}
        told.append((by_key, heart.late, held))
    assert told[0] == told[1]


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 300), st.integers(0, 40), st.floats(-1e6, 1e6)), min_size=50, max_size=200),
    st.integers(1, 50),
)
def test_a_busy_entity_has_the_values_of_a_quiet_one(rows, size):
    """Running sums and orders, which long windows keep, against a window that is computed anew."""
    heart, held = Aggregation(PARCELS, 0, 1), []
    rows = sorted((minute + late, minute, value) for minute, late, value in rows)
    view = PARCELS.views[0]
    offset = 0
    for first in range(0, len(rows), size):
        pack = Pack("parcels", PARCELS.views, 0, 0)
        for place, (known, at, value) in enumerate(rows[first : first + size], first):
            at_us, known_at_us = (at + 400) * MINUTE_US, (known + 400) * MINUTE_US
            pack.add(part(view.name, f"{view.name}|a", place, f"e{place}", at_us, known_at_us, (value,)))
            held.append((at_us, value))
        said = heart.fold([Record("keyed", 0, offset, pack.take()), *marks(offset + 1, known_at_us)[:1]])
        offset += 2
        newest = updates(said)[-1].payload
        expected = []
        for age_us in view.ages_us:
            inside = [value for at_us, value in held if at_us > newest.known_at_us - age_us]
            expected += [plain(stat, inside) for stat in view.stats]
        assert [from_value(value) for value in newest.values] == expected


def test_the_oldest_events_of_a_key_leave_when_there_are_too_many(monkeypatch):
    monkeypatch.setattr("services.features.entities.MAX_ENTRIES_PER_KEY", 100)
    heart = Aggregation(FLIGHTS, 0, 1)
    said = heart.fold([packed(0, [(n, HOUR_US + n, float(n), None) for n in range(250)])])
    assert (values(said[0])["count_12h"], values(said[0])["mean_1h"]) == (100.0, sum(range(150, 250)) / 100)
    assert heart.overflowed == 150
