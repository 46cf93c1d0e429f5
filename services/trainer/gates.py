"""Which conditions a trained model must meet before it is published, judged on rows that it has not seen; no I/O.

The gates keep harm out; they do not decide on promotion. That is monitor's, on paired evidence from production.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from driftloop.scoring import ScoringModel
from driftloop.usecase import LOSS_NAMES, SUM_TOLERANCE, Task, UseCase, duration_us
from services.trainer.attempts import TrainingSet
from services.trainer.held_out import HeldOut
from services.trainer.leaks import told_alone
from services.trainer.measures import compared_losses, mean_and_error, rank_correlation, ranking
from services.trainer.training import Trained

Floats = npt.NDArray[np.float64]
KNOWN = 0.97  # of the order of labels: a champion that ranks so well has made use of what tells the label
_ANSWERS = {"binary": "probability", "multiclass": "distribution over the classes", "regression": "finite number"}


@dataclass(frozen=True)
class GateSettings:
    """How much evidence counts.

    confidence       one-sided confidence with which a challenger must be worse before it is refused
    first_confidence  with which a first model must know something: no trial in production comes after this gate, and the fit
                     was stopped where it did best on the very rows that it is judged by
    paired_rows_min  held-out rows that the champion has not seen; fewer prove nothing either way
    slice_rows_min   the same per slice
    gain             share of the champion's loss by which a challenger must be ahead on these rows: half of what is worth a promotion;
                     who has less would only keep the next one waiting
    leak             share of the order of labels that one input may tell alone: no honest input that production has does; 1: any
    slice_harm       nats, or label variances, by which a slice must surely be worse: small losses elsewhere are the price of a
                     repaired concept
    size_bytes_max   of the ONNX graph: serving holds several models in memory
    """

    confidence: float = 0.95
    first_confidence: float = 0.999
    paired_rows_min: int = 40
    slice_rows_min: int = 40
    gain: float = 0.005
    leak: float = 0.995
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


def judge(
    use_case: UseCase, trained: Trained, rows: TrainingSet, settings: GateSettings, *, is_after_alarm: bool = False
) -> list[GateResult]:
    """All gates; a model is published if every one is passed. `is_after_alarm`: production's own labels said that something changed."""
    held_out, task = trained.held_out, use_case.predict.task
    cohorts = held_out.at_us // duration_us(use_case.policy.cohort)
    newest = slice(len(rows) - len(held_out.labels), None)
    return [
        _sane(task, trained.model, rows, newest),
        _inputs(use_case, trained.model),
        _size(trained, settings),
        _base_rate(task, held_out, cohorts, settings),
        _champion(task, held_out, cohorts, settings),
        _slices(use_case, held_out, rows.texts[newest], cohorts, settings),
        _leak(use_case, held_out, rows, is_after_alarm, settings),
    ]


def _sane(task: Task, model: ScoringModel, rows: TrainingSet, newest: slice) -> GateResult:
    answers = model.predict(rows.numbers[newest], rows.texts[newest])
    if task == "multiclass":
        fine = ((answers >= 0.0) & (answers <= 1.0)).all(axis=1) & (np.abs(answers.sum(axis=1) - 1.0) < SUM_TOLERANCE)
    elif task == "binary":
        fine = np.isfinite(answers) & (answers >= 0.0) & (answers <= 1.0)
    else:
        fine = np.isfinite(answers)
    # Of several classes, the one whose probability varies the most.
    spread = float(np.ptp(answers, axis=0).max()) if fine.all() else 0.0
    passed = bool(fine.all()) and spread > 0.0
    reason = f"{int((~fine).sum())} of {len(fine)} answers are no {_ANSWERS[task]}; they span {spread:.3f}"
    return GateResult("sane", passed, spread, 0.0, reason)


def _inputs(use_case: UseCase, model: ScoringModel) -> GateResult:
    passed = model.inputs_digest == use_case.inputs_digest
    reason = f"the model takes inputs {model.inputs_digest}, requests have {use_case.inputs_digest}"
    return GateResult("inputs", passed, float(passed), 1.0, reason)


def _size(trained: Trained, settings: GateSettings) -> GateResult:
    size, most = len(trained.onnx), settings.size_bytes_max
    return GateResult("size", size <= most, float(size), float(most), f"{size} bytes of at most {most}")


def _base_rate(task: Task, held_out: HeldOut, cohorts: npt.NDArray[np.int64], settings: GateSettings) -> GateResult:
    """Whether the model knows anything: it must be surely better than the base rate, or surely rank better than chance.

    The held-out rows may be of one odd day whose level nobody could know; a model that ranks them is still worth having.
    One that is surely worse than the base rate is not.
    """
    is_first = held_out.champion is None
    deviate = NormalDist().inv_cdf(settings.first_confidence if is_first else settings.confidence)
    everything = np.ones(len(held_out.labels), dtype=bool)
    excess, error = mean_and_error(_excess(task, held_out, held_out.base_answers, everything), cohorts)
    if task == "regression":
        rank, rank_error = rank_correlation(held_out.labels, held_out.challenger)
        by_chance, ranking_name = 0.0, "rank correlation"
    else:
        rank, rank_error = ranking(held_out.labels, held_out.challenger)
        by_chance, ranking_name = 0.5, "area under the ROC curve"
    worse = excess - deviate * error > 0.0
    better = excess + deviate * error < 0.0
    ranks = rank - deviate * rank_error > by_chance
    reason = (
        f"{LOSS_NAMES[task]} differs from that of always answering {_base_in_words(task, held_out)} by "
        f"{excess:+.4f} ± {error:.4f}; {ranking_name} {rank:.3f} ± {rank_error:.3f}"
    )
    return GateResult("base_rate", not worse and (better or ranks), excess, 0.0, reason)


def _base_in_words(task: Task, held_out: HeldOut) -> str:
    if task == "multiclass":
        return "the classes' frequencies"
    return f"{float(held_out.base):.3f}" if task == "binary" else f"the mean {float(held_out.base):g}"


def _champion(task: Task, held_out: HeldOut, cohorts: npt.NDArray[np.int64], settings: GateSettings) -> GateResult:
    if held_out.champion is None:
        return GateResult("champion", True, 0.0, 0.0, "there is no champion to compare with")
    unseen = held_out.unseen_by_champion
    if int(unseen.sum()) < settings.paired_rows_min:
        reason = f"only {int(unseen.sum())} rows that the champion has not seen: left to the evidence from production"
        return GateResult("champion", True, 0.0, 0.0, reason)
    mean, error = mean_and_error(_excess(task, held_out, held_out.champion, unseen), cohorts[unseen])
    champions = compared_losses(task, held_out.champion[unseen], held_out.labels[unseen], held_out.scale)
    least = settings.gain * float(np.mean(champions))
    name, rows = LOSS_NAMES[task], int(unseen.sum())
    reason = f"{name} differs from the champion's by {mean:+.4f} ± {error:.4f} on {rows} paired rows"
    # Not ahead on average: a trial in production would cost time that a better candidate could use.
    return GateResult("champion", mean < -least, mean, -least, reason)


def _slices(
    use_case: UseCase, held_out: HeldOut, texts: npt.NDArray, cohorts: npt.NDArray[np.int64], settings: GateSettings
) -> GateResult:
    task = use_case.predict.task
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
        mean, error = mean_and_error(_excess(task, held_out, held_out.champion, members), cohorts[members])
        if mean - deviate * error > harm:
            worst, harm, words = slice_name, mean - deviate * error, f"{mean:+.4f} ± {error:.4f}"
    reason = f"of {len(found)} slices {worst} does worst: {LOSS_NAMES[task]} differs from the champion's by {words}"
    return GateResult("slices", harm <= settings.slice_harm, float(harm), settings.slice_harm, reason)


def _leak(
    use_case: UseCase, held_out: HeldOut, rows: TrainingSet, is_after_alarm: bool, settings: GateSettings
) -> GateResult:
    """Whether one input tells the label alone, as only one does that was filled in when the label was known.

    Not refused: what the champion, which has the same inputs, knows as well in its answers to the same rows; and what came with an
    alarm, for a new concept may be as simple as that: production's own labels must confirm it before it is promoted.
    """
    name, share = told_alone(use_case, rows.numbers, rows.texts, rows.labels)
    if share < settings.leak:
        return GateResult(
            "leak", True, share, settings.leak, f"{name or 'no input'} tells {share:.3f} of the label alone"
        )
    words = f"{name} alone tells {share:.4f} of the label"
    if is_after_alarm:
        return GateResult("leak", True, share, settings.leak, f"{words}; an alarm said that the world changed")
    if held_out.champion is not None and _knows(use_case.predict.task, held_out.labels, held_out.champion):
        return GateResult("leak", True, share, settings.leak, f"{words}; production's answers are as good")
    reason = f"{words}: is it filled in only when the label is known? If not, say so with TRAINER_LEAK_SHARE=1"
    return GateResult("leak", False, share, settings.leak, reason)


def _knows(task: Task, labels: Floats, answers: Floats) -> bool:
    if task == "regression":
        return rank_correlation(labels, answers)[0] >= KNOWN
    return ranking(labels, answers)[0] >= KNOWN


def _excess(task: Task, held_out: HeldOut, other: Floats, members: npt.NDArray[np.bool_]) -> Floats:
    """By how much the challenger's loss exceeds another's, row by row."""
    labels, scale = held_out.labels[members], held_out.scale
    ours = compared_losses(task, held_out.challenger[members], labels, scale)
    return ours - compared_losses(task, other[members], labels, scale)
