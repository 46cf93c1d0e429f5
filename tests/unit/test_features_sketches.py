"""Sketched windows keep to their declared errors, and say the same however their values came, merged or were restored."""

from __future__ import annotations

import math

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftloop.contracts import Record, from_value, watermark
from driftloop.usecase import HOUR_US, MINUTE_US, DeclarationError, Event, Field, Sketch, Window
from driftloop.usecase.features import STATS
from services.features.aggregation import Aggregation
from services.features.packing import Pack
from services.features.sketches import SketchPlan, WindowSketch, sketched_stats
from services.features.windows import QUANTILES
from tests.parcels import PARCELS
from tests.parts import part
from tests.unit.window_statistics import plain

SKETCH = Sketch("10m", quantile_error=0.02, distinct_error=0.05)
PLAN = SketchPlan(SKETCH, STATS)
NUMBERS = st.one_of(
    st.integers(-20, 20).map(float), st.floats(-1e6, 1e6), st.floats(allow_nan=False, allow_infinity=False)
).map(lambda value: value + 0.0)
VIEW = next(view for view in PARCELS.views if isinstance(view, Window) and view.sketch is not None)


def sketch_of(values) -> WindowSketch:
    found = WindowSketch(PLAN)
    for value in values:
        found.add(value)
    return found


@settings(max_examples=150)
@given(st.lists(NUMBERS, max_size=60), st.randoms(use_true_random=False), st.integers(1, 6))
def test_the_order_of_values_of_merges_and_of_restarts_makes_no_difference(values, random, panes):
    expected = sketch_of(values).statistics()
    drawn, parts = list(values), [WindowSketch(PLAN) for _ in range(panes)]
    random.shuffle(drawn)
    for value in drawn:
        random.choice(parts).add(value)
    random.shuffle(parts)
    merged = WindowSketch(PLAN)
    for each in parts:
        restored = WindowSketch(PLAN)
        restored.restore(msgpack.unpackb(msgpack.packb(each.snapshot())))
        merged.merge(restored)
    assert merged.statistics() == expected
    again = WindowSketch(PLAN)
    again.restore(merged.snapshot())
    for value in drawn[:5]:
        again.add(value)
    assert again.statistics() == sketch_of([*values, *drawn[:5]]).statistics()


@settings(max_examples=100)
@given(st.lists(NUMBERS, max_size=12))
def test_every_range_of_a_column_has_the_statistics_of_its_sketch(values):
    pairs = [(a, b) for a in range(len(values) + 1) for b in range(a, len(values) + 1)]
    first, last = (np.array(column) for column in zip(*pairs, strict=True))
    found = sketched_stats(SKETCH, STATS, np.array(values, dtype=np.float64), first, last)
    for row, (a, b) in enumerate(pairs):
        expected = sketch_of(values[a:b]).statistics()
        np.testing.assert_array_equal(found[row], [np.nan if value is None else value for value in expected])


@settings(max_examples=150)
@given(st.lists(st.floats(-1e6, 1e6).map(lambda value: round(value, 3) + 0.0), min_size=1, max_size=80))
def test_a_quantile_is_within_its_error_of_a_value_of_its_rank_and_the_rest_is_exact(values):
    found = dict(zip(STATS, sketch_of(values).statistics(), strict=True))
    ordered = sorted(values)
    for stat, share in QUANTILES.items():
        true = ordered[math.floor(share * (len(values) - 1))]
        # Below a billionth of the largest magnitude all are one.
        floor = max(map(abs, values)) / 1e9
        assert abs(found[stat] - true) <= SKETCH.quantile_error * abs(true) * (1 + 1e-9) + floor
    for stat in set(STATS) - set(QUANTILES) - {"distinct"}:
        assert found[stat] == plain(stat, values)


@pytest.mark.parametrize("count", [0, 1, 7, 60, 500, 20_000])
def test_a_count_of_different_values_is_within_four_standard_errors(count):
    plan = SketchPlan(SKETCH, ["distinct", "count"])
    for make in (float, str):
        found = WindowSketch(plan)
        for value in range(2 * count):
            found.add(make(value % count))
        assert found.statistics() == [pytest.approx(count, rel=4 * SKETCH.distinct_error), 2.0 * count]


def test_an_entity_takes_as_much_room_for_a_million_events_as_for_thousands():
    def room(events: int) -> int:
        found = WindowSketch(PLAN)
        for number in range(events):
            found.add(float(number * 7_919 % 1_000_003))
        return len(msgpack.packb(found.snapshot()))

    assert room(60_000) < 1.2 * room(20_000) < 25_000


def _record(offset: int, events) -> Record:
    pack = Pack("parcels", PARCELS.views, 0, 0)
    for place, at_us, value in events:
        pack.add(part(VIEW.name, f"{VIEW.name}|a", place, f"e{place}", at_us, max(at_us, 10 * HOUR_US), (value,)))
    message = pack.take()
    assert message is not None
    return Record("keyed", 0, offset, message)


def _mark(offset: int, clock_us: int) -> Record:
    return Record("keyed", 0, offset, watermark("keyed", 0, "rekeying/0", clock_us))


def _count(update) -> tuple[float, float]:
    """Events of the windows of one and of three hours."""
    values = [from_value(value) for value in update.payload.values]
    return values[STATS.index("count")], values[len(STATS) + STATS.index("count")]


def test_a_window_holds_whole_panes_and_moves_when_the_clock_passes_one():
    heart = Aggregation(PARCELS, 0, 1)
    events = [(0, 9 * HOUR_US + MINUTE_US, 1.0), (1, 9 * HOUR_US + 19 * MINUTE_US, 2.0), (2, 10 * HOUR_US, 3.0)]
    (said,) = heart.fold([_record(0, events)])
    assert _count(said) == (3.0, 3.0)
    assert heart.fold([_mark(1, 10 * HOUR_US + 19 * MINUTE_US)])[0].is_watermark
    said, _ = heart.fold([_mark(2, 10 * HOUR_US + 20 * MINUTE_US)])
    assert _count(said) == (1.0, 3.0)
    assert said.causes == ("e1",)


def test_a_late_event_corrects_the_open_windows_that_its_pane_is_in():
    heart = Aggregation(PARCELS, 0, 1)
    heart.fold([_record(0, [(0, 10 * HOUR_US, 1.0)]), _mark(1, 10 * HOUR_US)])
    (said,) = heart.fold([_record(2, [(1, 8 * HOUR_US + MINUTE_US, 2.0)])])
    assert _count(said) == (1.0, 2.0)


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 600), st.floats(-1e6, 1e6)), min_size=1, max_size=60),
    st.lists(st.integers(0, 40), max_size=6),
)
def test_restored_at_any_moments_it_says_what_an_undisturbed_one_says(rows, restarts):
    """Events up to two hours late, with watermarks between them and a snapshot at some of them."""
    told = []
    for places in ((), restarts):
        heart, said = Aggregation(PARCELS, 0, 1), []
        for place, (minute, value) in enumerate(sorted(rows, key=lambda row: row[0] // 120)):
            records = [_record(2 * place, [(place, (600 + minute) * MINUTE_US, value)])]
            records.append(_mark(2 * place + 1, (600 + minute // 120 * 120) * MINUTE_US))
            said += [(m.id, m.payload) for m in heart.fold(records)]
            if place in places:
                state = msgpack.unpackb(msgpack.packb(heart.snapshot()), strict_map_key=False)
                heart = Aggregation(PARCELS, 0, 1)
                heart.restore(state)
        told.append(said)
    assert told[0] == told[1]


@pytest.mark.parametrize(
    ("wrong", "because"),
    [
        ({"over": ["90m"], "sketch": Sketch("1h")}, "multiple of the pane"),
        ({"over": ["8d"], "sketch": Sketch("1h")}, "at most 100"),
        ({"over": ["1h"], "sketch": Sketch("1h"), "kind": "decayed", "stats": ["mean"]}, "decayed"),
    ],
)
def test_a_sketch_that_cannot_be_is_refused_where_it_is_declared(wrong, because):
    scanned = Event("scanned", entity="parcel", fields={"depot": Field(str), "weight": Field(float)})
    with pytest.raises(DeclarationError, match=because):
        Window(scanned, by="depot", of="weight", **({"stats": ["p90"]} | wrong))


def test_an_error_that_no_sketch_can_keep_is_refused():
    with pytest.raises(DeclarationError, match="quantile_error"):
        Sketch("1h", quantile_error=0.5)
