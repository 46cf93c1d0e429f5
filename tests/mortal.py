"""A process that dies at the n-th thing that leaves it, and a producer that dies with it: for tests of what a crash leaves."""

from __future__ import annotations

import random
from typing import Any

from driftloop.contracts import Message
from driftloop.messaging import MemoryBus


class Died(Exception):
    """The process is gone."""


class Fate:
    """Ends the life at the n-th thing that leaves the process; never, if that is None."""

    def __init__(self, after: int | None) -> None:
        self._left = after
        self.steps = 0

    def step(self) -> None:
        """Something is about to leave, or has left."""
        self.steps += 1
        if self._left is not None:
            if self._left <= 0:
                raise Died
            self._left -= 1


class MortalProducer:
    """Holds some messages back, as a client's queue does; they die with the process."""

    def __init__(self, bus: MemoryBus, fate: Fate, drawn: random.Random) -> None:
        self._inner, self._fate, self._drawn = bus.producer(), fate, drawn
        self._queue: list[Message[Any]] = []

    @property
    def queued(self) -> int:
        return self._inner.queued

    def send(self, message: Message[Any], on_ack: Any = None) -> None:
        self._fate.step()
        self._queue.append(message)
        while self._queue and self._drawn.random() < 0.4:
            self._inner.send(self._queue.pop(0))

    async def drained(self) -> None:
        while self._queue:
            self._fate.step()
            self._inner.send(self._queue.pop(0))
        await self._inner.drained()

    def close(self, timeout_s: float) -> None:
        self._inner.close(timeout_s)
