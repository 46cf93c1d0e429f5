"""Looks for the broker's answers on the event loop itself, while there are any to come; sends nothing of its own.

A thread of its own for them takes Python's lock once per record from a loop that is busy, and gives it back: on a core that both
share that costs more than the answers do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol

from driftloop.contracts import Encoded, Message
from driftloop.messaging.interfaces import OnAck, Producer

# A broker that has gone for minutes is not asked for a thousand times a second.
_SILENCE_PAUSE_S = 0.05
_SILENCE_GROWTH = 1.05


class PolledProducer(Producer, Protocol):
    """A `Producer` whose answers come where it is polled."""

    def poll(self) -> bool:
        """Tells of the answers that are there; whether there were any."""


class Answers:
    """Polls a producer every `pause_s` while messages of it are unanswered, more seldom while nothing comes."""

    def __init__(self, producer: PolledProducer, pause_s: float) -> None:
        self._producer = producer
        self._loop = asyncio.get_running_loop()
        self._shortest_s = self._pause_s = pause_s
        self._timer: asyncio.TimerHandle | None = None

    def expect(self) -> None:
        """Something was sent."""
        if self._timer is None:
            self._timer = self._loop.call_later(self._pause_s, self._look)

    def look(self) -> None:
        """Tells of the answers and errors that are there."""
        if self._producer.poll():
            self._pause_s = self._shortest_s
        else:
            self._pause_s = min(self._pause_s * _SILENCE_GROWTH, max(self._shortest_s, _SILENCE_PAUSE_S))

    def stop(self) -> None:
        """Looks no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        self._timer = None
        self.look()
        if self._producer.queued:
            self.expect()
        else:
            self._pause_s = self._shortest_s


class LoopProducer:
    """A `Producer` for one event loop, on which `on_ack` runs: within `pause_s` of the broker's answer, and the loop's turn."""

    def __init__(self, producer: PolledProducer, pause_s: float) -> None:
        self._producer = producer
        self._answers = Answers(producer, pause_s)

    @property
    def queued(self) -> int:
        """See `Producer.queued`."""
        return self._producer.queued

    def send(self, message: Message[Any], on_ack: OnAck | None = None) -> None:
        """See `Producer.send`."""
        self._producer.send(message, on_ack)
        self._answers.expect()

    def send_encoded(self, topic: str, records: Sequence[Encoded], on_ack: OnAck) -> int:
        """See `Producer.send_encoded`."""
        queued = self._producer.send_encoded(topic, records, on_ack)
        self._answers.expect()
        return queued

    async def drained(self) -> None:
        """See `Producer.drained`."""
        await self._producer.drained()

    def close(self, timeout_s: float) -> None:
        """See `Producer.close`."""
        self._answers.stop()
        self._producer.close(timeout_s)
