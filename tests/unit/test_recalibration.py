"""Recalibration: how scores become answers, and how late labels teach it."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftloop.contracts.monitor.v1.monitor_pb2 import Recalibration, Scaling
from driftloop.recalibration import Scalings, inputs
from driftloop.usecase import Answer, Task, row_loss
from services.monitor.recalibration import BLOCK_LABELS, Recalibrations
from services.monitor.scalings import learning_of

LATE = 700  # rows, which are the clock here
Floats = npt.NDArray[np.float64]
chances = st.floats(0.0, 1.0)


def scalings(*parts: tuple[float, float, list[float]]) -> Scalings:
    message = Recalibration(scalings=[Scaling(weight=w, slope=slope, intercepts=i) for w, slope, i in parts])
    found = Scalings.of(message)
    assert found is not None
    return found


def logit(chance: float) -> float:
    return math.log(chance / (1.0 - chance))


def sigmoid(value: Floats) -> Floats:
    return 1.0 / (1.0 + np.exp(-value))


# What a block of labels says


def test_one_calm_block_does_not_make_numbers_errors_small():
    learning, labels = learning_of("regression", 1), np.zeros(10)
    for _ in range(30):
        learning.losses([np.array([-1.0, 1.0] * 5)], labels)
    learning.losses([labels], labels)
    assert learning.deviation(labels) == pytest.approx(0.9**0.5)


@pytest.mark.parametrize(("task", "sure"), [("binary", [1.0] * 10), ("multiclass", [[0.0, 1.0]] * 10)])
def test_a_model_that_is_sure_and_wrong_once_is_moved_by_a_bounded_step(task, sure):
    learning, scores, labels = learning_of(task, 2), inputs(task, np.array(sure)), np.array([0.0] + [1.0] * 9)
    parameters, curvature = learning.start[None], learning.prior
    for _ in range(100):
        scaled = learning.scalings(np.ones(1), parameters).each(task, scores)[0]
        moved, curvature = learning.stepped(parameters[0], curvature, 0.5, scores, scaled, labels)
        assert np.abs(moved - parameters[0]).max() < 3.0
        parameters = moved[None]


# How it is applied


def test_a_scaling_moves_logits_and_shares_the_answer_with_the_score_as_it_is():
    told = scalings((0.5, 2.0, [1.0])).applied("binary", np.array([0.3]))
    assert told[0] == pytest.approx(0.5 * 0.3 + 0.5 * float(sigmoid(np.array(2.0 * logit(0.3) + 1.0))))


def test_numbers_are_moved_by_the_mean_of_the_intercepts():
    assert scalings((0.25, 1.0, [8.0]), (0.25, 1.0, [-4.0])).applied("regression", np.array([10.0])) == pytest.approx(
        [11.0]
    )


def test_classes_gain_and_lose_by_their_intercepts():
    told = scalings((1.0, 1.0, [0.0, math.log(3.0)])).applied("multiclass", np.array([[0.5, 0.5]]))
    assert told[0] == pytest.approx([0.25, 0.75])


@given(st.lists(chances, min_size=1, max_size=70), st.floats(-50, 50), st.floats(-50, 50))
def test_answers_are_probabilities_and_the_same_alone_as_in_a_batch(
    scores: list[float], slope: float, intercept: float
):
    recalibration = scalings((0.4, slope, [intercept]), (0.3, 1.0, [0.0]))
    together = recalibration.applied("binary", np.array(scores))
    assert ((together >= 0.0) & (together <= 1.0)).all()
    assert together.tolist() == [recalibration.applied("binary", np.array([score]))[0] for score in scores]


@given(
    st.lists(st.tuples(chances, chances, chances), min_size=1, max_size=40),
    st.lists(st.floats(-9, 9), min_size=3, max_size=3),
)
def test_answers_are_distributions_and_the_same_alone_as_in_a_batch(
    weights: list[tuple[float, ...]], intercepts: list[float]
):
    scores = np.array(weights) + 1e-6
    scores /= scores.sum(axis=1, keepdims=True)
    recalibration = scalings((0.7, 1.5, intercepts))
    together = recalibration.applied("multiclass", scores)
    assert together.sum(axis=1) == pytest.approx(np.ones(len(scores)))
    alone = [recalibration.applied("multiclass", row[None, :])[0] for row in scores]
    assert np.array_equal(together, np.array(alone))


def test_an_absent_recalibration_is_none_and_a_ragged_or_endless_one_is_refused():
    assert Scalings.of(Recalibration()) is None
    with pytest.raises(ValueError, match="different numbers"):
        scalings((0.5, 1.0, [0.0]), (0.5, 1.0, [0.0, 1.0]))
    with pytest.raises(ValueError, match="finite"):
        scalings((0.5, math.nan, [0.0]))


# How it is learned


class World:
    """Rows with labels, the answers that follow from what is told as production would, and their losses."""

    def __init__(self, task: Task, scale: float = 1.0) -> None:
        self.heart = Recalibrations(task, LATE)
        self._task, self._scale = task, scale
        self.raw: list[float] = []
        self.answered: list[float] = []
        self.told = self.rows = 0
        self.recalibration: Recalibration | None = None

    def see(self, said: Answer, label: float) -> None:
        found = None if self.recalibration is None else Scalings.of(self.recalibration)
        answer: Answer = said
        if found is not None:
            answer = found.applied(self._task, np.array([said]))[0].tolist()
        self.raw.append(row_loss(self._task, said, label, self._scale))
        self.answered.append(row_loss(self._task, answer, label, self._scale))
        self.rows += 1
        self.heart.labelled({"m": said}, label, self.rows, self.rows)
        if self.heart.change(["m"], ["m"]):
            self.told += 1
            self.recalibration = self.heart.tell("m")


def binary(seed: int, rows: int, said: object, world: World | None = None) -> World:
    """Rows whose true chance is known; `said` makes a model's score of it."""
    world = World("binary") if world is None else world
    draw = np.random.default_rng(seed)
    for _ in range(rows):
        true = float(sigmoid(draw.normal(0.0, 1.5)))
        world.see(float(said(true)), float(draw.random() < true))  # type: ignore[operator]
    return world


@pytest.mark.parametrize("seed", range(5))
def test_scores_that_are_right_are_answered_nearly_as_they_are(seed: int):
    world = binary(seed, 6_000, lambda chance: chance)
    assert np.mean(world.answered) <= 1.003 * np.mean(world.raw)


@pytest.mark.parametrize("seed", range(5))
def test_a_model_that_is_too_sure_is_answered_less_surely_after_a_few_hundred_labels(seed: int):
    world = binary(seed, 2_000, lambda chance: sigmoid(np.array(3.0 * logit(chance))))
    right = binary(seed, 2_000, lambda chance: chance)
    assert np.mean(world.answered[400:]) < 1.03 * np.mean(right.raw[400:]) < np.mean(world.raw[400:])


def test_a_concept_that_turns_over_costs_some_tens_of_labels_and_not_a_training():
    world = binary(1, 2_000, lambda chance: chance)
    binary(2, 1_000, lambda chance: 1.0 - chance, world)
    assert np.mean(world.answered[2_200:]) < np.log(2.0) < np.mean(world.raw[2_200:])
    assert np.mean(world.answered[2_500:]) < 0.62


def test_what_is_wrong_again_by_the_time_it_is_of_use_is_not_answered_by():
    heart, draw = Recalibrations("binary", LATE), np.random.default_rng(9)
    late, swings = 600, 600  # of rows: labels come when the world has turned over
    raw, answered, told = [], [], []
    for row in range(12_000):
        label = float(draw.random() < (0.8 if row // swings % 2 else 0.2))
        recalibration = heart.tell("m")
        scalings_then = None if recalibration is None else Scalings.of(recalibration)
        said = 0.5 if scalings_then is None else float(scalings_then.applied("binary", np.array([0.5]))[0])
        told.append(label)
        raw.append(row_loss("binary", 0.5, label))
        answered.append(row_loss("binary", said, label))
        if row >= late:
            heart.labelled({"m": 0.5}, told[row - late], row - late, row)
    assert np.mean(answered) < 1.05 * np.mean(raw)


def test_classes_that_have_become_frequent_are_said_to_be():
    world, draw = World("multiclass"), np.random.default_rng(3)
    for _ in range(1_500):
        world.see([0.6, 0.2, 0.2], float(draw.choice(3, p=[0.1, 0.1, 0.8])))
    entropy = -(0.1 * math.log(0.1) * 2 + 0.8 * math.log(0.8))
    assert np.mean(world.answered[500:]) < entropy + 0.04 < np.mean(world.raw[500:])


def test_numbers_that_lie_off_by_a_constant_are_moved_by_it():
    world, draw = World("regression"), np.random.default_rng(4)
    for _ in range(1_000):
        true = float(draw.normal())
        world.see(true + 5.0 + float(draw.normal(0.0, 0.1)), true)
    assert np.mean(world.raw[300:]) == 4.0
    assert np.mean(world.answered[300:]) < 0.15


@given(st.lists(st.tuples(chances, st.booleans()), min_size=0, max_size=400))
def test_whatever_is_told_answers_stay_probabilities_and_keep_a_part_of_the_score(rows: list[tuple[float, bool]]):
    world = World("binary")
    for score, label in rows:
        world.see(score, float(label))
    told = world.recalibration
    if told is not None:
        assert sum(scaling.weight for scaling in told.scalings) <= 1.0 - 0.5 * 0.02 + 1e-9
        numbers = [number for s in told.scalings for number in (s.slope, *s.intercepts)]
        assert np.isfinite(numbers).all()


def test_news_is_told_only_where_it_moves_answers():
    calm = binary(5, 4_000, lambda chance: chance)
    assert calm.told < 4_000 / BLOCK_LABELS / 4
    assert not calm.heart.change(["m"], ["m"])  # told already


def test_a_model_that_scores_no_more_is_forgotten_and_learned_anew():
    world = binary(6, 400, lambda chance: 1.0 - chance)
    assert world.heart.tell("m") is not None
    world.heart.change(["other"], ["other"])
    assert world.heart.tell("m") is None


def test_a_class_that_the_model_does_not_know_teaches_nothing():
    heart = Recalibrations("multiclass", LATE)
    for _ in range(10 * BLOCK_LABELS):
        heart.labelled({"m": [0.5, 0.5]}, 2.0, 1, 2)
    assert heart.tell("m") is None


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_a_restored_state_goes_on_as_if_nothing_had_happened(task: Task):
    one, other = Recalibrations(task, LATE), Recalibrations(task, LATE)
    draw = np.random.default_rng(7)
    for row in range(500):
        score = float(draw.uniform(0.05, 0.95))
        said: Answer = [score, 1.0 - score] if task == "multiclass" else score
        label = float(draw.random() < 0.7)
        one.labelled({"m": said}, label, row, row + 90)
        one.tell("m")
        if row == 249:
            other.restore(one.snapshot())
        elif row > 249:
            other.labelled({"m": said}, label, row, row + 90)
            other.tell("m")
    assert one.tell("m") == other.tell("m") is not None
    assert one.snapshot() == other.snapshot()


@pytest.mark.parametrize("wild", [1e3, 1e6, 1e200])
def test_one_wild_label_or_score_moves_no_answers(wild: float):
    world, draw = World("regression"), np.random.default_rng(10)
    for row in range(2_000):
        true = float(draw.normal())
        said = true + float(draw.normal())
        world.see(wild if row == 1_200 else said, wild if row == 1_000 else true)
    assert np.mean(world.answered[1_201:1_400]) < 1.1 * np.mean(world.raw[1_201:1_400])
    assert world.recalibration is None or Scalings.of(world.recalibration) is not None


def test_numbers_that_jump_by_many_deviations_are_followed():
    world, draw = World("regression", scale=400.0), np.random.default_rng(11)
    for row in range(2_000):
        true = float(draw.normal())
        world.see(true + (20.0 if row > 1_000 else 0.0) + float(draw.normal(0.0, 0.2)), true)
    assert np.mean(world.answered[1_400:]) < 0.02 * np.mean(world.raw[1_400:])


def test_a_row_of_long_ago_is_judged_by_what_was_known_then():
    """A cohort that waited for its last label comes behind many that did not."""
    hasty, patient = Recalibrations("binary", 10_000), Recalibrations("binary", 10_000)
    for heart, as_of in ((hasty, 5_000), (patient, 100)):
        for row in range(1_000):
            heart.labelled({"m": 0.5}, 1.0, row, row)
        for row in range(BLOCK_LABELS):
            heart.labelled({"m": 0.5}, 1.0, as_of, 5_000 + row)
    weights = [sum(s.weight for s in found.scalings) for heart in (hasty, patient) if (found := heart.tell("m"))]
    assert weights[0] > weights[1]


def test_only_models_that_answer_are_news():
    heart = Recalibrations("binary", LATE)
    for row in range(10 * BLOCK_LABELS):
        heart.labelled({"right": 0.9, "shadow": 0.5}, float(row % 10 > 0), row, row)
    assert heart.change(["right", "shadow"], ["right"]) == 0.0
    assert heart.change(["right", "shadow"], ["shadow"]) > 0.0
    assert heart.tell("shadow") is not None
