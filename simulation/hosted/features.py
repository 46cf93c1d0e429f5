"""Features: production's hosts with rekeying and aggregation, the offline log, the write-behind and the answer to a retrain."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from driftloop.contracts import Message, Record
from driftloop.telemetry import instruments
from services.features.gateways import build_hosts
from services.features.handlers import RetrainHandler
from services.features.instruments import OnlineInstruments
from services.features.online import OnlineBounds, OnlineWriteBehind
from simulation.faults import Chance
from simulation.hosted.machine import Hosted, Machine, Service, no_cost
from simulation.process import Process

_ONLINE_EVERY_S = 0.25
_BOUNDS = OnlineBounds(every_s=_ONLINE_EVERY_S, batch_rows_max=20, rows_max=100, retry_s_max=1.0)


class StoreRefused(Exception):
    """The online store took nothing of a batch."""


class OnlineStore:
    """An online store in memory, which outlives its writers: the newest update of every key."""

    def __init__(self, chance: Chance) -> None:
        self._chance = chance
        self.rows: dict[str, Message[Any]] = {}

    def write(self, updates: Sequence[Message[Any]]) -> int:
        """See `OnlineWriter.write`; StoreRefused."""
        if self._chance.happens("store"):
            raise StoreRefused("the store does not answer")
        written = 0
        for update in updates:
            held = self.rows.get(update.key)
            if held is None or held.payload.sequence <= update.payload.sequence:
                self.rows[update.key] = update
                written += 1
        return written


class Features(Service):
    """Features, with an online store in memory in place of Feast's."""

    name = "features"

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine)
        self.online = OnlineStore(machine.chance)
        self.behind: OnlineWriteBehind | None = None

    async def live(self, process: Process) -> None:
        """See `Service.live`."""
        assert self.producer is not None
        assert self.store is not None
        machine, declared = self.machine, instruments("features")
        self.behind = behind = OnlineWriteBehind(lambda: self.online, _BOUNDS, OnlineInstruments(declared))
        hosts = build_hosts(
            machine.use_case,
            len(machine.broker.bus.places(["events"])),
            self.producer,
            self.store,
            declared,
            behind,
            machine.host_settings,
            no_cost,
        )
        hosted = [self.host(process, host) for host in hosts]
        for one in hosted:
            await one.assign()
            process.keep(one.work())
        process.keep(self._requests(hosted))
        process.keep(self._write_behind(behind))

    async def _requests(self, hosted: Sequence[Hosted]) -> None:
        handler, feed = RetrainHandler([one.host for one in hosted]), self.feed(["retrain"])
        while True:
            for _, batch in await feed.batches():
                for record in batch:
                    assert isinstance(record, Record)
                    await handler.retrain(record)

    async def _write_behind(self, behind: OnlineWriteBehind) -> None:
        while True:
            await asyncio.sleep(_ONLINE_EVERY_S)
            try:
                while await asyncio.to_thread(behind.write_batch, self.online):
                    pass
            except StoreRefused:
                continue
