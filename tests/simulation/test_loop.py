"""The whole loop in one process on real flights: it closes, it does not depend on chance, and it stays quiet without a change."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from driftloop.cli.replay import Played
from driftloop.cli.summary import by_topic, judged_rows, quality, summarise
from driftloop.contracts import Message
from driftloop.contracts.monitor.v1.monitor_pb2 import SERIES_KIND_ERROR
from driftloop.usecase import DAY_US, HOUR_US, ReplayStretch, load_replay, load_use_case, replay_steps
from services.monitor.drift import DriftWatch
from simulation.loop import Loop
from simulation.trainer import RecordedTrainer

FLIGHTS = load_use_case("flights")
TOPICS = ("events", "features", "predictions", "scores", "drift", "decisions", "retrain", "models", "releases")


def run(stretch: ReplayStretch) -> tuple[Loop, RecordedTrainer, dict[str, Message]]:
    trainer = RecordedTrainer(FLIGHTS)
    loop = Loop(FLIGHTS, trainer)
    loop.run(replay_steps(stretch, FLIGHTS.step_us, DAY_US))
    messages: dict[str, Message] = {}
    for topic in TOPICS:
        for message in loop.messages(topic):
            if not message.is_watermark:
                messages.setdefault(message.id, message)
    return loop, trainer, messages


@cache
def injected():
    stretch = load_replay("flights").stretch(inject="concept")
    return (stretch, *run(stretch))


@pytest.mark.timeout(600)
def test_the_loop_finds_the_injected_change_and_recovers_from_it():
    stretch, _, trainer, messages = injected()
    summary = summarise(Played(), messages, stretch.injected_at_us, FLIGHTS.predict.on.name)
    assert summary["labels"] == {"matched": 38_201, "pending": 0, "never": 1_162}
    assert summary["drift"]["alarms_before"] == 0
    assert summary["drift"]["labels_to_detect"] <= 3_000
    assert any(model["promoted"] and model["reason"] == "drift" for model in summary["models"])
    assert len(summary["trace"]) == 9
    first = next(iter(trainer.models.values()))
    clean = Loop(FLIGHTS, None, vectors_only=True)
    clean.run(replay_steps(load_replay("flights").stretch(start="2013-04-03", days=9), FLIGHTS.step_us))
    labels = {entity: label for entity, (label, _) in clean.recorded.labels.items()}
    rows = judged_rows(by_topic(messages)).last(5_000)
    found = quality(rows, first.predict, lambda entities: (clean.recorded.vectors, labels))
    assert found["rows"] == 5_000
    assert found["recovered_share"] >= 2 / 3


@pytest.mark.timeout(600)
def test_no_vector_holds_a_value_from_after_its_time_and_every_cause_is_there():
    _, _, _, messages = injected()
    topics = by_topic(messages)
    for message in topics["predictions"]:
        for reading in message.payload.vector.readings:
            assert reading.known_at_us <= message.payload.as_of_us
        assert all(cause in messages for cause in message.causes)
    for topic in ("features", "scores", "drift", "decisions", "retrain", "models", "releases"):
        for message in topics[topic]:
            assert message.causes, message
            assert all(cause in messages for cause in message.causes)


@pytest.mark.timeout(600)
def test_two_runs_write_the_same_messages():
    stretches = [load_replay("flights").stretch(start="2013-03-01", days=10) for _ in range(2)]
    first, second = (run(stretch)[2] for stretch in stretches)
    assert first == second
    assert by_topic(first)["models"]


@cache
def real_losses() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores, labels and prediction times of the first model on the uninjected stretch, from the rows that it had not seen."""
    _, trainer, messages = run(load_replay("flights").stretch(days=21))
    rows = judged_rows(by_topic(messages))
    first = next(iter(trainer.models.values()))
    return first.predict(rows.numbers, rows.texts), rows.labels, rows.at_us


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(5))
def test_hours_in_random_order_raise_no_alarm_of_the_error(seed):
    scores, labels, at_us = real_losses()
    hours = at_us // HOUR_US
    order = np.unique(hours)
    np.random.default_rng(seed).shuffle(order)
    watch = DriftWatch(FLIGHTS)
    alarms = []
    for place, hour in enumerate(np.concatenate([order, order[::-1], order])):
        for row in np.flatnonzero(hours == hour):
            alarms += watch.labelled(float(scores[row]), float(labels[row]), place * HOUR_US)
    assert [alarm for alarm in alarms if alarm.kind == SERIES_KIND_ERROR] == []
