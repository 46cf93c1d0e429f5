"""Answers one retrain request: data, training set, training, gates, bundle, one message; never two models for one request."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from opentelemetry.trace import SpanKind

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
    Model,
    Progress,
    Stage,
)
from driftloop.featurestore.errors import LogBehind
from driftloop.scoring import ScoringModel
from driftloop.telemetry import current_traceparent, span
from driftloop.usecase import UseCase
from services.trainer.errors import DataRefused, Stopping
from services.trainer.gateways import Bundles, Data
from services.trainer.instruments import TrainerInstruments

if TYPE_CHECKING:
    from services.trainer.attempts import TrainingSet, TrainingSettings
    from services.trainer.gates import GateSettings

_log = logging.getLogger(__name__)
SOURCE = "driftloop/trainer"
ARCHIVE_MAX = 8  # former champions that a request may bring
_STAGE_NAMES = {STAGE_TRAINING: "training", STAGE_EVALUATING: "evaluating"}


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
        with span("trainer.Retrain", record.message.traceparent, kind=SpanKind.CONSUMER):
            return self._retrain(record)

    def _retrain(self, record: Record) -> Model:
        request: RetrainRequest = record.message.payload
        self._measured.taken(request.reason)
        telling = _Telling(record.message, self._use_case.name, self._outgoing, self._stopping)
        try:
            answer = self._answer(request, telling)
        except (DataRefused, LogBehind) as refused:
            if self._stopping():
                raise Stopping(request.id) from refused
            answer = self._fresh(request)
            answer.outcome, answer.because = OUTCOME_REFUSED, str(refused)
        self._outgoing.deliver(telling.message("models", answer.id, answer))
        self._measured.answered(answer)
        _log.info("request %s: model %s: %s", request.id, answer.id, answer.because)
        return answer

    def _fresh(self, request: RetrainRequest) -> Model:
        from services.trainer import fitting

        return fitting.answer_to(self._use_case, request, self._training.device)

    def _answer(self, request: RetrainRequest, telling: _Telling) -> Model:
        from services.trainer import fitting

        champion, missing = self._champion(request)
        rows, dataset_digest = self._rows(request, telling)
        with self._measured.stages() as measure:

            def tell(stage: Stage, detail: str) -> None:
                measure(_STAGE_NAMES[stage])
                telling.stage(stage, detail)

            found = fitting.fit_request(
                self._use_case,
                request,
                rows,
                champion,
                self._training,
                self._gates,
                tell,
                self._bounds.rows_min,
                self._archived(request),
            )
        answer = found.answer
        answer.dataset_digest = dataset_digest
        if found.trained is None or answer.outcome != OUTCOME_PUBLISHED:
            return answer
        with self._measured.stage("publishing"):
            telling.stage(STAGE_PUBLISHING, answer.id)
            bundle = self._bundles.publish(answer.id, found.trained)
        answer.bundle_url, answer.bundle_digest = bundle.url, bundle.digest
        if missing:
            answer.because += f"; {missing}"
        return answer

    def _champion(self, request: RetrainRequest) -> tuple[ScoringModel | None, str]:
        """The champion, or why it cannot be compared with: a lost bundle must not keep the loop from healing itself."""
        if not request.champion_id:
            return None, ""
        try:
            return self._bundles.model(
                request.champion_id, request.champion_bundle_url, request.champion_bundle_digest
            ), ""
        except BundleRefused as refused:
            _log.warning("request %s goes on without champion %s: %s", request.id, request.champion_id, refused)
            return None, f"the champion's bundle was refused ({refused.reason})"

    def _archived(self, request: RetrainRequest) -> dict[str, ScoringModel]:
        """The former champions that can still be had: one that cannot is no reason to train nothing."""
        found = {}
        for former in request.archive[:ARCHIVE_MAX]:
            try:
                found[former.model_id] = self._bundles.model(former.model_id, former.bundle_url, former.bundle_digest)
            except BundleRefused as refused:
                _log.warning("request %s goes on without former %s: %s", request.id, former.model_id, refused)
        return found

    def _rows(self, request: RetrainRequest, telling: _Telling) -> tuple[TrainingSet, str]:
        """The training set at the request's clock, kept under its digest."""
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
            rows, _ = assembly.without_affected(rows, request.affected)
            digest = assembly.dataset_digest(self._use_case, rows)
            self._data.keep(digest, rows)
            self._measured.assembled(len(rows))
        return rows, digest


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
            traceparent=current_traceparent(),
        )
