"""A service as a process that can be killed at any moment: what it was doing ends, and nothing more leaves it."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
_running_in: contextvars.ContextVar[Process | None] = contextvars.ContextVar("process", default=None)


class Died(Exception):
    """The process was killed here."""


class Down(Exception):
    """The service does not answer: it is dead, or died during the call."""


class Process:
    """Everything that one life of a service runs: tasks started within it belong to it, however deep."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True
        self.why = ""
        """Why it ended."""
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._tasks: dict[asyncio.Task[Any], None] = {}
        self._at_end: list[Callable[[], None]] = []
        self._context = contextvars.copy_context()
        self._context.run(_running_in.set, self)

    def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Runs work within the process."""
        return asyncio.get_running_loop().create_task(work, context=self._context)

    def keep(self, work: Coroutine[Any, Any, Any]) -> None:
        """Runs work on which the process stands: if it fails, the process ends."""
        self.start(self._kept(work))

    async def _kept(self, work: Coroutine[Any, Any, Any]) -> None:
        try:
            await work
        except Exception as error:
            self.kill(f"{type(error).__name__}: {error}")

    async def call(self, work: Callable[[], Awaitable[T]]) -> T:
        """A call from outside, as the process answers it; Down."""
        if not self.alive:
            raise Down(f"{self.name} is down")

        async def answered() -> T:
            return await work()

        answering = self.start(answered())
        try:
            return await asyncio.shield(answering)
        except asyncio.CancelledError:
            if answering.cancelled():
                raise Down(f"{self.name} died during a call") from None
            raise

    def at_end(self, undo: Callable[[], None]) -> None:
        """What the operating system does for a dead process: closes its files, forgets its connections."""
        self._at_end.append(undo)

    def kill(self, why: str) -> None:
        """Ends the process at once."""
        if not self.alive:
            return
        self.alive, self.why = False, why
        for undo in self._at_end:
            undo()
        for task in list(self._tasks):
            if task is not asyncio.current_task():
                task.cancel()
        self.ended.set_result(None)

    async def buried(self) -> None:
        """Returns once nothing of a dead process runs any more."""
        await self.ended
        left = [task for task in self._tasks if task is not asyncio.current_task()]
        await asyncio.gather(*left, return_exceptions=True)


def track_tasks(loop: asyncio.AbstractEventLoop) -> None:
    """Makes every task of the loop known to the process that started it."""

    def made(loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> asyncio.Task[Any]:
        context = options.get("context")
        process = context.get(_running_in) if context is not None else _running_in.get()
        task: asyncio.Task[Any] = asyncio.Task(work, loop=loop, **options)
        if process is not None:
            if not process.alive:
                task.cancel()
            process._tasks[task] = None
            task.add_done_callback(lambda done: process._tasks.pop(done, None))
        return task

    loop.set_task_factory(made)
