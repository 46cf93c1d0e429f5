"""When a new model is asked for, and why not now."""

from __future__ import annotations

from dataclasses import replace

import pytest

from driftloop.contracts import UNSET_US
from driftloop.contracts.monitor.v1.monitor_pb2 import (
    RETRAIN_REASON_BOOTSTRAP,
    RETRAIN_REASON_DECAY,
    RETRAIN_REASON_DRIFT,
    RETRAIN_REASON_FOLLOW_UP,
    RETRAIN_REASON_MANUAL,
    RETRAIN_REASON_NEW_DATA,
    RETRAIN_REASON_SCHEDULE,
    SERIES_KIND_ERROR,
    SERIES_KIND_INPUT,
)
from driftloop.usecase import DAY_US, HOUR_US, Policy
from services.monitor.budget import EVIDENCE_ROWS, FREE_ROWS, RECENT_ROWS_MIN
from services.monitor.floor import Decay
from services.monitor.policy import COLLAPSED_ROWS, RetrainPolicy
from services.monitor.series import Alarm
from services.monitor.wanted import Challenger

CHANGE_ROWS = Policy().change_rows


def rows(policy: RetrainPolicy, count: int, at_us: int = 0) -> None:
    for _ in range(count):
        policy.labelled(at_us)


def with_model(first_rows: int = 1_000, **changes) -> RetrainPolicy:
    policy = RetrainPolicy(Policy(bootstrap_rows=first_rows, **changes))
    rows(policy, first_rows)
    verdict = policy.decide(0, ("s",))
    assert verdict.wanted.reason == RETRAIN_REASON_BOOTSTRAP
    policy.asked("r0", 0)
    assert policy.answered("r0", True, 1_500, 0)
    return policy


def alarm(since_us: int, kind=SERIES_KIND_ERROR) -> Alarm:
    return Alarm("error", kind, "adwin", since_us, 0.3, 0.8, 700, 1e-4)


def test_the_first_model_is_asked_for_once_enough_rows_are_mature():
    policy = RetrainPolicy(Policy(bootstrap_rows=1_000))
    rows(policy, 999)
    assert policy.decide(0, ()) is None
    rows(policy, 1)
    assert policy.decide(0, ("s1", "s2")).wanted.causes == ("s1", "s2")


def test_a_refused_first_model_is_asked_for_again_only_with_more_rows():
    policy = RetrainPolicy(Policy(bootstrap_rows=1_000))
    rows(policy, 1_000)
    policy.asked("r0", 0)
    policy.answered("r0", False, 0, 0)
    assert policy.decide(1, ()) is None
    rows(policy, 200)
    assert policy.decide(1, ()).wanted.reason == RETRAIN_REASON_BOOTSTRAP


def test_nothing_is_asked_while_a_request_is_open():
    policy = with_model()
    policy.alarmed(alarm(5), "d1")
    rows(policy, CHANGE_ROWS, 6)
    policy.asked("r1", DAY_US)
    policy.commanded("me", "now", "c1")
    assert policy.decide(2 * DAY_US, ()) is None
    assert not policy.answered("another", True, 0, 0)


def test_drift_of_the_error_asks_for_a_model_of_the_new_regime():
    policy = with_model()
    policy.alarmed(alarm(5), "d1")
    rows(policy, CHANGE_ROWS, 6)
    wanted = policy.decide(DAY_US, ()).wanted
    assert (wanted.reason, wanted.since_us, wanted.causes) == (RETRAIN_REASON_DRIFT, 5, ("d1",))


def test_decay_asks_for_a_model_but_does_not_hide_the_change_that_explains_it():
    alone, explained = with_model(), with_model()
    explained.alarmed(alarm(5), "d1")
    for policy in (alone, explained):
        policy.decayed(Decay(0.8, 0.6), ("s1",))
        rows(policy, 2 * CHANGE_ROWS, 6)
    assert alone.decide(DAY_US, ()).wanted.reason == RETRAIN_REASON_DECAY
    assert explained.decide(DAY_US, ()).wanted.causes == ("d1",)


def test_a_collapse_waits_for_three_blocks_only_and_no_cooldown():
    policy = with_model(cooldown="6h")
    policy.asked("r1", DAY_US)
    policy.answered("r1", True, 500, 7 * HOUR_US)
    policy.alarmed(replace(alarm(5), detector="floor"), "d1")
    rows(policy, COLLAPSED_ROWS - 1, 6)
    assert str(COLLAPSED_ROWS) in policy.decide(DAY_US, ()).not_now
    rows(policy, 1, 6)
    assert policy.decide(DAY_US, ()).not_now == ""


def test_a_rollback_makes_the_next_candidate_come_sooner_and_a_large_gain_as_soon_as_may_be():
    moving, gained = with_model(), with_model()
    for policy, outcome in (
        (moving, lambda p: p.rolled_back()),
        (gained, lambda p: p.promoted(of_all_rows=True, gained=0.3)),
    ):
        rows(policy, 4_000)
        tried(policy, DAY_US, published=True)
        policy.promoted(of_all_rows=True)
        outcome(policy)
    assert rows_until_asked(moving, 2 * DAY_US) == 1_500
    assert rows_until_asked(gained, 2 * DAY_US) == Policy().recent_rows


def test_a_promotion_that_leaves_far_more_than_has_been_attained_makes_the_next_candidate_come_as_soon_as_may_be():
    restored, policies = RetrainPolicy(Policy()), {}
    for name, left in (("attained", 0.4), ("far off", 0.5)):
        policy = policies[name] = with_model()
        rows(policy, 4_000)
        policy.error_measured(0.3)
        tried(policy, DAY_US, published=True)
        if name == "far off":
            restored.restore(policy.snapshot())
            policy = policies[name] = restored
        policy.promoted(of_all_rows=True, gained=0.1, left=left)
    assert rows_until_asked(policies["attained"], 2 * DAY_US) == 2_500
    assert rows_until_asked(policies["far off"], 2 * DAY_US) == Policy().recent_rows


def test_the_error_of_a_champions_first_rows_is_not_taken_for_what_can_be_attained():
    policy = with_model()
    rows(policy, 4_000)
    tried(policy, DAY_US, published=True)
    policy.promoted(of_all_rows=True)
    rows(policy, 500)
    policy.error_measured(0.1)
    rows(policy, 2_000)
    tried(policy, 2 * DAY_US, published=True)
    policy.promoted(of_all_rows=True, gained=0.1, left=0.5)
    assert rows_until_asked(policy, 3 * DAY_US) > 2_000


def test_drift_of_an_input_alone_asks_for_nothing():
    policy = with_model()
    policy.alarmed(alarm(5, SERIES_KIND_INPUT), "d1")
    assert policy.decide(DAY_US, ()) is None


def test_too_few_rows_since_the_change_are_a_reason_to_wait_said_once():
    policy = with_model()
    policy.alarmed(alarm(5), "d1")
    assert str(CHANGE_ROWS) in policy.decide(DAY_US, ()).not_now
    assert policy.decide(DAY_US + 1, ()) is None


def test_the_cooldown_and_the_budget_hold_back_and_a_command_does_not():
    policy = with_model(cooldown="6h", budget="2 retrains/day")
    policy.alarmed(alarm(5), "d1")
    rows(policy, CHANGE_ROWS, 6)
    assert "6h" in policy.decide(HOUR_US, ()).not_now
    assert policy.decide(7 * HOUR_US, ()).not_now == ""
    policy.asked("r1", 7 * HOUR_US)
    policy.answered("r1", True, 500, 7 * HOUR_US)
    policy.alarmed(alarm(7), "d2")
    rows(policy, CHANGE_ROWS, 8)
    assert "budget" in policy.decide(14 * HOUR_US, ()).not_now
    policy.commanded("me", "now", "c1")
    verdict = policy.decide(14 * HOUR_US, ())
    assert (verdict.wanted.reason, verdict.not_now) == (RETRAIN_REASON_MANUAL, "")


def tried(policy: RetrainPolicy, at_us: int, published: bool, cost_rows: int = 0) -> None:
    verdict = policy.decide(at_us, ())
    assert verdict is not None
    assert verdict.not_now == ""
    policy.asked(f"r{at_us}", at_us)
    policy.answered(f"r{at_us}", published, cost_rows, at_us)


def rows_until_asked(policy: RetrainPolicy, at_us: int) -> int:
    for count in range(20_000):
        if policy.decide(at_us, ()) is not None:
            return count
        rows(policy, 1, at_us)
    raise AssertionError("never asked")


def test_new_rows_are_a_reason_unless_a_challenger_has_just_begun_its_trial():
    policy = with_model()
    rows(policy, 500)
    assert policy.decide(DAY_US, (), Challenger(is_on_trial=True)) is None
    assert policy.decide(DAY_US, ()).wanted.reason == RETRAIN_REASON_NEW_DATA
    rows(policy, 500)
    assert policy.decide(DAY_US, (), Challenger(is_on_trial=True)).wanted.reason == RETRAIN_REASON_NEW_DATA


def test_after_an_alarm_a_challenger_that_the_odds_are_against_is_not_waited_for():
    policy = with_model()
    rows(policy, 2 * CHANGE_ROWS, 6)
    policy.alarmed(alarm(5), "d1")
    tried(policy, DAY_US, published=True)
    rows(policy, 420, 2 * DAY_US)
    assert policy.decide(2 * DAY_US, (), Challenger(is_on_trial=True, answers=True)) is None
    assert (
        policy.decide(2 * DAY_US, (), Challenger(is_on_trial=True, answers=False)).wanted.reason
        == RETRAIN_REASON_NEW_DATA
    )
    stable = with_model()
    rows(stable, 500)
    assert stable.decide(DAY_US, (), Challenger(is_on_trial=True, answers=False)) is None


def test_labels_of_before_a_challenger_was_there_do_not_use_its_trial_up():
    policy, on_trial = with_model(), Challenger(is_on_trial=True)
    rows(policy, 500)
    tried(policy, DAY_US, published=True)
    rows(policy, 5_000, DAY_US - 1)
    assert policy.decide(2 * DAY_US, (), on_trial) is None
    rows(policy, 999, DAY_US)  # two intervals, less one row
    assert policy.decide(2 * DAY_US, (), on_trial) is None
    rows(policy, 1, DAY_US)
    assert policy.decide(2 * DAY_US, (), on_trial).wanted.reason == RETRAIN_REASON_NEW_DATA


def test_a_candidate_that_was_not_published_begins_no_trial():
    policy, on_trial = with_model(), Challenger(is_on_trial=True)
    rows(policy, 500)
    tried(policy, DAY_US, published=True)
    rows(policy, 990, DAY_US)
    policy.commanded("me", "now", "c1")
    policy.decide(2 * DAY_US, ())
    policy.asked("r2", 2 * DAY_US)
    policy.answered("r2", False, 0, 2 * DAY_US, on_trial=True)
    rows(policy, 10, DAY_US)
    assert policy.decide(3 * DAY_US, (), on_trial) is None, "the next one is not due yet"
    rows(policy, 600, DAY_US)
    assert policy.decide(3 * DAY_US, (), on_trial) is not None


def test_a_proven_challenger_is_not_replaced_for_more_rows_but_a_change_waits_for_nobody():
    policy = with_model()
    rows(policy, 1_000, 6)
    assert policy.decide(DAY_US, (), Challenger(is_on_trial=True, is_proven=True)) is None
    policy.alarmed(alarm(5), "d1")
    assert policy.decide(DAY_US, (), Challenger(is_on_trial=True, is_proven=True)).wanted.reason == RETRAIN_REASON_DRIFT


def test_where_nothing_is_left_to_gain_nothing_is_tried():
    policy = with_model()
    policy.error = 0.001
    rows(policy, 20_000)
    assert policy.decide(DAY_US, ()) is None
    policy.error = 0.01
    assert policy.decide(DAY_US, ()).not_now == ""


def test_what_candidates_bring_sets_when_the_next_is_tried():
    moving, still, growing = with_model(), with_model(), with_model()
    for policy, outcome in (
        (moving, lambda p: p.promoted(of_all_rows=False)),
        (still, lambda p: p.failed()),
        (growing, lambda p: p.promoted(of_all_rows=True)),
    ):
        rows(policy, 4_000)
        tried(policy, DAY_US, published=True)
        outcome(policy)
    assert rows_until_asked(moving, 2 * DAY_US) == 400
    assert rows_until_asked(still, 2 * DAY_US) == 800
    assert rows_until_asked(growing, 2 * DAY_US) == 2_500


def test_an_alarm_makes_the_next_candidates_come_soon():
    policy = with_model()
    policy.alarmed(alarm(5), "d1")
    rows(policy, CHANGE_ROWS, 6)
    tried(policy, DAY_US, published=True)
    policy.promoted(of_all_rows=False)
    assert rows_until_asked(policy, 2 * DAY_US) == CHANGE_ROWS / 2, "half as many again as the regime had"
    assert policy.decide(2 * DAY_US, ()).wanted.reason == RETRAIN_REASON_FOLLOW_UP


def test_what_is_due_and_too_dear_is_asked_for_as_soon_as_it_can_be_paid():
    policy = with_model()
    rows(policy, 2_000)
    tried(policy, DAY_US, published=True, cost_rows=FREE_ROWS + 2 * 3_000)  # all that 3,000 rows may cost
    policy.promoted(of_all_rows=False)
    held_back = 0
    while (verdict := policy.decide(2 * DAY_US, ())) is None or verdict.not_now:
        held_back += verdict is not None
        rows(policy, 1)
    needed = RECENT_ROWS_MIN + 2 * EVIDENCE_ROWS
    assert verdict.rows_max == needed, "of the two rows that each labelled row allows"
    assert held_back == 1, "it is said once that it cannot be paid yet"


def supposed_change() -> RetrainPolicy:
    """With a model, 1,000 rows from before and as many as a change needs since an alarm (error .3 → .8)."""
    policy = with_model()
    policy.alarmed(alarm(5), "d1")
    policy.error = 0.8
    rows(policy, CHANGE_ROWS, 6)
    assert policy.regime_rows == CHANGE_ROWS
    return policy


def test_an_error_that_falls_back_without_a_new_model_was_a_burst_and_the_former_regime_goes_on():
    policy = supposed_change()
    policy.error = 0.35
    policy.decide(DAY_US, ())
    assert policy.regime_rows == CHANGE_ROWS
    rows(policy, 1_000, 6)
    verdict = policy.decide(DAY_US, ())
    assert verdict is None or verdict.wanted.reason != RETRAIN_REASON_DRIFT
    assert policy.regime_rows == 2_000 + CHANGE_ROWS


@pytest.mark.parametrize(("after", "pace"), [(0.3, 8), (0.45, 8), (0.6, 6), (0.9, 4), (1.8, 2), (3.6, 1)])
def test_the_more_the_error_has_risen_the_fewer_blocks_tell_that_the_world_changed(after, pace):
    policy = with_model()
    assert policy.pace_of(8, 8) == 8
    policy.alarmed(replace(alarm(5), before=0.3, after=after), "d1")
    assert policy.pace_of(8, 8) == pace
    restored = RetrainPolicy(Policy())
    restored.restore(policy.snapshot())
    assert restored.pace_of(8, 8) == pace


def test_labels_that_were_rare_before_a_change_do_not_make_its_evidence_slow():
    policy = with_model()
    assert policy.pace_of(pace=8, burst_pace=2) == 8
    policy.alarmed(replace(alarm(5), before=0.3, after=0.35), "d1")
    assert policy.pace_of(pace=8, burst_pace=2) == 2


def test_an_alarm_without_any_error_before_it_waits_for_single_blocks():
    policy = with_model()
    policy.alarmed(replace(alarm(5), before=0.0, after=0.8), "d1")
    assert policy.pace_of(8, 8) == 1


def test_two_candidates_without_worth_take_a_supposed_change_back():
    policy = supposed_change()
    tried(policy, DAY_US, published=False)
    policy.decide(DAY_US, ())
    assert policy.regime_rows == CHANGE_ROWS
    rows(policy, 640, 6)
    tried(policy, 2 * DAY_US, published=False)
    policy.decide(2 * DAY_US, ())
    assert policy.regime_rows == 1_000 + CHANGE_ROWS + 640


def test_a_promotion_proves_a_supposed_change():
    policy = supposed_change()
    tried(policy, DAY_US, published=True)
    policy.promoted(of_all_rows=False)
    policy.error = 0.3
    rows(policy, 3_000, 6)
    policy.failed()
    policy.failed()
    policy.decide(2 * DAY_US, ())
    assert policy.regime_rows == CHANGE_ROWS + 3_000


def test_a_promotion_must_bring_the_less_the_longer_the_regime_has_become_since_the_last_one():
    policy = with_model(1_000)
    needed = []
    for _ in range(6):
        needed.append(round(policy.least_gain, 4))
        rows(policy, 1_000)
    assert needed == [0.03, 0.025, 0.0167, 0.0125, 0.01, 0.01]
    policy.promoted(False)
    assert policy.least_gain == 0.03


def test_challengers_that_gain_too_little_for_a_promotion_prove_no_change():
    policy = supposed_change()
    for _ in range(2):
        policy.waits(of_all_rows=False)
    assert policy.supposes_change
    policy.decide(DAY_US, ())
    assert not policy.supposes_change


def test_a_warning_brings_a_candidate_forward_and_only_one():
    policy = with_model(4_000)
    rows(policy, 500)
    assert policy.decide(DAY_US, ()) is None
    policy.warned(("s1",))
    verdict = policy.decide(DAY_US, ())
    assert (verdict.wanted.reason, verdict.wanted.causes) == (RETRAIN_REASON_NEW_DATA, ("s1",))
    tried(policy, DAY_US, published=False)
    policy.warned(("s2",))
    assert policy.decide(2 * DAY_US, ()) is None


def test_a_suspicion_costs_a_look_at_the_newest_rows_and_puts_nothing_off():
    policy = with_model(4_000, fit_budget=10.0)
    rows(policy, 900)
    policy.warned(())
    verdict = policy.decide(DAY_US, ())
    assert (verdict.not_now, verdict.recent_rows) == ("", 800)
    assert verdict.rows_max == 5 * 800
    tried(policy, DAY_US, published=False)
    rows(policy, 1_100)
    verdict = policy.decide(2 * DAY_US, ())
    assert "2000 mature labelled rows" in verdict.wanted.because


def test_suspicions_in_vain_are_followed_ever_more_seldom():
    policy = RetrainPolicy(Policy(bootstrap_rows=20_000, fit_budget=100.0))
    rows(policy, 20_000)
    tried(policy, 0, published=True)
    followed = []
    for row in range(1, 7_000):
        rows(policy, 1)
        policy.warned(())
        if policy.decide(DAY_US * row, ()) is not None:
            tried(policy, DAY_US * row, published=False)
            followed.append(row)
    assert followed == [400, 1_200, 2_800, 6_000]


def test_where_evidence_is_slow_every_count_of_rows_is_larger():
    policy = with_model()
    policy.pace = 4
    policy.alarmed(alarm(5), "d1")
    rows(policy, CHANGE_ROWS, 6)
    assert str(4 * CHANGE_ROWS) in policy.decide(DAY_US, ()).not_now
    rows(policy, 3 * CHANGE_ROWS, 6)
    verdict = policy.decide(2 * DAY_US, ())
    assert (verdict.not_now, verdict.block_rows, verdict.evidence_rows) == ("", 160, 320)


def test_where_errors_come_in_bursts_all_rows_are_drawn_from_whatever_alarms_have_dated():
    policy, pace, due = with_model(4_000, recent_rows=10**6), 2, []
    policy.pace = policy.burst_pace = pace
    policy.alarmed(alarm(5), "d1")
    rows(policy, 500, 6)
    tried(policy, 2 * DAY_US, published=True)
    policy.promoted(of_all_rows=False)
    for known in range(4_501, 60_000):
        rows(policy, 1, 6)
        verdict = policy.decide(DAY_US * known, ("s",))
        if verdict is None or verdict.not_now:
            continue
        interval = policy.snapshot()["interval"]["candidates"][0]
        if verdict.wanted.since_us:  # a candidate of the new regime
            tried(policy, DAY_US * known, published=False)
            continue
        assert (verdict.wanted.reason, verdict.wanted.causes) == (RETRAIN_REASON_NEW_DATA, ("s",))
        assert verdict.recent_rows > known
        assert verdict.rows_max == 3_200 * pace
        tried(policy, DAY_US * known, published=False, cost_rows=verdict.rows_max)
        assert policy.snapshot()["interval"]["candidates"][0] == interval
        due.append(known)
    assert due == [12_800, 19_200, 25_600, 32_000, 40_000, 50_000]


@pytest.mark.parametrize(("gained", "since_us"), [(0.1, 0), (0.4, 5)])
def test_a_change_that_was_surely_no_burst_is_where_all_rows_begin(gained, since_us):
    policy, known, asked = with_model(20_000, recent_rows=10**6), 0, []
    policy.burst_pace = 2
    policy.alarmed(alarm(5), "d1")
    rows(policy, CHANGE_ROWS, 6)
    tried(policy, 2 * DAY_US, published=True)
    policy.promoted(of_all_rows=False, gained=gained)
    while not asked:
        known += 1
        rows(policy, 1, 6)
        verdict = policy.decide(DAY_US * known, ())
        if verdict is not None and not verdict.not_now:
            asked += [verdict.wanted] if verdict.wanted.is_of_all else []
            tried(policy, DAY_US * known, published=False)
    assert asked[0].since_us == since_us


def test_without_bursts_no_candidate_of_all_rows_is_needed():
    policy = with_model(4_000, recent_rows=10**6)
    policy.pace = 2  # of labels that are rare
    rows(policy, 50_000)
    verdict = policy.decide(DAY_US, ())
    assert verdict is None or verdict.recent_rows < 50_000


def test_fits_cost_no_more_rows_than_the_budget_allows_except_after_a_change():
    policy = with_model(fit_budget=2.0)
    rows(policy, 1_000)
    tried(policy, DAY_US, published=False, cost_rows=5_000 + FREE_ROWS)
    rows(policy, 1_600)
    assert f"cost {6_500 + FREE_ROWS} rows" in policy.decide(2 * DAY_US, ()).not_now
    policy.alarmed(alarm(5), "d1")
    rows(policy, CHANGE_ROWS, 6)
    verdict = policy.decide(3 * DAY_US, ())
    assert (verdict.wanted.reason, verdict.not_now) == (RETRAIN_REASON_DRIFT, "")
    assert verdict.rows_max >= 5 * CHANGE_ROWS


def test_alarms_that_repeat_themselves_or_date_far_back_cost_a_quarter_more_at_the_most():
    policy, spent, known = with_model(fit_budget=2.0), 1_500, 1_000
    for day in range(1, 40):
        rows(policy, 1_000, day)
        known += 1_000
        policy.alarmed(alarm(1), f"d{day}")  # all rows but the first model's are of after the change
        verdict = policy.decide(day * DAY_US, ())
        if verdict is None or verdict.not_now:
            continue
        assert spent + verdict.rows_max <= 1.25 * (FREE_ROWS + 2 * known)
        assert verdict.rows_max >= verdict.recent_rows
        spent += verdict.rows_max
        policy.asked(f"r{day}", day * DAY_US)
        policy.answered(f"r{day}", True, verdict.rows_max, day * DAY_US)
    assert spent > 2 * known


def test_a_trial_of_late_labels_does_not_put_a_schedule_off_for_ever():
    policy, on_trial = with_model(schedule="2d"), Challenger(is_on_trial=True)
    policy.commanded("me", "now", "c1")
    tried(policy, DAY_US, published=True)
    rows(policy, 5_000, 0)
    assert policy.decide(4 * DAY_US, (), on_trial) is None
    assert policy.decide(5 * DAY_US, (), on_trial).wanted.reason == RETRAIN_REASON_SCHEDULE


def test_a_suspicion_that_cannot_be_paid_is_over_and_is_said_once():
    policy = with_model(4_000, schedule="2d")
    policy.commanded("me", "now", "c1")
    tried(policy, DAY_US, published=False, cost_rows=100_000)
    said = []
    for _ in range(700):
        rows(policy, 1)
        policy.warned(())
        said.append(policy.decide(DAY_US + 7 * HOUR_US, ()))
    assert [verdict.not_now for verdict in said if verdict is not None] == [
        "fits have cost 101500 rows of the 2 per labelled row that they may"
    ]
    rows(policy, 60_000)
    assert policy.decide(3 * DAY_US, ()).wanted.reason == RETRAIN_REASON_SCHEDULE, "not the suspicion of long ago"


def test_a_schedule_asks_whatever_is_seen():
    policy = with_model(schedule="2d")
    assert policy.decide(DAY_US, ()) is None
    assert policy.decide(2 * DAY_US, ()).wanted.reason == RETRAIN_REASON_SCHEDULE


def test_a_restored_policy_decides_the_same():
    policy = with_model()
    policy.alarmed(alarm(5), "d1")
    rows(policy, CHANGE_ROWS, 6)
    other = RetrainPolicy(Policy(bootstrap_rows=1_000))
    other.restore(policy.snapshot())
    assert other.snapshot() == policy.snapshot()
    assert other.decide(DAY_US, ()) == policy.decide(DAY_US, ())


def suspected_and_alarmed() -> RetrainPolicy:
    """With a model, after a look at the newest rows in vain and an alarm."""
    policy = with_model(4_000, fit_budget=10.0)
    rows(policy, 1_100, 2)
    policy.error_measured(0.3)
    policy.warned(("s1",))
    tried(policy, HOUR_US * 12, published=False, cost_rows=2_000)
    policy.alarmed(alarm(5), "d1")
    rows(policy, CHANGE_ROWS, 6)
    return policy


WHOLE = {  # as it was written when interval and budget were the policy's own
    "version": 1,
    "rows_at": [0] * 4_000 + [2] * 1_100 + [6] * 240,
    "rows": 5_340,
    "spent_us": [0],
    "wanted": [
        2,
        "the error rose from 0.300 to 0.800 nats over 700 mature labels",
        ["d1"],
        5,
        False,
        False,
        False,
        False,
    ],
    "excused": "",
    "regime": [5, 240],
    "tries": [4_000, 0.0, 3_500, 1],
    "supposed": [0, 2_000.0, 0.55, 5_100, 0],
    "promoted_rows": 4_000,
    "error": 0.3,
    "attained": [0.3, 0],
    "suspicion": [800.0, 5_100, True],
    "world": [False, 0, 5_340, 4_000],
    "has_model": True,
    "open_request": "",
    "asked_at_us": 0,
}


def test_a_checkpoint_of_when_interval_and_budget_were_the_policys_own_goes_on_the_same():
    policy, restored = suspected_and_alarmed(), RetrainPolicy(Policy(bootstrap_rows=4_000, fit_budget=10.0))
    restored.restore(WHOLE)
    expected = policy.snapshot()
    expected["supposed"][-1] = 1.0  # how much the error had risen was not kept
    expected["interval"]["trial"] = [UNSET_US, 0]  # nor which rows a challenger may have scored
    assert restored.snapshot() == expected
    for each in (policy, restored):
        tried(each, DAY_US, published=True, cost_rows=50_000)
        each.promoted(of_all_rows=False)
    assert restored.snapshot() == policy.snapshot()
    assert rows_until_asked(restored, 2 * DAY_US) == rows_until_asked(policy, 2 * DAY_US)


@pytest.mark.parametrize(
    ("asked_for", "interval", "suspicions"),
    [((False, False), 1_600, 800.0), ((False, True), 1_000, 1_600.0), ((True, False), 1_000, 800.0)],
)
def test_what_the_newest_request_of_an_older_checkpoint_was_for_says_what_its_failure_means(
    asked_for, interval, suspicions
):
    policy, (of_all, of_suspicion) = RetrainPolicy(Policy()), asked_for
    policy.restore(
        WHOLE
        | {
            "regime": [0, 5_340],
            "tries": [4_000, 1_000.0, 3_500, 1],
            "suspicion": [800.0, 5_100, of_suspicion],
            "world": [of_all, 0, 5_340, 4_000],
        }
    )
    policy.failed()
    state = policy.snapshot()["interval"]
    assert (state["candidates"][0], state["suspicions"][0]) == (interval, suspicions)


def test_what_the_oldest_checkpoints_lack_begins_anew():
    lacking = ("supposed", "promoted_rows", "error", "attained", "suspicion", "world")
    policy = RetrainPolicy(Policy())
    policy.restore({name: value for name, value in WHOLE.items() if name not in lacking})
    assert (policy.supposes_change, policy.error, policy.least_gain) == (False, 0.0, Policy().gain)
    state = policy.snapshot()
    assert state["interval"]["suspicions"] == [Policy().recent_rows, 0]
    assert (state["interval"]["attained"], state["world"]) == ([0.0, 5_340], [0, 5_340, 5_340])
