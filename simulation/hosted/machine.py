"""What every simulated service stands on: the broker, the artifact store, a folder, and the draws that make them fail."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from driftloop.artifacts import ArtifactStore
from driftloop.messaging.heart_host import HeartHost
from driftloop.messaging.hosting import HostSettings
from driftloop.usecase import UseCase
from simulation.broker import Broker, Feed, SimulatedProducer
from simulation.faults import Chance
from simulation.process import Died, Process

RESTART_S = 1.0
SPREAD = 2
T = TypeVar("T")


@dataclass(frozen=True)
class Machine:
    """Shared by all services of a run. `store_url` names an artifact store, `folder` local disk that survives processes."""

    use_case: UseCase
    broker: Broker
    store_url: str
    folder: Path
    host_settings: HostSettings

    @property
    def chance(self) -> Chance:
        """The run's draws."""
        return self.broker.chance


class MortalStore(ArtifactStore):
    """The artifact store as one process writes it: not after its death, and it may die while it writes."""

    def __init__(self, url: str, process: Process) -> None:
        super().__init__(url)
        self._process = process
        self.writes_left: int | None = None
        """The process dies before this many more writes are done; None: it does not."""

    def put(self, path: str, data: bytes, *, private: bool = False) -> None:
        """See `ArtifactStore.put`."""
        if self.writes_left is not None:
            if self.writes_left == 0:
                self._process.kill(f"killed while it wrote {path}")
            self.writes_left -= 1
        if not self._process.alive:
            raise Died(f"{self._process.name} is dead and cannot write {path}")
        super().put(path, data, private=private)


def no_cost() -> float:
    """Packing state takes no CPU time that a simulated host would see: it would differ from run to run."""
    return 0.0


class Service(ABC):
    """One service, started again whenever it ends. `ready` is set while it does its work."""

    name: str

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.ready = asyncio.Event()
        self.process: Process | None = None
        self.store: MortalStore | None = None
        self.producer: SimulatedProducer | None = None
        self.feeds: list[Feed] = []
        self.hosts: list[Hosted] = []
        self.deaths: list[str] = []
        """Why each former life ended."""

    @abstractmethod
    async def live(self, process: Process) -> None:
        """Wires the service and starts its work within the process; returns once it is ready."""

    async def leave(self) -> None:
        """What the service does when it is told to stop."""
        for hosted in self.hosts:
            await hosted.host.close()
        if self.producer is not None:
            await self.producer.drained()

    async def run(self) -> None:
        """Keeps the service alive until it is cancelled."""
        while True:
            process = self.process = Process(self.name)
            self.store = MortalStore(self.machine.store_url, process)
            self.producer = SimulatedProducer(self.machine.broker)
            process.at_end(self.producer.die)
            process.keep(self.producer.run())
            process.keep(self._begin(process))
            try:
                await process.buried()
            except asyncio.CancelledError:
                process.kill("the run is over")
                raise
            self._forget()
            self.deaths.append(process.why)
            await asyncio.sleep(self.machine.chance.pause_s(RESTART_S))

    async def _begin(self, process: Process) -> None:
        await self.machine.broker.reachable()
        await self.live(process)
        self.ready.set()

    def _forget(self) -> None:
        self.ready.clear()
        for feed in self.feeds:
            self.machine.broker.detach(feed)
        self.feeds, self.hosts = [], []

    def crash(self) -> None:
        """Kills the process, if it lives."""
        if self.process is not None:
            self.process.kill("killed")

    def crash_at_write(self, writes: int) -> None:
        """Lets the process die in the middle of writing, some writes from now."""
        if self.store is not None:
            self.store.writes_left = writes

    async def stop(self) -> bool:
        """Lets the process end in order, or kills it if it cannot; whether it ended in order."""
        process = self.process
        if process is None or not process.alive or not self.ready.is_set():
            return False
        try:
            async with asyncio.timeout(10.0):
                await process.call(self.leave)
        except Exception as error:
            process.kill(f"could not stop in order: {error!r}")
            return False
        failed = not process.alive
        process.kill("stopped in order")
        return not failed

    # for those that live -----------------------------------------------------------------------------------------------

    def feed(self, names: Sequence[str]) -> Feed:
        """A consumer that goes with the process."""
        feed = self.machine.broker.feed(names)
        self.feeds.append(feed)
        return feed

    def host(self, process: Process, host: HeartHost) -> Hosted:
        """Hosts hearts within the process."""
        hosted = Hosted(host, self.feed(host.inputs))
        self.hosts.append(hosted)
        process.keep(hosted.fail())
        return hosted


class Hosted:
    """A host of hearts and the consumer that feeds it."""

    def __init__(self, host: HeartHost, feed: Feed) -> None:
        self.host = host
        self.feed = feed
        self.rebalance = False
        """Whether the partitions are taken away and given back before the next batch."""

    async def assign(self) -> None:
        """Restores the hearts and goes on where they are."""
        groups = [0] if self.host.single else range(SPREAD)
        places = {place for group in groups for place in self.host.members(group)}
        self.feed.seek(await self.host.assign(sorted(places)))

    async def work(self) -> None:
        """Delivers what comes, until it is cancelled."""
        while True:
            for place, batch in await self.feed.batches():
                await self.host.deliver(place, batch)
            if self.rebalance:
                self.rebalance = False
                await self.assign()

    async def fail(self) -> None:
        """Raises what the hosting failed with."""
        raise await self.host.wait_failed()


async def every(seconds: Callable[[], float], work: Callable[[], Any]) -> None:
    """Does something again and again, with pauses."""
    while True:
        await asyncio.sleep(seconds())
        work()
