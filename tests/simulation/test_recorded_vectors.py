"""A loop that is given its vectors decides as the loop that computed them, without the hearts of features."""

from __future__ import annotations

import pytest

from driftloop.usecase import DAY_US, ReplayStep, load_replay, load_use_case, replay_steps
from services.trainer.attempts import TrainingSettings
from simulation.loop import Loop
from simulation.trainer import RecordedTrainer

FLIGHTS = load_use_case("flights")
DECIDED = ("scores", "drift", "decisions", "retrain", "models", "releases", "incidents")


def written(loop: Loop, topic: str) -> set[tuple[str, bytes]]:
    """Ids and values of what a topic holds, control records left out."""
    return {
        (message.id, message.payload.SerializeToString(deterministic=True))
        for message in loop.messages(topic)
        if not message.is_watermark
    }


@pytest.mark.timeout(300)
def test_recorded_vectors_give_the_same_decisions():
    steps = list(replay_steps(load_replay("flights").stretch(start="2013-03-01", days=9), FLIGHTS.step_us, DAY_US))
    settings = TrainingSettings(epochs=2, hidden=8)
    first = Loop(FLIGHTS, RecordedTrainer(FLIGHTS, settings))
    first.run(iter(steps))
    recorded = first.recorded.vectors
    trainer = RecordedTrainer(FLIGHTS, settings)

    class Trainer:
        """Trains on the vectors that the first loop recorded."""

        def train(self, request, seen):
            seen.vectors = recorded
            return trainer.train(request, seen)

    second = Loop(FLIGHTS, Trainer(), lambda entity: recorded[entity], kept=DECIDED)
    second.run(iter(steps))
    assert written(first, "models")
    for topic in DECIDED:
        assert written(second, topic) == written(first, topic), topic
    assert second.messages("features") == []
    assert all(message.is_watermark for message in second.messages("events"))
    assert second.answered == first.answered


def test_an_empty_step_moves_the_clock():
    loop = Loop(FLIGHTS, None, lambda entity: pytest.fail(entity))
    loop.run(iter([ReplayStep(step * FLIGHTS.step_us, (step + 1) * FLIGHTS.step_us, [], []) for step in range(3)]))
    marks = [message.payload.known_at_us for message in loop.messages("releases")]
    assert marks == [FLIGHTS.step_us, 2 * FLIGHTS.step_us, 3 * FLIGHTS.step_us]
