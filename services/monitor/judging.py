"""Judges production: feeds mature labels and predictions to drift, policy and release, and words their verdicts as messages.

One writer per use case. Predictions and scores are folded in (known_at, id) order behind the clock; what comes from trainer,
serving and people has no place in that order, so folding it asks for a checkpoint before its consequences leave.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from driftloop.contracts import KnownTimeBuffer, Message, Record, Watermarks, watermark
from driftloop.contracts.monitor.v1.monitor_pb2 import (
    COMMAND_KIND_BUNDLE_REFUSED,
    COMMAND_KIND_GUARDRAIL,
    COMMAND_KIND_RETRAIN,
    DECISION_KIND_BUNDLE_REFUSED,
    DECISION_KIND_DROP_CHALLENGER,
    DECISION_KIND_FIRST_MODEL,
    DECISION_KIND_GUARDRAIL,
    DECISION_KIND_MODEL_REFUSED,
    DECISION_KIND_NOT_NOW,
    DECISION_KIND_PROMOTE,
    DECISION_KIND_RETRAIN,
    DECISION_KIND_ROLL_BACK,
    DECISION_KIND_WAIT,
    LABEL_STATE_MATCHED,
    Command,
    DecisionKind,
    Incident,
    Release,
    Score,
)
from driftloop.contracts.ordering import pack, unpack
from driftloop.contracts.serving.v1.serving_pb2 import Prediction
from driftloop.contracts.trainer.v1.trainer_pb2 import OUTCOME_PUBLISHED, Model
from driftloop.usecase import Answer, UseCase, duration_us
from services.monitor.agreement import HeldOutRows, ProductionRecord
from services.monitor.arms import OF_ALL_ROWS, Candidate, Step, Trial
from services.monitor.commands import OF_PEOPLE, obey
from services.monitor.drift import DriftWatch
from services.monitor.faults import Faults
from services.monitor.policy import RetrainPolicy
from services.monitor.recalibration import Recalibrations
from services.monitor.release import Releases
from services.monitor.series import Alarm
from services.monitor.standing import Standing
from services.monitor.verdicts import Verdicts

SNAPSHOT_VERSION = 1
CHAMPION_CHANGES = (DECISION_KIND_FIRST_MODEL, DECISION_KIND_PROMOTE, DECISION_KIND_ROLL_BACK)
RECENT_SCORES = 8  # ids of newest scores that a decision names as causes; the rest is a range of offsets
MAX_HELD_ANSWERS = 64  # trainer's answers that came before their request was folded again after a restart


class Judging:
    """The heart of the second stage."""

    def __init__(self, use_case: UseCase, spread: int, serving_replicas: int) -> None:
        self._use_case = use_case
        replicas = [f"serving/{replica}" for replica in range(serving_replicas)]
        inputs: dict[tuple[str, int], list[str]] = {("predictions", partition): replicas for partition in range(spread)}
        inputs[("scores", 0)] = [f"matching/{partition}" for partition in range(spread)]
        self._watermarks = Watermarks(inputs)
        self._buffer = KnownTimeBuffer()
        self._watch = DriftWatch(use_case)
        self._policy = RetrainPolicy(use_case.policy, use_case.predict.task)
        self._standing = Standing(replicas)
        self._releases = Releases(use_case.policy, use_case.predict.task, self._standing.missing)
        late_us_max = use_case.label.matures_after_us + duration_us(use_case.policy.cohort)
        self._recalibrations = Recalibrations(use_case.predict.task, late_us_max)
        self._record = ProductionRecord()
        self._faults = Faults(use_case)
        self._beside = ""  # the model that is compared with the champion
        self._held: dict[str, Record] = {}
        self._done: set[str] = set()
        self._recent: deque[str] = deque(maxlen=RECENT_SCORES)
        self._verdicts = Verdicts(use_case.name, lambda: self.clock_us)
        self._challenger_clock_us = 0
        self.needs_checkpoint = False

    @property
    def clock_us(self) -> int:
        """The clock that judging has reached."""
        return self._watermarks.clock_us

    def fold(self, records: list[Record]) -> list[Message[Any]]:
        """Alarms, decisions, incidents, requests, releases and the watermark for a batch of records."""
        self.needs_checkpoint = False
        out: list[Message[Any]] = []
        for record in records:
            message = record.message
            if record.topic == "incidents":
                self._take_told(message, out)
            elif record.topic in ("models", "commands"):
                if message.id not in self._done and len(self._held) < MAX_HELD_ANSWERS:
                    self._held[message.id] = record
                    self._take_held(out)
            elif not message.is_watermark:
                self._buffer.add(record)
            elif self._moves_clock(record):
                self._advance(out)
        return out

    def _moves_clock(self, record: Record) -> bool:
        mark = record.message.payload
        self._standing.heard(mark.writer, mark.revision, mark.refused_models)
        return self._watermarks.observe(record.topic, record.partition, mark.writer, mark.known_at_us)

    # what has a place in time -------------------------------------------------------------------------------------

    def _advance(self, out: list[Message[Any]]) -> None:
        for due in self._buffer.advance(self.clock_us):
            if isinstance(due.message.payload, Prediction):
                self._take_prediction(due.message, out)
            else:
                self._take_score(due, out)
        self._decide(out)
        self._recalibrate(out)
        self._take_held(out)
        out.append(watermark("releases", 0, "judging", self.clock_us))

    def _take_prediction(self, message: Message[Prediction], out: list[Message[Any]]) -> None:
        champion, prediction = self._releases.champion, message.payload
        if champion is None:
            return
        self._releases.comparison.exposed(prediction.arm)
        score = _score_of(prediction, champion.model_id)
        if score is not None:
            self._releases.answered()
            if self._faults.covers(prediction.as_of_us):
                return
            vector = prediction.vector  # of before the inputs were declared otherwise: it has others in their places
            numbers = list(vector.numbers) if vector.inputs_digest == self._use_case.inputs_digest else []
            for alarm in self._watch.predicted(score, numbers, prediction.as_of_us):
                self._alarm(alarm, (message.id,), out)

    def _take_score(self, record: Record, out: list[Message[Any]]) -> None:
        score: Score = record.message.payload
        self._verdicts.saw_score(record.offset)
        if score.HasField("incident"):
            self._take_incident(score.incident, (record.message.id,), out)
            return
        # What was predicted from data at fault says nothing of the world, nor of models.
        if score.state != LABEL_STATE_MATCHED or self._faults.covers(score.predicted_for_us):
            return
        self._recent.append(record.message.id)
        self._policy.labelled(score.predicted_for_us)
        answers: dict[str, Answer] = {
            scored.model_id: list(scored.class_probabilities) or scored.score for scored in score.scores
        }
        if self._use_case.policy.recalibrate:
            self._recalibrations.labelled(answers, score.label, score.as_of_us, self.clock_us)
        losses = {name: self._watch.loss(said, score.label) for name, said in answers.items()}
        self._record.labelled(losses, score.predicted_for_us)
        self._releases.labelled(losses, score.slices)
        self._releases.comparison.labelled(score.arm, losses)
        champion = self._releases.champion
        if champion is None or champion.model_id not in answers:
            return
        said, beside = answers[champion.model_id], losses.get(self._releases.beside)
        for alarm in self._watch.labelled(said, score.label, score.predicted_for_us, beside):
            self._alarm(alarm, tuple(self._recent), out)

    def _alarm(self, alarm: Alarm, causes: tuple[str, ...], out: list[Message[Any]]) -> None:
        champion = self._releases.champion
        drift = self._verdicts.drift(alarm, champion.model_id if champion else "", causes)
        out.append(drift)
        self._policy.alarmed(alarm, drift.id)

    # verdicts -----------------------------------------------------------------------------------------------------

    def _decide(self, out: list[Message[Any]]) -> None:
        steps = self._releases.decide(self._policy.least_gain)
        self._release(steps, tuple(self._recent), out)
        for step in steps:
            if step.kind == DECISION_KIND_PROMOTE:
                champion = self._releases.champion
                gain, loss = step.evidence.get("gain", 0.0), step.evidence.get("production_loss", 0.0)
                of_all_rows = champion is not None and champion.kind in OF_ALL_ROWS
                self._policy.promoted(of_all_rows, gain / (loss or 1.0), loss - gain)
            elif step.kind == DECISION_KIND_DROP_CHALLENGER:
                self._policy.failed()
            elif step.kind == DECISION_KIND_WAIT and self._releases.other is not None:
                self._policy.waits(self._releases.other.kind in OF_ALL_ROWS)
            elif step.kind == DECISION_KIND_ROLL_BACK:
                self._policy.rolled_back()
        self._watch_decay()
        self._policy.pace, self._policy.burst_pace = self._pace, self._watch.burst_pace
        self._policy.error_measured(self._watch.recent_error)
        if self._watch.take_warning() and not self._releases.is_on_trial:
            self._policy.warned(tuple(self._recent))
        verdict = self._policy.decide(self.clock_us, tuple(self._recent), self._releases.challenger)
        if verdict is None:
            return
        wanted = verdict.wanted
        evidence = {"regime_rows": float(self._policy.regime_rows), "since_us": float(wanted.since_us)}
        if verdict.not_now:
            self._decision(
                DECISION_KIND_NOT_NOW, "", f"{wanted.because}; not now: {verdict.not_now}", evidence, wanted.causes, out
            )
            return
        decision_id = self._decision(DECISION_KIND_RETRAIN, "", wanted.because, evidence, wanted.causes, out)
        request = self._verdicts.request(verdict, self._releases, self._faults.affected(), decision_id)
        out.append(request)
        self._policy.asked(request.id, self.clock_us)
        self._publish_release(f"a retrain is open: {wanted.because}", decision_id, out)

    def _recalibrate(self, out: list[Message[Any]]) -> None:
        """Late labels say that scores are to be read otherwise: a release with the same arms, which no decision led to."""
        if not self._use_case.policy.recalibrate:
            if self._recalibrations.forget():
                self._publish_release("the use case has scores answered as they are from now on", "", out)
            return
        change = self._recalibrations.change(self._releases.scoring, self._releases.answering)
        if change:
            self._publish_release(f"late labels move the newest answers by {change:.3g} on average", "", out)

    @property
    def _pace(self) -> int:
        """Blocks per piece of evidence."""
        return self._policy.pace_of(self._watch.pace, self._watch.burst_pace)

    def _watch_decay(self) -> None:
        if not self._releases.is_on_trial:
            decay = self._watch.decay()
            if decay is not None:
                self._policy.decayed(decay, tuple(self._recent))

    def _watch_arms(self, steps: Sequence[Step]) -> None:
        champion, beside = self._releases.champion, self._beside
        self._beside = self._releases.beside
        if any(step.kind in CHAMPION_CHANGES for step in steps):
            self._watch.champion_changed(was_beside=champion is not None and champion.model_id == beside)
        elif self._beside != beside:
            self._watch.other_changed()

    def _release(self, steps: list[Step], causes: tuple[str, ...], out: list[Message[Any]]) -> None:
        """Words the steps as decisions, then the state that they lead to as one release."""
        decision_id = ""
        self._watch_arms(steps)
        for step in steps:
            because = tuple(dict.fromkeys((step.model_id, *causes)))
            decision_id = self._decision(step.kind, step.model_id, step.because, step.evidence, because, out)
        if steps:
            self._publish_release(steps[-1].because, decision_id, out)

    def _decision(
        self,
        kind: DecisionKind,
        model_id: str,
        because: str,
        evidence: dict[str, float],
        causes: tuple[str, ...],
        out: list[Message[Any]],
    ) -> str:
        decision = self._verdicts.decision(kind, model_id, because, evidence, causes)
        out.append(decision)
        return decision.id

    def _publish_release(self, because: str, decision_id: str, out: list[Message[Any]]) -> None:
        causes = (decision_id,) if decision_id else tuple(self._recent)
        release = self._verdicts.release(
            self._releases, self._recalibrations.tell, self._policy.open_request, because, decision_id, causes
        )
        payload: Release = release.payload
        named = [payload.champion] if payload.HasField("champion") else []
        self._standing.released(payload.revision, [arm.model_id for arm in [*named, *payload.arms]])
        out.append(release)

    def _take_told(self, message: Message[Incident], out: list[Message[Any]]) -> None:
        """An incident of ingest's: an expectation that stops training is not met. Our own come back, too, and say nothing new."""
        if message.payload.stops_training and message.payload.source != "monitor":
            self.needs_checkpoint = True
            self._take_incident(message.payload, (message.id,), out)

    # what has no place in time ------------------------------------------------------------------------------------

    def _take_held(self, out: list[Message[Any]]) -> None:
        """Takes what can be taken: an answer waits until its request was folded (again, after a restart)."""
        for message_id, record in list(self._held.items()):
            message = record.message
            if record.topic == "models" and message.payload.request_id != self._policy.open_request:
                continue
            del self._held[message_id]
            self._done.add(message_id)
            self.needs_checkpoint = True
            if record.topic == "models":
                self._take_model(message, out)
            else:
                self._take_command(message, out)

    def _take_incident(self, incident: Incident, causes: tuple[str, ...], out: list[Message[Any]]) -> None:
        """A source's data are at fault, or healthy again: nothing is learned meanwhile, and what learned from it goes."""
        if not self._faults.told(incident, self.clock_us):
            return
        if incident.source == "monitor":
            out.append(self._verdicts.message("incidents", incident, incident.id, causes))
        self._policy.fault = self._faults.open
        tainted = self._faults.taints(self._challenger_clock_us)
        if tainted and not incident.to_us:
            steps = self._releases.withdrawn(f"it may have learned from data at fault: {tainted}")
            self._release(steps, (incident.id,), out)

    def _take_model(self, message: Message[Model], out: list[Message[Any]]) -> None:
        model, causes = message.payload, (message.id, message.payload.request_id)
        tainted = self._faults.taints(model.clock_us)
        published = model.outcome == OUTCOME_PUBLISHED and not tainted
        on_trial = self._releases.is_on_trial
        self._policy.answered(model.request_id, published, model.fitted_rows, self.clock_us, on_trial)
        if published:
            if self._releases.champion is None:
                self._watch.scale = model.label_scale or 1.0
            candidate = Candidate(model.id, model.bundle_url, model.bundle_digest, model.candidate)
            trial = self._trial_of(model, causes, out)
            steps = self._releases.published(candidate, trial)
            if not on_trial and steps[0].kind == DECISION_KIND_DROP_CHALLENGER and steps[0].model_id == model.id:
                self._policy.failed()  # the one that waits is as good
            if model.id in [known.model_id for known in self._releases.known()]:
                self._challenger_clock_us = model.clock_us
            self._release(steps, causes, out)
        else:
            because = f"it may have learned from data at fault: {tainted}" if tainted else model.because
            decision_id = self._decision(
                DECISION_KIND_MODEL_REFUSED, model.id, because, dict(model.metrics), causes, out
            )
            self._publish_release(because, decision_id, out)

    def _trial_of(self, model: Model, causes: tuple[str, ...], out: list[Message[Any]]) -> Trial:
        """What the comparison starts from; an incident, and no held-out gains, if trainer's rows are not those of production."""
        loss, champion = self._watch.recent_error, self._releases.champion
        pace, slice_pace = self._pace, max(self._pace, self._watch.burst_pace)
        said = HeldOutRows(
            model.held_out_rows, model.held_out_from_us, model.held_out_to_us, model.held_out_champion_loss
        )
        disagreement = (
            "" if champion is None else self._record.disagreement(champion.model_id, said, self._faults.covers)
        )
        if not disagreement:
            return Trial(tuple(model.held_out_gains), model.held_out_rows, loss, pace, slice_pace)
        what = f"gains of model {model.id} on held-out rows count for nothing: {disagreement}"
        out.append(self._verdicts.incident("trainer", what, causes))
        return Trial((), 0, loss, pace, slice_pace)

    def _take_command(self, message: Message[Command], out: list[Message[Any]]) -> None:
        command, causes = message.payload, (message.id,)
        if command.kind in (COMMAND_KIND_BUNDLE_REFUSED, COMMAND_KIND_GUARDRAIL):
            self._take_finding(command, causes, out)
        elif command.kind == COMMAND_KIND_RETRAIN:
            self._policy.commanded(command.who, command.why, message.id)
        elif command.kind in OF_PEOPLE:
            self._obey(command, causes, out)

    def _obey(self, command: Command, causes: tuple[str, ...], out: list[Message[Any]]) -> None:
        """Somebody asks for a change of the release, and is answered by a decision and a release, also when it is refused."""
        done = obey(command, self._releases)
        decision_id = self._decision(done.kind, done.model_id, done.because, dict(done.evidence), causes, out)
        followed = [step for step in done.steps if step.kind != done.kind]
        self._watch_arms(done.steps)
        for step in followed:
            decision_id = self._decision(
                step.kind, step.model_id, step.because, step.evidence, (decision_id, *causes), out
            )
        self._publish_release(done.because, decision_id, out)

    def _take_finding(self, command: Command, causes: tuple[str, ...], out: list[Message[Any]]) -> None:
        """Serving could not load a model, or it fails or is slow where it answers: an incident, and what follows from it."""
        refused = command.kind == COMMAND_KIND_BUNDLE_REFUSED
        kind = DECISION_KIND_BUNDLE_REFUSED if refused else DECISION_KIND_GUARDRAIL
        decision_id = self._decision(kind, command.model_id, f"{command.who}: {command.why}", {}, causes, out)
        what = (
            f"bundle {command.model_id} was refused: {command.why}"
            if refused
            else f"model {command.model_id} fails where it answers: {command.why}"
        )
        out.append(self._verdicts.incident(command.who, what, (*causes, decision_id)))
        found = self._releases.refused_by_serving if refused else self._releases.failing
        steps = found(command.model_id, command.why)
        if self._releases.champion is None:
            self._policy.lost_model()
        # Serving waits for a release that knows of its finding, even where nothing follows from it.
        if steps:
            self._release(steps, causes, out)
        else:
            self._publish_release(what, decision_id, out)

    def snapshot(self) -> dict[str, Any]:
        """State as plain values."""
        return {
            "version": SNAPSHOT_VERSION,
            "watermarks": self._watermarks.snapshot(),
            "buffer": self._buffer.snapshot(),
            "watch": self._watch.snapshot(),
            "policy": self._policy.snapshot(),
            "releases": self._releases.snapshot(),
            "standing": self._standing.snapshot(),
            "record": self._record.snapshot(),
            "recalibrations": self._recalibrations.snapshot(),
            "faults": [self._faults.snapshot(), self._challenger_clock_us],
            "held": [pack(record) for record in self._held.values()],
            "done": sorted(self._done),
            "recent": list(self._recent),
            **self._verdicts.snapshot(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Takes a snapshot back."""
        self._watermarks.restore(state["watermarks"])
        self._buffer.restore(state["buffer"])
        self._watch.restore(state["watch"])
        self._policy.restore(state["policy"])
        self._releases.restore(state["releases"])
        self._beside = self._releases.beside
        self._standing.restore(state.get("standing", [{}, {}, {}]))  # absent from checkpoints of before it was kept
        self._record.restore(state.get("record", {}))  # absent from checkpoints of before it was kept
        self._recalibrations.restore(
            state.get("recalibrations", {})
        )  # absent from checkpoints of before there were any
        faults, self._challenger_clock_us = state.get(
            "faults", ([], 0)
        )  # absent from checkpoints of before there were any
        self._faults.restore(faults)
        self._policy.fault = self._faults.open
        self._held = {record.message.id: record for record in map(unpack, state["held"])}
        self._done = set(state["done"])
        self._recent.extend(state["recent"])
        self._verdicts.restore(state)


def _score_of(prediction: Prediction, model_id: str) -> float | None:
    for scored in prediction.scores:
        if scored.model_id == model_id:
            return scored.score
    return None
