"""How many rows until the next candidate."""

from __future__ import annotations

import pytest

from driftloop.usecase import DAY_US
from services.monitor.interval import LASTING_ROWS, Interval
from services.monitor.wanted import Counts

RECENT_ROWS = 400
COUNTS = Counts(rows=10_000, regime_rows=10_000)


def interval(rows: float = 1_000.0) -> Interval:
    found = Interval(RECENT_ROWS)
    found.rows = rows
    return found


def rows_until_followed(found: Interval, since_rows: int = COUNTS.rows) -> int:
    """Rows after the newest suspicion until the next one is followed."""
    return next(
        rows
        for rows in range(20_000)
        if found.follows_suspicion(Counts(since_rows + rows, COUNTS.regime_rows, COUNTS.pace))
    )


def test_a_candidate_is_due_an_interval_after_the_last_one():
    found = interval()
    found.tried(10_000)
    assert [found.is_due(Counts(rows, 10_000)) for rows in (10_999, 11_000)] == [False, True]


@pytest.mark.parametrize(("regime_rows", "pace", "least"), [(10_000, 1, 400), (10_000, 4, 1_600)])
def test_two_candidates_are_so_many_rows_apart_at_the_least(regime_rows: int, pace: int, least: int):
    found = interval(1.0)
    assert [found.is_due(Counts(rows, regime_rows, pace)) for rows in (least - 1, least)] == [False, True]


def test_a_young_regime_is_looked_at_when_it_has_half_as_many_rows_again():
    found = interval(1.0)
    found.tried(2_000)  # of which 240 were of the regime
    assert [found.is_due(Counts(2_000 + new, 240 + new)) for new in (119, 120)] == [False, True]


def test_where_hard_rows_come_in_bursts_it_is_looked_at_when_it_has_as_many_again():
    found = interval(1.0)
    found.tried(2_000)
    for pace in (2, 5):
        assert [found.is_due(Counts(2_000 + new, 240 + new, pace)) for new in (239, 240)] == [False, True]


def test_a_regime_that_began_after_the_last_candidate_is_measured_by_what_it_has():
    found = interval(1.0)
    found.tried(2_000)
    assert [found.least_rows(Counts(3_000, regime_rows)) for regime_rows in (240, 500)] == [120.0, 250.0]


def test_a_regime_of_which_the_last_candidate_knew_next_to_nothing_is_measured_by_what_it_has():
    found = interval(1.0)
    found.tried(2_000)
    assert [found.least_rows(Counts(2_300, 300 + known)) for known in (0, 1, 299)] == [150.0, 150.5, 299.5]
    assert found.least_rows(Counts(2_300, 300 + 301)) == 150.5


def test_a_trial_is_no_shorter_than_two_candidates_are_apart():
    found = interval(0.5)
    found.trial_begins(0)
    for _ in range(2 * RECENT_ROWS - 1):
        found.labelled(0)
    assert found.has_trial_time(COUNTS)


def test_a_challenger_has_two_intervals_for_its_trial():
    found = interval()
    found.trial_begins(DAY_US)
    for _ in range(1_999):
        found.labelled(DAY_US)
    assert found.has_trial_time(COUNTS)
    found.labelled(DAY_US)
    assert not found.has_trial_time(COUNTS)


def test_rows_that_were_asked_about_before_it_was_there_are_no_part_of_a_challengers_trial():
    found = interval()
    found.trial_begins(DAY_US)
    for _ in range(5_000):
        found.labelled(DAY_US - 1)
    assert found.has_trial_time(COUNTS)


def test_worth_makes_the_interval_shorter_and_failure_longer_within_bounds():
    moving, still = interval(), interval()
    moved, failed = [], []
    for _ in range(5):
        moving.proven(COUNTS, of_all_rows=False)
        still.failed(COUNTS, was_suspicion=False)
        moved.append(round(moving.rows))
        failed.append(round(still.rows))
    assert moved == [600, 400, 400, 400, 400]
    assert failed == [1_600, 2_560, 4_096, 6_000, 6_000]


def test_a_win_by_resting_on_all_rows_makes_it_half_of_the_regime_and_never_shorter():
    short, long = interval(), interval(5_500)
    for found in (short, long):
        found.proven(COUNTS, of_all_rows=True)
    assert (short.rows, long.rows) == (5_000, 5_500)


@pytest.mark.parametrize(("gained", "left", "rows"), [(0.2, 0.1, 400), (0.1, 0.5, 400), (0.1, 0.44, 5_000)])
def test_where_much_was_lost_or_still_is_the_next_candidate_comes_as_soon_as_it_may(gained, left, rows):
    found = interval()
    found.error_measured(0.3, LASTING_ROWS)
    found.promoted(COUNTS, True, gained, left)
    assert found.rows == rows


def test_where_evidence_is_slow_a_large_gain_may_be_chance():
    found = interval()
    found.promoted(Counts(10_000, 10_000, pace=2), True, gained=0.5, left=0.1)
    assert found.rows == 5_000


def test_what_a_champion_loses_on_its_first_rows_is_not_what_can_be_attained():
    found = interval()
    found.error_measured(0.1, LASTING_ROWS - 1)
    found.promoted(COUNTS, True, gained=0.1, left=0.5)
    assert found.rows == 5_000


def test_suspicions_in_vain_are_followed_ever_more_seldom_until_a_promotion():
    found, followed = interval(5_000.0), []
    for _ in range(5):
        found.suspected(COUNTS.rows)
        found.failed(COUNTS, was_suspicion=True)
        followed.append(rows_until_followed(found))
    assert followed == [800, 1_600, 3_200, 6_000, 6_000]
    assert found.rows == 5_000, "they put no candidate off"
    found.promoted(COUNTS, True, gained=0.0, left=0.0)
    assert rows_until_followed(found) == RECENT_ROWS


def test_no_suspicion_is_followed_where_a_candidate_comes_soon_anyway():
    assert not interval(2.0 * RECENT_ROWS).follows_suspicion(COUNTS)
    assert interval(2.0 * RECENT_ROWS + 1).follows_suspicion(COUNTS)


def test_a_restored_interval_goes_on_the_same():
    found, restored = interval(5_000.0), interval()
    found.error_measured(0.3, LASTING_ROWS)
    found.tried(9_000)
    found.suspected(9_500)
    found.failed(COUNTS, was_suspicion=True)
    restored.restore(found.snapshot())
    assert restored.snapshot() == found.snapshot()
    assert rows_until_followed(restored, 9_500) == rows_until_followed(found, 9_500) == 800
    for each in (found, restored):
        each.promoted(COUNTS, True, gained=0.1, left=0.5)
    assert restored.rows == found.rows == RECENT_ROWS
