"""Runs hearts behind a bus: restores, folds, sends, checkpoints; knows nothing of Faust, and decides nothing itself.

A checkpoint holds a heart's state, the offsets it reflects and what its sinks have written, all of one moment. Outputs are
acknowledged before the checkpoint is saved and offsets are committed after it, so a crash repeats outputs (their ids are
derived, sinks drop them) and loses none.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from driftloop.artifacts.checkpoints import CheckpointStore, Packing
from driftloop.contracts import UNSET_US, Message, Record, decode, encode, topics
from driftloop.messaging.dead_letters import Malformed, dead_letter
from driftloop.messaging.errors import DeliveryFailed, QueueFull
from driftloop.messaging.hosting import AssignmentSplit, Cut, Heart, HostSettings, RestoreRefused, Sink, Watcher
from driftloop.messaging.interfaces import Producer, TopicPartition
from driftloop.messaging.traces import CausalTraces

CHECKPOINT_VERSION = 1
_SENDS_PER_TURN = 500  # then other tasks get the event loop
_TICK_S = 0.5  # how late a checkpoint by wall time may be
_PACKING_SHARE = 0.25  # of the event loop's time, at most: a slice is packed whatever the time
log = logging.getLogger(__name__)

Commit = Callable[[Mapping[TopicPartition, int]], Awaitable[None]]


@dataclass(slots=True)
class _Group:
    """One heart and the partitions that feed it."""

    index: int
    heart: Heart
    offsets: dict[TopicPartition, int]
    begun_at_s: float
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    whole: bool = True  # False from the start of a fold until its outputs are with the producer
    folded: int = 0  # records since the last checkpoint was begun
    pack_s: float = 0.0
    saved_clock_us: int = UNSET_US
    running: asyncio.Task[None] | None = None


class HeartHost:
    """Hosts one kind of heart, one instance per partition group.

    A group is all partitions with one number (`single=False`: `events/3` and `predictions/3` feed heart 3), or every
    partition of all `inputs` (`single=True`: one heart, number 0). `heart_factory` is given the group's number.
    Time is the event loop's; `cpu_s` tells the CPU time by which the cost of packing state is measured.
    """

    def __init__(
        self,
        name: str,
        inputs: Sequence[str],
        heart_factory: Callable[[int], Heart],
        producer: Producer,
        checkpoints: CheckpointStore,
        *,
        use_case: str,
        service: str,
        spread: int,
        single: bool = False,
        sinks: Sequence[Sink] = (),
        watcher: Watcher | None = None,
        settings: HostSettings | None = None,
        cpu_s: Callable[[], float] = time.thread_time,
    ) -> None:
        self.name = name
        self.inputs = tuple(inputs)
        self.single = single
        self._heart_factory = heart_factory
        self._producer = producer
        self._checkpoints = checkpoints
        self._use_case = use_case
        self._service = service
        self._spread = spread
        self._sinks = tuple(sinks)
        self._watcher = watcher
        self._settings = settings or HostSettings()
        self._cpu_s = cpu_s
        self._traces = CausalTraces(name, self._settings.traced_ids_max)
        self._commit: Commit | None = None
        self._groups: dict[int, _Group] = {}
        self._wanted_us = UNSET_US
        self._poke = asyncio.Event()
        self._failed = asyncio.Event()
        self._failure: BaseException | None = None
        self._ticker: asyncio.Task[None] | None = None

    # what the shell around the host calls -----------------------------------------------------------------------------

    async def require_checkpoints(self) -> None:
        """StoreUnavailable where no checkpoint could be read: asked before Faust starts, which tells of failures by their traces."""
        await asyncio.to_thread(self._checkpoints.require)

    def on_commit(self, commit: Commit) -> None:
        """Names the function that tells the broker which offsets are durable; without one nothing is committed."""
        self._commit = commit

    def group_of(self, place: TopicPartition) -> int:
        """The number of the heart that a partition feeds."""
        return 0 if self.single else place[1]

    def members(self, group: int) -> set[TopicPartition]:
        """The partitions that feed a heart."""
        declared = topics()
        if not self.single:
            return {(topic, group) for topic in self.inputs}
        return {(topic, p) for topic in self.inputs for p in range(declared[topic].partition_count(self._spread))}

    @property
    def groups(self) -> dict[int, Heart]:
        """The hearts at work here."""
        return {index: group.heart for index, group in self._groups.items()}

    def positions(self) -> dict[TopicPartition, int]:
        """The next offset to fold of every partition at work here."""
        return {place: offset for group in self._groups.values() for place, offset in group.offsets.items()}

    async def assign(self, places: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """Restores the hearts of an assignment; returns where to go on reading, 0 where there is no checkpoint.

        It is the whole assignment: what was hosted before is checkpointed and let go first, should it still be here.

        AssignmentSplit, RestoreRefused and CheckpointUnreadable end the process.
        """
        await self.revoke([place for group in list(self._groups.values()) for place in group.offsets])
        found: dict[int, set[TopicPartition]] = {}
        for place in places:
            found.setdefault(self.group_of(place), set()).add(place)
        positions: dict[TopicPartition, int] = {}
        for index, got in sorted(found.items()):
            if got != self.members(index):
                missing = sorted(self.members(index) - got)
                raise AssignmentSplit(f"{self.name} {index} was given {sorted(got)} without {missing}")
            self._groups[index] = await self._restored(index)
            positions |= self._groups[index].offsets
        if self._ticker is None:
            self._ticker = asyncio.create_task(self._tick(), name=f"{self.name}-checkpoints")
        return positions

    async def deliver(self, place: TopicPartition, batch: Sequence[Record | Malformed]) -> None:
        """Folds a batch of one partition, in offset order, and sends what follows. What was folded before is skipped.

        Any failure is kept for `wait_failed`: the process has to end, and nothing is folded after it.
        """
        group = self._groups.get(self.group_of(place))
        if group is None or self._failure is not None:
            return
        start = 0
        try:
            while start < len(batch):
                end = _fold_end(batch, start, self._settings.fold_records_max)
                async with group.lock:
                    if self._groups.get(group.index) is not group:
                        return
                    await self._fold(group, place, batch[start:end])
                start = end
        except BaseException as error:
            # A cancelled fold counts too: it may have sent half of its outputs, and its state must never be saved.
            if not group.whole:
                self._fail(error)
            raise

    async def revoke(self, places: Collection[TopicPartition]) -> None:
        """Checkpoints the hearts of partitions that go elsewhere, then lets them go."""
        for index in sorted({self.group_of(place) for place in places}):
            group = self._groups.get(index)
            if group is None:
                continue
            async with group.lock:
                del self._groups[index]
                await self._finish(group)
                if group.whole and group.folded and self._failure is None:
                    self._begin(group)
                    await self._finish(group)
                for sink in self._sinks:
                    sink.release(index)

    async def request_checkpoint(self, clock_us: int | None = None) -> None:
        """Asks every heart for a checkpoint: now, or with `clock_us` as soon as its clock has reached that time."""
        if clock_us is not None:
            self._wanted_us = max(self._wanted_us, clock_us)
            self._poke.set()
            return
        for group in list(self._groups.values()):
            async with group.lock:
                await self._finish(group)
                if group.whole and self._groups.get(group.index) is group:
                    self._begin(group)
                    await self._finish(group)

    def waiting(self, lag: Mapping[TopicPartition, int]) -> None:
        """Tells the watcher how many records of each partition wait to be folded."""
        if self._watcher is not None:
            self._watcher.waiting(lag, self._producer.queued)

    @property
    def failure(self) -> BaseException | None:
        """What ended the hosting, if anything did."""
        return self._failure

    async def wait_failed(self) -> BaseException:
        """Returns the failure that ended the hosting, when there is one."""
        await self._failed.wait()
        assert self._failure is not None
        return self._failure

    async def close(self) -> None:
        """Checkpoints and lets go of everything; deliveries that still come are dropped, to be read again."""
        if self._ticker is not None:
            self._ticker.cancel()
            await asyncio.gather(self._ticker, return_exceptions=True)
            self._ticker = None
        await self.revoke([place for group in self._groups.values() for place in group.offsets])

    # folding ----------------------------------------------------------------------------------------------------------

    async def _fold(self, group: _Group, place: TopicPartition, batch: Sequence[Record | Malformed]) -> None:
        fresh = [record for record in batch if record.offset >= group.offsets[place]]
        if not fresh:
            return
        records = [record for record in fresh if isinstance(record, Record)]
        group.whole = False
        started_s = time.perf_counter()
        outputs: list[Message[Any]] = []
        if records:
            with self._traces.fold(records) as traced:
                outputs = group.heart.fold(records)
            self._traces.carry(traced, outputs)
        folded_s = time.perf_counter() - started_s
        group.offsets[place] = fresh[-1].offset + 1
        group.folded += len(fresh)
        sent = [*self._letters(fresh), *outputs] if len(records) < len(fresh) else outputs
        if records:
            for sink in self._sinks:
                sink.take(group.index, group.heart, outputs)
            if getattr(group.heart, "needs_checkpoint", False):
                await self._finish(group)
                self._begin(group, outbox=sent)
                await self._finish(group)
                if self._failure is not None:
                    raise self._failure
        await self._send(sent)
        group.whole = True
        if records and self._watcher is not None:
            self._watcher.folded(group.index, group.heart, records, outputs, folded_s)
        if group.running is None and self._is_due(group):
            self._begin(group)

    def _letters(self, fresh: Sequence[Record | Malformed]) -> list[Message[Any]]:
        letters: list[Message[Any]] = []
        for record in fresh:
            if isinstance(record, Malformed):
                where = f"{record.topic}/{record.partition}@{record.offset}"
                log.warning("%s: dead-lettered %s: %s: %s", self.name, where, record.rule, record.reason)
                letters.append(dead_letter(record, self._service, self._use_case))
                if self._watcher is not None:
                    self._watcher.dead_lettered(record.rule)
        return letters

    async def _send(self, messages: Sequence[Message[Any]]) -> None:
        send, deadline = self._producer.send, _now_s() + self._settings.send_timeout_s
        for number, message in enumerate(messages, 1):
            while True:
                try:
                    send(message)
                    break
                except QueueFull as full:
                    if _now_s() > deadline:
                        raise DeliveryFailed(f"the broker took nothing for {self._settings.send_timeout_s} s") from full
                    await asyncio.sleep(full.retry_after_s)
            if number % _SENDS_PER_TURN == 0:
                await asyncio.sleep(0)

    # checkpoints ------------------------------------------------------------------------------------------------------

    def _is_due(self, group: _Group) -> bool:
        if group.saved_clock_us < self._wanted_us <= group.heart.clock_us:
            return True
        if not group.folded:
            return False
        age_s = _now_s() - group.begun_at_s
        if age_s < group.pack_s / self._settings.checkpoint_load_max:
            return False
        return group.folded >= self._settings.checkpoint_records or age_s >= self._settings.checkpoint_s

    def _begin(self, group: _Group, outbox: Sequence[Message[Any]] = ()) -> None:
        """Takes everything that belongs together at this moment, without a pause; what blocks goes on behind it."""
        assert group.running is None
        started_s, packing_s = _now_s(), self._cpu_s()
        clock_us, offsets, heart = group.heart.clock_us, dict(group.offsets), group.heart
        cuts = {sink.name: sink.cut(group.index, heart) for sink in self._sinks}
        snapshot = getattr(heart, "begin_snapshot", heart.snapshot)
        packing = Packing(
            {
                "version": CHECKPOINT_VERSION,
                "spread": self._spread,
                "clock_us": clock_us,
                "offsets": [[topic, partition, offset] for (topic, partition), offset in offsets.items()],
                "outbox": [[m.topic, *encode(m), m.partition] for m in outbox],
                "sinks": {name: cut.state for name, cut in cuts.items()},
                "heart": snapshot(),
            }
        )
        group.folded, group.begun_at_s, group.pack_s = 0, started_s, self._cpu_s() - packing_s
        durable = self._make_durable(group, packing, list(cuts.values()), offsets, clock_us, started_s)
        group.running = asyncio.create_task(durable, name=f"{self.name}-{group.index}-checkpoint")

    @staticmethod
    async def _finish(group: _Group) -> None:
        """Waits for the checkpoint that is being made; its failure is told by `wait_failed`."""
        if group.running is not None:
            await asyncio.shield(group.running)

    async def _make_durable(
        self,
        group: _Group,
        packing: Packing,
        cuts: list[Cut],
        offsets: dict[TopicPartition, int],
        clock_us: int,
        started_s: float,
    ) -> None:
        try:
            await self._pack(group, packing)
            async with asyncio.timeout(self._settings.durable_timeout_s):
                await self._producer.drained()
                await asyncio.to_thread(self._write, group.index, packing.packed(), cuts)
                group.saved_clock_us = clock_us
                if self._commit is not None:
                    await self._commit(offsets)
        except Exception as error:
            self._fail(error)
        else:
            if self._watcher is not None:
                self._watcher.checkpointed(group.index, group.heart, _now_s() - started_s)
        finally:
            group.running = None
            if group.saved_clock_us < self._wanted_us:
                self._poke.set()

    async def _pack(self, group: _Group, packing: Packing) -> None:
        """Packs what is long in slices, between which everything else goes on: a state may take seconds in all."""
        is_left, others_s = True, 0.0
        while is_left:
            begun_s, packing_s = _now_s(), self._cpu_s()
            while is_left := packing.pack_more():
                if _now_s() - begun_s >= others_s * _PACKING_SHARE:
                    break
            group.pack_s += self._cpu_s() - packing_s
            paused_s = _now_s()
            await asyncio.sleep(0)
            others_s = _now_s() - paused_s

    def _write(self, index: int, packed: list[bytes], cuts: list[Cut]) -> None:
        for cut in cuts:
            cut.write()
        self._checkpoints.save_packed(self.name, index, packed)
        for cut in cuts:
            cut.publish()

    async def _restored(self, index: int) -> _Group:
        state = await asyncio.to_thread(self._checkpoints.load, self.name, index)
        heart, members = self._heart_factory(index), self.members(index)
        group = _Group(index, heart, dict.fromkeys(sorted(members), 0), _now_s())
        if state is not None:
            if state["version"] != CHECKPOINT_VERSION or state["spread"] != self._spread:
                raise RestoreRefused(
                    f"the checkpoint of {self.name} {index} has version {state['version']} and {state['spread']} partitions, "
                    f"this process has version {CHECKPOINT_VERSION} and {self._spread}"
                )
            await asyncio.to_thread(heart.restore, state["heart"])
            group.offsets |= {(topic, p): offset for topic, p, offset in state["offsets"] if (topic, p) in members}
            group.saved_clock_us = state["clock_us"]
        for sink in self._sinks:
            await asyncio.to_thread(
                sink.restore, index, heart, None if state is None else state["sinks"].get(sink.name)
            )
        if state is not None:
            for topic, key, value, headers, partition in state["outbox"]:
                message = decode(topic, key, value, [(name, content) for name, content in headers])
                message.partition = partition
                await self._send([message])
        log.info("%s %d: %s", self.name, index, "starts empty" if state is None else f"goes on at {group.offsets}")
        return group

    async def _tick(self) -> None:
        while True:
            try:
                async with asyncio.timeout(_TICK_S):
                    await self._poke.wait()
            except TimeoutError:
                pass
            self._poke.clear()
            for group in list(self._groups.values()):
                if group.running is None and self._is_due(group):
                    async with group.lock:
                        if group.whole and group.running is None and self._groups.get(group.index) is group:
                            self._begin(group)

    def _fail(self, error: BaseException) -> None:
        if self._failure is None:
            self._failure = error
            self._failed.set()


def _fold_end(batch: Sequence[Record | Malformed], start: int, size: int) -> int:
    """Where a fold of at most so many records ends: behind a watermark where there is one, since hearts speak at those anyway."""
    end = start + size
    if end >= len(batch):
        return len(batch)
    for place in range(end - 1, start, -1):
        record = batch[place]
        if isinstance(record, Record) and record.message.is_watermark:
            return place + 1
    return end


def _now_s() -> float:
    """The event loop's time: hosting runs on a virtual clock where its loop does."""
    return asyncio.get_running_loop().time()
