"""Which conditions a trained model must meet before it is published, judged on rows that it has not seen; no I/O.

The gates keep harm out; they do not decide on promotion. That is monitor's, on paired evidence from production.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from driftloop.scoring import ScoringModel
from driftloop.usecase import UseCase, duration_us
from services.trainer.measures import log_losses, mean_and_error, ranking
from services.trainer.training import HeldOut, Trained, TrainingSet

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class GateSettings:
    """How much evidence counts.

    confidence       one-sided confidence with which a challenger must be worse before it is refused
    paired_rows_min  held-out rows that the champion has not seen; fewer prove nothing either way
    slice_rows_min   the same per slice
    slice_harm       nats by which a slice must surely be worse: small losses elsewhere are the price of a repaired concept
    size_bytes_max   of the ONNX graph: serving holds several models in memory
    """

    confidence: float = 0.95
    paired_rows_min: int = 100
    slice_rows_min: int = 200
    slice_harm: float = 0.15
    size_bytes_max: int = 32 << 20


@dataclass(frozen=True)
class GateResult:
    """One condition: `value` against `threshold`, and in words what was found."""

    name: str
    passed: bool
    value: float
    threshold: float
    reason: str


def judge(use_case: UseCase, trained: Trained, rows: TrainingSet, settings: GateSettings) -> list[GateResult]:
    """All gates; a model is published if every one is passed."""
    held_out = trained.held_out
    cohorts = held_out.at_us // duration_us(use_case.policy.cohort)
    newest = slice(len(rows) - len(held_out.labels), None)
    return [
        _sane(trained.model, rows, newest),
        _inputs(use_case, trained.model),
        _size(trained, settings),
        _base_rate(held_out, cohorts, settings),
        _champion(held_out, cohorts, settings),
        _slices(use_case, held_out, rows.texts[newest], cohorts, settings),
    ]


def _sane(model: ScoringModel, rows: TrainingSet, newest: slice) -> GateResult:
    probabilities = model.predict(rows.numbers[newest], rows.texts[newest])
    fine = np.isfinite(probabilities) & (probabilities >= 0.0) & (probabilities <= 1.0)
    spread = float(np.ptp(probabilities)) if fine.all() else 0.0
    passed = bool(fine.all()) and spread > 0.0
    reason = f"{int((~fine).sum())} of {len(fine)} answers are no probability; they span {spread:.3f}"
    return GateResult("sane", passed, spread, 0.0, reason)


def _inputs(use_case: UseCase, model: ScoringModel) -> GateResult:
    passed = model.inputs_digest == use_case.inputs_digest
    reason = f"the model takes inputs {model.inputs_digest}, requests have {use_case.inputs_digest}"
    return GateResult("inputs", passed, float(passed), 1.0, reason)


def _size(trained: Trained, settings: GateSettings) -> GateResult:
    size, most = len(trained.onnx), settings.size_bytes_max
    return GateResult("size", size <= most, float(size), float(most), f"{size} bytes of at most {most}")


def _base_rate(held_out: HeldOut, cohorts: npt.NDArray[np.int64], settings: GateSettings) -> GateResult:
    """Whether the model knows anything: it must be surely better than the base rate, or surely rank better than chance.

    The held-out rows may be of one odd day whose level nobody could know; a model that ranks them is still worth having.
    One that is surely worse than the base rate is not.
    """
    deviate = NormalDist().inv_cdf(settings.confidence)
    base = np.full(len(held_out.labels), held_out.base_rate)
    excess, error = mean_and_error(_excess(held_out, base, np.ones(len(base), dtype=bool)), cohorts)
    area, area_error = ranking(held_out.labels, held_out.challenger)
    worse = excess - deviate * error > 0.0
    better = excess + deviate * error < 0.0
    ranks = area - deviate * area_error > 0.5
    reason = (
        f"log loss differs from that of always answering {held_out.base_rate:.3f} by {excess:+.4f} ± {error:.4f}; "
        f"area under the ROC curve {area:.3f} ± {area_error:.3f}"
    )
    return GateResult("base_rate", not worse and (better or ranks), excess, 0.0, reason)


def _champion(held_out: HeldOut, cohorts: npt.NDArray[np.int64], settings: GateSettings) -> GateResult:
    if held_out.champion is None:
        return GateResult("champion", True, 0.0, 0.0, "there is no champion to compare with")
    unseen = held_out.unseen_by_champion
    if int(unseen.sum()) < settings.paired_rows_min:
        reason = f"only {int(unseen.sum())} rows that the champion has not seen: left to the evidence from production"
        return GateResult("champion", True, 0.0, 0.0, reason)
    mean, error = mean_and_error(_excess(held_out, held_out.champion, unseen), cohorts[unseen])
    least = mean - NormalDist().inv_cdf(settings.confidence) * error
    reason = f"log loss differs from the champion's by {mean:+.4f} ± {error:.4f} on {int(unseen.sum())} paired rows"
    return GateResult("champion", not least > 0.0, least, 0.0, reason)


def _slices(
    use_case: UseCase, held_out: HeldOut, texts: npt.NDArray, cohorts: npt.NDArray[np.int64], settings: GateSettings
) -> GateResult:
    named = [name for name in use_case.slices if name in use_case.text_inputs]
    if held_out.champion is None or not named:
        return GateResult("slices", True, 0.0, settings.slice_harm, "there is nothing to compare slice by slice")
    found: list[tuple[str, npt.NDArray[np.bool_]]] = []
    for name in named:
        column = texts[:, use_case.text_inputs.index(name)]
        for value in sorted(set(column)):
            members = held_out.unseen_by_champion & (column == value)
            if int(members.sum()) >= settings.slice_rows_min:
                found.append((f"{name}={value}", members))
    if not found:
        return GateResult("slices", True, 0.0, settings.slice_harm, "no slice has rows enough to judge")
    # All slices are looked at together, so each gets its share of the allowed error.
    deviate = NormalDist().inv_cdf(1.0 - (1.0 - settings.confidence) / len(found))
    worst, harm, words = "", -np.inf, ""
    for slice_name, members in found:
        mean, error = mean_and_error(_excess(held_out, held_out.champion, members), cohorts[members])
        if mean - deviate * error > harm:
            worst, harm, words = slice_name, mean - deviate * error, f"{mean:+.4f} ± {error:.4f}"
    reason = f"of {len(found)} slices {worst} does worst: log loss differs from the champion's by {words}"
    return GateResult("slices", harm <= settings.slice_harm, float(harm), settings.slice_harm, reason)


def _excess(held_out: HeldOut, other: Floats, members: npt.NDArray[np.bool_]) -> Floats:
    """By how much the challenger's log loss exceeds another's, row by row."""
    labels = held_out.labels[members]
    return log_losses(labels, held_out.challenger[members]) - log_losses(labels, other[members])
