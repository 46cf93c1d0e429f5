"""A replica of serving behind its real gRPC door, on an in-memory bus, with models that a test makes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from driftloop.artifacts import BundleRefused
from driftloop.contracts import Message, Record, derive_id, to_value, to_wire, watermark
from driftloop.contracts.features.v1.features_pb2 import FeatureUpdate
from driftloop.contracts.monitor.v1.monitor_pb2 import Arm, Recalibration, Release, Role
from driftloop.contracts.serving.v1.serving_pb2 import PredictRequest, WaitForClockRequest
from driftloop.contracts.serving.v1.serving_pb2_grpc import PredictionServiceStub
from driftloop.messaging import MemoryBus, read_record
from driftloop.usecase import Event, Field, FieldValue, Label, Latest, Prediction, Request, UseCase, Window, before
from services.serving.bootstrap import Replica
from services.serving.desk import Outside
from services.serving.gateways.online import OnlineReader
from services.serving.routing import Model
from services.serving.settings import ServingSettings
from services.serving.view import Entry

SPREAD = 2
ordered = Event(
    "ordered",
    entity="order",
    fields={
        "shop": Field(str),
        "rider": Field(str, optional=True),
        "price": Field(float, ge=0, le=500),
        "due": Field("time"),
    },
)
delivered = Event(
    "delivered", entity="order", fields={"shop": Field(str), "rider": Field(str), "minutes": Field(float)}
)
orders = UseCase(
    name="orders",
    events=[ordered, delivered],
    predict=Prediction(on=ordered, at=before("due", "10m")),
    features=[
        Request("price"),
        Window(delivered, by="shop", of="minutes", over=["1h"], stats=["mean", "count"]),
        Latest(delivered, by="rider", of="minutes", max_age="3h"),
    ],
    label=Label(on=delivered, value=lambda e: e["minutes"] > 30),
)
SHOP, RIDER = (view.name for view in orders.views)
FIELDS: Mapping[str, FieldValue] = {"price": 12.5, "shop": "s1", "rider": "r1"}


class Constant:
    """Answers every row with one value."""

    prior: Sequence[float] = ()

    def __init__(self, score: float) -> None:
        self.score = score

    def predict(self, numbers: np.ndarray, texts: Sequence[Sequence[str]]) -> np.ndarray:
        return np.full(len(texts), self.score)


class Weighted:
    """A sum of inputs with weights, a missing one counting nothing; explainable, since its spec has a background."""

    MEAN_PRICE = 15.0

    def __init__(self, weights: Mapping[str, float], base: float) -> None:
        self._weights = np.array([weights.get(name, 0.0) for name in orders.numeric_inputs])
        self._base = base
        rows = [[price] + [None] * (len(self._weights) - 1) for price in (10.0, 20.0)]
        self.spec: Mapping[str, Any] = {"background": {"numbers": rows, "texts": [[], []]}}
        self.scoring = self

    def codes(self, texts: Sequence[Sequence[str]]) -> np.ndarray:
        return np.zeros((len(texts), 0), dtype=np.int64)

    def score(self, numbers: np.ndarray, codes: np.ndarray) -> np.ndarray:
        return np.nan_to_num(numbers) @ self._weights + self._base

    def predict(self, numbers: np.ndarray, texts: Sequence[Sequence[str]]) -> np.ndarray:
        return self.score(numbers, self.codes(texts))


class Models:
    """A loader: models by id; what is not there is refused. `gate` holds loading back while it is cleared."""

    def __init__(self, models: Mapping[str, Model]) -> None:
        self.models = dict(models)
        self.loaded: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def load(self, arm: Arm) -> Model:
        await self.gate.wait()
        if arm.model_id not in self.models:
            raise BundleRefused("signature", f"the signature of {arm.model_id} does not match")
        self.loaded.append(arm.model_id)
        return self.models[arm.model_id]


class NoOnlineStore:
    """An online store that must not be asked."""

    def read(self, view: str, keys: Sequence[str]) -> dict[str, Entry]:
        raise AssertionError(f"nobody should look up {keys}")


class Twin:
    """What a test holds of a running replica."""

    def __init__(
        self, bus: MemoryBus, models: Models, replica: Replica, channel: grpc.aio.Channel, use_case: str = "orders"
    ) -> None:
        self.use_case = use_case
        self.bus = bus
        self.models = models
        self.replica = replica
        self.channel = channel
        self.stub: Any = PredictionServiceStub(channel)
        self._revision = 0
        self.clock_us = 1_000

    def feature(self, view: str, key: str, values: Sequence[FieldValue | None], sequence: int, known_at_us: int) -> str:
        """Writes an update of a feature entity; its id."""
        payload = FeatureUpdate(
            use_case=self.use_case,
            view=view,
            key=key,
            known_at_us=known_at_us,
            event_time_us=known_at_us,
            values=[to_value(value) for value in values],
            sequence=sequence,
        )
        update_id = derive_id(key, sequence)
        self.bus.append(Message("features", key, payload, update_id, "test", known_at_us, known_at_us))
        return update_id

    def advance(self, clock_us: int, judging: bool = True) -> None:
        """Writes the watermarks of features, and of judging."""
        for partition in range(SPREAD):
            self.bus.append(watermark("features", partition, f"aggregation/{partition}", clock_us))
        if judging:
            self.judge(clock_us)

    def judge(self, clock_us: int) -> None:
        """Writes judging's watermark."""
        self.bus.append(watermark("releases", 0, "judging", clock_us))

    def release(
        self,
        *arms: tuple[str, Role],
        shares: Sequence[float] = (),
        names: Sequence[str] = (),
        pending_retrain: str = "",
        recalibration: Recalibration | None = None,
    ) -> int:
        """Writes a release of the next revision; the revision."""
        self._revision += 1
        made = [
            Arm(
                model_id=model_id,
                role=role,
                bundle_digest=model_id,
                share=shares[n] if shares else 0.0,
                name=names[n] if names else "",
                recalibration=recalibration,
            )
            for n, (model_id, role) in enumerate(arms)
        ]
        payload = Release(
            use_case=self.use_case,
            revision=self._revision,
            champion=made[0] if made else None,
            arms=made[1:],
            pending_retrain=pending_retrain,
        )
        self.bus.append(Message("releases", self.use_case, payload, f"release-{self._revision}", "test", 0, 0))
        return self._revision

    async def at(self, clock_us: int) -> Any:
        """Waits until the replica has come to a clock."""
        return await self.stub.WaitForClock(WaitForClockRequest(use_case=self.use_case, clock_us=clock_us), timeout=10)

    async def released(
        self,
        *arms: tuple[str, Role],
        shares: Sequence[float] = (),
        names: Sequence[str] = (),
        recalibration: Recalibration | None = None,
    ) -> None:
        """Releases and waits until it is applied; `recalibration`: of every arm."""
        self.release(*arms, shares=shares, names=names, recalibration=recalibration)
        self.clock_us += 1_000
        self.advance(self.clock_us)
        await self.at(self.clock_us)

    async def marked(self, clock_us: int) -> None:
        """Moves the clock and waits until the replica has said so on `predictions`: all answers before it are there."""
        reader, waiting = self.bus.reader(["predictions"]), set(range(SPREAD))
        self.advance(clock_us)
        async with asyncio.timeout(10):
            while waiting:
                for record in await asyncio.to_thread(reader.poll, 1.0, 10_000):
                    assert isinstance(record, Record)
                    if record.message.is_watermark and record.message.known_at_us >= clock_us:
                        waiting.discard(record.partition)

    def records(self, topic: str, control: bool = False) -> list[Record]:
        """What the bus holds of a topic, watermarks only if `control`."""
        found: list[Record] = []
        partitions = 1 if topic in ("commands", "dead-letters", "releases") else SPREAD
        for partition in range(partitions):
            for offset, encoded in enumerate(self.bus.records(topic, partition)):
                record = read_record(topic, partition, offset, encoded.key, encoded.value, encoded.headers, 0)
                assert isinstance(record, Record)
                if control or not record.message.is_watermark:
                    found.append(record)
        return found


def settings(folder: Path, **changes: Any) -> ServingSettings:
    """Settings of a replica in a folder of its own, on a port of its own."""
    mine: dict[str, Any] = {"address": "127.0.0.1:0", "read_poll_s": 0.05, "stop_grace_s": 0.1}
    return ServingSettings(state_dir=folder, **(mine | changes))


def request(
    entity: str = "o1", request_id: str = "1", use_case: str = "orders", **fields: FieldValue | None
) -> PredictRequest:
    """A good request, but for `fields`; None leaves one out."""
    given = {name: value for name, value in {**FIELDS, **fields}.items() if value is not None}
    return PredictRequest(
        use_case=use_case, entity=entity, request_id=request_id, fields=to_wire(given, ordered.fields)
    )


def _outside(bus: MemoryBus, loader: Models, online: OnlineReader | None) -> Outside:
    return Outside(
        partitions={"features": SPREAD, "predictions": SPREAD},
        producer=bus.producer(),
        open_reader=lambda: bus.reader(["features", "releases"]),
        open_event_reader=lambda: bus.reader(["events"], "asking"),
        loader=loader,
        open_online_reader=lambda: online or NoOnlineStore(),
    )


@asynccontextmanager
async def _running(replica: Replica, wait: bool) -> AsyncIterator[grpc.aio.Channel]:
    stopped = asyncio.Event()
    running = asyncio.create_task(replica.run(stopped))
    listening = asyncio.create_task(replica.listening.wait())
    await asyncio.wait((running, listening), return_when=asyncio.FIRST_COMPLETED)
    listening.cancel()
    if running.done():
        running.result()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{replica.port}") as channel:
        if wait:
            async with asyncio.timeout(10):
                await replica.ready.wait()
        try:
            yield channel
        finally:
            stopped.set()
            await running


@asynccontextmanager
async def twin(
    folder: Path,
    models: Mapping[str, Model] | None = None,
    bus: MemoryBus | None = None,
    online: OnlineReader | None = None,
    wait: bool = True,
    use_case: UseCase = orders,
    **changes: Any,
) -> AsyncIterator[Twin]:
    """A running replica, ready unless `wait` is False."""
    bus = bus or MemoryBus(use_case.name, SPREAD)
    loader = Models(models if models is not None else {"m1": Constant(0.1), "m2": Constant(0.2)})
    replica = Replica(settings(folder, **changes), [(use_case, _outside(bus, loader, online))])
    async with _running(replica, wait) as channel:
        yield Twin(bus, loader, replica, channel, use_case.name)


@asynccontextmanager
async def pair(folder: Path) -> AsyncIterator[tuple[Twin, Twin]]:
    """One replica of two use cases, orders and rides; rides waits for its first release until its loader's gate is opened."""
    rides = replace(orders, name="rides")
    buses = {name: MemoryBus(name, SPREAD) for name in ("orders", "rides")}
    loaders = {"orders": Models({"m1": Constant(0.1)}), "rides": Models({"m7": Constant(0.7)})}
    loaders["rides"].gate.clear()
    made = [(use_case, _outside(buses[use_case.name], loaders[use_case.name], None)) for use_case in (orders, rides)]
    first = Release(use_case="rides", revision=1, champion=Arm(model_id="m7", bundle_digest="m7"))
    buses["rides"].append(Message("releases", "rides", first, "release-1", "test", 0, 0))
    replica = Replica(settings(folder), made)
    async with _running(replica, wait=False) as channel:
        twins = [Twin(buses[name], loaders[name], replica, channel, name) for name in ("orders", "rides")]
        yield twins[0], twins[1]
