"""Who answers: by evidence from the same mature rows, forward and back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from driftloop.contracts.monitor.v1.monitor_pb2 import (
    DECISION_KIND_CANARY,
    DECISION_KIND_DROP_CHALLENGER,
    DECISION_KIND_FIRST_MODEL,
    DECISION_KIND_KEEP,
    DECISION_KIND_PROMOTE,
    DECISION_KIND_ROLL_BACK,
    DECISION_KIND_SHADOW,
    DECISION_KIND_WAIT,
    ROLE_CANARY,
    ROLE_CHAMPION,
    ROLE_PREVIOUS,
    ROLE_SHADOW,
    ROLE_STANDBY,
)
from driftloop.usecase import Policy, row_loss
from services.monitor.arms import Candidate, Trial
from services.monitor.evidence import Evidence
from services.monitor.release import ARCHIVE_MAX, Releases
from services.monitor.slices import SliceGains

POLICY = Policy()


def candidate(name: str) -> Candidate:
    return Candidate(name, f"bundles/{name}", name)


def started(policy: Policy = POLICY) -> Releases:
    releases = Releases(policy)
    releases.published(candidate("a"))
    return releases


def feed(releases: Releases, rows: int, better: float, seed: int = 0):
    """Rows on which the second model's chance is better by so much; the kinds of all steps taken."""
    rng = np.random.default_rng(seed)
    kinds = []
    for _ in range(rows):
        truth = 0.2 + 0.6 * rng.random()
        label = float(rng.random() < truth)
        noise = rng.normal(0, 0.15)
        near, far = np.clip(truth, 0.02, 0.98), np.clip(truth + noise, 0.02, 0.98)
        strength = abs(better)
        other = (1 - strength) * far + strength * near
        pair = (far, other) if better >= 0 else (other, far)
        scores = {releases.champion.model_id: float(pair[0])}
        if releases.other is not None:
            scores[releases.other.model_id] = float(pair[1])
        releases.labelled({name: row_loss("binary", score, label) for name, score in scores.items()})
        kinds += [step.kind for step in releases.decide()]
    return kinds


def test_the_first_model_answers_at_once():
    releases = Releases(POLICY)
    (step,) = releases.published(candidate("a"))
    champion, others = releases.arms()
    assert (step.kind, champion.role, champion.share, others) == (DECISION_KIND_FIRST_MODEL, ROLE_CHAMPION, 1.0, [])


def test_there_are_no_arms_before_the_first_model():
    assert Releases(POLICY).arms() == (None, [])


def test_a_better_challenger_goes_from_shadow_over_canary_to_champion():
    releases = started()
    assert [s.kind for s in releases.published(candidate("b"))] == [DECISION_KIND_SHADOW]
    assert [(arm.role, arm.share) for arm in releases.arms()[1]] == [(ROLE_SHADOW, 0.0)]
    kinds, shares = [], []
    for seed in range(100):
        if releases.champion.model_id == "a":
            kinds += feed(releases, 40, 1.0, seed)
            shares += [arm.share for arm in releases.arms()[1] if arm.role == ROLE_CANARY]
    assert kinds[0] == DECISION_KIND_CANARY
    assert kinds[-1] == DECISION_KIND_PROMOTE
    assert max(shares) == POLICY.canary_share
    champion, (previous,) = releases.arms()
    assert (champion.model_id, previous.model_id, previous.role, champion.share) == ("b", "a", ROLE_PREVIOUS, 1.0)


def test_a_canary_answers_the_more_the_likelier_it_is_the_better_one_and_less_as_soon_as_it_is_not():
    releases = started()
    releases.published(candidate("b"), Trial((0.1, -0.06, 0.09, -0.03, 0.06), 200, 1.0))
    releases.decide()
    (canary,) = releases.arms()[1]
    assert 0.0 < canary.share < POLICY.canary_share
    for row in range(400):
        releases.labelled({"a": 1.0, "b": 0.95 + 0.02 * (row % 2)})
        releases.decide()
        if releases.champion.model_id == "b":
            break
        top = releases.arms()[1][0].share
    assert top == POLICY.canary_share
    releases = started()
    releases.published(candidate("b"), Trial((0.1, 0.06, 0.09, 0.03, 0.06), 200, 1.0))
    releases.decide()
    for _ in range(240):
        releases.labelled({"a": 1.0, "b": 1.1})
        releases.decide()
    assert not any(arm.share for arm in releases.arms()[1])


def test_a_small_gain_that_was_held_out_alone_lets_nobody_answer_more_than_half():
    releases = started()
    releases.published(candidate("b"), Trial((0.1, 0.11, 0.09, 0.1, 0.1), 200, 1.0))
    assert [step.kind for step in releases.decide()] == [DECISION_KIND_CANARY]
    assert releases.arms()[1][0].share == 0.5


def test_a_newer_challenger_may_answer_as_much_as_the_one_that_it_replaces():
    releases, restored = started(), Releases(POLICY)
    small, large = (Trial(tuple(gain * each for each in (1.0, 1.1, 0.9, 1.0, 1.0)), 200, 1.0) for gain in (0.1, 0.3))
    releases.published(candidate("b"), small)
    for row in range(2 * POLICY.block_labels):
        releases.labelled({"a": 1.1 + 0.02 * (row % 2), "b": 1.0}, {"line": "red" if row % 2 else "blue"})
        releases.decide()
    assert releases.arms()[1][0].share == POLICY.canary_share
    releases.published(candidate("c"), large)
    restored.restore(releases.snapshot())
    for each in (releases, restored):
        each.decide()
        assert [(arm.model_id, arm.share) for arm in each.arms()[1]] == [("c", POLICY.canary_share)]


def test_a_newer_challenger_inherits_nothing_from_one_that_is_not_ahead():
    releases = started()
    releases.published(candidate("b"), Trial((0.1, 0.11, 0.09, 0.1, 0.1), 200, 1.0))
    for row in range(2 * POLICY.block_labels):
        releases.labelled({"a": 1.0, "b": 1.0 + 0.02 * (row % 2)}, {"line": "red" if row % 2 else "blue"})
        releases.decide()
    releases.published(candidate("c"), Trial((0.2, 0.22, 0.18, 0.2, 0.2), 200, 1.0))
    releases.decide()
    assert releases.arms()[1][0].share == 0.5


@pytest.mark.parametrize(("pace", "share"), [(1, POLICY.canary_share), (4, 0.5)])
def test_one_that_is_far_ahead_on_held_out_rows_answers_everybody_at_once_but_where_gains_come_in_bursts(pace, share):
    releases = started()
    releases.published(candidate("b"), Trial((0.4, 0.44, 0.36, 0.4, 0.4), 200 * pace, 1.0, pace))
    releases.decide()
    assert releases.arms()[1][0].share == share


def test_where_a_person_approves_a_canary_stays_a_small_share():
    releases = started(replace(POLICY, approval="manual"))
    releases.published(candidate("b"), Trial((0.1, 0.11, 0.09, 0.1, 0.1), 200, 1.0))
    releases.decide()
    assert releases.arms()[1][0].share == 0.1


@pytest.mark.parametrize("seed", range(8))
def test_a_harmful_challenger_is_dropped_and_never_promoted(seed):
    releases = started()
    releases.published(candidate("b"))
    kinds = feed(releases, POLICY.give_up_rows, -1.0, seed)
    assert DECISION_KIND_PROMOTE not in kinds
    assert DECISION_KIND_DROP_CHALLENGER in kinds
    assert releases.champion.model_id == "a"


def test_a_challenger_that_cannot_be_told_apart_is_given_up():
    releases = started()
    releases.published(candidate("b"))
    kinds = feed(releases, POLICY.give_up_rows, 0.0)
    assert kinds[-1] == DECISION_KIND_DROP_CHALLENGER
    assert releases.champion.model_id == "a"


def test_a_champion_that_turns_out_worse_is_rolled_back_on_late_labels():
    releases = started()
    releases.published(candidate("b"))
    while releases.champion.model_id == "a":
        feed(releases, 200, 1.0, seed=3)
    kinds = feed(releases, 4_000, 1.0, seed=5)  # the second of the pair, now the previous model, is the better one
    assert kinds[-1] == DECISION_KIND_ROLL_BACK
    assert releases.champion.model_id == "a"
    assert releases.other is None


def test_a_champion_that_keeps_its_place_ends_its_probation():
    releases = started()
    releases.published(candidate("b"))
    while releases.champion.model_id == "a":
        feed(releases, 200, 1.0, seed=3)
    assert feed(releases, POLICY.give_up_rows, -1.0, seed=5)[-1] == DECISION_KIND_KEEP
    assert [(arm.model_id, arm.role) for arm in releases.arms()[1]] == [("a", ROLE_STANDBY)]


def test_a_newer_challenger_takes_the_place_of_an_older_one():
    releases = started()
    releases.published(candidate("b"))
    assert [s.kind for s in releases.published(candidate("c"))] == [DECISION_KIND_DROP_CHALLENGER, DECISION_KIND_SHADOW]
    assert [arm.model_id for arm in releases.arms()[1]] == ["c"]


def test_a_challenger_that_serving_refused_leaves_and_the_champion_stays():
    releases = started()
    releases.answered()
    releases.published(candidate("b"))
    assert [s.kind for s in releases.refused_by_serving("b", "bad signature")] == [DECISION_KIND_DROP_CHALLENGER]
    assert releases.refused_by_serving("a", "bad signature") == []
    assert releases.champion.model_id == "a"


def test_a_first_model_that_serving_refused_before_it_answered_anybody_leaves_its_place():
    releases = started()
    assert releases.refused_by_serving("a", "bad signature") == []
    assert releases.arms() == (None, [])
    assert [s.kind for s in releases.published(candidate("b"))] == [DECISION_KIND_FIRST_MODEL]


def test_a_challenger_takes_the_place_of_a_first_model_that_nobody_could_load():
    releases = started()
    releases.published(candidate("b"))
    restored = Releases(POLICY)
    restored.restore(releases.snapshot())
    assert [s.kind for s in restored.refused_by_serving("a", "bad signature")] == [DECISION_KIND_FIRST_MODEL]
    champion, others = restored.arms()
    assert (champion.model_id, others) == ("b", [])


def test_the_gain_is_told_in_the_unit_of_the_task():
    releases = Releases(POLICY, "regression")
    releases.published(candidate("a"))
    releases.published(candidate("b"))
    draws = np.random.default_rng(0).normal(0.5, 0.1, 400)
    told = []
    for gain in draws:
        releases.labelled({"a": 0.5 + gain, "b": 0.5})
        told += [step.because for step in releases.decide()]
    assert [because.split(" on ")[0].split(" by ")[0] for because in told] == ["better than production"]
    assert all("label variances a row" in because for because in told)


def test_rows_that_only_one_of_the_two_has_scored_are_no_evidence():
    releases = started()
    releases.published(candidate("b"))
    for _ in range(2_000):
        releases.labelled({"a": 2.3})
    assert releases.decide() == []


def test_a_restored_state_decides_the_same():
    releases, other = started(), Releases(POLICY)
    releases.published(candidate("b"))
    feed(releases, 500, 1.0)
    other.restore(releases.snapshot())
    assert other.snapshot() == releases.snapshot()
    assert feed(other, 2_000, 1.0, seed=4) == feed(releases, 2_000, 1.0, seed=4)


def test_the_bound_holds_at_all_times_at_once():
    missed = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        evidence = Evidence(40)
        crossed = False
        for loss in rng.normal(0.0, 1.0, 4_000):
            evidence.add(loss, 0.0)
            crossed = crossed or (evidence.rows >= 300 and evidence.lower(0.95) > 0)
        missed += crossed
    assert missed <= 0.05 * 200 + 6


def confirm(releases: Releases, gain: float, blocks: int = 2, pace: int = 1, slices: dict[str, str] | None = None):
    """Blocks of rows in production on which the challenger gains so much; the kinds of all steps taken."""
    kinds = []
    for row in range(blocks * POLICY.block_labels * pace):
        if releases.has_challenger:
            wobble = gain / 10 * (-1) ** row
            losses = {releases.champion.model_id: 1.0 + gain + wobble, releases.other.model_id: 1.0}
            releases.labelled(losses, slices)
            kinds += [step.kind for step in releases.decide()]
    return kinds


HELD_OUT = Trial(gains=(0.5, 0.6, 0.4, 0.5, 0.55), rows=200, production_loss=1.0)


def test_evidence_that_trainer_held_out_counts_and_two_blocks_of_production_confirm_it():
    sure, doubtful = started(), started()
    sure.published(candidate("b"), HELD_OUT)
    doubtful.published(candidate("b"), Trial(gains=(0.5, -0.6, 0.4, -0.5, 0.55), rows=200, production_loss=1.0))
    assert DECISION_KIND_PROMOTE not in [step.kind for step in sure.decide()]
    assert confirm(sure, 0.5)[-1] == DECISION_KIND_PROMOTE
    assert DECISION_KIND_PROMOTE not in confirm(doubtful, 0.02)


def test_held_out_rows_alone_end_no_trial():
    releases = started()
    gains = (0.5, 0.6, 0.4, 0.5) * 20
    releases.published(candidate("b"), Trial(gains=gains, rows=POLICY.give_up_rows + 1, production_loss=1.0))
    assert DECISION_KIND_DROP_CHALLENGER not in [step.kind for step in releases.decide()]
    assert confirm(releases, 0.5)[-1] == DECISION_KIND_PROMOTE


def test_held_out_gains_that_production_does_not_see_are_struck_out():
    releases = started()
    releases.published(candidate("b"), HELD_OUT)
    assert DECISION_KIND_PROMOTE not in confirm(releases, 0.001, blocks=5)
    assert releases.champion.model_id == "a"


def test_a_challenger_that_harms_a_slice_goes_though_the_whole_gains():
    releases, told = started(), []
    releases.published(candidate("b"), HELD_OUT)
    rng = np.random.default_rng(0)
    for row in range(400):
        is_small = row % 8 == 0
        gain = rng.normal(-0.4 if is_small else 0.3, 0.3)
        if releases.has_challenger:
            releases.labelled({"a": 2.0 + gain, "b": 2.0}, {"line": "red" if is_small else "blue"})
            told += releases.decide()
    assert [step.kind for step in told][-1] == DECISION_KIND_DROP_CHALLENGER
    assert "line=red" in told[-1].because


def test_a_challenger_that_is_proven_waits_for_its_slices_and_says_so():
    releases, told, waited = started(), [], []
    releases.published(candidate("b"), HELD_OUT)
    for row in range(180):
        gain = 0.5 + 0.05 * (-1) ** row
        releases.labelled({"a": 1.0 + gain, "b": 1.0}, {"line": "red" if row % 2 else "blue"})
        told += [step.kind for step in releases.decide()]
        waited.append(releases.waits_for_slices)
    assert told[-1] == DECISION_KIND_PROMOTE
    assert waited.index(True) == 79
    assert [at for at, waits in enumerate(waited) if waits] == list(range(79, 159))


def promoted_at(
    gain_of: Callable[[int], tuple[float, str]], rows: int, scale: float = 1.0
) -> tuple[int | None, list[bool]]:
    """The row after which a challenger is promoted that was ahead on the rows held out; `gain_of` a row: and its slice.

    Beside it, after each row before, whether the challenger held up the next candidate. All losses are multiplied by `scale`.
    """
    releases, waited = started(), []
    held_out = replace(HELD_OUT, gains=tuple(scale * gain for gain in HELD_OUT.gains), production_loss=scale)
    releases.published(candidate("b"), held_out)
    for row in range(rows):
        gain, line = gain_of(row)
        releases.labelled({"a": scale * (1.0 + gain), "b": scale}, {"line": line})
        if DECISION_KIND_PROMOTE in [step.kind for step in releases.decide()]:
            return row, waited
        waited.append(releases.waits_for_slices)
    return None, waited


@pytest.mark.parametrize(("every", "least", "most"), [(12, 900, 1_000), (33, 79, 85)])
def test_a_slice_that_may_have_a_tenth_of_the_rows_is_waited_for_though_few_of_them_have_come(every, least, most):
    promoted, _ = promoted_at(lambda row: (0.5 + 0.05 * (-1) ** row, "red" if row % every == 0 else "blue"), 1_000)
    assert promoted is not None
    assert least <= promoted <= most


@pytest.mark.parametrize("scale", [1.0, 0.2])
def test_a_challenger_waits_while_a_slice_leans_to_harm_and_is_promoted_when_its_rows_clear_it(scale):
    def gain_of(row: int) -> tuple[float, str]:
        wobble = 1.2 * (-1) ** (row // 5)
        return ((-0.2 if row < 500 else 0.6) + wobble, "red") if row % 5 == 0 else (0.9 + wobble / 10, "blue")

    promoted, waited = promoted_at(gain_of, 800, scale)
    assert promoted is not None
    assert promoted > 500
    assert True in waited
    assert waited.index(True) < 400
    assert not any(waited[400:])  # the slice is seen: a newer candidate may do better by it


def test_a_challenger_that_never_clears_a_slice_is_dropped_for_that():
    releases, told = started(), []
    releases.published(candidate("b"), HELD_OUT)
    for row in range(POLICY.give_up_rows + 200):
        wobble = 1.2 * (-1) ** (row // 10)
        gain, line = (-0.2 + 6 * wobble, "red") if row % 10 == 0 else (1.2, "blue")
        if releases.has_challenger:
            releases.labelled({"a": 1.0 + gain, "b": 1.0}, {"line": line})
            told += releases.decide()
    assert DECISION_KIND_PROMOTE not in [step.kind for step in told]
    assert told[-1].kind == DECISION_KIND_DROP_CHALLENGER
    assert "spare every slice" in told[-1].because


def waiting(
    policy: Policy = POLICY, gain: float = 0.02, rows: int = 800, least_gain: float = 0.03
) -> tuple[Releases, list]:
    """A challenger that surely gains two per cent of the loss, where a promotion must bring three."""
    releases, told = started(policy), []
    releases.published(candidate("b"))
    for row in range(rows):
        releases.labelled({"a": 1.0 + 0.001 * (-1) ** row, "b": 1.0 - gain})
        told += releases.decide(least_gain)
    return releases, told


def test_a_challenger_that_gains_little_answers_nearly_all_and_waits_with_its_promotion_told_once():
    releases, told = waiting()
    (kept,) = [step for step in told if step.kind == DECISION_KIND_WAIT]
    assert "3.0%" in kept.because
    assert kept.evidence["least_gain"] == 0.03
    assert (releases.champion.model_id, releases.arms()[1][0].share) == ("a", POLICY.canary_share)
    assert (releases.has_challenger, releases.is_on_trial) == (True, False)
    assert [step.kind for step in releases.decide(0.015)] == [DECISION_KIND_PROMOTE]


def test_a_challenger_that_waits_is_not_given_up_for_its_age():
    releases, told = waiting(rows=POLICY.give_up_rows + 400)
    assert DECISION_KIND_DROP_CHALLENGER not in [step.kind for step in told]
    assert releases.arms()[1][0].share == POLICY.canary_share


def test_a_challenger_that_waits_and_turns_out_to_gain_nothing_goes():
    releases, _ = waiting()
    told = []
    for row in range(4_000):
        if releases.has_challenger:
            releases.labelled({"a": 1.0 + 0.001 * (-1) ** row, "b": 1.001})
            told += [step.kind for step in releases.decide(0.03)]
    assert told[-1] == DECISION_KIND_DROP_CHALLENGER


def test_where_a_challenger_may_not_answer_nearly_all_no_gain_waits():
    _, told = waiting(replace(POLICY, canary_share=0.1))
    assert DECISION_KIND_PROMOTE in [step.kind for step in told]


def test_a_restored_release_still_waits_and_does_not_say_so_again():
    releases, _ = waiting()
    restored = Releases(POLICY)
    restored.restore(releases.snapshot())
    assert (restored.decide(0.03), restored.is_on_trial) == ([], False)


@pytest.mark.parametrize("pace", [8, 1])
def test_one_burst_in_a_slice_drives_no_better_model_out_however_fast_the_whole_is_judged(pace):
    releases, told = started(), []
    releases.published(candidate("b"), replace(HELD_OUT, pace=pace, slice_pace=8))
    for row in range(64):
        if row == 20:
            state, releases = releases.snapshot(), Releases(POLICY)
            releases.restore(state)
        gain = -0.4 - row % 2 * 0.05
        releases.labelled({"a": 2.0 + gain, "b": 2.0}, {"line": "red"})
        releases.labelled({"a": 2.6, "b": 2.0}, {"line": "blue"})
        told += releases.decide()
    assert DECISION_KIND_DROP_CHALLENGER not in [step.kind for step in told]


def test_a_slice_of_few_rows_that_lack_the_rare_large_gains_of_all_drives_no_better_model_out():
    """While a concept gives way to another: a little is lost on most rows, and much gained on the few of the new one."""
    releases, rng, told = started(), np.random.default_rng(0), []
    releases.published(candidate("b"), HELD_OUT)
    for row in range(96):
        is_small = row % 4 == 0 and row < 80
        gain = rng.normal(-0.3, 0.05) if is_small or row % 3 else 5.0
        releases.labelled({"a": 1.0 + gain, "b": 1.0}, {"line": "red" if is_small else "blue"})
        told += releases.decide()
    assert DECISION_KIND_DROP_CHALLENGER not in [step.kind for step in told]


@pytest.mark.parametrize(("mean", "is_cleared"), [(-0.1, True), (-0.18, False)])
def test_a_slice_that_loses_a_little_is_cleared_and_one_that_may_lose_much_is_not(mean, is_cleared):
    gains = SliceGains()
    for row in range(80):
        gains.add({"line": "red"}, mean + 0.4 * (-1) ** row)
    assert gains.are_cleared(0.1) == is_cleared


def test_where_labels_are_rare_and_gains_far_apart_a_slice_is_cleared_by_their_spread():
    gains = SliceGains()
    for row in range(480):
        gains.add({"line": "red"} if row % 6 == 0 else {}, -0.02 + (0.4 if row % 6 == 0 else 2.0) * (-1) ** (row // 6))
    assert gains.are_cleared(0.01)


def test_what_is_known_of_slices_outlives_a_restart():
    kept, restored = SliceGains(), SliceGains()
    rng = np.random.default_rng(0)
    for row in range(200):
        kept.add({"line": "red" if row % 8 == 0 else "blue"}, rng.normal(-0.4 if row % 8 == 0 else 0.3, 0.3))
    restored.restore(kept.snapshot())
    harm = kept.harmed(0.999, 0.1)
    assert harm is not None
    assert restored.harmed(0.999, 0.1) == harm
    assert [restored.are_seen(20), restored.are_seen(30)] == [True, False]
    assert [restored.are_cleared(harm) for harm in (0.1, 0.5)] == [False, True]


def test_slices_of_a_checkpoint_of_before_the_spread_of_all_rows_was_kept_begin_anew():
    restored = SliceGains()
    restored.restore([200, [["line=red", 25, -0.4, 2.0], ["line=blue", 175, 0.3, 15.0]]])
    assert restored.harmed(0.9, 0.1) is None


def test_a_slice_that_loses_a_little_keeps_no_better_model_out():
    releases, rng = started(), np.random.default_rng(0)
    releases.published(candidate("b"), HELD_OUT)
    kinds = []
    for row in range(800):
        if releases.has_challenger:
            gain = rng.normal(-0.02 if row % 8 == 0 else 0.5, 0.1)
            releases.labelled({"a": 2.0 + gain, "b": 2.0}, {"line": "red" if row % 8 == 0 else "blue"})
            kinds += [step.kind for step in releases.decide()]
    assert kinds[-1] == DECISION_KIND_PROMOTE


def test_a_sure_gain_that_is_too_small_to_matter_changes_nobody():
    releases = started()
    releases.published(candidate("b"), Trial(gains=(0.004, 0.005, 0.006) * 10, rows=1_200, production_loss=1.0))
    (step,) = releases.decide()
    assert step.kind == DECISION_KIND_DROP_CHALLENGER
    assert "gains too little" in step.because


def test_where_evidence_is_slow_more_rows_are_needed():
    fast, slow = started(), started()
    for releases, pace in ((fast, 1), (slow, 8)):
        releases.published(candidate("b"), Trial((0.5, 0.6, 0.4), 120, 1.0, pace))
    assert confirm(fast, 0.5)[-1] == DECISION_KIND_PROMOTE
    assert confirm(slow, 0.5) == []
    assert confirm(slow, 0.5, pace=8)[-1] == DECISION_KIND_PROMOTE


def test_former_champions_are_kept_and_not_too_many():
    releases = started()
    for number in range(ARCHIVE_MAX + 3):
        releases.published(candidate(f"m{number}"), Trial((0.5, 0.6, 0.4, 0.5), 160, 1.0))
        confirm(releases, 0.5)
    names = [one.model_id for one in releases.archive]
    assert len(names) == ARCHIVE_MAX
    assert names[-1] == f"m{ARCHIVE_MAX + 1}"


def test_gains_that_come_in_bursts_prove_less_where_hard_rows_come_in_bursts():
    rng = np.random.default_rng(3)
    burst = np.repeat(rng.normal(0.02, 0.05, 12), 8)  # of eight blocks each
    apart, together = Evidence(1), Evidence(1, pace=2)
    for gain in burst.tolist():
        apart.add(gain, 0.0)
        together.add(gain, 0.0)
    assert together.mean == apart.mean
    assert together.half_width(0.98) > 1.5 * apart.half_width(0.98)
    again = Evidence(1, pace=2)
    again.restore(together.snapshot())
    assert again.half_width(0.98) == together.half_width(0.98)


def test_the_neighbours_of_independent_gains_change_the_bound_little():
    rng = np.random.default_rng(4)
    apart, together = Evidence(1), Evidence(1, pace=2)
    for gain in rng.normal(0.02, 0.05, 100).tolist():
        apart.add(gain, 0.0)
        together.add(gain, 0.0)
    assert together.half_width(0.98) < 1.4 * apart.half_width(0.98)
