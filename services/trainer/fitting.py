"""Answers a retrain request from its training set: fit, gates, and the words for both; no I/O, so production and simulation share it.

Where the rows come from and where a published model goes is the caller's: `handlers` in production, `simulation` elsewhere.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from driftloop.contracts import derive_id
from driftloop.contracts.monitor.v1.monitor_pb2 import (
    RETRAIN_REASON_DECAY,
    RETRAIN_REASON_DRIFT,
    RetrainRequest,
)
from driftloop.contracts.trainer.v1.trainer_pb2 import (
    OUTCOME_PUBLISHED,
    OUTCOME_REFUSED,
    STAGE_EVALUATING,
    STAGE_TRAINING,
    Gate,
    Model,
    Stage,
)
from driftloop.scoring import ScoringModel
from driftloop.usecase import LOSS_METRICS, LOSS_NAMES, UseCase
from services.trainer.assembly import validate, without_affected
from services.trainer.attempts import TrainingSet, TrainingSettings
from services.trainer.candidates import BLOCK_ROWS, Asked
from services.trainer.errors import DataRefused, Stopping
from services.trainer.gates import GateResult, GateSettings, judge
from services.trainer.training import Train, Trained, train

_log = logging.getLogger(__name__)
ROWS_MIN = 200  # fewer cannot even be split into training and validation
Tell = Callable[[Stage, str], None]
"""Told how far a request has come; may raise Stopping."""


@dataclass(frozen=True)
class Fitting:
    """The answer to a request, and what was trained; a model that the gates refused is there too, None: no fit was made."""

    answer: Model
    trained: Trained | None

    @property
    def published(self) -> ScoringModel | None:
        """The model, if it passed the gates."""
        return self.trained.model if self.trained is not None and self.answer.outcome == OUTCOME_PUBLISHED else None


def answer_to(use_case: UseCase, request: RetrainRequest, device: str) -> Model:
    """The answer to a request as it begins: whose it is, and under which id; no outcome yet."""
    return Model(
        use_case=use_case.name,
        id=derive_id("model", use_case.name, request.id),
        request_id=request.id,
        inputs_digest=use_case.inputs_digest,
        clock_us=request.clock_us,
        since_us=request.since_us,
        device=device,
    )


def fit_request(
    use_case: UseCase,
    request: RetrainRequest,
    rows: TrainingSet,
    champion: ScoringModel | None,
    training: TrainingSettings,
    gates: GateSettings,
    tell: Tell,
    rows_min: int = ROWS_MIN,
    archived: Mapping[str, ScoringModel] | None = None,
    learn: Train = train,
) -> Fitting:
    """Answers a request from the rows known at its clock: PUBLISHED if they bear a model and it passes every gate, or REFUSED.

    The answer lacks what only a store knows: the bundle's url and digest, and the dataset's digest. Stopping, raised by
    `tell`, goes through; whatever a fit raises is an answer, for the same rows would raise it again.
    """
    answer = answer_to(use_case, request, training.device)
    rows, left_out = without_affected(rows, request.affected)
    try:
        if left_out:
            tell(STAGE_TRAINING, f"{left_out} rows of stretches with data at fault are left out")
        validate(use_case, rows, rows_min, _inputs_with_values(champion))
        tell(STAGE_TRAINING, f"{len(rows)} rows on {training.device}")
        trained = _train(use_case, request, rows, champion, training, tell, archived or {}, learn)
    except DataRefused as refused:
        answer.outcome, answer.because = OUTCOME_REFUSED, str(refused)
        return Fitting(answer, None)
    answer.trained_rows, answer.fitted_rows, answer.row_epochs = (
        trained.trained_rows,
        trained.fitted_rows,
        trained.row_epochs,
    )
    answer.model_digest, answer.device, answer.label_scale = trained.model_digest, trained.device, trained.label_scale
    answer.metrics.update(trained.metrics)
    answer.candidate = trained.chosen
    gains, answer.held_out_rows = trained.held_out.gains(use_case.predict.task, request.block_rows or BLOCK_ROWS)
    answer.held_out_gains.extend(gains)
    answer.held_out_from_us, answer.held_out_to_us, answer.held_out_champion_loss = trained.held_out.champion_record(
        use_case.predict.task
    )
    tell(STAGE_EVALUATING, f"{trained.chosen} on {len(trained.held_out.labels)} held-out rows")
    results = judge(use_case, trained, rows, gates, is_after_alarm=_asked(request).change)
    answer.gates.extend(_worded(result) for result in results)
    failed = [f"{result.name}: {result.reason}" for result in results if not result.passed]
    answer.outcome = OUTCOME_REFUSED if failed else OUTCOME_PUBLISHED
    answer.because = "; ".join(failed) or _found(use_case, trained)
    return Fitting(answer, trained)


def _train(
    use_case: UseCase,
    request: RetrainRequest,
    rows: TrainingSet,
    champion: ScoringModel | None,
    training: TrainingSettings,
    tell: Tell,
    archived: Mapping[str, ScoringModel],
    learn: Train,
) -> Trained:
    def progress(detail: str) -> None:
        tell(STAGE_TRAINING, detail)

    try:
        return learn(
            use_case, rows, request.since_us, champion, request.seed, training, progress, _asked(request), archived
        )
    except Stopping:
        raise
    except Exception as error:  # whatever a fit raises on these rows it will raise again: answer instead of looping
        _log.exception("request %s: training failed", request.id)
        raise DataRefused(f"training failed: {type(error).__name__}: {error}") from error


def _asked(request: RetrainRequest) -> Asked:
    return Asked(
        change=request.since_us > 0 and request.reason in (RETRAIN_REASON_DRIFT, RETRAIN_REASON_DECAY),
        recent_rows=request.recent_rows,
        evidence_rows=request.evidence_rows,
        block_rows=request.block_rows,
        rows_max=request.rows_max,
    )


def _worded(result: GateResult) -> Gate:
    return Gate(
        name=result.name,
        passed=result.passed,
        value=result.value if math.isfinite(result.value) else 0.0,
        threshold=result.threshold,
        reason=result.reason,
    )


def _found(use_case: UseCase, trained: Trained) -> str:
    """What a published model is worth, in a sentence."""
    task, metrics = use_case.predict.task, trained.metrics
    loss = LOSS_METRICS[task]
    base = "base rate" if task != "regression" else "mean"
    share = metrics.get("newest_share", 1.0)
    blended = "" if share == 1.0 else f" as {share:.0%} of a blend with the champion"
    words = (
        f"{trained.chosen}{blended}: {LOSS_NAMES[task]} {metrics[loss]:.4f} on {len(trained.held_out.labels)} held-out rows, "
        f"{base} {metrics['base_' + loss]:.4f}"
    )
    compared = metrics.get(f"champion_{loss}")
    return words if compared is None else f"{words}, champion {compared:.4f}"


def _inputs_with_values(champion: ScoringModel | None) -> Sequence[str]:
    """Numeric inputs that told rows apart when the champion was trained."""
    if champion is None:
        return []
    edges = champion.spec.get("edges", [])
    return [name for name, found in zip(champion.numeric_inputs, edges, strict=False) if len(found) > 1]
