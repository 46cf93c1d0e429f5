"""What a model that is wanted may cost, and when it is not paid for."""

from __future__ import annotations

import pytest

from driftloop.contracts.monitor.v1.monitor_pb2 import (
    RETRAIN_REASON_DECAY,
    RETRAIN_REASON_DRIFT,
    RETRAIN_REASON_FOLLOW_UP,
    RETRAIN_REASON_MANUAL,
    RETRAIN_REASON_NEW_DATA,
)
from driftloop.usecase import DAY_US, HOUR_US, Policy
from services.monitor.budget import FREE_ROWS, Budget
from services.monitor.wanted import Counts, Wanted

NEW_ROWS = Wanted(RETRAIN_REASON_NEW_DATA, "new rows", ("s",))
CHANGE = Wanted(RETRAIN_REASON_DRIFT, "the error rose", ("d",), 5)
INTERVAL_ROWS = 1_000.0


def budget(cost_rows: int = 0, **changes) -> Budget:
    found = Budget(Policy(**({"fit_budget": 2.0} | changes)))
    found.paid(cost_rows)
    return found


def test_fits_may_cost_so_many_rows_per_labelled_one_and_some_that_are_free():
    spent = budget(5_000)
    assert [spent.left_rows(rows) for rows in (0, 1_000)] == [FREE_ROWS - 5_000, FREE_ROWS - 3_000]


def test_a_candidate_is_fitted_on_two_intervals_of_rows_and_judged_by_as_much_evidence_as_the_pace_needs():
    for pace in (1, 4):
        offered = budget(fit_budget=20.0).offer(NEW_ROWS, Counts(10_000, 10_000, pace), 2_000.0, drawn_rows=0)
        assert (offered.recent_rows, offered.evidence_rows, offered.block_rows) == (4_000, 80 * pace, 40 * pace)
        assert offered.rows_max == FREE_ROWS + 20 * 10_000


def test_no_more_rows_are_offered_than_the_regime_has():
    offered = budget(fit_budget=20.0).offer(NEW_ROWS, Counts(10_000, 700), INTERVAL_ROWS, drawn_rows=0)
    assert offered.recent_rows == 700


def test_where_the_budget_is_nearly_spent_fewer_rows_are_looked_at_until_the_fewest_are_too_dear():
    counts, offered = Counts(10_000, 10_000), []
    for left in (1_500, 960, 959):
        spent = budget(FREE_ROWS + 20_000 - left)
        offer = spent.offer(NEW_ROWS, counts, INTERVAL_ROWS, drawn_rows=0)
        offered.append((offer.recent_rows, offer.rows_max, spent.is_too_dear(offer)))
    assert offered == [(1_340, 1_500, False), (800, 960, False), (800, 959, True)]


def test_what_is_put_by_for_the_next_model_of_all_rows_pays_for_no_other():
    spent, counts = budget(FREE_ROWS + 20_000 - 6_400), Counts(10_000, 10_000, 2)
    other = spent.offer(NEW_ROWS, counts, INTERVAL_ROWS, drawn_rows=6_400)
    of_all = spent.offer(
        Wanted(RETRAIN_REASON_NEW_DATA, "", (), is_of_all=True), counts, INTERVAL_ROWS, drawn_rows=6_400
    )
    assert (other.rows_max, spent.is_too_dear(other)) == (0, True)
    assert (of_all.rows_max, spent.is_too_dear(of_all)) == (6_400, False)
    assert of_all.recent_rows > counts.rows


@pytest.mark.parametrize("reason", [RETRAIN_REASON_DRIFT, RETRAIN_REASON_DECAY])
def test_a_change_is_lent_five_times_the_rows_since_up_to_a_quarter_more_than_all_fits_may_cost(reason):
    change, counts, lent = Wanted(reason, "", (), 5), Counts(8_000, 300), []
    for over in (0, 4_000, 5_000):
        lent.append(budget(FREE_ROWS + 16_000 + over).offer(change, counts, INTERVAL_ROWS, drawn_rows=0).rows_max)
    assert lent == [5 * 300, 1_000, 0]


def test_a_suspicion_costs_a_cheap_look_at_the_fewest_rows():
    suspicion = Wanted(RETRAIN_REASON_NEW_DATA, "", (), is_suspicion=True)
    offered = budget(fit_budget=20.0).offer(suspicion, Counts(10_000, 10_000), 4_000.0, drawn_rows=0)
    assert (offered.recent_rows, offered.rows_max) == (800, 4_000)


def test_what_people_ask_for_has_no_bound():
    ordered = Wanted(RETRAIN_REASON_MANUAL, "me: now", ("c",), urgent=True)
    assert budget(10**6).offer(ordered, Counts(5_000, 5_000), INTERVAL_ROWS, drawn_rows=0).rows_max == 0


def test_a_request_waits_for_the_cooldown_but_for_a_collapse():
    spent, counts = budget(cooldown="6h"), Counts(5_000, 5_000)
    offered = spent.offer(CHANGE, counts, INTERVAL_ROWS, drawn_rows=0)
    collapse = spent.offer(
        Wanted(RETRAIN_REASON_DRIFT, "", (), 5, is_collapse=True), counts, INTERVAL_ROWS, drawn_rows=0
    )
    spent.asked(DAY_US)
    assert spent.refusal(offered, DAY_US + 6 * HOUR_US - 1) == "the last request is less than 6h old"
    assert spent.refusal(offered, DAY_US + 6 * HOUR_US) == ""
    assert spent.refusal(collapse, DAY_US + 1) == ""


def test_requests_are_bounded_in_number_within_a_period_that_moves():
    spent = budget(cooldown="1h", budget="2 retrains/day")
    offered = spent.offer(CHANGE, Counts(5_000, 5_000), INTERVAL_ROWS, drawn_rows=0)
    for hour in (24, 36):
        assert spent.refusal(offered, hour * HOUR_US) == ""
        spent.asked(hour * HOUR_US)
    assert spent.refusal(offered, 48 * HOUR_US - 1) == "the budget of 2 retrains/day is spent"
    assert spent.refusal(offered, 48 * HOUR_US) == ""


def test_fits_that_have_cost_too_much_are_named_with_what_they_may():
    spent = budget(FREE_ROWS + 20_000)
    offered = spent.offer(
        Wanted(RETRAIN_REASON_FOLLOW_UP, "", (), 5), Counts(10_000, 10_000), INTERVAL_ROWS, drawn_rows=0
    )
    assert spent.refusal(offered, DAY_US) == "fits have cost 24000 rows of the 2 per labelled row that they may"


def test_a_restored_budget_pays_for_the_same():
    spent, restored = budget(3_000, budget="1 retrains/day"), budget(budget="1 retrains/day")
    spent.asked(DAY_US)
    state = spent.snapshot()
    spent.asked(DAY_US + HOUR_US)
    restored.restore(state)
    assert (restored.snapshot(), restored.asked_at_us) == (state, DAY_US)
    assert restored.left_rows(1_000) == spent.left_rows(1_000)
    offered = restored.offer(CHANGE, Counts(5_000, 5_000), INTERVAL_ROWS, drawn_rows=0)
    assert "budget" in restored.refusal(offered, DAY_US + 12 * HOUR_US)
    assert restored.refusal(offered, 2 * DAY_US) == ""
