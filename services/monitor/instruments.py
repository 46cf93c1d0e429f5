"""What monitor measures; declared in `driftloop.telemetry.metrics`."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from driftloop.contracts import Message, Record
from driftloop.contracts.monitor.v1.monitor_pb2 import (
    LABEL_STATE_MATCHED,
    Decision,
    DecisionKind,
    Drift,
    Incident,
    LabelState,
    Release,
    RetrainReason,
    RetrainRequest,
    Score,
    SeriesKind,
)
from driftloop.messaging.host_instruments import HostInstruments
from driftloop.messaging.hosting import Heart
from driftloop.telemetry import Instruments
from driftloop.usecase import Task, row_loss
from services.monitor.matching import Matching

BLOCK_LABELS = 200  # labels that the gauge of the loss is a mean of


def _word(name: str, prefix: str) -> str:
    return name.removeprefix(prefix).lower()


class MatchingInstruments(HostInstruments):
    """Metrics of the first stage."""

    def __init__(self, declared: Instruments, task: Task) -> None:
        super().__init__(declared, "matching")
        self._scores = declared.counter("scores")
        self._pending = declared.gauge("pending_entities")
        self._task = task
        self._loss = declared.gauge("absolute_error" if task == "regression" else "log_loss")
        self._losses: defaultdict[str, list[float]] = defaultdict(list)

    def folded(
        self, group: int, heart: Heart, records: Sequence[Record], outputs: Sequence[Message[Any]], seconds: float
    ) -> None:
        """See `Watcher.folded`."""
        super().folded(group, heart, records, outputs, seconds)
        for message in outputs:
            if isinstance(message.payload, Score) and message.payload.entity:
                self._scored(message.payload)

    def _scored(self, score: Score) -> None:
        self._scores.add(1, {"state": _word(LabelState.Name(score.state), "LABEL_STATE_")})
        if score.state != LABEL_STATE_MATCHED:
            return
        # A prediction of a checkpoint of before answers were kept has none.
        if score.prediction_id and (self._task != "multiclass" or score.answered_class_probabilities):
            self._answered("answered", score.answered, score.answered_class_probabilities, score.label)
        for place, scored in enumerate(score.scores):
            role = "champion" if place == 0 else "challenger"
            self._answered(role, scored.score, scored.class_probabilities, score.label)

    def _answered(self, role: str, said: float, chances: Sequence[float], label: float) -> None:
        """Role `answered`: what callers were told; the others: what the models said."""
        losses = self._losses[role]
        if self._task == "regression":
            losses.append(abs(said - label))
        else:
            losses.append(row_loss(self._task, list(chances) or said, label))
        if len(losses) >= BLOCK_LABELS:
            self._loss.set(math.fsum(losses) / len(losses), {"role": role})
            losses.clear()

    def gauged(self, group: int, heart: Heart) -> None:
        """See `HostInstruments.gauged`."""
        super().gauged(group, heart)
        if isinstance(heart, Matching):
            self._pending.set(heart.pending, {"partition": str(group)})


class JudgingInstruments(HostInstruments):
    """Metrics of the second stage."""

    def __init__(self, declared: Instruments) -> None:
        super().__init__(declared, "judging")
        self._alarms = declared.counter("alarms")
        self._decisions = declared.counter("decisions")
        self._recalibrations = declared.counter("recalibrations")
        self._retrains = declared.counter("retrains")
        self._incidents = declared.counter("incidents")
        self._revision = declared.gauge("release_revision")
        self._open = declared.gauge("retrain_open")

    def folded(
        self, group: int, heart: Heart, records: Sequence[Record], outputs: Sequence[Message[Any]], seconds: float
    ) -> None:
        """See `Watcher.folded`."""
        super().folded(group, heart, records, outputs, seconds)
        for message in outputs:
            payload = message.payload
            if isinstance(payload, Drift):
                self._alarms.add(1, {"kind": _word(SeriesKind.Name(payload.kind), "SERIES_KIND_")})
            elif isinstance(payload, Decision):
                self._decisions.add(1, {"kind": _word(DecisionKind.Name(payload.kind), "DECISION_KIND_")})
            elif isinstance(payload, RetrainRequest):
                self._retrains.add(1, {"reason": _word(RetrainReason.Name(payload.reason), "RETRAIN_REASON_")})
            elif isinstance(payload, Incident):
                self._incidents.add(1)
            elif isinstance(payload, Release):
                self._revision.set(payload.revision)
                self._open.set(1 if payload.pending_retrain else 0)
                if not payload.decision_id:
                    self._recalibrations.add(1)
