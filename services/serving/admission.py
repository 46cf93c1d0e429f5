"""Lets batches through some at a time, and refuses at once those that would wait too long; decides nothing else.

A batch takes milliseconds during which nothing else happens, and gRPC takes some turns of the event loop to hand a call over. Were
each batch answered as soon as it is handed over, all others would wait inside gRPC, where nobody sees them, until their deadlines
have passed. So calls are taken in until none is on its way, then the oldest batches are answered as one, which is cheaper than each by itself:
what is too much is known while it is new.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from services.serving.errors import Overloaded
from services.serving.gathering import BUSY_S, QUIET_TURNS

_RETRY_S = 0.1  # about as long as the batches that wait will take


def overloaded() -> Overloaded:
    """What a batch is told that cannot wait."""
    return Overloaded("too many requests in batches wait already", _RETRY_S)


class Admission:
    """Batches that wait for their turn: none comes to `requests_max` requests or more that wait already.

    Those that are let through in one turn of the event loop have `together_max` requests at the most, or are one.
    """

    def __init__(self, requests_max: int, together_max: int, now_s: Callable[[], float] = time.perf_counter) -> None:
        self._requests_max = requests_max
        self._together_max = together_max
        self._now_s = now_s
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._requests = 0
        self._arrived = self._seen = self._quiet_turns = 0
        self._wanted_turns = 1
        self._turning = False
        self._answered_s = -BUSY_S

    def announce(self) -> bool:
        """A batch is on its way, nothing of it is read: whether it may wait. False: it is Overloaded, whatever it holds."""
        self._arrived += 1
        return self._requests < self._requests_max

    @asynccontextmanager
    async def turn(self, requests: int) -> AsyncIterator[float]:
        """The turn of a batch of so many requests, to be answered within: the seconds that it has waited. Overloaded: not soon."""
        waited_s = await self._wait(requests)
        try:
            yield waited_s
        finally:  # one that fails is one of several callers', too
            self._answered_s = self._now_s()

    async def _wait(self, requests: int) -> float:
        if not self.announce():
            raise overloaded()
        came_s = self._now_s()
        turn: asyncio.Future[None] = self._loop.create_future()
        self._waiting.append((requests, turn))
        self._requests += requests
        if not self._turning:
            # Others wait behind the one that was just answered, though all but the first are still inside gRPC.
            if came_s - self._answered_s < BUSY_S:
                self._wanted_turns = QUIET_TURNS
            self._turning = True
            self._loop.call_soon(self._turn)
        try:
            await turn
        finally:
            self._requests -= requests
        return self._now_s() - came_s

    def _turn(self) -> None:
        if self._arrived == self._seen:
            self._quiet_turns += 1
        else:
            self._seen, self._quiet_turns = self._arrived, 0
        if self._quiet_turns < self._wanted_turns:
            os.sched_yield()  # gRPC's threads, where they share the core, have a part in what a turn may bring
            self._loop.call_soon(self._turn)
            return
        self._quiet_turns = 0
        # Where a batch came alone, the next is not kept waiting.
        self._wanted_turns = QUIET_TURNS if len(self._waiting) > 1 else 1
        together = 0
        while self._waiting:
            requests, turn = self._waiting[0]
            if not turn.done():  # else its caller has gone
                if together and together + requests > self._together_max:
                    break
                together += requests
                turn.set_result(None)
            self._waiting.popleft()
        self._turning = bool(self._waiting)
        if self._turning:
            self._loop.call_soon(self._turn)
