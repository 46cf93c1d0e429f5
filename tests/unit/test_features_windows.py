"""Statistics of many windows at once give the bits that one window at a time gives."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftloop.usecase.features import STATS
from services.features.windows import decayed_statistics, decayed_stats, exact_sum, exact_sums, window_stats
from tests.unit.window_statistics import decayed, plain

NUMBERS = st.one_of(
    st.integers(-1000, 1000).map(float),
    st.floats(-1e6, 1e6).map(lambda value: round(value, 2)),
    st.floats(allow_nan=False, allow_infinity=False),
)


def ranges(count: int) -> tuple[np.ndarray, np.ndarray]:
    pairs = [(first, last) for first in range(count + 1) for last in range(first, count + 1)]
    return np.array([first for first, _ in pairs]), np.array([last for _, last in pairs])


@settings(max_examples=150)
@given(st.lists(NUMBERS, max_size=12))
def test_every_statistic_of_every_range_has_the_bits_of_the_plain_computation(values):
    column = np.array(values, dtype=np.float64)
    first, last = ranges(len(values))
    found = window_stats(STATS, column, first, last)
    for row, (a, b) in enumerate(zip(first, last, strict=True)):
        expected = [plain(stat, values[a:b]) for stat in STATS]
        np.testing.assert_array_equal(found[row], [np.nan if value is None else value for value in expected])


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=30), st.randoms(use_true_random=False))
def test_a_sum_does_not_depend_on_the_order(values, random):
    shuffled = list(values)
    random.shuffle(shuffled)
    assert exact_sum(values) == exact_sum(shuffled)


def test_a_sum_is_rounded_once_whatever_the_magnitudes():
    assert exact_sum([1e100, 1.0, -1e100, 5e-324]) == 1.0
    column = np.array([1e300, 0.1, -1e300, 0.2, 5e-324])
    assert exact_sums(column, np.array([0, 3]), np.array([4, 5])).tolist() == [0.1 + 0.2, 0.2]


def test_a_sum_too_large_for_a_float_is_infinite_and_an_overflow_on_the_way_is_none():
    huge = [1.7e308, 1.7e308]
    assert exact_sum(huge) == math.inf
    assert exact_sum([*huge, -1.7e308]) == 1.7e308
    assert exact_sums(np.array([*huge, -1.7e308]), np.array([0, 0]), np.array([2, 3])).tolist() == [math.inf, 1.7e308]
    assert window_stats(["sum", "mean"], np.array(huge), np.array([0]), np.array([2])).tolist() != [
        [math.inf, math.inf]
    ]


def test_long_columns_of_cents_are_summed_exactly():
    values = np.round(np.random.default_rng(0).uniform(0, 1000, 50_000), 2)
    first, last = np.array([0, 17, 40_000]), np.array([50_000, 49_000, 40_001])
    expected = [math.fsum(values[a:b]) for a, b in zip(first, last, strict=True)]
    assert exact_sums(values, first, last).tolist() == expected


EVENTS = st.lists(st.tuples(st.integers(0, 10_000), st.floats(-1e6, 1e6)), max_size=20).map(sorted)


@given(EVENTS, st.integers(1, 20_000))
def test_decayed_statistics_of_a_column_are_those_of_one_window_and_weigh_by_age(events, half_life_us):
    times_us, values = [at_us for at_us, _ in events], [value for _, value in events]
    stats = ["mean", "count", "sum"]
    one = decayed_statistics(stats, half_life_us, times_us, values)
    first, last = np.array([0, len(events)]), np.array([len(events)] * 2)
    many = decayed_stats(
        stats, half_life_us, np.array(times_us, dtype=np.int64), np.array(values, dtype=np.float64), first, last
    )
    np.testing.assert_array_equal(many[0], [np.nan if value is None else value for value in one])
    np.testing.assert_array_equal(many[1], [np.nan, 0.0, 0.0])
    for stat, value in zip(stats, one, strict=True):
        expected = decayed(stat, half_life_us, events)
        assert value is None or value == pytest.approx(expected, rel=1e-9, abs=1e-6)
    assert (one[0] is None) == (not events)
