"""The whole loop on classes and on numbers: a change is found, and a model that learned of it is promoted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from itertools import islice

import numpy as np
import pytest

from driftloop.contracts import Message, prediction_id
from driftloop.contracts.monitor.v1.monitor_pb2 import (
    DECISION_KIND_PROMOTE,
    DECISION_KIND_RETRAIN,
    LABEL_STATE_MATCHED,
    SERIES_KIND_ERROR,
)
from driftloop.usecase import (
    HOUR_US,
    MINUTE_US,
    Event,
    Field,
    Label,
    Latest,
    Policy,
    Prediction,
    ReplayEvent,
    ReplayRequest,
    ReplayStep,
    Request,
    Task,
    UseCase,
    before,
)
from services.serving.asking import request_id
from services.trainer.attempts import TrainingSettings
from simulation.loop import Loop
from simulation.trainer import RecordedTrainer

STEP_US = 15 * MINUTE_US
START_US = 1_700_000_100_000_000 // HOUR_US * HOUR_US
STEPS, PER_STEP = 420, 15
TURNED_AT_STEP = 200
KINDS = ("small", "medium", "large")

ordered = Event("ordered", "order", {"shop": Field(str), "weight": Field(float), "due_at": Field("time")})
measured = Event("measured", "shop", {"shop": Field(str), "load": Field(float)})
policy = Policy(bootstrap_rows=1_500, promote_rows=400, canary_rows=200, cooldown="2h", budget="20 retrains/day")


def use_case(task: Task) -> UseCase:
    field, classes = (Field(str, one_of=KINDS), KINDS) if task == "multiclass" else (Field(float), ())
    delivered = Event("delivered", "order", {"outcome": field})
    return UseCase(
        name="orders",
        events=[ordered, measured, delivered],
        predict=Prediction(on=ordered, at=before("due_at", "30m"), task=task, classes=classes),
        features=[Request("weight", "shop"), Latest(measured, by="shop", of="load", max_age="6h")],
        label=Label(on=delivered, value=lambda e: e["outcome"], matures_after="6h"),
        slices=["shop"],
        policy=policy,
        clock="replay",
        step_us=STEP_US,
    )


def steps(task: Task, turned_at: int) -> Iterator[ReplayStep]:
    """Outcomes follow weight and the shop's load; from a step on, at two of three shops, they follow the reverse of it."""
    draws = np.random.default_rng(7)
    waiting: list[ReplayEvent] = []
    asked: list[ReplayRequest] = []
    loads = {"a": 0.0, "b": 0.0, "c": 0.0}
    for number in range(STEPS):
        start_us, end_us = START_US + number * STEP_US, START_US + (number + 1) * STEP_US
        events, requests = waiting, asked
        waiting, asked = [], []
        for shop in loads:
            loads[shop] = float(draws.normal())
            fields = {"shop": shop, "load": loads[shop]}
            events.append(ReplayEvent("measured", f"m{number}{shop}", shop, end_us, end_us, fields))
        for place in range(PER_STEP):
            entity, shop = f"o{number:03}-{place:02}", str(draws.choice(list(loads)))
            order = {"shop": shop, "weight": float(draws.normal()), "due_at": end_us + 30 * MINUTE_US}
            asked.append(ReplayRequest(end_us, entity, order))
            events.append(ReplayEvent("ordered", f"e{entity}", entity, end_us, end_us, order))
            leaning = 2.0 * float(order["weight"]) + loads[shop]
            leaning = -leaning if number >= turned_at and shop != "c" else leaning
            if task == "multiclass":
                outcome: float | str = KINDS[int(np.digitize(leaning + draws.normal(), [-1.0, 1.0]))]
            else:
                outcome = 500.0 + 40.0 * leaning + float(draws.standard_t(3)) * 25.0
            known_us = end_us + STEP_US + place
            waiting.append(ReplayEvent("delivered", f"d{entity}", entity, known_us, known_us, {"outcome": outcome}))
        events.sort(key=lambda event: (event.known_at_us, event.id))
        yield ReplayStep(start_us, end_us, requests, events)


@cache
def run(task: Task, turned_at: int) -> tuple[Loop, RecordedTrainer]:
    found = use_case(task)
    trainer = RecordedTrainer(found, TrainingSettings(hidden=32, epochs=15, patience=4))
    loop = Loop(found, trainer)
    loop.run(steps(task, turned_at))
    return loop, trainer


def messages(loop: Loop, topic: str) -> list[Message]:
    return [message for message in loop.messages(topic) if not message.is_watermark]


@pytest.mark.parametrize("task", ["multiclass", "regression"])
def test_a_change_is_found_and_a_model_that_learned_of_it_is_promoted(task: Task) -> None:
    loop, trainer = run(task, TURNED_AT_STEP)
    turned_us = START_US + TURNED_AT_STEP * STEP_US
    alarms = [m.payload for m in messages(loop, "drift") if m.payload.kind == SERIES_KIND_ERROR]
    assert alarms
    assert min(alarm.clock_us for alarm in alarms) > turned_us
    assert abs(alarms[0].since_us - turned_us) < 6 * HOUR_US
    decisions = [m.payload for m in messages(loop, "decisions")]
    promoted = [d for d in decisions if d.kind == DECISION_KIND_PROMOTE and d.clock_us > turned_us]
    assert promoted
    unit = "nats" if task == "multiclass" else "label variances"
    assert f"{unit} a row" in promoted[0].because
    assert any(unit in d.because for d in decisions if d.kind == DECISION_KIND_RETRAIN)
    first = next(iter(trainer.models))
    assert promoted[0].model_id != first


@pytest.mark.parametrize("task", ["multiclass", "regression"])
def test_without_a_change_no_error_alarm_is_raised(task: Task) -> None:
    loop, _ = run(task, STEPS)
    assert [m for m in messages(loop, "drift") if m.payload.kind == SERIES_KIND_ERROR] == []


def test_classes_are_logged_matched_and_judged_with_the_probability_of_each() -> None:
    loop, _ = run("multiclass", TURNED_AT_STEP)
    answered = [m.payload for m in messages(loop, "predictions")]
    assert all(len(p.class_probabilities) == 3 and p.score == max(p.class_probabilities) for p in answered)
    matched = [m.payload for m in messages(loop, "scores") if m.payload.state == LABEL_STATE_MATCHED]
    assert {score.label for score in matched} == {0.0, 1.0, 2.0}
    assert all(len(scored.class_probabilities) == 3 for score in matched for scored in score.scores)


def test_numbers_are_judged_in_the_scale_of_the_first_models_labels_for_as_long_as_there_are_models() -> None:
    loop, trainer = run("regression", TURNED_AT_STEP)
    published = [m.payload for m in messages(loop, "models") if m.payload.id in trainer.models]
    assert len(published) > 1
    assert len({model.label_scale for model in published}) == 1
    labels = [m.payload.label for m in messages(loop, "scores") if m.payload.state == LABEL_STATE_MATCHED]
    assert published[0].label_scale == pytest.approx(np.var(labels), rel=0.5)


def test_events_that_ask_are_each_predicted_once_as_of_when_they_were_known() -> None:
    declared = use_case("regression")
    found = replace(
        declared, predict=replace(declared.predict, asked_by=ordered), policy=replace(policy, bootstrap_rows=150)
    )
    loop = Loop(found, RecordedTrainer(found, TrainingSettings(hidden=32, epochs=2, patience=1)))
    loop.run(islice(steps("regression", STEPS), 60))
    asking = {
        prediction_id(found.name, m.payload.entity, request_id(m.payload.id)): m.payload.known_at_us
        for m in messages(loop, "events")
        if m.payload.type == ordered.name
    }
    answered = {m.id: m.payload for m in messages(loop, "predictions") if m.id in asking}
    first_us = min(asking[prediction] for prediction in answered)
    assert set(answered) == {prediction for prediction, known_us in asking.items() if known_us >= first_us}
    assert all(answer.as_of_us == asking[prediction] for prediction, answer in answered.items())
