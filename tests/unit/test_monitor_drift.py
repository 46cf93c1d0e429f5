"""Alarms: soon after a change, not without one, and the same after a restart."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftloop.contracts.monitor.v1.monitor_pb2 import SERIES_KIND_ERROR
from driftloop.usecase import HOUR_US, MAX_LOSS, MINUTE_US, Policy, Task, UseCase, load_use_case, row_loss
from services.monitor.drift import DriftWatch, RisingError
from services.monitor.floor import FLOOR_LABELS, ErrorFloor, LabelsAlone
from services.monitor.rise import PACE_MAX
from services.monitor.series import BlockSeries, RankedSeries, change_point
from tests.trainer_twin import TASKS

FLIGHTS = load_use_case("flights")
ALPHA = 0.5 * 40 / Policy().alarm_labels


def error_series() -> BlockSeries:
    return BlockSeries("error", SERIES_KIND_ERROR, ALPHA, 40, only_rise=True, value_range=MAX_LOSS)


def losses(rng, rows: int, wrong: float) -> list[float]:
    return list(np.where(rng.random(rows) < wrong, row_loss("binary", 0.2, 1.0), row_loss("binary", 0.2, 0.0)))


@pytest.mark.parametrize("seed", range(5))
def test_an_abrupt_rise_of_the_error_is_found_and_dated(seed):
    rng = np.random.default_rng(seed)
    series = error_series()
    alarms = []
    for row, loss in enumerate(losses(rng, 5_000, 0.2) + losses(rng, 3_000, 0.4)):
        alarm = series.add(loss, row * MINUTE_US)
        if alarm is not None:
            alarms.append((row, alarm))
    row, alarm = alarms[0]
    assert 5_000 < row < 7_500
    assert abs(alarm.since_us / MINUTE_US - 5_000) < 300
    assert alarm.after > alarm.before


def test_stable_errors_raise_at_most_one_alarm_in_fifty_thousand_labels():
    alarms = 0
    for seed in range(4):
        series = error_series()
        alarms += sum(
            series.add(loss, i) is not None for i, loss in enumerate(losses(np.random.default_rng(seed), 50_000, 0.2))
        )
    assert alarms <= 4


def test_a_falling_error_is_no_alarm_and_a_later_rise_is():
    rng = np.random.default_rng(1)
    series = error_series()
    found = [
        row
        for row, loss in enumerate(losses(rng, 4_000, 0.5) + losses(rng, 4_000, 0.1) + losses(rng, 2_000, 0.5))
        if series.add(loss, row) is not None
    ]
    assert found
    assert found[0] > 8_000


@given(st.lists(st.sampled_from([0.1, 2.0, float("nan")]), max_size=300), st.integers(0, 300))
def test_a_series_goes_on_from_a_snapshot_as_if_nothing_had_happened(values, cut):
    whole, first, second = error_series(), error_series(), error_series()
    expected = [whole.add(value, row) for row, value in enumerate(values)]
    found = [first.add(value, row) for row, value in enumerate(values[:cut])]
    second.restore(first.snapshot())
    found += [second.add(value, row + min(cut, len(values))) for row, value in enumerate(values[cut:])]
    assert found == expected
    assert second.snapshot() == whole.snapshot()


def test_missing_values_are_left_out_and_counted():
    series = error_series()
    for row in range(100):
        series.add(float("nan"), row)
    assert (series.skipped, series.blocks) == (100, 0)


def test_a_shifted_input_of_any_scale_is_found_and_a_daily_rhythm_is_not():
    rng = np.random.default_rng(0)
    series = RankedSeries("input/x", SERIES_KIND_ERROR, 1e-3)
    at_us = [row * 2 * MINUTE_US for row in range(40_000)]
    rhythm = 1e6 * np.sin(np.array(at_us) / (24 * HOUR_US) * 2 * np.pi) + rng.normal(0, 1e5, len(at_us))
    shifted = rhythm + np.where(np.arange(len(at_us)) > 30_000, 1e6, 0)
    found = [row for row, value in enumerate(shifted) if series.add(value, at_us[row]) is not None]
    assert found
    assert found[0] > 30_000


@given(st.lists(st.floats(0, 1), min_size=2, max_size=40))
def test_the_change_point_leaves_the_least_squared_error(means):
    def squared_error(split: int) -> float:
        return sum(float(np.sum((np.array(part) - np.mean(part)) ** 2)) for part in (means[:split], means[split:]))

    split = change_point(means)
    assert 1 <= split < len(means)
    assert squared_error(split) <= min(squared_error(i) for i in range(1, len(means))) + 1e-9


def test_a_model_no_better_than_the_rate_has_decayed_and_a_better_one_has_not():
    rng = np.random.default_rng(2)
    labels = (rng.random(4_000) < 0.2).astype(float)
    for score, expected in ((0.6, True), (0.2, False)):
        floor = ErrorFloor(40)
        for label in labels:
            floor.add(row_loss("binary", score, label), label)
        assert (floor.decay() is not None) == expected


def test_the_watch_goes_on_from_a_snapshot():
    rng = np.random.default_rng(3)
    whole, other = DriftWatch(FLIGHTS), DriftWatch(FLIGHTS)
    rows = [
        (float(s), list(rng.normal(size=len(FLIGHTS.numeric_inputs))), float(label))
        for s, label in zip(rng.random(600), rng.random(600) < 0.3, strict=True)
    ]
    for i, (score, numbers, label) in enumerate(rows):
        if i == 300:
            other.restore(whole.snapshot())
        for watch in [whole] + ([other] if i >= 300 else []):
            watch.predicted(score, numbers, i * MINUTE_US)
            watch.labelled(score, label, i * MINUTE_US)
    assert other.snapshot() == whole.snapshot()


@pytest.mark.parametrize("named", [True, False])
def test_what_watches_an_input_goes_on_where_inputs_are_declared_otherwise_since(named: bool):
    (weather,) = (view for view in FLIGHTS.views if view.event.name == "weather_observed")
    without = dataclasses.replace(FLIGHTS, features=[each for each in FLIGHTS.features if each is not weather])
    before, since, back = DriftWatch(without), DriftWatch(FLIGHTS), DriftWatch(without)
    for row in range(600):
        before.predicted(0.3, [float(row)] * len(without.numeric_inputs), row * MINUTE_US)
    saved = before.snapshot()
    if not named:  # a checkpoint of before they had names
        saved["inputs"] = list(saved["inputs"].values())
    since.restore(saved)
    assert len(since.predicted(0.3, [1.0] * len(FLIGHTS.numeric_inputs), 0)) == 0
    back.restore(saved)
    assert list(back.snapshot()["inputs"].values()) == list(before.snapshot()["inputs"].values())
    found = since.snapshot()["inputs"]
    assert len(found) == len(FLIGHTS.numeric_inputs)
    kept = [f"input/{name}" for name in without.numeric_inputs]
    assert all(len(found[name]["reference"]) == (601 if named else 1) for name in kept)
    assert all(len(each["reference"]) == 1 for name, each in found.items() if name not in kept)


def test_what_is_known_of_labels_alone_is_their_rate_frequencies_or_mean():
    rate, frequencies, mean = LabelsAlone("binary", 0), LabelsAlone("multiclass", 3), LabelsAlone("regression", 0)
    for label in (0.0, 0.0, 1.0):
        rate.add(label)
        frequencies.add(2.0 * label)
        mean.add(10.0 * label)
    assert rate.answer() == pytest.approx(2 / 5)
    assert frequencies.answer() == pytest.approx([3 / 6, 1 / 6, 2 / 6])
    assert mean.answer() == pytest.approx(10 / 3)


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_old_labels_leave_what_is_known_of_labels_alone(task: Task):
    whole, newest = LabelsAlone(task, 2), LabelsAlone(task, 2)
    draws = np.random.default_rng(0).integers(0, 2, 3 * FLOOR_LABELS).astype(float).tolist()
    for place, label in enumerate(draws):
        whole.add(label)
        if place >= 2 * FLOOR_LABELS:
            newest.add(label)
    assert whole.answer() == newest.answer()
    assert whole.known == FLOOR_LABELS


@pytest.mark.parametrize(("error", "decayed"), [(1.5, True), (0.5, False)])
def test_numbers_that_are_worse_than_the_mean_of_the_labels_have_decayed(error: float, decayed: bool):
    draws = np.random.default_rng(0)
    floor = ErrorFloor(40, "regression")
    for label in draws.normal(50.0, 3.0, 4_000).tolist():
        answer = label + error * draws.normal(0.0, 3.0)
        floor.add(row_loss("regression", answer, label, 9.0), label, 9.0)
    assert (floor.decay() is not None) == decayed


@pytest.mark.parametrize(("chance", "decayed"), [(0.05, True), (0.8, False)])
def test_classes_that_are_worse_than_their_frequencies_have_decayed(chance: float, decayed: bool):
    draws = np.random.default_rng(0)
    floor = ErrorFloor(40, "multiclass", 3)
    for label in draws.choice(3, 4_000, p=[0.6, 0.3, 0.1]).tolist():
        answer = np.full(3, (1 - chance) / 2)
        answer[label] = chance
        floor.add(row_loss("multiclass", answer.tolist(), float(label)), float(label))
    assert (floor.decay() is not None) == decayed


def answers_of(use_case: UseCase, rng: np.random.Generator, truth: float, wrong: bool):
    """A label, and an answer that is good, or that turned."""
    if use_case.predict.task == "regression":
        label = 1_000.0 + 50.0 * truth + rng.normal(0.0, 10.0)
        return label, 1_000.0 + 50.0 * (-truth if wrong else truth)
    label = int(np.digitize(truth, [-0.5, 0.5]))
    answer = [0.1, 0.1, 0.1]
    answer[2 - label if wrong else label] = 0.8
    return float(label), answer


@pytest.mark.parametrize("task", ["multiclass", "regression"])
def test_a_change_is_found_in_the_errors_of_every_task_and_none_where_there_is_none(task: Task):
    use_case = TASKS[task]
    rng = np.random.default_rng(4)
    whole, other = DriftWatch(use_case), DriftWatch(use_case)
    whole.scale = 2_600.0
    alarms = []
    for row, truth in enumerate(rng.normal(size=9_000).tolist()):
        label, answer = answers_of(use_case, rng, truth, wrong=row >= 6_000 and rng.random() < 0.3)
        found = whole.labelled(answer, label, row * MINUTE_US)
        alarms += [(row, alarm) for alarm in found]
        if row == 3_000:
            other.restore(whole.snapshot())
        elif row > 3_000:
            assert other.labelled(answer, label, row * MINUTE_US) == found
    assert alarms
    row, alarm = alarms[0]
    assert 6_000 < row < 7_500
    assert abs(alarm.since_us / MINUTE_US - 6_000) < 200
    assert other.snapshot() == whole.snapshot()


def floor_of(losses: list[float]) -> ErrorFloor:
    """Production's losses on labels of which half are true; it is known what the labels alone would reach from row 1,000 on."""
    floor = ErrorFloor(40)
    for row, loss in enumerate(losses):
        floor.add(loss, float(row % 2), 1.0, row)
    return floor


def test_an_error_far_above_what_knows_only_the_labels_is_a_collapse_within_three_blocks():
    assert floor_of([0.3] * 1_400).collapse() is None
    assert floor_of([0.3] * 1_400 + [3.0] * 119).collapse() is None
    found = floor_of([0.3] * 1_400 + [3.0] * 120).collapse()
    assert (found.since_us, found.rows) == (1_400, 120)
    assert (round(found.before, 3), round(found.after, 3)) == (0.3, 3.0)


def test_a_model_that_never_was_better_than_the_labels_alone_does_not_collapse():
    assert floor_of([1.2] * 1_400 + [3.0] * 120).collapse() is None


def test_production_collapses_though_its_champion_has_just_been_promoted():
    floor = floor_of([0.3] * 1_400)
    floor.start_over()
    for row in range(120):
        floor.add(3.0, float(row % 2), 1.0, 1_400 + row)
    again = ErrorFloor(40)
    again.restore(floor.snapshot())
    assert floor.collapse().since_us == again.collapse().since_us == 1_400
    floor.collapsed()
    for row in range(120):
        floor.add(3.0, float(row % 2), 1.0, 1_520 + row)
    assert floor.collapse() is None


def test_a_collapse_survives_a_checkpoint():
    kept, again = floor_of([0.3] * 1_400 + [3.0] * 100), ErrorFloor(40)
    again.restore(kept.snapshot())
    for row in range(20):
        again.add(3.0, float(row % 2), 1.0, 1_500 + row)
    assert again.collapse().since_us == 1_400


def test_rare_labels_make_evidence_slow_but_are_no_bursts():
    rng = np.random.default_rng(0)
    series = RisingError(40, 1e-6)
    for row, loss in enumerate(rng.exponential(0.3, 4_000)):
        series.add(float(loss), row, minority=0.01)
    assert (series.pace, series.burst_pace) == (PACE_MAX, 1)
    again = RisingError(40, 1e-6)
    again.restore(series.snapshot())
    assert (again.pace, again.burst_pace) == (PACE_MAX, 1)
