"""A blend: a new network joins the champion's as far as held-out rows do not speak against it, in one graph and one bundle."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from driftloop.scoring import ScoringModel
from driftloop.usecase import Task
from services.trainer.blend import MEMBERS_MAX, Member, answers_of, heaviest, joined, logits_of, share_of_newest
from services.trainer.candidates import Asked
from services.trainer.export import to_onnx
from services.trainer.measures import log_losses
from services.trainer.published import is_compatible, members_of, published_parts, vocabularies_of
from services.trainer.training import Trained, train
from tests.trainer_twin import QUICK, STEP_US, TASKS, mean_of, part, rows, trained_on, trips

ALL_TASKS: tuple[Task, ...] = ("binary", "multiclass", "regression")


def blend_of(first: ScoringModel, second: ScoringModel, share: float) -> ScoringModel:
    members = joined(members_of(first, 0.0), members_of(second, 0.0)[-1], share)
    parts, weights = published_parts(members)
    return ScoringModel(to_onnx(members, vocabularies_of(members)), {**second.spec, **parts}, weights)


def losses_at(champion: np.ndarray, newest: np.ndarray, labels: np.ndarray):
    before, new = logits_of("binary", champion), logits_of("binary", newest)
    return lambda share: log_losses(labels, answers_of("binary", (1 - share) * before + share * new))


def said(error: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """True chances of 400 rows blurred by an error of log odds, and their labels, which are the same for every seed above 0."""
    truth, draws = np.random.default_rng(0), np.random.default_rng(seed)
    logits = truth.normal(0.0, 1.5, 400)
    labels = (truth.random(400) < 1 / (1 + np.exp(-logits))).astype(float)
    return 1 / (1 + np.exp(-(logits + draws.normal(0.0, error, 400)))), labels


@pytest.mark.parametrize(
    ("champions_error", "newest_error", "share"), [(0.8, 0.8, 0.5), (6.0, 0.3, 1.0), (0.3, 6.0, 0.25)]
)
def test_models_of_equal_worth_count_alike_and_a_far_better_one_alone(champions_error, newest_error, share):
    champion, labels = said(champions_error, seed=1)
    newest, _ = said(newest_error, seed=2)
    assert share_of_newest(losses_at(champion, newest, labels), 40) == share


def test_few_rows_choose_no_share_by_chance():
    shares = []
    for first in range(0, 400, 80):
        champion, labels = said(0.8, seed=1)
        newest, _ = said(0.8, seed=2)
        few = slice(first, first + 80)
        shares.append(share_of_newest(losses_at(champion[few], newest[few], labels[few]), 20))
    assert shares.count(0.5) >= 4


@pytest.mark.parametrize("task", ALL_TASKS)
def test_a_blend_answers_the_mean_of_its_networks_whatever_their_vocabularies(task: Task):
    whole = rows(1_600, task=task)
    lines = whole.texts.copy()
    lines[:800][lines[:800] == "green"] = "blue"  # the first model has not seen it
    found = replace(whole, texts=lines)
    first = trained_on(part(found, 0, 800), task=task).model
    second = trained_on(part(found, 800, 1_600), task=task).model
    assert first.spec["vocabularies"] != second.spec["vocabularies"]
    blend = blend_of(first, second, 0.75)
    odd, texts = found.numbers.copy(), found.texts.copy()
    odd[0], odd[1], texts[2] = [np.nan] * 3, [1e30, -1e30, 1e6], "a line that nobody has seen"
    ours, theirs = (logits_of(task, model.predict(odd, texts)) for model in (second, first))
    expected = answers_of(task, 0.75 * ours + 0.25 * theirs)
    tolerance = 1e-2 if task == "regression" else 1e-5
    assert blend.predict(odd, texts) == pytest.approx(expected, abs=tolerance)
    assert logits_of(task, blend.predict(odd[3:4], texts[3:4])) == pytest.approx(
        logits_of(task, blend.predict(odd, texts))[3:4], abs=1e-5
    )
    means = mean_of(blend, odd, texts)
    assert blend.predict(odd, texts) == pytest.approx(answers_of(task, means), abs=tolerance)


def alike(task: Task) -> tuple[ScoringModel, Trained, Trained]:
    """A champion of a world that stands still, and twice what came of some new rows later."""
    whole = rows(2_800, task=task)
    champion = trained_on(part(whole, 0, 2_000), task=task, epochs=40).model
    settings, asked = replace(QUICK, epochs=40), Asked(recent_rows=1_200)
    first, second = (train(TASKS[task], whole, 0, champion, 1, settings, lambda line: None, asked) for _ in range(2))
    return champion, first, second


@pytest.mark.parametrize("task", ALL_TASKS)
def test_in_a_world_that_stands_still_a_new_fit_joins_the_champion_and_both_do_better(task: Task):
    champion, found, again = alike(task)
    assert 0.0 < found.metrics["newest_share"] < 1.0
    assert len(found.spec["members"]) == 2
    assert math.fsum(member["weight"] for member in found.spec["members"]) == pytest.approx(1.0)
    assert (found.model_digest, found.onnx) == (again.model_digest, again.onnx)
    assert found.metrics[f"candidate_blend_{'squared_error' if task == 'regression' else 'log_loss'}"] > 0.0
    assert is_compatible(TASKS[task], found.model)
    assert found.trained_rows == found.spec["trained_rows"] >= champion.spec["trained_rows"]


def test_after_a_change_what_the_champion_believed_is_left_out():
    whole = rows(4_000, turned=["blue", "red", "green"], turned_from=3_000)
    champion = trained_on(part(whole, 0, 3_000)).model
    found = trained_on(whole, 3_000 * STEP_US, champion)
    assert found.metrics["newest_share"] == 1.0
    assert "members" not in found.spec


def test_a_blend_of_blends_keeps_its_heaviest_networks_and_stays_bounded():
    whole = rows(7_000)
    champion = trained_on(part(whole, 0, 2_000), epochs=40).model
    sizes = []
    for end in range(3_000, 8_000, 1_000):
        settings, asked = replace(QUICK, epochs=40), Asked(recent_rows=2_000)
        found = train(trips, part(whole, 0, end), 0, champion, end, settings, lambda line: None, asked)
        champion = found.model
        sizes.append(len(champion.spec.get("members", "1")))
    assert max(sizes) == MEMBERS_MAX


def test_the_least_weighted_leave_first_and_of_equals_the_older():
    one = members_of(trained_on(rows(400), epochs=1).model, 0.0)[0]
    members = [replace(one, weight=weight) for weight in (0.4, 0.2, 0.4)]
    assert [member.weight for member in heaviest(members, 2)] == [0.5, 0.5]
    assert heaviest(members, 1)[0].network is members[2].network
    assert [type(member) for member in joined(members, one, 1.0)] == [Member]


def test_a_champion_that_has_seen_the_held_out_rows_cannot_be_weighed():
    whole = rows(1_500)
    champion = trained_on(whole).model
    assert trained_on(whole, champion=champion).metrics["newest_share"] == 1.0
