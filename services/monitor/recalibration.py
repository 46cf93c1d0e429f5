"""Learns from late labels how a model's scores are to be read, between two trainings and without one; pure.

Three scalings (see `driftloop.recalibration`) learn from every mature label by online Newton steps, each forgetting at its own pace,
and stand beside the score as it is. Each weighs as much in the answer as it has lately been right (fixed share: Herbster & Warmuth,
"Tracking the best expert", 1998), so that the answers' loss is never much above that of the scores as they are, and near that of the
best scaling of every stretch. Right is what it was when the row was asked about, of labels that were known by then: where labels
are late and the world is fickle, what has just been learned is often wrong by the time it is of use. Errors of numbers count within
a few deviations, as everywhere: one wild label must not move answers.
Online Platt scaling: Gupta & Ramdas, "Online Platt scaling with calibeating", 2023.

Only answers change. What drift, trials and gates are judged by stays the models' own scores: no recalibration hides a change.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np

from driftloop.contracts import UNSET_US
from driftloop.contracts.monitor.v1.monitor_pb2 import Recalibration
from driftloop.recalibration import Floats, Scalings, inputs
from driftloop.usecase import Answer, Task
from services.monitor.scalings import learning_of

BLOCK_LABELS = 10  # per step: a step per label gains nothing more, and costs as much as ten
HALF_LIVES_LABELS = (20.0, 160.0, 1280.0)
PRIOR_SHARE = 0.5  # of the answer that all scalings have before anything is known of them
SWITCH_SHARE = 0.02  # of the weights that goes back to that with every block: yesterday's best need not be today's
WEIGHT_RATE = 1.0 / 16.0  # of what losses say of the weights: neighbours are alike, and this burst will be over
SHIFT_DEVIATIONS_MIN = 0.03  # mean change of answers that is worth telling, in deviations of what they leave open
HISTORY_NUMBERS_MAX = 12_000  # of earlier parameters, 2,000 steps of a probability; rows of before: by the oldest
_NATS_MAX = 30.0


class _Row(NamedTuple):
    """A row with a mature label, and when it was asked about."""

    answer: Answer
    label: float
    as_of_us: int


class _Model:
    """What is known of one model's scores."""

    def __init__(self, task: Task, outputs: int, late_us_max: int) -> None:
        self._task, self._late_us_max = task, late_us_max
        self._learning = learning_of(task, outputs)
        self.parameters = np.tile(self._learning.start, (len(HALF_LIVES_LABELS), 1))  # (scalings, parameters)
        # What they were from which clock on, oldest first, as far back as a row may lie whose label matures now.
        self.history: list[tuple[int, Floats]] = [(UNSET_US, self.parameters)]
        self.curvature = np.array([self._learning.prior] * len(HALF_LIVES_LABELS))
        self.weights = _prior_weights()
        self.labels = 0
        self.told = Recalibration()  # empty: that the scores are the answers
        self.newest: Floats = np.empty(0)  # scores of the newest block
        self._change: float | None = 0.0  # of the newest answers since it was told; None: not known
        self.waiting: list[_Row] = []

    @property
    def scalings(self) -> Scalings:
        """What has been learned."""
        return self._learning.scalings(self.weights[1:], self.parameters)

    def learned(self, row: _Row, clock_us: int) -> None:
        """Takes a row in; every so many rows it learns from them, for rows that are asked about from a clock on."""
        if isinstance(row.answer, Sequence) and not row.label < len(row.answer):
            return  # a class that was declared after the model was made
        self.waiting.append(row)
        if len(self.waiting) < BLOCK_LABELS:
            return
        rows, self.waiting = sorted(self.waiting, key=lambda row: row.as_of_us), []
        scores = np.array([row.answer for row in rows], dtype=np.float64)
        labels = np.array([row.label for row in rows])
        self.newest = scores
        self.labels += len(labels)
        prepared = inputs(self._task, scores)
        self._weigh([scores, *self._as_known(rows, prepared)], labels)
        scaled = self.scalings.each(self._task, prepared)
        self.parameters = self.parameters.copy()
        for place, half_life in enumerate(HALF_LIVES_LABELS):
            kept = 0.5 ** (len(labels) / half_life)
            self.parameters[place], self.curvature[place] = self._learning.stepped(
                self.parameters[place], self.curvature[place], kept, prepared, scaled[place], labels
            )
        self.history.append((clock_us, self.parameters))
        kept_max = max(1, HISTORY_NUMBERS_MAX // self.parameters.size)
        del self.history[: max(len(self.history) - kept_max, self._place(clock_us - self._late_us_max))]
        self._change = None

    def _as_known(self, rows: Sequence[_Row], prepared: Floats) -> Floats:
        """What each scaling would have made of rows, in order of time, when they were asked about."""
        places = [self._place(row.as_of_us) for row in rows]
        found = [
            self._learning.scalings(self.weights[1:], self.history[place][1]).each(
                self._task, prepared[[row for row, _ in group]]
            )
            for place, group in groupby(enumerate(places), key=lambda each: each[1])
        ]
        return np.concatenate(found, axis=1)

    def _place(self, as_of_us: int) -> int:
        return max(0, bisect_right(self.history, as_of_us, key=lambda known: known[0]) - 1)

    def _weigh(self, answers: Sequence[Floats], labels: Floats) -> None:
        """The weights follow the losses of the scores as they are and of each scaling."""
        losses = self._learning.losses(answers, labels)
        weights = self.weights * np.exp(-WEIGHT_RATE * np.minimum(losses - losses.min(), _NATS_MAX))
        self.weights = (1.0 - SWITCH_SHARE) * weights / weights.sum() + SWITCH_SHARE * _prior_weights()

    @property
    def change(self) -> float:
        """The mean change of the newest answers by what has been learned since it was told last; 0: it is not worth telling."""
        if self._change is None:
            told = Scalings.of(self.told)
            before = self.newest if told is None else told.applied(self._task, self.newest)
            change = float(np.abs(self.scalings.applied(self._task, self.newest) - before).mean())
            self._change = change if change > SHIFT_DEVIATIONS_MIN * self._learning.deviation(before) else 0.0
        return self._change

    def tell(self) -> Recalibration:
        """What has been learned, which counts as told; as it was told last where nothing worth telling has been since."""
        if self.change:
            self.told, self._change = self.scalings.message(self.labels), 0.0
        return self.told

    def snapshot(self) -> list[Any]:
        """State as plain values."""
        arrays = (self.curvature, self.weights, self.newest)
        history = [[from_us, parameters.tolist()] for from_us, parameters in self.history]
        told, waiting = self.told.SerializeToString(), list(map(list, self.waiting))
        return [history, *(array.tolist() for array in arrays), self._learning.variance, self.labels, told, waiting]

    def restore(self, state: Sequence[Any]) -> None:
        """Takes a snapshot back."""
        history, curvature, weights, newest, self._learning.variance, self.labels, told, waiting = state
        self.history = [(from_us, np.array(parameters)) for from_us, parameters in history]
        self.parameters, self.curvature = self.history[-1][1], np.array(curvature)
        self.weights, self.newest = np.array(weights), np.array(newest)
        self.told = Recalibration.FromString(told)
        self.waiting = [_Row(*row) for row in waiting]
        self._change = None if len(self.newest) else 0.0


class Recalibrations:
    """What late labels say of the scores of every model that scores production's rows."""

    def __init__(self, task: Task, late_us_max: int) -> None:
        """late_us_max: how long after a row was asked about its label may mature."""
        self._task, self._late_us_max = task, late_us_max
        self._models: dict[str, _Model] = {}

    def labelled(self, answers: Mapping[str, Answer], label: float, as_of_us: int, clock_us: int) -> None:
        """A row that was asked about at one clock has a mature label at another: what each model said of it."""
        for model_id, answer in answers.items():
            model = self._models.get(model_id)
            if model is None:
                outputs = len(answer) if isinstance(answer, Sequence) else 1
                model = self._models[model_id] = _Model(self._task, outputs, self._late_us_max)
            model.learned(_Row(answer, label, as_of_us), clock_us)

    def change(self, scoring: Collection[str], answering: Collection[str]) -> float:
        """By how much the newest answers of one of the models that answer would change if it were told, on average; 0: no news.

        Models that do not score are forgotten: what is scored no more is learned anew when it comes back.
        """
        self._models = {model_id: model for model_id, model in self._models.items() if model_id in scoring}
        return max((model.change for model_id, model in self._models.items() if model_id in answering), default=0.0)

    def tell(self, model_id: str) -> Recalibration | None:
        """A model's recalibration, which counts as told; None where its scores are the answers."""
        model = self._models.get(model_id)
        found = None if model is None else model.tell()
        return found if found is not None and found.scalings else None

    def forget(self) -> bool:
        """Forgets all models; whether any had been told."""
        had_told = any(model.told.scalings for model in self._models.values())
        self._models = {}
        return had_told

    def snapshot(self) -> dict[str, Any]:
        """State as plain values."""
        return {model_id: model.snapshot() for model_id, model in self._models.items()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes a snapshot back."""
        self._models = {}
        for model_id, kept in state.items():
            outputs = max(1, len(kept[0][0][1][0]) - 1)
            self._models[model_id] = _Model(self._task, outputs, self._late_us_max)
            self._models[model_id].restore(kept)


def _prior_weights() -> Floats:
    share = PRIOR_SHARE / len(HALF_LIVES_LABELS)
    return np.array([1.0 - PRIOR_SHARE] + [share] * len(HALF_LIVES_LABELS))
