"""Collects calls that come close together, so that they are answered as one; decides only when to stop collecting.

A few rows cost hardly more to score and to log than one, and under load the next calls are already on their way through gRPC,
which takes some turns of the event loop to hand one over. A call that comes alone, some time after the last was answered, is not
kept waiting.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from typing import Generic, TypeVar

QUIET_TURNS = 5
"""Turns of the event loop without a new call after which none is on its way: gRPC takes four to hand one over."""
BUSY_S = 0.0004
"""A call that comes so soon after an answer is one of several callers': a single one needs longer to hear it and ask again."""
Call = TypeVar("Call")


class Gathering(Generic[Call]):
    """Calls that wait for each other; `answer` is given at most `calls_max` of them, in order, from the event loop itself."""

    def __init__(
        self,
        answer: Callable[[list[Call]], None],
        calls_max: int,
        now_s: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._answer = answer
        self._now_s = now_s
        self._calls_max = calls_max
        self._loop = asyncio.get_running_loop()
        self._calls: list[Call] = []
        self._seen = self._quiet_turns = 0
        self._wanted_turns = 1
        self._announced = 0
        self._answered_s = -BUSY_S

    def __len__(self) -> int:
        return len(self._calls)

    def announce(self) -> None:
        """A call is on its way, nothing of it is read: it will be added in some turns, if its caller does not give it up."""
        self._announced += 1
        self._quiet_turns = 0

    def add(self, call: Call) -> None:
        """One more call."""
        if not self._calls:
            if self._now_s() - self._answered_s < BUSY_S:
                self._wanted_turns = QUIET_TURNS
            self._loop.call_soon(self._turn)
        self._calls.append(call)
        self._announced = max(0, self._announced - 1)

    def _turn(self) -> None:
        if len(self._calls) == self._seen:
            self._quiet_turns += 1
        else:
            self._seen, self._quiet_turns = len(self._calls), 0
        wanted_turns = QUIET_TURNS if self._announced else self._wanted_turns
        if self._quiet_turns < wanted_turns and self._seen < self._calls_max:
            os.sched_yield()  # gRPC's threads, where they share the core, have a part in what a turn may bring
            self._loop.call_soon(self._turn)
            return
        self._seen = self._quiet_turns = self._announced = 0
        calls, self._calls = self._calls[: self._calls_max], self._calls[self._calls_max :]
        self._wanted_turns = QUIET_TURNS if len(calls) > 1 else 1
        if self._calls:
            self._loop.call_soon(self._turn)
        self._answer(calls)
        self._answered_s = self._now_s()
