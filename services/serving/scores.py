"""Decides which of a model's answers may be passed on: a probability, a distribution over the classes, a finite number; pure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from driftloop.usecase import SUM_TOLERANCE, Prediction
from services.serving.wire import rows_of

Floats = npt.NDArray[np.float64]
_NO_CLASSES: Sequence[float] = ()
_SHOWN_CLASSES = 5  # of an answer that is refused


class Said(NamedTuple):
    """One row's usable answer: `score` as in `PredictResponse`; `class_probabilities` in declared order, multiclass only."""

    score: float
    class_probabilities: Sequence[float]


def prior(predict: Prediction, model: object) -> Said | None:
    """What is said where no model can be asked: the mean label or the classes' frequencies that `model` was trained on.

    None where the model does not know them.
    """
    found = np.asarray(getattr(model, "prior", ()), dtype=np.float64)
    said, why = usable(predict, found[None, :] if predict.task == "multiclass" else found, 1)
    return None if why else said[0]


def usable(predict: Prediction, found: Floats, rows: int) -> tuple[list[Said | None], str]:
    """A model's answers by row, None where one is unusable, and why; "" if all are usable.

    found: what the model returned for `rows` rows, of whatever shape.
    """
    if predict.task == "binary" and found.shape == (rows,):
        scores = found.tolist()
        if all([0.0 <= score <= 1.0 for score in scores]):  # as nearly always, and without numpy's price for a few rows
            return [*rows_of(Said, scores, repeat(_NO_CLASSES))], ""
    expected = (rows, len(predict.classes)) if predict.task == "multiclass" else (rows,)
    if found.shape != expected:
        return [None] * rows, f"answered with shape {found.shape} for {rows} rows"
    if predict.task == "multiclass":
        # NaN fails every comparison.
        fine = ((found >= 0.0) & (found <= 1.0)).all(axis=1) & (np.abs(found.sum(axis=1) - 1.0) <= SUM_TOLERANCE)
        most = found.max(axis=1, initial=0.0).tolist()
        said: list[Said | None] = [
            Said(score, chances) if good else None
            for score, chances, good in zip(most, found.tolist(), fine.tolist(), strict=True)
        ]
        what = "no distribution over the classes"
    elif predict.task == "binary":
        fine = (found >= 0.0) & (found <= 1.0)
        said = [Said(score, []) if 0.0 <= score <= 1.0 else None for score in found.tolist()]
        what = "no probability"
    else:
        fine = np.isfinite(found)
        said = [Said(score, []) if good else None for score, good in zip(found.tolist(), fine.tolist(), strict=True)]
        what = "no finite number"
    if fine.all():
        return said, ""
    wrong = np.atleast_1d(found[int(np.argmin(fine))]).tolist()
    shown = ", ".join(f"{value:g}" for value in wrong[:_SHOWN_CLASSES]) + (", …" if len(wrong) > _SHOWN_CLASSES else "")
    return said, f"answered {shown if predict.task != 'multiclass' else f'[{shown}]'}, which is {what}"
