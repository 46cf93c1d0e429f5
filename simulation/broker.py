"""The broker as services meet it: producers whose batches take time, consumers that lag, outages; a MemoryBus underneath."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from driftloop.contracts import Encoded, Message, Record, decode
from driftloop.messaging import DeliveryFailed, Malformed, MemoryBus, OnAck, QueueFull, TopicPartition, partition_of
from driftloop.messaging.outstanding import Outstanding
from simulation.faults import Chance

SEND_S = 0.004  # a batch on its way to the broker, its acknowledgement on the way back
POLL_S = 0.004  # what was written on its way to a consumer
QUEUE_MAX = 200  # messages of a producer that wait for the broker: a small bound is met sooner
DELIVERY_TIMEOUT_S = 60.0  # as Kafka's producers have it
RETRY_AFTER_S = 0.05


class Broker:
    """Topics of one use case, and whether the broker can be reached. `saw` is told of every record that it takes."""

    def __init__(self, bus: MemoryBus, chance: Chance, saw: Callable[[Record], None]) -> None:
        self.bus = bus
        self.chance = chance
        self._saw = saw
        self._reachable = asyncio.Event()
        self._reachable.set()
        self._feeds: dict[TopicPartition, list[Feed]] = {}
        self.outages = 0

    async def reachable(self) -> None:
        """Returns when the broker can be reached."""
        await self._reachable.wait()

    async def outage(self, seconds: float) -> None:
        """Nobody can reach the broker for a while."""
        if not self._reachable.is_set():
            return
        self.outages += 1
        self._reachable.clear()
        await asyncio.sleep(seconds)
        self._reachable.set()

    def take(self, message: Message[Any]) -> None:
        """Writes a message; DeliveryFailed where a broker would refuse it."""
        partition, offset = self.bus.append(message)
        record = self.bus.read(message.topic, partition, offset, 1)[0]
        assert isinstance(record, Record), record
        self._saw(record)
        for feed in self._feeds.get((message.topic, partition), ()):
            feed.grown.set()

    def feed(self, names: Sequence[str]) -> Feed:
        """A consumer of all partitions of some topics."""
        return Feed(self, self.bus.places(names))

    def attach(self, feed: Feed, places: Sequence[TopicPartition]) -> None:
        """`feed.grown` is set when one of its partitions grows."""
        for place in places:
            self._feeds.setdefault(place, []).append(feed)

    def detach(self, feed: Feed) -> None:
        """The consumer is gone."""
        for feeds in self._feeds.values():
            if feed in feeds:
                feeds.remove(feed)


class Feed:
    """A consumer: gives what is new in batches of one partition each, in order within the partition."""

    def __init__(self, broker: Broker, places: Sequence[TopicPartition]) -> None:
        self.grown = asyncio.Event()
        self.grown.set()
        self._broker = broker
        self._next = dict.fromkeys(places, 0)
        self._slow_until_s = 0.0
        broker.attach(self, places)

    def seek(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Goes on at these offsets."""
        self._next.update(offsets)
        self.grown.set()

    def slow_down(self, seconds: float) -> None:
        """Takes nothing for a while."""
        self._slow_until_s = asyncio.get_running_loop().time() + seconds

    @property
    def lag(self) -> int:
        """Records that wait."""
        return sum(self._broker.bus.end(place) - offset for place, offset in self._next.items())

    async def batches(self) -> list[tuple[TopicPartition, list[Record | Malformed]]]:
        """What is new, some of every partition that has grown; waits until there is something."""
        broker, loop = self._broker, asyncio.get_running_loop()
        while True:
            await self.grown.wait()
            self.grown.clear()
            await asyncio.sleep(max(broker.chance.pause_s(POLL_S), self._slow_until_s - loop.time()))
            await broker.reachable()
            found = []
            for place, start in self._next.items():
                waiting = broker.bus.end(place) - start
                if waiting > 0:
                    count = broker.chance.share(waiting)
                    found.append((place, broker.bus.read(*place, start, count)))
                    self._next[place] = start + count
                    if count < waiting:
                        self.grown.set()
            if found:
                return broker.chance.shuffled(found)


@dataclass(slots=True)
class _Sending:
    """A message in a producer's queue. `number` is what its answer goes by; the last of a group answers for all."""

    message: Message[Any]
    place: TopicPartition
    number: int
    queued_at_s: float


class SimulatedProducer:
    """A `Producer` whose batches travel in virtual time; what has not arrived dies with its process.

    Within a partition the order of sending is kept; between partitions it is not.
    """

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._outstanding = Outstanding()
        self._queue: deque[_Sending] = deque()
        self._has_work = asyncio.Event()
        self._left: dict[int, int] = {}
        self._failures: dict[int, DeliveryFailed | None] = {}
        self._alive = True

    @property
    def queued(self) -> int:
        """See `Producer.queued`."""
        return len(self._outstanding)

    def send(self, message: Message[Any], on_ack: OnAck | None = None) -> None:
        """See `Producer.send`."""
        self._check_room()
        number = self._outstanding.sent(on_ack)
        self._left[number] = 1
        self._put(message, number)

    def send_encoded(self, topic: str, records: Sequence[Encoded], on_ack: OnAck) -> int:
        """See `Producer.send_encoded`."""
        self._check_room()
        taken = records[: QUEUE_MAX - len(self._queue)]
        number = self._outstanding.sent(on_ack, len(taken))
        self._left[number] = len(taken)
        for record in taken:
            self._put(decode(topic, record.key, record.value, record.headers), number)
        return len(taken)

    async def drained(self) -> None:
        """See `Producer.drained`."""
        await self._outstanding.drained()

    def close(self, timeout_s: float) -> None:
        """See `Producer.close`; what is queued at an orderly end was waited for with `drained`."""
        self.die()

    def die(self) -> None:
        """The process is gone, and with it what it had not sent."""
        self._alive = False
        self._queue.clear()

    def _check_room(self) -> None:
        if not self._alive:
            raise DeliveryFailed("the producer is closed")
        if self._outstanding.failure is not None:
            raise self._outstanding.failure
        if len(self._queue) >= QUEUE_MAX:
            raise QueueFull(RETRY_AFTER_S)

    def _put(self, message: Message[Any], number: int) -> None:
        count = len(self._broker.bus.places([message.topic]))
        partition = message.partition
        if partition is None:
            partition = partition_of(message.key.encode(), count) if count > 1 else 0
        queued_at_s = asyncio.get_running_loop().time()
        self._queue.append(_Sending(message, (message.topic, partition), number, queued_at_s))
        self._has_work.set()

    async def run(self) -> None:
        """Sends what is queued, until it is cancelled."""
        chance, broker = self._broker.chance, self._broker
        while True:
            await self._has_work.wait()
            await asyncio.sleep(chance.pause_s(SEND_S))
            if not await self._connected():
                continue
            batch = [self._queue.popleft() for _ in range(chance.share(len(self._queue)))]
            if not self._queue:
                self._has_work.clear()
            by_place: dict[TopicPartition, list[_Sending]] = {}
            for sending in batch:
                by_place.setdefault(sending.place, []).append(sending)
            ordered = [sending for group in chance.shuffled(list(by_place.values())) for sending in group]
            answers = [(sending.number, self._write(sending.message)) for sending in ordered]
            if chance.happens("duplicate"):
                for sending in ordered:
                    self._write(sending.message)
            await asyncio.sleep(chance.pause_s(SEND_S))
            await broker.reachable()  # an acknowledgement does not come through either
            self._answer(answers)

    async def _connected(self) -> bool:
        """Waits for the broker; False once the oldest message has waited too long, which fails it and those beside it."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout_at(self._queue[0].queued_at_s + DELIVERY_TIMEOUT_S):
                await self._broker.reachable()
        except TimeoutError:
            late = [s for s in self._queue if s.queued_at_s + DELIVERY_TIMEOUT_S <= loop.time()]
            for sending in late:
                self._queue.remove(sending)
            if not self._queue:
                self._has_work.clear()
            lost = DeliveryFailed(f"{len(late)} messages were not delivered within {DELIVERY_TIMEOUT_S:.0f} s")
            self._answer([(sending.number, lost) for sending in late])
            return False
        return True

    def _write(self, message: Message[Any]) -> DeliveryFailed | None:
        try:
            self._broker.take(message)
        except DeliveryFailed as error:
            return error
        return None

    def _answer(self, answers: Sequence[tuple[int, DeliveryFailed | None]]) -> None:
        for number, failure in answers:
            self._left[number] -= 1
            failure = self._failures.get(number) or failure
            if self._left[number]:
                self._failures[number] = failure
                continue
            del self._left[number]
            self._failures.pop(number, None)
            self._outstanding.answered(number, failure)
