"""Serving as a process on a real broker with real bundles: ready, swapped, killed, stopped."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from deploy.local import create_topics, free_base_port
from driftloop.contracts import Message, Record, derive_id, prediction_id, to_value, to_wire, watermark
from driftloop.contracts.event.v1.event_pb2 import Event
from driftloop.contracts.features.v1.features_pb2 import FeatureUpdate
from driftloop.contracts.monitor.v1.monitor_pb2 import COMMAND_KIND_BUNDLE_REFUSED, Arm, Release
from driftloop.contracts.serving.v1.serving_pb2 import PredictBatchRequest, PredictRequest, WaitForClockRequest
from driftloop.contracts.serving.v1.serving_pb2_grpc import PredictionServiceStub
from driftloop.messaging import KafkaProducer, KafkaReader
from driftloop.usecase import UseCase, load_use_case
from services.serving.asking import request_id
from tests.unit.serving_bundles import publish

SPREAD = 2
START_TIMEOUT_S = 25.0
DECLARATION = '''"""Will an order arrive late?"""
from driftloop.usecase import Event, Field, Label, Prediction, Request, UseCase, Window, before

ordered = Event("ordered", entity="order", fields={"shop": Field(str), "price": Field(float), "due": Field("time")})
delivered = Event("delivered", entity="order", fields={"shop": Field(str), "minutes": Field(float)})
orders = UseCase(
    name="NAME",
    events=[ordered, delivered],
    predict=Prediction(on=ordered, at=before("due", "10m"), asked_by=ASKED_BY),
    features=[Request("price"), Window(delivered, by="shop", of="minutes", over=["1h"], stats=["mean", "count"])],
    label=Label(on=delivered, value=lambda e: e["minutes"] > 30),
)
'''


class World:
    """A use case of its own on the broker, its artifacts, and one replica of serving as a process."""

    def __init__(self, folder: Path, servers: str, asked_by: str = "None") -> None:
        self.folder = folder
        self.servers = servers
        self.name = f"orders_{uuid.uuid4().hex[:8]}"
        declared = folder / "usecases" / self.name / "usecase.py"
        declared.parent.mkdir(parents=True)
        declared.write_text(DECLARATION.replace("NAME", self.name).replace("ASKED_BY", asked_by))
        self.use_case: UseCase = load_use_case(self.name, str(folder / "usecases"))
        create_topics(servers, self.name, 20.0, SPREAD)
        self.producer = KafkaProducer(servers, self.name, "test")
        self.address = f"127.0.0.1:{free_base_port()}"
        self.process: subprocess.Popen[bytes] | None = None
        self.revision = 0
        self.sequence = 0

    def start(self, stderr: int | None = None) -> None:
        """Starts the replica."""
        environment = {
            **os.environ,
            "KAFKA_BOOTSTRAP_SERVERS": self.servers,
            "DRIFTLOOP_USE_CASE": self.name,
            "DRIFTLOOP_USECASES": str(self.folder / "usecases"),
            "DRIFTLOOP_STATE_DIR": str(self.folder / "state"),
            "DRIFTLOOP_ARTIFACTS_URL": str(self.folder / "artifacts"),
            "SERVING_ADDRESS": self.address,
            "BENTOML_DO_NOT_TRACK": "true",
        }
        self.process = subprocess.Popen([sys.executable, "-m", "services.serving"], env=environment, stderr=stderr)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ends the replica; its exit status."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(10)

    def bundle(self, model_id: str, score: float) -> Arm:
        """Publishes a model that answers `score`."""
        bundle = publish(self.folder, self.use_case, model_id, score)
        return Arm(model_id=model_id, bundle_url=bundle.url, bundle_digest=bundle.digest)

    def release(self, champion: Arm, *arms: Arm) -> str:
        """Releases a model; the id of the message."""
        self.revision += 1
        payload = Release(use_case=self.name, revision=self.revision, champion=champion, arms=arms)
        release_id = f"release-{self.revision}"
        self.producer.send(Message("releases", self.name, payload, release_id, "test", 0, 0))
        return release_id

    def feature(self, shop: str, mean: float, known_at_us: int) -> None:
        """Writes the values of a shop."""
        self.sequence += 1
        (view,) = self.use_case.views
        key = f"{view.name}|{shop}"
        payload = FeatureUpdate(
            use_case=self.name,
            view=view.name,
            key=key,
            known_at_us=known_at_us,
            values=[to_value(mean), to_value(1.0)],
            sequence=self.sequence,
        )
        self.producer.send(Message("features", key, payload, derive_id(key, self.sequence), "test", 0, known_at_us))

    def advance(self, clock_us: int) -> None:
        """Writes the watermarks of features and of judging."""
        for partition in range(SPREAD):
            self.producer.send(watermark("features", partition, f"aggregation/{partition}", clock_us))
        self.producer.send(watermark("releases", 0, "judging", clock_us))

    def request(self, entity: str, shop: str = "s1") -> PredictRequest:
        """A good request."""
        fields = to_wire({"shop": shop, "price": 9.5}, self.use_case.predict.on.fields)
        return PredictRequest(use_case=self.name, entity=entity, request_id="1", fields=fields)

    async def read(self, topic: str, clock_us: int | None = None) -> list[Record]:
        """A topic's records; with `clock_us` it waits for the replica's watermark of it on every partition."""
        reader = KafkaReader(self.servers, self.name, [topic])
        waiting = set(range(SPREAD)) if clock_us is not None else set()
        ends = {place: end for place, (_, end) in reader.offset_ranges().items()}
        left = {place for place, end in ends.items() if end > 0} if clock_us is None else set()
        found: list[Record] = []
        async with asyncio.timeout(START_TIMEOUT_S):
            while waiting or left:
                for record in await asyncio.to_thread(reader.poll, 0.2, 1_000):
                    assert isinstance(record, Record)
                    found.append(record)
                    if record.offset >= ends[(topic, record.partition)] - 1:
                        left.discard((topic, record.partition))
                    if clock_us is not None and record.message.is_watermark and record.message.known_at_us >= clock_us:
                        waiting.discard(record.partition)
        reader.close()
        return found

    @asynccontextmanager
    async def stub(self) -> AsyncIterator[Any]:
        """The replica's door, once it is ready."""
        async with grpc.aio.insecure_channel(self.address) as channel:
            async with asyncio.timeout(START_TIMEOUT_S):
                await channel.channel_ready()
                watch = health_pb2_grpc.HealthStub(channel).Watch(
                    health_pb2.HealthCheckRequest(service="driftloop.serving")
                )
                async for answer in watch:
                    if answer.status == health_pb2.HealthCheckResponse.SERVING:
                        break
                watch.cancel()
            yield PredictionServiceStub(channel)

    async def at(self, stub: Any, clock_us: int) -> Any:
        """Moves the clock, and waits until the replica has followed."""
        self.advance(clock_us)
        return await stub.WaitForClock(WaitForClockRequest(use_case=self.name, clock_us=clock_us), timeout=20)


@pytest.fixture
def world(tmp_path: Path, kafka_bootstrap_servers: str, request: pytest.FixtureRequest) -> Iterator[World]:
    made = World(tmp_path, kafka_bootstrap_servers, getattr(request, "param", "None"))
    yield made
    if made.process is not None and made.process.poll() is None:
        made.process.kill()
        made.process.wait()
    made.producer.close(5.0)


def answers(records: Sequence[Record]) -> dict[str, Record]:
    """The first logged answer of every prediction."""
    found: dict[str, Record] = {}
    for record in records:
        if not record.message.is_watermark:
            found.setdefault(record.message.id, record)
    return found


async def test_from_a_cold_start_to_answers_swaps_and_a_clean_stop(world: World) -> None:
    first, second = world.bundle("m1", 0.25), world.bundle("m2", 0.75)
    world.release(first)
    world.feature("s1", 17.0, known_at_us=900)
    world.advance(1_000)
    world.start()
    async with world.stub() as stub:
        request = world.request("o1")
        request.include_vector = True
        answered = await stub.Predict(request)
        assert (answered.model_id, answered.score, answered.as_of_us) == ("m1", 0.25, 1_000)
        assert list(answered.vector.numbers) == [9.5, 17.0, 1.0]

        world.release(second, first)
        world.feature("s1", 18.0, known_at_us=1_500)
        reached = await world.at(stub, 2_000)
        assert (reached.clock_us, reached.revision, reached.has_champion) == (2_000, 2, True)
        answered = await stub.Predict(request)
        assert (answered.model_id, answered.score, answered.vector.numbers[1]) == ("m2", 0.75, 18.0)

        forged = world.bundle("m3", 0.5)
        forged.bundle_digest = second.bundle_digest
        release_id = world.release(forged, second)
        async with asyncio.timeout(START_TIMEOUT_S):
            while not (told := await world.read("commands")):
                await asyncio.sleep(0.05)
        assert (await stub.Predict(world.request("o2"))).model_id == "m2"
        (command,) = told
        assert (command.message.payload.kind, command.message.payload.model_id) == (COMMAND_KIND_BUNDLE_REFUSED, "m3")
        assert command.message.causes == (release_id,)
        world.release(second, first)
        await world.at(stub, 4_000)
    logged = answers(await world.read("predictions", 4_000))
    assert {record.message.payload.model_id for record in logged.values()} == {"m1", "m2"}
    assert world.stop() == 0


async def test_kill_9_loses_no_answer_and_breaks_no_watermark(world: World) -> None:
    world.release(world.bundle("m1", 0.25))
    world.feature("s1", 17.0, known_at_us=900)
    world.advance(1_000)
    told: set[str] = set()

    async def ask(stub: Any, caller: int) -> None:
        call = 0
        while True:
            call += 1
            batch = PredictBatchRequest(requests=[world.request(f"o{caller}-{call}-{n}") for n in range(4)])
            told.update(response.prediction_id for response in (await stub.PredictBatch(batch)).responses)
            if len(told) > 600:
                enough.set()

    for clock_us in (2_000, 3_000):
        world.start()
        enough = asyncio.Event()
        already = len(told)
        async with world.stub() as stub:
            callers = [asyncio.create_task(ask(stub, clock_us + caller)) for caller in range(8)]
            await asyncio.wait([asyncio.create_task(enough.wait()), *callers], return_when=asyncio.FIRST_COMPLETED)
            world.advance(clock_us)
            world.stop(signal.SIGKILL)
            ended = await asyncio.gather(*callers, return_exceptions=True)
            assert all(isinstance(error, grpc.aio.AioRpcError) for error in ended)
        assert len(told) > already
    world.start()
    async with world.stub() as stub:
        await world.at(stub, 4_000)
    records = await world.read("predictions", 4_000)
    assert told <= answers(records).keys()
    for partition in range(SPREAD):
        marked, seen = -1, set()
        for record in records:
            if record.partition != partition:
                continue
            if record.message.is_watermark:
                marked = max(marked, record.message.known_at_us)
            else:
                # What is sent again after a crash may repeat what stands before the watermark, never add to it.
                assert record.message.known_at_us > marked or record.message.id in seen
                seen.add(record.message.id)
    assert world.stop() == 0


@pytest.mark.parametrize("world", ["ordered"], indirect=True)
async def test_events_that_ask_are_each_predicted_under_one_id_though_serving_is_killed_among_them(
    world: World,
) -> None:
    world.release(world.bundle("m1", 0.25))
    world.feature("s1", 17.0, known_at_us=900)
    world.advance(1_000)
    fields = to_wire({"shop": "s1", "price": 9.5, "due": 9_000}, world.use_case.predict.on.fields)

    def tell(numbers: range) -> None:
        for n in numbers:
            event = Event(
                use_case=world.name, id=f"e{n}", type="ordered", entity=f"o{n}", known_at_us=1_000 + n, fields=fields
            )
            world.producer.send(Message("events", event.entity, event, event.id, "test", 0, event.known_at_us))

    async def asked(least: int) -> dict[str, Record]:
        async with asyncio.timeout(START_TIMEOUT_S):
            while len(found := answers(await world.read("predictions"))) < least:
                await asyncio.sleep(0.02)
        return found

    world.start()
    tell(range(1_500))
    await asked(1)
    world.stop(signal.SIGKILL)
    tell(range(1_000, 2_000))
    world.start()
    found = await asked(2_000)
    assert found.keys() == {prediction_id(world.name, f"o{n}", request_id(f"e{n}")) for n in range(2_000)}
    assert {record.message.payload.score for record in found.values()} == {0.25}
    assert {record.message.payload.vector.numbers[1] for record in found.values()} == {17.0}
    assert world.stop() == 0
    events = KafkaReader(world.servers, world.name, ["events"], f"{world.name}-asking", f"{world.name}-asking-0")
    assert events.poll(2.0, 10) == []
    events.close()


async def test_before_the_first_model_the_service_is_ready_and_says_so(world: World) -> None:
    world.advance(1_000)
    world.start()
    async with world.stub() as stub:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.Predict(world.request("o1"))
        assert refused.value.code() == grpc.StatusCode.FAILED_PRECONDITION
        world.release(world.bundle("m1", 0.25))
        await world.at(stub, 2_000)
        assert (await stub.Predict(world.request("o1"))).score == 0.25
    assert world.stop() == 0


def test_told_to_stop_while_it_waits_for_the_broker_it_stops(world: World) -> None:
    world.servers = "127.0.0.1:1"
    world.start(stderr=subprocess.PIPE)
    assert world.process is not None
    assert world.process.stderr is not None
    assert any(b"waits for the topics" in line for line in world.process.stderr)
    assert world.stop() == 0
