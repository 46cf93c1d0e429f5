"""Monitor as processes on a real broker: labels are matched, a model asked for and released, also when it is killed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from driftloop.contracts import Message, Record, watermark
from driftloop.contracts.monitor.v1.monitor_pb2 import LABEL_STATE_MATCHED, LABEL_STATE_NEVER, RetrainRequest, Score
from driftloop.contracts.serving.v1.scored_pb2 import Scored
from driftloop.contracts.serving.v1.serving_pb2 import Prediction, Vector
from driftloop.contracts.trainer.v1.trainer_pb2 import OUTCOME_PUBLISHED, Model
from driftloop.messaging import MemoryBus, MemoryReader
from services.monitor.judging import Judging
from services.monitor.matching import Matching
from tests.service_world import ServiceWorld, free_address
from tests.tiny_usecase import MINUTE_US, START_US, told

pytestmark = pytest.mark.timeout(180)
SPREAD = 2
STEP_US = 15 * MINUTE_US
TRIPS_PER_STEP = 10
WRITTEN = ("scores", "retrain", "releases", "decisions")
FED = (*(("matching", p) for p in range(SPREAD)), ("judging", 0))


class Oracle:
    """Monitor's hearts on the in-memory bus, fed with the same messages."""

    def __init__(self, world: ServiceWorld) -> None:
        self.bus = MemoryBus(world.name, SPREAD)
        self._producer = self.bus.producer()
        self._hearts: list[tuple[Any, MemoryReader, int | None]] = [
            (Matching(world.use_case, p, SPREAD, 1), self.bus.reader(["events", "predictions"]), p)
            for p in range(SPREAD)
        ]
        judged = self.bus.reader(["predictions", "scores", "models", "commands", "incidents"])
        self._hearts.append((Judging(world.use_case, SPREAD, 1), judged, None))

    def send(self, messages: list[Message[Any]]) -> None:
        """Folds the messages to quiescence."""
        for message in messages:
            self._producer.send(message)
        for heart, reader, partition in self._hearts:
            records = [r for r in reader.poll(0, 100_000) if partition is None or r.partition == partition]
            for message in heart.fold(records):
                self._producer.send(message)

    def ids(self) -> set[str]:
        found = self.bus.reader(WRITTEN).poll(0, 100_000)
        return {r.message.id for r in found if isinstance(r, Record) and not r.message.is_watermark}


class World(ServiceWorld):
    """Monitor on a tiny use case, stepped as a replay steps it."""

    def __init__(self, bootstrap_servers: str, folder: Path) -> None:
        super().__init__("monitor", bootstrap_servers, folder, SPREAD, WRITTEN)
        self.oracle = Oracle(self)
        self.clock_us = START_US

    def tell(self, messages: list[Message[Any]]) -> None:
        self.oracle.send(messages)
        self.send(messages)

    def step(self, number: int, model_id: str = "") -> None:
        """Announces trips, predicts them if there is a model, labels those of an hour ago, and ends the step."""
        at_us = START_US + number * STEP_US
        messages: list[Message[Any]] = []
        for index in range(TRIPS_PER_STEP):
            entity, line = f"t{number}-{index}", f"line{index % 2}"
            starts_at = at_us + 30 * MINUTE_US
            messages.append(told(self.name, "announced", entity, at_us + 1, line=line, starts_at=starts_at))
            if number >= 4:
                kind = "gone" if index == 0 else "came"
                fields: dict[str, str | float] = {"line": line} if kind == "gone" else {"line": line, "delay": index}
                messages.append(told(self.name, kind, f"t{number - 4}-{index}", at_us + 2, **fields))
            if model_id:
                messages.append(self._prediction(entity, model_id, at_us))
        end_us = at_us + STEP_US
        messages += [watermark("events", p, "ingest", end_us) for p in range(SPREAD)]
        messages += [watermark("predictions", p, "serving/0", end_us) for p in range(SPREAD)]
        self.tell(messages)
        self.clock_us = end_us

    def _prediction(self, entity: str, model_id: str, at_us: int) -> Message[Prediction]:
        payload = Prediction(
            use_case=self.name,
            id=f"p-{entity}",
            entity=entity,
            as_of_us=at_us,
            model_id=model_id,
            arm="champion",
            score=0.4,
            scores=[Scored(model_id=model_id, score=0.4)],
            vector=Vector(inputs_digest=self.use_case.inputs_digest, numbers=[0.0] * len(self.use_case.numeric_inputs)),
        )
        return Message("predictions", entity, payload, payload.id, "driftloop/serving", at_us + 1, at_us + 1)

    def await_clock(self) -> None:
        """Returns when judging has reached the last step's end."""
        self.read_until(
            lambda: any(r.message.is_watermark and r.message.known_at_us >= self.clock_us for r in self.of("releases"))
        )

    def of(self, topic: str) -> list[Record]:
        return [record for record in self.seen if record.topic == topic]

    def payloads(self, topic: str) -> list[Any]:
        """Distinct payloads in order of first appearance."""
        found = {r.message.id: r.message.payload for r in self.of(topic) if not r.message.is_watermark}
        return list(found.values())

    def ids(self) -> set[str]:
        return {r.message.id for topic in WRITTEN for r in self.of(topic) if not r.message.is_watermark}

    def answer(
        self, request: RetrainRequest, model_id: str = "m1", bundle_url: str = "bundles/m1", bundle_digest: str = "d1"
    ) -> None:
        """Trainer's answer to a request."""
        model = Model(
            use_case=self.name,
            id=model_id,
            request_id=request.id,
            outcome=OUTCOME_PUBLISHED,
            bundle_url=bundle_url,
            bundle_digest=bundle_digest,
            trained_rows=200,
            clock_us=request.clock_us,
        )
        self.tell(
            [Message("models", self.name, model, model_id, "driftloop/trainer", request.clock_us, request.clock_us)]
        )


@pytest.fixture
def world(kafka_bootstrap_servers: str, tmp_path: Path) -> Iterator[World]:
    found = World(kafka_bootstrap_servers, tmp_path)
    found.create_topics()
    yield found
    found.close()


def until_request(world: World) -> int:
    """Steps until monitor asks for the first model, and no further, as a replay does; returns the next step."""
    for number in range(40):
        world.step(number)
        world.await_clock()
        if any(release.pending_retrain for release in world.payloads("releases")):
            world.read_until(lambda: bool(world.payloads("retrain")))
            return number + 1
    raise AssertionError(world.log())


def test_labels_are_matched_and_the_first_model_is_asked_for_and_released(world: World) -> None:
    process = world.start()
    world.await_serving()
    following = until_request(world)
    scores: list[Score] = world.payloads("scores")
    assert {score.state for score in scores} == {LABEL_STATE_MATCHED, LABEL_STATE_NEVER}
    (request,) = world.payloads("retrain")
    world.answer(request)
    world.read_until(lambda: any(r.champion.model_id == "m1" for r in world.payloads("releases")))
    for number in range(following, following + 12):
        world.step(number, "m1")
    world.await_clock()
    world.read_until(lambda: world.ids() >= world.oracle.ids())
    assert world.ids() == world.oracle.ids()
    assert any(score.prediction_id and score.model_id == "m1" for score in world.payloads("scores"))
    assert world.stop(process) == 0


def test_killed_around_trainers_answer_it_says_what_an_undisturbed_monitor_says(world: World) -> None:
    process = world.start()
    world.await_serving()
    following = until_request(world)
    world.kill(process)
    (request,) = world.payloads("retrain")
    world.answer(request)
    process = world.start()
    world.read_until(lambda: any(r.champion.model_id == "m1" for r in world.payloads("releases")))
    world.kill(process)
    world.start()
    for number in range(following, following + 6):
        world.step(number, "m1")
        world.await_clock()
    world.read_until(lambda: world.ids() >= world.oracle.ids())
    assert world.ids() == world.oracle.ids()


def test_the_stages_can_run_apart_and_a_standby_takes_judging_over(world: World) -> None:
    addresses = [free_address() for _ in range(3)]
    world.start(addresses[0], MONITOR_STAGES="matching")
    first = world.start(addresses[1], MONITOR_STAGES="judging")
    for address in addresses[:2]:
        world.await_serving(address)
    world.start(addresses[2], MONITOR_STAGES="judging", DRIFTLOOP_REPLICA="1")
    world.await_serving(addresses[2])
    world.step(0)
    world.await_clock()
    world.kill(first)
    world.step(1)
    world.await_clock()
    assert world.ids() == world.oracle.ids()
