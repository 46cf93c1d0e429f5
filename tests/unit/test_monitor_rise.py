"""A rise of the error is found soon, bursts and rare labels are not taken for one, and the pace follows from how rows hang together."""

from __future__ import annotations

import numpy as np
import pytest

from driftloop.contracts.monitor.v1.monitor_pb2 import SERIES_KIND_ERROR
from services.monitor.drift import RisingError
from services.monitor.rise import PACE_MAX, Pace, RiseDetector, rarity_pace, student_quantile

BLOCK, ALPHA = 40, 0.25 / 50_000
RIGHT, WRONG = 0.22, 1.6  # nats of a model that is 80 % sure


def errors(rate: float, rows: int, seed: int) -> np.ndarray:
    return np.where(np.random.default_rng(seed).random(rows) < rate, WRONG, RIGHT)


def bursty(rows: int, seed: int) -> np.ndarray:
    """Rows of an hour are hard together, and hours remember the one before."""
    rng, level, found = np.random.default_rng(seed), 0.0, []
    for _ in range(rows // 60):
        level = 0.8 * level + 0.5 * rng.normal()
        found.append(rng.random(60) < 1 / (1 + np.exp(1.4 - level)))
    return np.where(np.concatenate(found), WRONG, RIGHT)


def alarms(losses: np.ndarray, minority: float = 0.5) -> list[int]:
    watched = RisingError(BLOCK, ALPHA)
    return [row for row, loss in enumerate(losses) if watched.add(float(loss), row, minority) is not None]


def test_an_error_rate_that_doubles_is_found_within_300_labels():
    delays = []
    for seed in range(30):
        found = alarms(np.concatenate([errors(0.2, 3_000, seed), errors(0.4, 2_000, 1_000 + seed)]))
        assert found
        assert found[0] >= 3_000
        delays.append(found[0] - 3_000)
    assert np.median(delays) < 300


@pytest.mark.parametrize("stream", ["even", "rare", "bursty"])
def test_stable_streams_raise_at_most_one_false_alarm_in_50_000_labels(stream):
    made = {
        "even": lambda seed: errors(0.2, 50_000, seed),
        "rare": lambda seed: np.where(np.random.default_rng(seed).random(50_000) < 0.02, 4.0, 0.02),
        "bursty": lambda seed: bursty(50_000, seed),
    }[stream]
    assert sum(len(alarms(made(seed))) for seed in range(4)) <= 4


def test_an_alarm_is_dated_to_the_rows_that_it_rests_on():
    watched = RisingError(BLOCK, ALPHA)
    losses = np.concatenate([errors(0.1, 2_000, 1), errors(0.6, 400, 2)])
    (alarm,) = [a for row, loss in enumerate(losses) if (a := watched.add(float(loss), row * 1_000, 0.5)) is not None]
    assert (alarm.kind, alarm.detector) == (SERIES_KIND_ERROR, "rise")
    assert 1_900_000 <= alarm.since_us <= 2_200_000
    assert alarm.before < alarm.after


def test_a_warning_comes_before_an_alarm_and_leaves_with_the_champion():
    watched = RisingError(BLOCK, ALPHA)
    for row, loss in enumerate(np.concatenate([errors(0.2, 2_000, 1), errors(0.27, 2_000, 2)])):
        watched.add(float(loss), row, 0.5)
        if watched.warned:
            break
    assert watched.warned
    watched.champion_changed()
    assert not watched.warned


def test_a_champions_errors_are_not_compared_with_those_of_the_one_before():
    watched = RisingError(BLOCK, ALPHA)
    for row, loss in enumerate(errors(0.1, 2_000, 3)):
        watched.add(float(loss), row, 0.5)
    watched.champion_changed()
    assert not any(watched.add(float(loss), row, 0.5) for row, loss in enumerate(errors(0.4, 2_000, 4)))


def test_a_change_soon_after_a_promotion_is_found_as_soon_as_any():
    errors = RisingError(40, 1e-5)
    draws = np.random.default_rng(3)
    for row in range(2_000):
        beside = draws.exponential(0.3) if row >= 1_840 else None
        assert errors.add(draws.exponential(0.5), row, 0.5, beside) is None
    errors.champion_changed(was_beside=True)
    for row in range(2_000, 2_080):
        assert errors.add(draws.exponential(0.3), row, 0.5) is None
    alarm = next(found for row in range(2_080, 3_000) if (found := errors.add(draws.exponential(1.2), row, 0.5)))
    assert 2_000 <= alarm.since_us <= 2_120
    assert alarm.rows_since == 240
    assert alarm.before < 0.4


def test_a_restored_series_goes_on_the_same():
    losses = bursty(6_000, 5)
    first, second = RisingError(BLOCK, ALPHA), RisingError(BLOCK, ALPHA)
    for row, loss in enumerate(losses[:3_000]):
        first.add(float(loss), row, 0.5)
    second.restore(first.snapshot())
    for row, loss in enumerate(losses[3_000:]):
        assert first.add(float(loss), row, 0.5) == second.add(float(loss), row, 0.5)
    assert first.snapshot() == second.snapshot()


def test_the_detector_forgets_all_but_what_it_is_told_to_keep():
    detector = RiseDetector(1e-4, 1e-2)
    for mean in range(20):
        detector.add(float(mean % 3))
    detector.restart(5)
    assert len(detector) == 5
    detector.restart()
    assert len(detector) == 0


def pace_of(losses: np.ndarray, minority: float = 0.5) -> int:
    pace = Pace()
    for mean in losses[: len(losses) // BLOCK * BLOCK].reshape(-1, BLOCK).mean(axis=1):
        pace.add(float(mean))
    return max(pace.joined(), rarity_pace(minority))


def test_rows_that_are_hard_together_are_less_evidence():
    assert [pace_of(errors(0.3, 16_000, seed)) for seed in range(5)] == [1] * 5
    assert min(pace_of(bursty(16_000, seed)) for seed in range(5)) >= 2


def test_a_slow_rise_is_no_burst():
    slope = np.linspace(0.0, 0.6, 16_000)
    assert [pace_of(errors(0.2, 16_000, seed) + slope) for seed in range(5)] == [1] * 5


def test_rare_labels_are_less_evidence_each_and_the_pace_is_bounded():
    assert pace_of(errors(0.3, 8_000, 1), minority=0.03) == 4
    assert pace_of(errors(0.3, 8_000, 1), minority=0.0) == PACE_MAX


@pytest.mark.parametrize(
    ("probability", "freedom", "tabled"), [(0.975, 10, 2.228), (0.999, 20, 3.552), (0.99, 30, 2.457)]
)
def test_the_quantile_is_students(probability, freedom, tabled):
    assert student_quantile(probability, freedom) == pytest.approx(tabled, rel=0.003)
