"""What each input contributed to one prediction: Shapley values against the background that the model's bundle holds; pure.

An input's contribution is the mean change of the score when it takes the explained row's value, over orders in which the
inputs do so one after another, starting from a row of the background (Shapley values of the interventional game, sampled by
permutations: Castro, Gómez, Tejada, "Polynomial calculation of the Shapley value based on sampling", 2009). Every order is
used backwards, too (antithetic pairs: Mitchell, Cooper, Frank, Holmes, "Sampling Permutations for Shapley Value Estimation",
2022). Orders are drawn once from a fixed seed, so the same model and row give the same numbers, and contributions add up to
the score less the background's mean score.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from driftloop.contracts.serving.v1.serving_pb2 import Attribution, ExplainResponse, Vector
from driftloop.usecase import Answer, UseCase

METHOD = "permutation Shapley values, interventional, antithetic"
SCORED_ROWS = 4_000  # of the model: some milliseconds, whatever the number of inputs
_SEED = 20_130_101
Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]


class Scoring(Protocol):
    """A model as it is published; see `driftloop.scoring.ScoringModel`."""

    spec: Mapping[str, Any]

    def codes(self, texts: Sequence[Sequence[str]]) -> Codes:
        """Codes (rows, text inputs) of texts."""
        ...

    def score(self, numbers: Floats, codes: Codes) -> Floats:
        """Answers, (rows,) or (rows, classes)."""
        ...


class Explanation(NamedTuple):
    """Contributions in the order numeric inputs, then text inputs; they sum to score less base.

    `place`: of the explained class among the classes, multiclass only.
    """

    score: float
    base: float
    contributions: list[float]
    place: int
    background_rows: int


def is_explainable(model: object) -> bool:
    """Whether a model's bundle holds a background, and its scoring takes codes."""
    scoring = getattr(model, "scoring", None)
    return hasattr(scoring, "score") and bool(getattr(scoring, "spec", {}).get("background"))


def explain(scoring: Scoring, numbers: Sequence[float], texts: Sequence[str]) -> Explanation:
    """Explains the answer to one row: the value, the probability, or that of the most likely class."""
    background = scoring.spec["background"]
    rows = len(background["texts"])
    base_numbers = np.array(
        [[np.nan if value is None else value for value in row] for row in background["numbers"]], dtype=np.float64
    ).reshape(rows, -1)
    base_codes = scoring.codes(background["texts"])
    own_numbers, own_codes = np.array(numbers, dtype=np.float64), scoring.codes([texts])[0]
    answer = scoring.score(own_numbers[None, :], own_codes[None, :])
    place = int(np.argmax(answer[0])) if answer.ndim == 2 else 0

    inputs = len(own_numbers) + len(own_codes)
    orders, taken = _walks(inputs, rows)
    starts = np.repeat(np.arange(len(orders)) % rows, inputs + 1)
    flat = taken.reshape(-1, inputs)
    walked = scoring.score(
        np.where(flat[:, : len(own_numbers)], own_numbers, base_numbers[starts]),
        np.where(flat[:, len(own_numbers) :], own_codes, base_codes[starts]),
    )
    scores = (walked if walked.ndim == 1 else walked[:, place]).reshape(len(orders), inputs + 1)
    contributions = np.zeros(inputs)
    np.add.at(contributions, orders, np.diff(scores, axis=1))
    contributions /= len(orders)
    score = float(answer[0] if answer.ndim == 1 else answer[0, place])
    return Explanation(score, float(scores[:, 0].mean()), contributions.tolist(), place, rows)


def explained(
    use_case: UseCase,
    prediction_id: str,
    model_id: str,
    vector: Vector,
    made: Explanation,
    score: float | None = None,
    answered: Answer | None = None,
) -> ExplainResponse:
    """The answer to a caller, the largest contributions first. `score`: the model's own that was logged; `answered`: what was told."""
    numeric, textual = use_case.numeric_inputs, use_case.text_inputs
    unknown = {name for name, value in zip(numeric, vector.numbers, strict=True) if math.isnan(value)}
    unknown |= {name for name, value in zip(textual, vector.texts, strict=True) if not value}
    contributions = iter(made.contributions)
    found: list[Attribution] = [
        Attribution(input=name, number=value, contribution=next(contributions), missing=name in unknown)
        for name, value in zip(numeric, vector.numbers, strict=True)
    ]
    found += [
        Attribution(input=name, text=value, contribution=next(contributions), missing=name in unknown)
        for name, value in zip(textual, vector.texts, strict=True)
    ]
    found.sort(key=lambda each: -abs(each.contribution))
    classes = use_case.predict.classes
    return ExplainResponse(
        prediction_id=prediction_id,
        model_id=model_id,
        score=made.score if score is None else score,
        base=made.base,
        explained_class=classes[made.place] if classes else "",
        attributions=found,
        method=METHOD,
        background_rows=made.background_rows,
        answered=answered[made.place] if isinstance(answered, Sequence) else answered,
    )


@lru_cache(maxsize=8)
def _walks(inputs: int, rows: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Orders (walks, inputs) and which inputs are taken after each step (walks, inputs + 1, inputs).

    Each row of the background starts equally many walks, and both walks of an antithetic pair.
    """
    draw = np.random.default_rng(_SEED)
    pairs = rows * max(1, SCORED_ROWS // ((inputs + 1) * 2 * rows))
    forward = np.array([draw.permutation(inputs) for _ in range(pairs)]).reshape(pairs, inputs)
    orders = np.concatenate([forward, forward[:, ::-1]])
    ranks = np.argsort(orders, axis=1)
    taken = ranks[:, None, :] < np.arange(inputs + 1)[None, :, None]
    return orders, taken
