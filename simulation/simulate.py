"""One run of the whole loop from a seed, with faults, held to the invariants and to the undisturbed run of the same seed."""

from __future__ import annotations

import asyncio
import logging
import random
import tempfile
import time
import uuid
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from google.protobuf.message import Message as Payload

from driftloop.artifacts import ArtifactStore
from driftloop.contracts import Record
from driftloop.contracts.monitor.v1.monitor_pb2 import LABEL_STATE_NEVER
from driftloop.contracts.serving.v1.serving_pb2 import Prediction
from driftloop.messaging import MemoryBus
from driftloop.usecase import replay_steps
from simulation.broker import Broker
from simulation.caller import Caller, NeverFollowed, Told
from simulation.clock import Stuck, VirtualLoop
from simulation.faults import Chance, Faults
from simulation.hosted.bundles import Corruption
from simulation.hosted.features import Features
from simulation.hosted.ingest import Ingest
from simulation.hosted.machine import SPREAD, Machine, Service
from simulation.hosted.monitor import Monitor
from simulation.hosted.serving import Serving
from simulation.hosted.trainer import Trainer
from simulation.invariants import AT_THE_END, EACH_STEP, FOLLOWED, Breach, Invariant, checked
from simulation.observed import Observed
from simulation.process import track_tasks
from simulation.settings import GivenHost
from simulation.trips import Trips, history, trips

ROWS_MIN, ROWS_MAX = 240, 900
THREAD_S = 0.005
SIZES_EVERY = 8  # steps: counting what hearts hold costs as much as a checkpoint
STEP_S = 0.4  # about what an undisturbed step takes; faults of a step strike within it
_log = logging.getLogger(__name__)


@dataclass
class Outcome:
    """What came of a run."""

    seed: int
    faults: Faults
    breaches: list[Breach] = field(default_factory=list)
    observed: Observed | None = None
    bus: MemoryBus | None = None
    struck: Mapping[str, int] = field(default_factory=dict)
    """How often each fault of the machines struck."""
    deaths: dict[str, int] = field(default_factory=dict)
    outages: int = 0
    virtual_s: float = 0.0
    seconds: float = 0.0

    def recorded(self) -> list[Record]:
        """Every record of the run, control records and repetitions included, as a broker would keep them."""
        return (
            []
            if self.bus is None
            else [
                record for place in self.bus.places() for record in self.bus.read(*place) if isinstance(record, Record)
            ]
        )

    @property
    def holds(self) -> bool:
        """Whether every invariant held."""
        return not self.breaches


def command(seed: int, faults: Faults) -> str:
    """What replays a run."""
    return f"python -m simulation --seed {seed} --faults {faults}"


def simulate(seed: int, faults: Faults, calm: Outcome | None = None) -> Outcome:
    """Runs a seed with faults; unless `calm` is given, its undisturbed run too, with which it is compared."""
    started_s = time.perf_counter()
    if calm is None:
        calm = _once(seed, faults.of_the_world)
        if not calm.holds or faults == faults.of_the_world:
            calm.seconds = time.perf_counter() - started_s
            return calm
    outcome = _once(seed, faults)
    if outcome.holds:
        outcome.breaches += compared(outcome, calm, decides_alike=not faults.hurry, in_order=not faults.reorder)
    outcome.seconds = time.perf_counter() - started_s
    return outcome


def _once(seed: int, faults: Faults) -> Outcome:
    chance = Chance(seed, faults)
    loop = VirtualLoop(lambda: chance.pause_s(THREAD_S))
    track_tasks(loop)
    outcome = Outcome(seed, faults)
    root = f"memory://simulation-{uuid.uuid4().hex}"
    store = ArtifactStore(root)
    try:
        with tempfile.TemporaryDirectory(prefix="driftloop-simulation-") as folder, _quiet():
            loop.run_until_complete(_Run(outcome, chance, store, Path(folder)).run())
    except (NeverFollowed, Stuck) as error:
        assert outcome.observed is not None
        outcome.breaches += checked(EACH_STEP, outcome.observed)  # what went wrong before may be why
        outcome.breaches.append(Breach("the_loop_follows", outcome.observed.clock_us, (str(error),)))
    finally:
        outcome.struck = +chance.struck
        outcome.virtual_s = loop.time()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.call_soon(loop.stop)
        loop.run_forever()
        loop.close()
        store.filesystem.rm(store.root, recursive=True)
    return outcome


@contextmanager
def _quiet() -> Iterator[None]:
    """Services warn of every fault that they meet; here they meet nothing else."""
    before = logging.root.manager.disable
    if not _log.isEnabledFor(logging.DEBUG):
        logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


class _Run:
    def __init__(self, outcome: Outcome, chance: Chance, store: ArtifactStore, folder: Path) -> None:
        seed, faults = outcome.seed, outcome.faults
        self._outcome, self._chance = outcome, chance
        draws = random.Random(f"run of {seed}")
        rows = draws.randrange(ROWS_MIN, ROWS_MAX)
        stretch: Trips = history(seed, rows, faults.of_the_world)
        told = Told()
        self._observed = outcome.observed = Observed(trips, stretch, store, told)
        outcome.bus = MemoryBus(trips.name, SPREAD, encoded=False)
        broker = Broker(outcome.bus, chance, self._observed.take)
        settings = GivenHost(
            checkpoint_records=draws.randrange(20, 300),
            checkpoint_s=draws.uniform(0.5, 5.0),
            checkpoint_load_max=1.0,
            fold_records_max=draws.randrange(3, 60),
        )
        self._broker = broker
        machine = Machine(trips, broker, store.url, folder, settings)
        self._ingest, self._serving = Ingest(machine), Serving(machine)
        self._features = Features(machine)
        trainer = Trainer(machine, Corruption(seed, faults))
        self._services: list[Service] = [self._ingest, self._features, self._serving, Monitor(machine), trainer]
        self._caller = Caller(trips, self._ingest, self._serving, chance, told)

    async def run(self) -> None:
        """Plays the history; stops at the first breach."""
        loop, observed = asyncio.get_running_loop(), self._observed
        keepers = [loop.create_task(service.run()) for service in self._services]
        steps = list(replay_steps(observed.stretch, trips.step_us, trips.label.matures_after_us + 4 * trips.step_us))
        try:
            await self._caller.begin(steps[0].start_us)
            for number, step in enumerate(steps):
                self._disturb(last=number >= len(steps) - 2)
                followed = await self._caller.play(step, last=number == len(steps) - 1)
                observed.clock_us = step.end_us if followed else observed.clock_us
                if number % SIZES_EVERY == 0:
                    self._measure()
                self._check((*EACH_STEP, *(FOLLOWED if followed else ())))
                if self._outcome.breaches:
                    return
            await self._settle()
            self._check((*EACH_STEP, *FOLLOWED, *AT_THE_END))
        finally:
            for service in self._services:
                self._outcome.deaths[service.name] = len(service.deaths)
            self._outcome.outages = self._broker.outages
            for keeper in keepers:
                keeper.cancel()
            await asyncio.gather(*keepers, return_exceptions=True)

    def _check(self, invariants: Sequence[Invariant]) -> None:
        self._outcome.breaches += checked(invariants, self._observed)
        self._observed.fresh.clear()

    def _disturb(self, last: bool) -> None:
        """Draws this step's faults; the last steps have none, so that the run can come to rest."""
        chance, loop = self._chance, asyncio.get_running_loop()
        if last:
            return
        when = chance.of("when")
        for service in self._services:
            if chance.happens("crash"):
                if when.random() < 0.4:
                    service.crash_at_write(when.randrange(6))
                else:
                    loop.call_later(when.uniform(0, STEP_S), service.crash)
            if chance.happens("stop"):
                loop.call_later(when.uniform(0, STEP_S), _spawn, service.stop)
            for hosted in service.hosts:
                if chance.happens("rebalance"):
                    hosted.rebalance = True
            for feed in service.feeds:
                if chance.happens("slow"):
                    feed.slow_down(when.expovariate(0.2))
        if chance.happens("outage"):
            away_s = min(90.0, 0.5 + when.expovariate(0.1))
            loop.call_later(when.uniform(0, STEP_S), _spawn, lambda: self._broker.outage(away_s))

    def _measure(self) -> None:
        sizes = self._observed.sizes
        for service in self._services:
            for hosted in service.hosts:
                for group, heart in hosted.host.groups.items():
                    state = heart.snapshot()
                    found = {name: len(value) for name, value in state.items() if isinstance(value, list | dict)}
                    if "buffer" in state:
                        found["buffer"] = len(state["buffer"]["held"])
                    sizes[f"{hosted.host.name} {group}"] = found

    async def _settle(self) -> None:
        """Lets services stop in order: what they hold is then in checkpoints and in the offline log."""
        for service in self._services:
            while not await service.stop():  # it may die of a fault drawn before: then it is started again first
                await asyncio.sleep(STEP_S)


def _spawn(work: Callable[[], Coroutine[Any, Any, Any]]) -> None:
    task = asyncio.get_running_loop().create_task(work())
    _spawned.add(task)
    task.add_done_callback(_spawned.discard)


_spawned: set[asyncio.Task[Any]] = set()  # the loop alone does not keep a task

ALIKE = ("events", "dead-letters")
VALUED = ("predictions", "scores", "models", "releases")
DECIDED = ("predictions", "scores", "drift", "decisions", "retrain", "models", "releases", "incidents", "commands")


def compared(disturbed: Outcome, calm: Outcome, decides_alike: bool, in_order: bool) -> list[Breach]:
    """What a disturbed run said that the undisturbed did not, and the reverse: effects are there exactly once.

    `decides_alike` False: callers ran ahead of the loop, so only what does not depend on when things were decided is compared:
    a label and its correction may both be known when an entity is scored, but what is told of it last is the same.
    `in_order` False: events of one step changed places. A value is known as late as the latest event that was read before it, be
    it one that changed nothing; so the values must agree, but not since when they are known.
    """
    assert disturbed.observed is not None
    assert calm.observed is not None
    found: list[str] = []
    ours, theirs = disturbed.observed.ids(), calm.observed.ids()
    for topic in (*ALIKE, *(DECIDED if decides_alike else ())):
        found += _different(topic, ours, theirs)
    for topic in VALUED if decides_alike else ():
        found += _told_otherwise(topic, disturbed.observed, calm.observed, in_order)
    found += _labelled_otherwise(disturbed.observed, calm.observed)
    if not found:
        return []
    return [Breach("what_happens_does_not_depend_on_faults", disturbed.observed.clock_us, tuple(found[:10]))]


def _different(topic: str, ours: Mapping[str, set[str]], theirs: Mapping[str, set[str]]) -> Iterator[str]:
    missing, extra = (
        theirs.get(topic, set()) - ours.get(topic, set()),
        ours.get(topic, set()) - theirs.get(topic, set()),
    )
    if missing:
        yield f"{topic}: {len(missing)} messages are missing, such as {sorted(missing)[:3]}"
    if extra:
        yield f"{topic}: {len(extra)} messages that the undisturbed run has not, such as {sorted(extra)[:3]}"


def _told_otherwise(topic: str, ours: Observed, theirs: Observed, in_order: bool) -> Iterator[str]:
    """Messages of one id that say something else; where they were read from may differ, since offsets do."""
    calm = {message.id: _without_places(message.payload, in_order) for message in theirs.of(topic)}
    different = [m.id for m in ours.of(topic) if m.id in calm and _without_places(m.payload, in_order) != calm[m.id]]
    if different:
        yield f"{topic}: {len(different)} messages say something else than in the undisturbed run, such as {different[:3]}"


def _labelled_otherwise(ours: Observed, theirs: Observed) -> Iterator[str]:
    """Entities whose last label, or that they have none, is not the same."""
    labels, calm = _last_labels(ours), _last_labels(theirs)
    different = sorted(entity for entity in labels.keys() | calm.keys() if labels.get(entity) != calm.get(entity))
    if different:
        shown = [f"{entity} {labels.get(entity)} instead of {calm.get(entity)}" for entity in different[:3]]
        yield f"scores: {len(different)} entities end with another label than in the undisturbed run, such as {shown}"


def _last_labels(observed: Observed) -> dict[str, tuple[bool, float]]:
    """Of each entity, as it was told last, whether it has no label, and the label."""
    scores = [message.payload for message in observed.of("scores")]
    return {score.entity: (score.state == LABEL_STATE_NEVER, score.label) for score in scores}


def _without_places(payload: Payload, in_order: bool) -> Payload:
    if isinstance(payload, Prediction):
        copy = Prediction()
        copy.CopyFrom(payload)
        for reading in copy.vector.readings:
            reading.sequence, reading.update_id = 0, ""
            if not in_order:
                reading.known_at_us = 0
        return copy
    return payload
