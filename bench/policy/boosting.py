"""scikit-learn's HistGradientBoosting as the model inside the same policy: same requests, rows, comparison and gates.

Trees cannot be trained further, so there is no candidate that starts from the champion; what is chosen is fitted again on all
of its rows, with as many trees as did best on the newest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

from driftloop.scoring import ScoringModel
from driftloop.usecase import LOSS_METRICS, Task, UseCase, label_scale
from services.trainer.attempts import TrainingSet, TrainingSettings
from services.trainer.candidates import Asked, Candidate, Setting, candidates, held_out_rows
from services.trainer.held_out import HeldOut
from services.trainer.measures import compared_losses, measures
from services.trainer.published import digest_of
from services.trainer.training import Trained

MAX_CODES = 254  # of a categorical input: scikit-learn's bound is 255, and 0 stands for what is not listed
Floats = npt.NDArray[np.float64]


class BoostedModel(ScoringModel):
    """Trees behind the same door as a published model."""

    def __init__(self, use_case: UseCase, rows: TrainingSet, task: Task, newest_row_us: int, scale: float) -> None:
        self.onnx, self.weights = b"", b""
        self.numeric_inputs, self.text_inputs = use_case.numeric_inputs, use_case.text_inputs
        self.inputs_digest = use_case.inputs_digest
        self._task, self._classes = task, len(use_case.predict.classes)
        self._codes = [_codes(rows.texts[:, column]) for column in range(rows.texts.shape[1])]
        self.trees: Any = None
        self.stages: int | None = None
        self.spec: dict[str, Any] = {
            "inputs_digest": use_case.inputs_digest,
            "numeric_inputs": list(use_case.numeric_inputs),
            "text_inputs": list(use_case.text_inputs),
            "vocabularies": [],
            "task": task,
            "classes": list(use_case.predict.classes),
            "newest_row_us": newest_row_us,
            "trained_rows": len(rows),
            "label_scale": scale,
        }

    def matrix(self, numbers: npt.ArrayLike, texts: Any) -> Floats:
        """Inputs as scikit-learn takes them: numbers, then codes."""
        codes = np.zeros((len(texts), len(self._codes)))
        for column, known in enumerate(self._codes):
            codes[:, column] = [known.get(row[column], 0) for row in texts]
        values = np.asarray(numbers, dtype=np.float64).reshape(len(texts), len(self.numeric_inputs))
        return np.concatenate([values, codes], axis=1)

    def fit(self, rows: TrainingSet, places: npt.NDArray[np.int64], seed: int, trees: int) -> None:
        """Fits so many trees to some rows; scikit-learn's own defaults otherwise."""
        numbers = len(self.numeric_inputs)
        known = {
            "max_iter": trees,
            "early_stopping": False,
            "random_state": seed,
            "categorical_features": list(range(numbers, numbers + len(self._codes))) or None,
        }
        kind = HistGradientBoostingRegressor if self._task == "regression" else HistGradientBoostingClassifier
        labels = rows.labels[places]
        self.trees = kind(**known).fit(
            self.matrix(rows.numbers[places], rows.texts[places]),
            labels if self._task == "regression" else labels.astype(int),
        )

    def staged(self, numbers: Floats, texts: Any) -> list[Floats]:
        """Answers of the first tree, the first two, and so on."""
        matrix = self.matrix(numbers, texts)
        if self._task == "regression":
            return list(self.trees.staged_predict(matrix))
        return [self._answers(found) for found in self.trees.staged_predict_proba(matrix)]

    def predict(self, numbers: npt.ArrayLike, texts: Any) -> Floats:
        """As ScoringModel."""
        matrix = self.matrix(numbers, texts)
        if self._task == "regression":
            return np.asarray(self.trees.predict(matrix), dtype=np.float64)
        return self._answers(self.trees.predict_proba(matrix))

    def _answers(self, found: Floats) -> Floats:
        if self._task == "binary":
            return np.asarray(found[:, 1])
        answers = np.zeros((len(found), self._classes))  # a class that no row had has no chance
        answers[:, self.trees.classes_] = found
        return answers


def _codes(texts: npt.NDArray[Any]) -> dict[str, int]:
    words, counts = np.unique(np.asarray(texts, dtype=str), return_counts=True)
    kept = sorted(words[np.argsort(-counts, kind="stable")][:MAX_CODES].tolist())
    return {word: code for code, word in enumerate(kept, start=1)}


TREES = 100  # scikit-learn's default


def train_boosted(
    use_case: UseCase,
    rows: TrainingSet,
    since_us: int,
    champion: ScoringModel | None,
    seed: int,
    settings: TrainingSettings,
    progress: Callable[[str], None],
    asked: Asked | None = None,
    archived: Mapping[str, ScoringModel] | None = None,
) -> Trained:
    """As `services.trainer.training.train`, with boosted trees. ValueError: no rows to train on, or all of one label."""
    task = use_case.predict.task
    asked = asked or Asked(change=since_us > 0)
    since = int(np.searchsorted(rows.at_us, since_us)) if since_us > 0 else 0
    if since_us > 0 and len(rows) - since < settings.since_rows_min:
        since = 0
    learned = 0 if champion is None else int(champion.spec["trained_rows"])
    found = candidates(Setting(len(rows), since, learned, seed, settings), asked)
    found = [one for one in found if not one.from_champion]
    held = len(rows) - held_out_rows(found, asked)
    found = [one for one in found if np.unique(rows.labels[one.rows[one.rows < held]]).size >= 2]
    if not found:
        raise ValueError("the rows to train on hold only one class")
    inherited = 0.0 if champion is None else float(champion.spec["label_scale"])
    scale = (inherited or label_scale(rows.labels.tolist())) if task == "regression" else 1.0
    tried, cost = [], 0
    for one in found:
        model, answer, loss, trees = _attempt(use_case, rows, one, held, seed, scale)
        cost += int((one.rows < held).sum())
        tried.append((loss, trees, one, model, answer))
        progress(f"{one.name}: loss {loss:.4f} with {trees} trees")
    loss, trees, chosen, model, answer = min(tried, key=lambda one: one[0])
    base, unseen = _compared(use_case, rows, since, held, champion)
    theirs = None if champion is None else champion.predict(rows.numbers[held:], rows.texts[held:])
    held_out = HeldOut(rows.at_us[held:], rows.labels[held:], answer, base, theirs, unseen, scale)
    model.fit(rows, chosen.rows, seed, trees)
    model.spec["trained_rows"] = len(chosen.rows)
    cost += len(chosen.rows)
    metrics = {"held_out_rows": float(len(held_out.labels))} | measures(task, answer, held_out.labels)
    for name, said in {"": answer, "base_": held_out.base_answers}.items():
        value = float(np.mean(compared_losses(task, said, held_out.labels, scale)))
        metrics[f"{name}{LOSS_METRICS[task]}"] = value
    weights = np.asarray(model.predict(rows.numbers[-200:], rows.texts[-200:])).tobytes()
    return Trained(
        model=model,
        trained_rows=len(chosen.rows),
        fitted_rows=cost,
        row_epochs=cost * trees,
        metrics=metrics,
        held_out=held_out,
        label_scale=scale if task == "regression" else 0.0,
        chosen=chosen.name,
        device="cpu",
        onnx=b"",
        weights=b"",
        spec=model.spec,
        model_digest=digest_of(model.spec, weights),
    )


def _attempt(
    use_case: UseCase, rows: TrainingSet, one: Candidate, held: int, seed: int, scale: float
) -> tuple[BoostedModel, Floats, float, int]:
    task, places = use_case.predict.task, one.rows[one.rows < held]
    model = BoostedModel(use_case, rows, task, int(rows.at_us[-1]), scale)
    model.fit(rows, places, seed, TREES)
    staged = model.staged(rows.numbers[held:], rows.texts[held:])
    losses = [float(np.mean(compared_losses(task, answer, rows.labels[held:], scale))) for answer in staged]
    best = int(np.argmin(losses))
    return model, staged[best], losses[best], best + 1


def _compared(
    use_case: UseCase, rows: TrainingSet, since: int, held: int, champion: ScoringModel | None
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """What is answered without any input, and which held-out rows the champion has not learned from."""
    labels, classes = rows.labels[since:held], len(use_case.predict.classes)
    counts = np.bincount(labels.astype(np.int64), minlength=classes) + 1.0 if classes else labels
    base = counts / (len(labels) + classes) if classes else np.array(np.mean(labels))
    newest_us = np.iinfo(np.int64).max if champion is None else int(champion.spec["newest_row_us"])
    return base, rows.at_us[held:] > newest_us
