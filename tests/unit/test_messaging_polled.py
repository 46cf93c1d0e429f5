"""A producer that is polled tells of its answers on the event loop, while there are any to come."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

from driftloop.contracts import Encoded, Message, watermark
from driftloop.messaging import LoopProducer, OnAck


class Silent:
    """A polled producer whose broker answers when the test says so, to the next poll."""

    def __init__(self) -> None:
        self._waiting: list[tuple[OnAck, int]] = []
        self._answered = 0
        self.polls = 0
        self.closed_after_s = 0.0

    @property
    def queued(self) -> int:
        return sum(count for _, count in self._waiting)

    def send(self, message: Message[Any], on_ack: OnAck | None = None) -> None:
        assert on_ack is not None
        self._waiting.append((on_ack, 1))

    def send_encoded(self, topic: str, records: Sequence[Encoded], on_ack: OnAck) -> int:
        self._waiting.append((on_ack, len(records)))
        return len(records)

    def answer(self, groups: int) -> None:
        self._answered += groups

    def poll(self) -> bool:
        self.polls += 1
        told, self._answered = self._waiting[: self._answered], 0
        del self._waiting[: len(told)]
        for on_ack, _ in told:
            on_ack(None)
        return bool(told)

    async def drained(self) -> None:
        while self._waiting:
            await asyncio.sleep(0)

    def close(self, timeout_s: float) -> None:
        self.closed_after_s = timeout_s


async def _until_polled(producer: Silent, polls: int) -> None:
    async with asyncio.timeout(5):
        while producer.polls < polls:
            await asyncio.sleep(0.001)


async def test_answers_come_on_the_event_loop_s_own_thread() -> None:
    producer = Silent()
    sender = LoopProducer(producer, 0.001)
    told: list[tuple[str, str]] = []
    sender.send_encoded(
        "t", [Encoded(b"k", b"v", [])] * 2, lambda _: told.append(("two", threading.current_thread().name))
    )
    sender.send(watermark("t", 0, "w", 5), lambda _: told.append(("mark", threading.current_thread().name)))
    assert sender.queued == 3
    await _until_polled(producer, 2)
    assert told == []
    producer.answer(2)
    await asyncio.wait_for(sender.drained(), 5)
    assert told == [(what, threading.current_thread().name) for what in ("two", "mark")]


async def test_nobody_is_polled_while_nothing_is_unanswered() -> None:
    producer = Silent()
    sender = LoopProducer(producer, 0.001)
    sender.send_encoded("t", [Encoded(b"k", b"v", [])], lambda _: None)
    producer.answer(1)
    await asyncio.wait_for(sender.drained(), 5)
    polls = producer.polls
    await asyncio.sleep(0.02)
    assert producer.polls == polls
    sender.send_encoded("t", [Encoded(b"k", b"v", [])], lambda _: None)
    await _until_polled(producer, polls + 1)


async def test_a_closed_producer_is_polled_no_more() -> None:
    producer = Silent()
    sender = LoopProducer(producer, 0.001)
    sender.send_encoded("t", [Encoded(b"k", b"v", [])], lambda _: None)
    await _until_polled(producer, 1)
    sender.close(1.5)
    polls = producer.polls
    await asyncio.sleep(0.02)
    assert (producer.polls, producer.closed_after_s) == (polls, 1.5)
