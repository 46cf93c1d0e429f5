"""The default policy on a recorded history: the loop's own hearts decide, and every fit is made of what was known by then."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from driftloop.contracts import Message, Record
from driftloop.contracts.monitor.v1.monitor_pb2 import (
    DECISION_KIND_BUNDLE_REFUSED,
    DECISION_KIND_CANARY,
    DECISION_KIND_DROP_CHALLENGER,
    DECISION_KIND_FIRST_MODEL,
    DECISION_KIND_GUARDRAIL,
    DECISION_KIND_KEEP,
    DECISION_KIND_MODEL_REFUSED,
    DECISION_KIND_NOT_NOW,
    DECISION_KIND_PROMOTE,
    DECISION_KIND_RETRAIN,
    DECISION_KIND_ROLL_BACK,
    DECISION_KIND_SHADOW,
    DECISION_KIND_WAIT,
    SERIES_KIND_ERROR,
    DecisionKind,
    RetrainRequest,
)
from driftloop.contracts.serving.v1.serving_pb2 import Vector
from driftloop.contracts.trainer.v1.trainer_pb2 import OUTCOME_PUBLISHED, Model, Stage
from driftloop.scoring import ScoringModel
from driftloop.usecase import ReplayStep, UseCase
from services.trainer.attempts import TrainingSettings
from services.trainer.fitting import ROWS_MIN, fit_request
from services.trainer.gates import GateSettings
from services.trainer.training import Train, train
from simulation.backtest.importance import importance_of
from simulation.backtest.outcome import Deployed, Event, Fit, Kind, Outcome
from simulation.backtest.policies import LOOP
from simulation.backtest.production import Setting, Told
from simulation.history import History
from simulation.loop import SPREAD, Loop, Recorded

ROWS_MAX = 200_000  # newest rows of a fit, as trainer's default
KEPT_TOPICS = ("drift", "decisions", "incidents", "retrain", "models", "releases")
_KINDS: dict[DecisionKind, Kind] = {
    DECISION_KIND_FIRST_MODEL: "first_model",
    DECISION_KIND_RETRAIN: "retrain",
    DECISION_KIND_NOT_NOW: "not_now",
    DECISION_KIND_SHADOW: "shadow",
    DECISION_KIND_CANARY: "canary",
    DECISION_KIND_PROMOTE: "promotion",
    DECISION_KIND_KEEP: "kept",
    DECISION_KIND_WAIT: "waits",
    DECISION_KIND_DROP_CHALLENGER: "rejected",
    DECISION_KIND_MODEL_REFUSED: "rejected",
    DECISION_KIND_BUNDLE_REFUSED: "rejected",
    DECISION_KIND_GUARDRAIL: "rejected",
    DECISION_KIND_ROLL_BACK: "rollback",
}


@dataclass(frozen=True)
class Answered:
    """Trainer's answer to a request: the message, the fit's cost and the model, also of one that the gates refused."""

    message: Model
    fit: Fit
    model: ScoringModel | None


class HistoryTrainer:
    """Answers requests from the history, by trainer's own training and gates, on what assembly would choose at their clock."""

    def __init__(
        self,
        history: History,
        seed: int,
        training: TrainingSettings,
        told: Callable[[str], None],
        learn: Train = train,
    ) -> None:
        self._history, self._seed, self._training, self._told, self._learn = history, seed, training, told, learn
        self._models: dict[str, ScoringModel] = {}
        self.answered: dict[str, Answered] = {}

    @property
    def fitted(self) -> Answered | None:
        """The first answer with a model."""
        return next((answered for answered in self.answered.values() if answered.model is not None), None)

    def know(self, answered: Answered) -> None:
        """Takes an answer that was made before: its request is not answered anew."""
        self.answered[answered.message.request_id] = answered
        if answered.model is not None:
            self._models[answered.message.id] = answered.model

    def train(self, request: RetrainRequest, recorded: Recorded) -> tuple[Model, ScoringModel | None]:
        """The answer to a request, and the model if it is published."""
        del recorded  # the history has the same, in columns
        if request.id not in self.answered:
            self.know(self._answer(request))
        found = self.answered[request.id]
        return found.message, found.model if found.message.outcome == OUTCOME_PUBLISHED else None

    def _answer(self, request: RetrainRequest) -> Answered:
        rows = self._history.mature(request.clock_us)[-ROWS_MAX:]
        found = self._history.training_set(rows, request.clock_us)
        seeded = RetrainRequest()
        seeded.CopyFrom(request)
        seeded.seed = (request.seed + self._seed) % 2**32

        def tell(stage: Stage, detail: str) -> None:
            del stage
            self._told(detail)

        champion = self._models.get(request.champion_id)
        archived = {a.model_id: self._models[a.model_id] for a in request.archive if a.model_id in self._models}
        fitting = fit_request(
            self._history.use_case,
            seeded,
            found,
            champion,
            self._training,
            GateSettings(),
            tell,
            ROWS_MIN,
            archived,
            self._learn,
        )
        answer, trained = fitting.answer, fitting.trained
        fit = Fit(
            clock_us=request.clock_us,
            rows=len(found),
            newest_label_us=int(found.known_at_us.max(initial=0)),
            fitted_rows=0 if trained is None else trained.fitted_rows,
            row_epochs=0 if trained is None else trained.row_epochs,
            published=fitting.published is not None,
        )
        return Answered(answer, fit, None if trained is None else trained.model)


def at_the_point(history: History, clock_us: int) -> UseCase:
    """The history's use case with its first model asked for as soon as so many labels have matured as have at a clock."""
    use_case = history.use_case
    rows = max(ROWS_MIN, len(history.mature(clock_us)))
    return replace(use_case, policy=replace(use_case.policy, bootstrap_rows=rows))


def first_answer(
    history: History,
    steps: Iterable[ReplayStep],
    seed: int,
    training: TrainingSettings,
    told: Callable[[str], None],
    learn: Train = train,
) -> Answered | None:
    """Trainer's first answer with a model, published or not, which every policy starts with; None if there is none."""
    trainer = HistoryTrainer(history, seed, training, told, learn)

    def until_answered() -> Iterator[ReplayStep]:
        for step in _relevant(history.use_case, steps):
            yield step
            if trainer.fitted is not None:
                return

    Loop(history.use_case, trainer, _vectors_of(history), kept=()).run(until_answered())
    return trainer.fitted


def run_loop(setting: Setting, first: Answered, steps: Iterable[ReplayStep], told: Told) -> Outcome:
    """Runs the default policy over the whole history."""
    history = setting.history
    outcome = Outcome(LOOP, setting.quality.no_answers(len(history)))
    asked = 0

    def answered(entity: str, answer: float | list[float]) -> None:
        nonlocal asked
        row = history.row_of[entity]
        outcome.answers[row], asked = answer, row + 1
        told(asked, "")

    trainer = HistoryTrainer(history, setting.seed, setting.training, lambda line: told(asked, line), setting.learn)
    trainer.know(first)
    loop = replayed(history, trainer, steps, answered)
    outcome.fits = [answer.fit for answer in trainer.answered.values()]
    outcome.events = _events(loop, history)
    outcome.deployed = _deployed(loop, history, setting, trainer)
    return outcome


def replayed(
    history: History,
    trainer: HistoryTrainer,
    steps: Iterable[ReplayStep],
    answered: Callable[[str, float | list[float]], None],
) -> Loop:
    """A loop that has gone through a history; `answered` takes each entity and its answer. KEPT_TOPICS are on its bus."""
    loop = Loop(history.use_case, trainer, _vectors_of(history), kept=KEPT_TOPICS)
    predictions = loop.bus.reader(["predictions"])

    def after(step: ReplayStep) -> None:
        for record in predictions.poll(0.0, len(step.requests) + 2 * SPREAD):
            if isinstance(record, Record) and not record.message.is_watermark:
                prediction = record.message.payload
                answered(prediction.entity, list(prediction.class_probabilities) or prediction.score)

    loop.run(_relevant(history.use_case, steps), after)
    return loop


def _relevant(use_case: UseCase, steps: Iterable[ReplayStep]) -> Iterator[ReplayStep]:
    """The steps with only those events that matching reads: vectors are recorded, so nothing else needs the others."""
    types = {use_case.predict.on.name, use_case.label.on.name, *(event.name for event in use_case.label.never)}
    types |= {view.event.name for view in use_case.views}  # whose sources it watches
    for step in steps:
        yield replace(step, events=[event for event in step.events if event.type in types])


def _vectors_of(history: History) -> Callable[[str], Vector]:
    digest = history.use_case.inputs_digest

    def vector(entity: str) -> Vector:
        row = history.row_of[entity]
        return Vector(inputs_digest=digest, numbers=history.numbers[row].tolist(), texts=history.texts[row].tolist())

    return vector


def _kept(loop: Loop, topic: str) -> list[Message[Any]]:
    records = [record for record in loop.bus.read(topic, 0) if isinstance(record, Record)]
    return [record.message for record in records if not record.message.is_watermark]


def _events(loop: Loop, history: History) -> list[Event]:
    found: list[Event] = []

    def add(clock_us: int, kind: Kind, why: str) -> None:
        found.append(Event(int(np.searchsorted(history.at_us, clock_us)), clock_us, kind, why))

    for message in loop.messages("drift"):
        drift = message.payload
        kind: Kind = "drift" if drift.kind == SERIES_KIND_ERROR else "input_drift"
        why = f"{drift.series}: mean from {drift.before:.3f} to {drift.after:.3f} over {drift.labels_since} rows"
        add(drift.clock_us, kind, why)
    for message in loop.messages("decisions"):
        decision = message.payload
        add(decision.clock_us, _KINDS[decision.kind], decision.because)
    for message in loop.messages("releases"):
        if not message.is_watermark and not message.payload.decision_id:
            add(message.payload.clock_us, "recalibrated", message.payload.because)
    for message in loop.messages("incidents"):
        add(message.payload.clock_us, "incident", message.payload.what)
    return sorted(found, key=lambda event: event.at_us)


def _deployed(loop: Loop, history: History, setting: Setting, trainer: HistoryTrainer) -> list[Deployed]:
    found: list[Deployed] = []
    models = {answered.message.id: answered.model for answered in trainer.answered.values()}
    for message in loop.messages("releases"):
        if message.is_watermark or not message.payload.HasField("champion"):
            continue
        model_id, clock_us = message.payload.champion.model_id, message.payload.clock_us
        if found and found[-1].model_id == model_id:
            continue
        model = models[model_id]
        assert model is not None, "a champion was published"
        row = int(np.searchsorted(history.at_us, clock_us))
        importance = importance_of(history, setting.quality, model, clock_us)
        found.append(Deployed(row, clock_us, model_id, importance))
    return found
