"""Explanations: they are Shapley values, add up, and are the same every time."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftloop.contracts.serving.v1.serving_pb2 import Vector
from driftloop.usecase import load_use_case
from services.serving.explanation import Explanation, explain, explained


class Scoring:
    """A function of numbers (rows, 3) and codes (rows, 1) with a background of its own."""

    def __init__(self, function: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> None:
        self._function = function
        self.spec: Mapping[str, Any] = {
            "background": {
                "numbers": [[0.0, 1.0, None], [2.0, -1.0, 0.5], [1.0, 3.0, 2.0]],
                "texts": [["a"], ["b"], ["a"]],
            }
        }

    def codes(self, texts: Sequence[Sequence[str]]) -> np.ndarray:
        return np.array([[ord(text) - ord("a") for text in row] for row in texts])

    def score(self, numbers: np.ndarray, codes: np.ndarray) -> np.ndarray:
        return self._function(np.nan_to_num(numbers, nan=-1.0), codes)

    def one(self, numbers: Sequence[float], code: int) -> np.ndarray:
        return self.score(np.array([numbers]), np.array([[code]]))[0]


def exact(scoring: Scoring, numbers: Sequence[float], code: int) -> list[float]:
    """Shapley values by their definition: the mean over all orders and all rows of the background."""
    background = scoring.spec["background"]
    own = [*numbers, code]
    total = np.zeros(4)
    starts = [
        [*(math.nan if value is None else value for value in row), float(scoring.codes([texts])[0, 0])]
        for row, texts in zip(background["numbers"], background["texts"], strict=True)
    ]
    for start in starts:
        for order in itertools.permutations(range(4)):
            now = list(start)
            for each in order:
                before = scoring.one(now[:3], int(now[3]))
                now[each] = own[each]
                total[each] += scoring.one(now[:3], int(now[3])) - before
    return list(total / (len(starts) * 24))


def interacting(numbers: np.ndarray, codes: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-(numbers[:, 0] * numbers[:, 1] + 0.5 * numbers[:, 2] * (codes[:, 0] == 1) - 0.3)))


def test_contributions_are_close_to_shapley_values_by_definition() -> None:
    scoring = Scoring(interacting)
    found = explain(scoring, [1.5, 0.5, -2.0], ["b"])
    assert found.contributions == pytest.approx(exact(scoring, [1.5, 0.5, -2.0], 1), abs=0.01)


def test_contributions_to_a_sum_are_exact() -> None:
    scoring = Scoring(lambda numbers, codes: numbers @ np.array([0.1, -0.2, 0.3]) + codes[:, 0])
    found = explain(scoring, [1.0, 2.0, 3.0], ["c"])
    means = [1.0, 1.0, 0.5]  # of the background, its missing value counting -1
    assert found.contributions == pytest.approx(
        [0.1 * (1.0 - means[0]), -0.2 * (2.0 - means[1]), 0.3 * (3.0 - means[2]), 2 - 1 / 3]
    )


@settings(max_examples=25)
@given(st.lists(st.floats(-5, 5) | st.just(math.nan), min_size=3, max_size=3), st.sampled_from("abc"))
def test_contributions_add_up_to_the_score_less_the_backgrounds_mean_and_repeat(
    numbers: list[float], text: str
) -> None:
    scoring = Scoring(interacting)
    found = explain(scoring, numbers, [text])
    assert sum(found.contributions) == pytest.approx(found.score - found.base)
    assert found == explain(scoring, numbers, [text])
    background = scoring.spec["background"]
    rows = np.array([[math.nan if v is None else v for v in row] for row in background["numbers"]])
    assert found.base == pytest.approx(scoring.score(rows, scoring.codes(background["texts"])).mean())


def test_of_several_classes_the_most_likely_one_is_explained() -> None:
    def classes(numbers: np.ndarray, codes: np.ndarray) -> np.ndarray:
        first = interacting(numbers, codes)
        return np.stack([first / 2, 1 - first, first / 2], axis=1)

    found = explain(Scoring(classes), [-3.0, 3.0, 0.0], ["a"])
    assert found.place == 1
    assert found.score > 0.9
    assert found.contributions[0] > 0


def test_what_was_told_is_of_the_class_that_is_explained_also_where_another_became_likelier() -> None:
    flights = load_use_case("flights")
    kinds = replace(flights, predict=replace(flights.predict, task="multiclass", classes=("late", "early")))
    vector = Vector(numbers=[1.0] * len(kinds.numeric_inputs), texts=["a"] * len(kinds.text_inputs))
    inputs = len(kinds.numeric_inputs) + len(kinds.text_inputs)
    made = Explanation(score=0.6, base=0.5, contributions=[0.1 / inputs] * inputs, place=0, background_rows=3)
    found = explained(kinds, "p1", "m1", vector, made, 0.6, [0.3, 0.7])
    assert (found.explained_class, found.score, found.answered) == ("late", 0.6, 0.3)
