"""Answers one retrain request: data, training set, training, gates, bundle, one message; never two models for one request."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from driftloop.artifacts import BundleRefused
from driftloop.contracts import Message, Record, derive_id
from driftloop.contracts.monitor.v1.monitor_pb2 import RetrainRequest
from driftloop.contracts.trainer.v1.trainer_pb2 import (
    OUTCOME_PUBLISHED,
    OUTCOME_REFUSED,
    STAGE_ASSEMBLING,
    STAGE_EVALUATING,
    STAGE_PUBLISHING,
    STAGE_TRAINING,
    STAGE_WAITING_FOR_DATA,
    Gate,
    Model,
    Progress,
    Stage,
)
from driftloop.featurestore.errors import LogBehind
from driftloop.scoring import ScoringModel
from driftloop.usecase import UseCase
from services.trainer.errors import DataRefused, Stopping
from services.trainer.gateways import Bundles, Data
from services.trainer.instruments import TrainerInstruments

if TYPE_CHECKING:
    from services.trainer.gates import GateSettings
    from services.trainer.training import Trained, TrainingSet, TrainingSettings

_log = logging.getLogger(__name__)
SOURCE = "driftloop/trainer"


class Outgoing(Protocol):
    """Where progress and answers go."""

    def tell(self, message: Message[Any]) -> None:
        """Sends a message that nobody waits for."""
        ...

    def deliver(self, message: Message[Any]) -> None:
        """Returns when the broker has the message."""
        ...


@dataclass(frozen=True)
class Bounds:
    """See the settings of the same names."""

    rows_max: int
    rows_min: int


class RetrainHandler:
    """Answers requests one after the other, on one thread. `stopping` is asked between steps."""

    def __init__(
        self,
        use_case: UseCase,
        data: Data,
        bundles: Bundles,
        outgoing: Outgoing,
        bounds: Bounds,
        training: TrainingSettings,
        gates: GateSettings,
        measured: TrainerInstruments,
        stopping: Callable[[], bool],
    ) -> None:
        self._use_case = use_case
        self._data = data
        self._bundles = bundles
        self._outgoing = outgoing
        self._bounds = bounds
        self._training = training
        self._gates = gates
        self._measured = measured
        self._stopping = stopping

    def retrain(self, record: Record) -> Model:
        """Answers the request and returns when the answer is acknowledged.

        Stopping: unanswered, the successor does it again. What is wrong with the data or the training is an answer; what is
        wrong with the process (store, broker) is raised, and tried again after a restart.
        """
        request: RetrainRequest = record.message.payload
        self._measured.taken(request.reason)
        answer = Model(
            use_case=self._use_case.name,
            id=derive_id("model", self._use_case.name, request.id),
            request_id=request.id,
            inputs_digest=self._use_case.inputs_digest,
            clock_us=request.clock_us,
            since_us=request.since_us,
            device=self._training.device,
        )
        telling = _Telling(record.message, self._use_case.name, self._outgoing, self._stopping)
        try:
            self._answer(request, answer, telling)
        except (DataRefused, LogBehind) as refused:
            if self._stopping():
                raise Stopping(request.id) from refused
            answer.outcome, answer.because = OUTCOME_REFUSED, str(refused)
        self._outgoing.deliver(telling.message("models", answer.id, answer))
        self._measured.answered(answer)
        _log.info("request %s: model %s: %s", request.id, answer.id, answer.because)
        return answer

    def _answer(self, request: RetrainRequest, answer: Model, telling: _Telling) -> None:
        champion, missing = self._champion(request)
        rows = self._rows(request, answer, champion, telling)
        with self._measured.stage("training"):
            telling.stage(STAGE_TRAINING, f"{len(rows)} rows on {self._training.device}")
            trained = self._train(request, rows, champion, telling)
        answer.trained_rows, answer.row_epochs = trained.trained_rows, trained.row_epochs
        answer.model_digest, answer.device = trained.model_digest, trained.device
        answer.metrics.update(trained.metrics)
        with self._measured.stage("evaluating"):
            telling.stage(STAGE_EVALUATING, f"{trained.chosen} on {len(trained.held_out.labels)} held-out rows")
            failed = self._judge(trained, rows, answer)
        if failed:
            answer.outcome, answer.because = OUTCOME_REFUSED, "; ".join(failed)
            return
        with self._measured.stage("publishing"):
            telling.stage(STAGE_PUBLISHING, answer.id)
            bundle = self._bundles.publish(answer.id, trained)
        answer.bundle_url, answer.bundle_digest = bundle.url, bundle.digest
        loss, base = answer.metrics["log_loss"], answer.metrics["base_log_loss"]
        answer.outcome = OUTCOME_PUBLISHED
        answer.because = (
            f"{trained.chosen}: log loss {loss:.4f} on {len(trained.held_out.labels)} held-out rows, "
            f"base rate {base:.4f}{_compared(answer, missing)}"
        )

    def _champion(self, request: RetrainRequest) -> tuple[ScoringModel | None, str]:
        """The champion, or why it cannot be compared with: a lost bundle must not keep the loop from healing itself."""
        if not request.champion_id:
            return None, ""
        try:
            return self._bundles.champion(request), ""
        except BundleRefused as refused:
            _log.warning("request %s goes on without champion %s: %s", request.id, request.champion_id, refused)
            return None, f"the champion's bundle was refused ({refused.reason})"

    def _rows(
        self, request: RetrainRequest, answer: Model, champion: ScoringModel | None, telling: _Telling
    ) -> TrainingSet:
        from services.trainer import assembly

        with self._measured.stage("waiting"):
            telling.stage(STAGE_WAITING_FOR_DATA, f"known by {request.clock_us}")
            snapshot = self._data.await_clock(request.clock_us)
        with self._measured.stage("assembling"):
            events = self._data.events(snapshot, assembly.event_types(self._use_case), request.clock_us)
            found = assembly.examples(self._use_case, events, request.clock_us).newest(self._bounds.rows_max)
            telling.stage(
                STAGE_ASSEMBLING,
                f"{len(found)} examples; {found.never} never labelled, {found.incomplete} in incomplete cohorts",
            )
            if len(found) < self._bounds.rows_min:
                raise DataRefused(f"{len(found)} examples, at least {self._bounds.rows_min} are needed")
            rows = assembly.training_set(self._use_case, found, self._data.values(found))
            assembly.validate(self._use_case, rows, self._bounds.rows_min, _inputs_with_values(champion))
            answer.dataset_digest = assembly.dataset_digest(self._use_case, rows)
            self._data.keep(answer.dataset_digest, rows)
            self._measured.assembled(len(rows))
        return rows

    def _train(
        self, request: RetrainRequest, rows: TrainingSet, champion: ScoringModel | None, telling: _Telling
    ) -> Trained:
        from services.trainer.training import train

        def progress(detail: str) -> None:
            telling.stage(STAGE_TRAINING, detail)

        try:
            return train(self._use_case, rows, request.since_us, champion, request.seed, self._training, progress)
        except Stopping:
            raise
        except Exception as error:  # whatever a fit raises on these rows it will raise again: answer instead of looping
            _log.exception("request %s: training failed", request.id)
            raise DataRefused(f"training failed: {type(error).__name__}: {error}") from error

    def _judge(self, trained: Trained, rows: TrainingSet, answer: Model) -> list[str]:
        """Puts the gates' results into the answer; returns the reasons of those that were not passed."""
        from services.trainer import gates

        results = gates.judge(self._use_case, trained, rows, self._gates)
        for result in results:
            answer.gates.append(
                Gate(
                    name=result.name,
                    passed=result.passed,
                    value=result.value if math.isfinite(result.value) else 0.0,
                    threshold=result.threshold,
                    reason=result.reason,
                )
            )
        return [f"{result.name}: {result.reason}" for result in results if not result.passed]


class _Telling:
    """Messages about one request: what caused them, and when."""

    def __init__(
        self, cause: Message[RetrainRequest], use_case: str, outgoing: Outgoing, stopping: Callable[[], bool]
    ) -> None:
        self._cause = cause
        self._use_case = use_case
        self._outgoing = outgoing
        self._stopping = stopping
        self._told = 0

    def stage(self, stage: Stage, detail: str) -> None:
        """Tells how far the request has come; Stopping if the process is asked to end."""
        if self._stopping():
            raise Stopping(self._cause.id)
        request = self._cause.payload
        self._told += 1
        _log.info("request %s: %s: %s", request.id, Stage.Name(stage).removeprefix("STAGE_").lower(), detail)
        payload = Progress(use_case=self._use_case, request_id=request.id, stage=stage, detail=detail)
        self._outgoing.tell(self.message("progress", derive_id("progress", request.id, self._told, detail), payload))

    def message(self, topic: str, message_id: str, payload: Any) -> Message[Any]:
        """A message that the request caused, at the request's clock."""
        clock_us = self._cause.payload.clock_us
        return Message(
            topic=topic,
            key=self._use_case,
            payload=payload,
            id=message_id,
            source=SOURCE,
            time_us=clock_us,
            known_at_us=clock_us,
            causes=(self._cause.id,),
            traceparent=self._cause.traceparent,
        )


def _inputs_with_values(champion: ScoringModel | None) -> list[str]:
    """Numeric inputs that told rows apart when the champion was trained."""
    if champion is None:
        return []
    edges = champion.spec.get("edges", [])
    return [name for name, found in zip(champion.numeric_inputs, edges, strict=False) if len(found) > 1]


def _compared(answer: Model, missing: str) -> str:
    if missing:
        return f"; {missing}"
    if "champion_log_loss" in answer.metrics:
        return f", champion {answer.metrics['champion_log_loss']:.4f}"
    return ""
