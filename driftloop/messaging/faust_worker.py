"""A stage of a service: one host of hearts behind one Faust application; and the running of several in one process."""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import logging
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, NoReturn

from faust.types import TP
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from driftloop.contracts import Record
from driftloop.messaging.dead_letters import Malformed, read_record
from driftloop.messaging.errors import Stalled
from driftloop.messaging.faust_batches import BatchApp, BatchSchema, faust_application
from driftloop.messaging.heart_host import HeartHost
from driftloop.messaging.interfaces import TopicPartition
from driftloop.messaging.settings import KafkaSettings

# More objects than are alive of what is fetched and folded at a time (some 15 a record): looked at while they are, they cost as much
# as parsing them. Then collections of the young between two of the older: cycles are rare here.
_COLLECT_EVERY_OBJECTS, _COLLECT_OLDER_EVERY, _COLLECT_OLDEST_EVERY = 500_000, 2, 50
_DECODED_PER_TURN = 2_500  # records; then other tasks get the event loop, some 10 ms later
_STOP_SLACK_S = 1.0  # for telemetry, and for what lies between the bounds of a stop
log = logging.getLogger(__name__)


class WorkerSettings(BaseSettings):
    """Read from DRIFTLOOP_<NAME>."""

    model_config = SettingsConfigDict(env_prefix="DRIFTLOOP_", extra="ignore")

    start_timeout_s: float = Field(
        default=120.0, gt=0, description="from the start to partitions assigned and restored"
    )
    stall_timeout_s: float = Field(
        default=60.0, gt=0, description="records wait and none is folded: Faust hangs, restart"
    )
    watch_every_s: float = Field(
        default=5.0, gt=0, description="how often progress and lag are looked at: one request each"
    )


Handler = Callable[[int, Sequence[Record | Malformed]], Awaitable[None]]
"""Handles a batch of one topic: its partition and its records in offset order."""


class Stage:
    """Feeds a HeartHost from Kafka: each batch goes to the handler of its topic, which hands it to the host."""

    def __init__(
        self,
        host: HeartHost,
        handlers: Mapping[str, Handler],
        *,
        use_case: str,
        group: str,
        instance_id: str,
        bootstrap_servers: str,
        kafka: KafkaSettings | None = None,
        settings: WorkerSettings | None = None,
    ) -> None:
        if set(handlers) != set(host.inputs):
            raise ValueError(f"{host.name} reads {host.inputs}, its handlers are for {sorted(handlers)}")
        self.host = host
        self._handlers = dict(handlers)
        self._prefix = f"{use_case}."
        self._settings = settings or WorkerSettings()
        self.app: BatchApp = faust_application(
            group, instance_id, bootstrap_servers, self, one_member=host.single, settings=kafka
        )
        topic = self.app.topic(*(self._prefix + name for name in host.inputs), schema=BatchSchema(), acks=False)
        self.app.agent(topic, name=f"{host.name}-fold")(self._fold)
        host.on_commit(self._commit)

    # what Faust calls -------------------------------------------------------------------------------------------------

    async def assigned(self, places: Sequence[TP]) -> Mapping[TP, int]:
        """See `PartitionOwner.assigned`."""
        found = {(place.topic.removeprefix(self._prefix), place.partition): place for place in places}
        return {found[place]: offset for place, offset in (await self.host.assign(list(found))).items()}

    async def revoked(self, places: Sequence[TP]) -> None:
        """See `PartitionOwner.revoked`."""
        await self.host.revoke([(place.topic.removeprefix(self._prefix), place.partition) for place in places])

    async def _fold(self, stream: Any) -> None:
        async for event in stream.noack().events():
            batch = event.value
            if not self.app.fresh(batch):
                continue
            topic = batch.place.topic.removeprefix(self._prefix)
            partition = batch.place.partition
            records: list[Record | Malformed] = []
            for first in range(0, len(batch.records), _DECODED_PER_TURN):
                if first:
                    await asyncio.sleep(0)
                records += [
                    read_record(topic, partition, r.offset, r.key, r.value, r.headers, r.timestamp * 1000)
                    for r in batch.records[first : first + _DECODED_PER_TURN]
                ]
            if self.app.fresh(batch):  # still: partitions may have moved in a turn of the others
                await self._handlers[topic](partition, records)

    async def _commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        await self.app.consumer.commit_offsets({TP(self._prefix + t, p): offset for (t, p), offset in offsets.items()})

    # what the process calls -------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Returns when partitions are assigned and their hearts restored; raises what stands in the way."""
        async with asyncio.timeout(self._settings.start_timeout_s):
            await self.host.require_checkpoints()
            await self.app.start()
        if self.app.crashed:
            raise self.app.crash_reason or Stalled(f"{self.host.name} crashed while it started")

    async def watch(self) -> None:
        """Runs until something fails, and raises it."""
        failed: asyncio.Task[Any] = asyncio.create_task(self.host.wait_failed())
        crashed: asyncio.Task[Any] = asyncio.create_task(self.app.wait_until_stopped())
        stalled: asyncio.Task[Any] = asyncio.create_task(self._watch_progress())
        tasks = (failed, crashed, stalled)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if failed.done():
                raise failed.result()
            if stalled.done():
                stalled.result()
            raise self.app.crash_reason or Stalled(f"{self.host.name}: Faust stopped by itself")
        finally:
            for task in tasks:
                task.cancel()

    async def stop(self) -> None:
        """Checkpoints what is folded, then leaves; the group keeps our place for the session's length."""
        await self.host.close()
        await self.app.stop()

    async def _watch_progress(self) -> None:
        settings, before, moved_at_s = self._settings, self.host.positions(), time.monotonic()
        while True:
            await asyncio.sleep(settings.watch_every_s)
            now_s, positions, waiting = time.monotonic(), self.host.positions(), await self._waiting()
            if waiting is not None:
                self.host.waiting(waiting)
            idle = waiting is not None and not any(waiting.values()) and not self.app.rebalancing
            polls = now_s - self.app.consumer.polled_at_s < settings.stall_timeout_s
            if positions != before or (idle and polls):
                before, moved_at_s = positions, now_s
            elif now_s - moved_at_s > settings.stall_timeout_s:
                raise Stalled(
                    f"{self.host.name}: nothing was folded for {now_s - moved_at_s:.0f} s while records wait: {waiting}; "
                    f"rebalancing: {self.app.rebalancing}, last fetch {now_s - self.app.consumer.polled_at_s:.0f} s ago"
                )

    async def _waiting(self) -> dict[TopicPartition, int] | None:
        """Records between what is folded and the broker's end; None if the broker did not say."""
        positions = self.host.positions()
        places = [TP(self._prefix + topic, partition) for topic, partition in positions]
        if not places:
            return {}
        try:
            async with asyncio.timeout(self.app.kafka.answer_timeout_s):
                ends = await self.app.consumer.highwaters(*places)
        except Exception as error:  # a broker that is away is no stall of ours; if it stays away, nothing moves
            log.warning("%s: the broker does not tell its ends: %r", self.host.name, error)
            return None
        return {place: max(0, ends[TP(self._prefix + place[0], place[1])] - at) for place, at in positions.items()}


async def run_stages(
    stages: Sequence[Stage],
    ready: Callable[[], Awaitable[None]],
    stop: asyncio.Event,
    stop_timeout_s: float,
    beside: Sequence[Coroutine[Any, Any, None]] = (),
) -> None:
    """Starts all stages, calls `ready`, runs until `stop` is set, then stops them; raises the first failure of any.

    That of a last checkpoint, too. `beside` runs from the start until the stages stop; it is cancelled then. What has not stopped
    within `stop_timeout_s` is named and left behind, for the end of the process to end it: Faust can hang.
    """
    stopping: asyncio.Task[Any] = asyncio.create_task(stop.wait())
    watching: list[asyncio.Task[Any]] = [asyncio.create_task(stage.host.wait_failed()) for stage in stages]
    watching += [asyncio.create_task(coroutine) for coroutine in beside]
    starting: list[asyncio.Task[Any]] = [
        asyncio.create_task(stage.start(), name=f"{stage.host.name}-start") for stage in stages
    ]
    try:
        waiting = set(starting)
        while waiting and not stopping.done():
            done, _ = await asyncio.wait([*waiting, *watching, stopping], return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                _raise_failure(task)
            waiting -= done
        if not stopping.done():
            await ready()
            watching += [asyncio.create_task(stage.watch(), name=f"{stage.host.name}-watch") for stage in stages]
            done, _ = await asyncio.wait([stopping, *watching], return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                _raise_failure(task)
    finally:
        await _stop(stages, [stopping, *starting, *watching], stop_timeout_s)
    for stage in stages:
        if stage.host.failure is not None:
            raise stage.host.failure


async def _stop(stages: Sequence[Stage], tasks: Sequence[asyncio.Task[Any]], timeout_s: float) -> None:
    """Ends the tasks, then the stages; says the names of those that `timeout_s` is too short for."""
    until_s = time.monotonic() + timeout_s
    for task in tasks:
        task.cancel()
    _, left = await asyncio.wait(tasks, timeout=timeout_s)
    if not left:
        stops = [asyncio.create_task(stage.stop(), name=f"{stage.host.name}-stop") for stage in stages]
        done, left = await asyncio.wait(stops, timeout=max(0.0, until_s - time.monotonic()))
        for stopped in done:
            stopped.result()
    if left:
        names = ", ".join(sorted(task.get_name() for task in left))
        log.error(
            "not stopped within %.0f s, and what it had folded since its last checkpoint is folded again: %s",
            timeout_s,
            names,
        )


def _raise_failure(task: asyncio.Task[Any]) -> None:
    """Raises what a task raised, or the failure that it found."""
    found = task.result()
    if isinstance(found, BaseException):
        raise found


def spare_the_collector() -> None:
    """Keeps Python's garbage collector from what lives as long as the process: call it when that much has been made.

    A batch is thousands of objects that die together; at the default of 700 between two collections, each of which may look at
    everything that was ever imported, collecting cost as much as folding.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_EVERY_OBJECTS, _COLLECT_OLDER_EVERY, _COLLECT_OLDEST_EVERY)


def stop_on_signals(stop: asyncio.Event, within_s: float) -> None:
    """Sets `stop` at SIGTERM or SIGINT; a process that is still there a second after `within_s` ends with 1.

    `within_s` is the sum of the bounds of its stop.
    Packing a large state takes seconds, and leaving the event loop waits for its threads for ever: neither may keep a
    supervisor waiting. What no checkpoint holds by then is folded again, as after a crash; where every thread stood is said.
    """
    loop, is_told = asyncio.get_running_loop(), False

    def on_signal(*_: object) -> None:
        # Not by the event loop, which may be busy: Python runs this between any two instructions of the main thread.
        nonlocal is_told
        if not is_told:
            is_told = True
            # By a thread that needs nothing of the interpreter, whose lock a library may keep.
            faulthandler.dump_traceback_later(within_s + _STOP_SLACK_S, exit=True)
        loop.call_soon_threadsafe(stop.set)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)


def end_process(code: int) -> NoReturn:
    """Ends the process now: threads of Faust and of clients that hang must not keep it, its supervisor starts another."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
