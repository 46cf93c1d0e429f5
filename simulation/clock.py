"""An event loop whose time stands still while there is work and jumps to the next timer when there is none; one thread.

What a service does with asyncio (timers, timeouts, threads for what blocks) then happens in an order that depends on nothing
but the order in which it was asked for, and minutes of waiting cost nothing.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable
from typing import Any


class Stuck(Exception):
    """Nothing is left that could ever happen, and the run is not over: somebody waits for what nobody will do."""


class _Jumping(selectors.SelectSelector):
    """Waits for no file and no second: tells the loop how far to jump."""

    def __init__(self, jump: Callable[[float], None]) -> None:
        super().__init__()
        self._jump = jump

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise Stuck("every task waits, and no timer runs")
        if timeout > 0:
            self._jump(timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """`thread_s` says how long (virtual seconds) each function given to a thread takes; it runs on this thread, at the end."""

    def __init__(self, thread_s: Callable[[], float]) -> None:
        self._now_s = 0.0
        self._thread_s = thread_s
        super().__init__(_Jumping(self._advance))

    def _advance(self, seconds: float) -> None:
        self._now_s += seconds

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._now_s

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        """Runs `func` after the time that a thread would take; never, if nobody waits for it any more by then."""
        future: asyncio.Future[Any] = self.create_future()
        self.call_later(self._thread_s(), _run, future, func, args)
        return future


def _run(future: asyncio.Future[Any], func: Callable[..., Any], args: tuple[Any, ...]) -> None:
    if future.done():
        return
    try:
        result = func(*args)
    except Exception as error:
        if not future.done():
            future.set_exception(error)
    else:
        if not future.done():
            future.set_result(result)
