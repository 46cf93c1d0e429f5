"""Trainer: production's consumption, handler, assembly, fitting and gates; the join and the bundles are simpler stand-ins."""

from __future__ import annotations

import asyncio
import threading
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from driftloop.contracts import Message, Record
from driftloop.contracts.event.v1.event_pb2 import Event
from driftloop.featurestore.errors import LogBehind
from driftloop.featurestore.log import KEY, KNOWN_AT, SEQUENCE, LogSnapshot, view_schema
from driftloop.messaging import dead_letter
from driftloop.usecase import UseCase
from services.trainer.assembly import Examples, view_keys
from services.trainer.attempts import TrainingSettings
from services.trainer.gates import GateSettings
from services.trainer.gateways import OfflineData, answered_requests
from services.trainer.handlers import Bounds, RetrainHandler
from services.trainer.instruments import TrainerInstruments
from services.trainer.worker import Consumption
from simulation.broker import SimulatedProducer
from simulation.hosted.bundles import Corruption, SimulatedBundles
from simulation.hosted.machine import Machine, MortalStore, Service
from simulation.process import Process

POLL_S = 0.2
TRAINING_S = 3.0
ROWS_MIN, ROWS_MAX = 100, 10_000
QUICK = TrainingSettings(epochs=4, patience=2, hidden=8, bins=4, category_rows_min=5, since_rows_min=60, rate=1e-2)
GATES = GateSettings(first_confidence=0.95, paired_rows_min=30, slice_rows_min=40)


class JoinedInMemory(OfflineData):
    """Training data from the offline log; the join on known time is made here, row by row, instead of by Feast."""

    def __init__(self, use_case: UseCase, store: MortalStore, machine: Machine) -> None:
        super().__init__(use_case, store, store.url, machine.folder / "feast", 0.0, 1, threading.Event())
        self._views = use_case.views
        self._snapshot: LogSnapshot | None = None

    def await_clock(self, clock_us: int) -> LogSnapshot:
        """See `Data.await_clock`; LogBehind at once."""
        self._snapshot = super().await_clock(clock_us)
        return self._snapshot

    def events(self, snapshot: LogSnapshot, types: Iterable[str], until_us: int) -> list[Event]:
        """See `Data.events`."""
        return super().events(snapshot, types, until_us)

    def values(self, examples: Examples) -> Mapping[str, npt.NDArray[Any]]:
        """See `Data.values`."""
        assert self._snapshot is not None
        keys = view_keys(self._use_case, examples)
        columns: dict[str, npt.NDArray[Any]] = {}
        for view in self._views:
            table = self._snapshot.updates(view.name, view_schema(view)).to_table()
            known_us = table[KNOWN_AT].cast("int64").to_pylist()
            history: dict[str, list[tuple[int, int, int]]] = {}
            for row, (key, at_us, sequence) in enumerate(
                zip(table[KEY].to_pylist(), known_us, table[SEQUENCE].to_pylist(), strict=True)
            ):
                history.setdefault(key, []).append((at_us, sequence, row))
            for updates in history.values():
                updates.sort()
            rows = [
                _known(history.get(key or "", []), at_us)
                for key, at_us in zip(keys[view.name], examples.at_us, strict=True)
            ]
            for feature in view.features:
                found = table[feature.name].to_pylist()
                values = [None if row is None else found[row] for row in rows]
                columns[feature.name] = np.array(values, dtype=np.float64 if feature.numeric else object)
        return columns


def _known(updates: list[tuple[int, int, int]], at_us: int) -> int | None:
    place = bisect_right(updates, at_us, key=lambda update: update[0])
    return updates[place - 1][2] if place else None


class _Outgoing:
    """See `services.trainer.handlers.Outgoing`; the worker waits for acknowledgements after the handler has returned."""

    def __init__(self, producer: SimulatedProducer) -> None:
        self._producer = producer

    def tell(self, message: Message[Any]) -> None:
        """Sends a message."""
        self._producer.send(message)

    def deliver(self, message: Message[Any]) -> None:
        """Sends a message; the worker is done once it is acknowledged."""
        self._producer.send(message)


class _Worker:
    """Answers requests one by one as tasks of the process: see `services.trainer.worker.Worker`, which has a thread."""

    def __init__(self, trainer: Trainer, handler: RetrainHandler, data: JoinedInMemory) -> None:
        self._trainer, self._handler, self._data = trainer, handler, data
        self._asked: asyncio.Queue[Record] = asyncio.Queue()
        self._done: list[Record] = []

    def ask(self, record: Record) -> None:
        """See `Worker.ask`."""
        self._asked.put_nowait(record)

    def done(self) -> list[Record]:
        """See `Worker.done`."""
        found, self._done = self._done, []
        return found

    async def run(self) -> None:
        """Answers what is asked, until it is cancelled."""
        producer, chance = self._trainer.producer, self._trainer.machine.chance
        assert producer is not None
        while True:
            record = await self._asked.get()
            while not self._has_data(record.message.payload.clock_us):
                await asyncio.sleep(POLL_S)
            await asyncio.sleep(chance.pause_s(TRAINING_S))
            self._handler.retrain(record)
            await producer.drained()
            self._done.append(record)

    def _has_data(self, clock_us: int) -> bool:
        try:
            self._data.await_clock(clock_us)
        except LogBehind:
            return False
        return True


class Trainer(Service):
    """Trainer, with settings that fit a few hundred rows."""

    name = "trainer"

    def __init__(self, machine: Machine, corruption: Corruption) -> None:
        super().__init__(machine)
        self._corruption = corruption

    async def live(self, process: Process) -> None:
        """See `Service.live`."""
        producer, store, machine = self.producer, self.store, self.machine
        assert producer is not None
        assert store is not None
        use_case, bus = machine.use_case, machine.broker.bus
        data, measured = JoinedInMemory(use_case, store, machine), TrainerInstruments()
        handler = RetrainHandler(
            use_case=use_case,
            data=data,
            bundles=SimulatedBundles(use_case, store, self._corruption),
            outgoing=_Outgoing(producer),
            bounds=Bounds(ROWS_MAX, ROWS_MIN),
            training=QUICK,
            gates=GATES,
            measured=measured,
            stopping=lambda: not process.alive,
        )
        worker = _Worker(self, handler, data)
        answered = answered_requests(lambda: bus.reader(["models"]), 1.0)
        consumption = Consumption(
            bus.reader(["retrain"], group=f"{use_case.name}-trainer"),
            worker,
            answered,
            lambda malformed: producer.send(dead_letter(malformed, "trainer", use_case.name)),
        )
        process.keep(worker.run())
        process.keep(self._consume(consumption))

    async def _consume(self, consumption: Consumption) -> None:
        while True:
            await self.machine.broker.reachable()
            consumption.turn(0.0)
            await asyncio.sleep(self.machine.chance.pause_s(POLL_S))
