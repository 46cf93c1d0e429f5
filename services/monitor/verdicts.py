"""Words what judging has found and decided as messages, with ids derived from what they say; decides nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from google.protobuf.message import Message as Payload

from driftloop.contracts import Message, OffsetRange, derive_id
from driftloop.contracts.monitor.v1.monitor_pb2 import (
    ROLE_STANDBY,
    Affected,
    Archived,
    Decision,
    DecisionKind,
    Drift,
    Incident,
    Recalibration,
    Release,
    RetrainRequest,
)
from services.monitor.release import Releases
from services.monitor.series import Alarm
from services.monitor.wanted import Verdict


class Verdicts:
    """Counts releases and decisions, and knows which scores they rest on."""

    def __init__(self, use_case: str, clock_us: Callable[[], int]) -> None:
        self._use_case, self._clock_us = use_case, clock_us
        self._first_score, self._last_score = -1, -1
        self._revision, self._decisions = 0, 0

    def saw_score(self, offset: int) -> None:
        """One more score is behind what follows."""
        self._first_score = offset if self._first_score < 0 else self._first_score
        self._last_score = max(self._last_score, offset)

    def _scores(self) -> tuple[OffsetRange, ...]:
        return () if self._last_score < 0 else (OffsetRange("scores", 0, self._first_score, self._last_score),)

    def drift(self, alarm: Alarm, model_id: str, causes: tuple[str, ...]) -> Message[Any]:
        """A series changed while a model answered."""
        clock_us = self._clock_us()
        drift_id = derive_id("drift", self._use_case, alarm.series, alarm.since_us, clock_us)
        payload = Drift(
            use_case=self._use_case,
            id=drift_id,
            series=alarm.series,
            kind=alarm.kind,
            detector=alarm.detector,
            clock_us=clock_us,
            since_us=alarm.since_us,
            before=alarm.before,
            after=alarm.after,
            labels_since=alarm.rows_since,
            alpha=alarm.alpha,
            model_id=model_id,
        )
        return self.message("drift", payload, drift_id, causes, self._scores())

    def request(
        self, verdict: Verdict, releases: Releases, affected: Iterable[Affected], decision_id: str
    ) -> Message[Any]:
        """A model is wanted; `affected`: stretches of time whose data are at fault."""
        wanted, champion, clock_us = verdict.wanted, releases.champion, self._clock_us()
        request_id = derive_id("retrain", self._use_case, int(wanted.reason), clock_us, wanted.since_us)
        payload = RetrainRequest(
            use_case=self._use_case,
            id=request_id,
            reason=wanted.reason,
            because=wanted.because,
            clock_us=clock_us,
            since_us=wanted.since_us,
            champion_id=champion.model_id if champion else "",
            champion_bundle_url=champion.bundle_url if champion else "",
            champion_bundle_digest=champion.bundle_digest if champion else "",
            seed=int(request_id[:8], 16),
            recent_rows=verdict.recent_rows,
            evidence_rows=verdict.evidence_rows,
            block_rows=verdict.block_rows,
            rows_max=verdict.rows_max,
            affected=affected,
            archive=[
                Archived(model_id=a.model_id, bundle_url=a.bundle_url, bundle_digest=a.bundle_digest)
                for a in reversed(releases.archive)
            ],
        )
        return self.message("retrain", payload, request_id, (*wanted.causes, decision_id), self._scores())

    def decision(
        self, kind: DecisionKind, model_id: str, because: str, evidence: Mapping[str, float], causes: tuple[str, ...]
    ) -> Message[Any]:
        """One more decision, with what it rests on."""
        self._decisions += 1
        clock_us = self._clock_us()
        decision_id = derive_id("decision", self._use_case, self._decisions, int(kind), model_id, clock_us)
        payload = Decision(
            use_case=self._use_case,
            id=decision_id,
            kind=kind,
            model_id=model_id,
            because=because,
            evidence=evidence,
            clock_us=clock_us,
        )
        return self.message("decisions", payload, decision_id, causes, self._scores())

    def release(
        self,
        releases: Releases,
        recalibration: Callable[[str], Recalibration | None],
        pending_retrain: str,
        because: str,
        decision_id: str,
        causes: tuple[str, ...],
    ) -> Message[Any]:
        """Who answers from now on, whose answers are only compared, and how each model's scores are read."""
        self._revision += 1
        champion, arms = releases.arms()
        for arm in [*arms] if champion is None else [champion, *arms]:
            found = None if arm.role == ROLE_STANDBY else recalibration(arm.model_id)
            if found is not None:
                arm.recalibration.CopyFrom(found)
        clock_us = self._clock_us()
        payload = Release(
            use_case=self._use_case,
            revision=self._revision,
            champion=champion,
            arms=arms,
            pending_retrain=pending_retrain,
            because=because,
            clock_us=clock_us,
            decision_id=decision_id,
            pinned=releases.orders.pinned,
            paused=releases.orders.paused,
            awaiting_approval=releases.orders.awaiting,
        )
        release_id = derive_id("release", self._use_case, self._revision, clock_us)
        return self.message("releases", payload, release_id, causes)

    def incident(self, source: str, what: str, causes: tuple[str, ...]) -> Message[Any]:
        """Something is wrong that no model mends."""
        incident_id = derive_id("incident", self._use_case, causes[0])
        payload = Incident(use_case=self._use_case, id=incident_id, source=source, what=what, clock_us=self._clock_us())
        return self.message("incidents", payload, incident_id, causes)

    def message(
        self,
        topic: str,
        payload: Payload,
        message_id: str,
        causes: tuple[str, ...],
        ranges: tuple[OffsetRange, ...] = (),
    ) -> Message[Any]:
        """A payload as a message of monitor's."""
        clock_us = max(0, self._clock_us())
        name = self._use_case
        return Message(topic, name, payload, message_id, "driftloop/monitor", clock_us, clock_us, causes, ranges, 0)

    def snapshot(self) -> dict[str, Any]:
        """State as plain values."""
        return {"scores": [self._first_score, self._last_score], "counts": [self._revision, self._decisions]}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes a snapshot back."""
        self._first_score, self._last_score = state["scores"]
        self._revision, self._decisions = state["counts"]
