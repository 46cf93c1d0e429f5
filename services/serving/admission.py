"""Lets batches through one at a time, and refuses at once those that would wait too long; decides nothing else.

A batch takes milliseconds during which nothing else happens, and gRPC takes some turns of the event loop to hand a call over. Were
each batch answered as soon as it is handed over, all others would wait inside gRPC, where nobody sees them, until their deadlines
have passed. So calls are taken in until none is on its way, then one batch is answered: what is too much is known while it is new.
"""

from __future__ import annotations

import asyncio
from collections import deque

from services.serving.errors import Overloaded
from services.serving.gathering import QUIET_TURNS

_RETRY_S = 0.1  # about as long as the batches that wait will take


class Admission:
    """Batches that wait for their turn: together at most `requests_max` requests, but for one that comes when none waits."""

    def __init__(self, requests_max: int) -> None:
        self._requests_max = requests_max
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._requests = 0
        self._arrived = self._seen = self._quiet_turns = 0
        self._wanted_turns = 1
        self._turning = False

    async def enter(self, requests: int) -> float:
        """Returns when a batch of so many requests may be answered: the seconds that it has waited. Overloaded: not soon."""
        self._arrived += 1
        if self._requests and self._requests + requests > self._requests_max:
            raise Overloaded(f"{self._requests} requests in batches wait already", _RETRY_S)
        came_s = self._loop.time()
        turn: asyncio.Future[None] = self._loop.create_future()
        self._waiting.append(turn)
        self._requests += requests
        if not self._turning:
            self._turning = True
            self._loop.call_soon(self._turn)
        try:
            await turn
        finally:
            self._requests -= requests
        return self._loop.time() - came_s

    def _turn(self) -> None:
        if self._arrived == self._seen:
            self._quiet_turns += 1
        else:
            self._seen, self._quiet_turns = self._arrived, 0
        if self._quiet_turns < self._wanted_turns:
            self._loop.call_soon(self._turn)
            return
        self._quiet_turns = 0
        # Where a batch came alone, the next is not kept waiting.
        self._wanted_turns = QUIET_TURNS if len(self._waiting) > 1 else 1
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():  # else its caller has gone
                turn.set_result(None)
                break
        self._turning = bool(self._waiting)
        if self._turning:
            self._loop.call_soon(self._turn)
