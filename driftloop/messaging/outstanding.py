"""Which sent messages are not acknowledged yet, and who waits for them; shared by the real producer and its twin."""

from __future__ import annotations

import asyncio
import threading

from driftloop.messaging.errors import DeliveryFailed
from driftloop.messaging.interfaces import OnAck


class Outstanding:
    """Counts messages out and in. Any thread may call it; waiters are woken on their own event loop."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[int, tuple[OnAck | None, int]] = {}
        self._last = 0
        self._messages = 0
        self._failure: DeliveryFailed | None = None
        self._drains: list[tuple[int, asyncio.AbstractEventLoop, asyncio.Future[None]]] = []

    def __len__(self) -> int:
        return self._messages

    @property
    def failure(self) -> DeliveryFailed | None:
        """The first failure that nobody was told of, if there was one."""
        return self._failure

    def sent(self, on_ack: OnAck | None, messages: int = 1) -> int:
        """Notes a message, or a group that is answered as one, that is about to be sent; returns its number."""
        with self._lock:
            self._last += 1
            self._waiting[self._last] = (on_ack, messages)
            self._messages += messages
            return self._last

    def unsent(self, number: int) -> None:
        """Takes back what could not be queued."""
        with self._lock:
            self._messages -= self._waiting.pop(number)[1]

    def answered(self, number: int, failure: DeliveryFailed | None) -> None:
        """Notes the broker's answer and tells whoever waits for it."""
        with self._lock:
            on_ack, messages = self._waiting.pop(number)
            self._messages -= messages
            if failure is not None and on_ack is None and self._failure is None:
                self._failure = failure
            woken = self._due() if self._drains else []
        if on_ack is not None:
            on_ack(failure)
        for loop, future in woken:
            loop.call_soon_threadsafe(self._settle, future)

    def fail(self, failure: DeliveryFailed) -> None:
        """Notes that nothing can be delivered any more."""
        with self._lock:
            self._failure = self._failure or failure
            woken = self._due()
        for loop, future in woken:
            loop.call_soon_threadsafe(self._settle, future)

    async def drained(self) -> None:
        """Waits for everything sent so far; DeliveryFailed if any of it was lost and nobody was told."""
        loop = asyncio.get_running_loop()
        with self._lock:
            if self._failure is not None:
                raise self._failure
            if not self._waiting:
                return
            future: asyncio.Future[None] = loop.create_future()
            self._drains.append((self._last, loop, future))
        await future

    def _due(self) -> list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]]:
        # Numbers rise and the dictionary keeps their order, so its first key is the oldest message still out.
        oldest = next(iter(self._waiting), self._last + 1)
        due = [(loop, future) for upto, loop, future in self._drains if upto < oldest or self._failure is not None]
        if due:
            self._drains = [waiter for waiter in self._drains if waiter[0] >= oldest and self._failure is None]
        return due

    def _settle(self, future: asyncio.Future[None]) -> None:
        if future.done():
            return
        if self._failure is not None:
            future.set_exception(self._failure)
        else:
            future.set_result(None)
