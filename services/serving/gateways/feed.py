"""Hands the records of topics to the event loop in batches, in order; a thread of its own owns the reader."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

from driftloop.contracts import Record
from driftloop.messaging import Backlog, Malformed, Reader

Handle = Callable[[list[Record | Malformed]], Awaitable[None]]


class TopicFeed:
    """Reads until it is cancelled. The next batch is asked for when the last has been handled, so nothing piles up."""

    def __init__(self, open_reader: Callable[[], Reader], handle: Handle, poll_s: float, batch_records: int) -> None:
        self._open_reader = open_reader
        self._handle = handle
        self._poll_s = poll_s
        self._batch_records = batch_records
        self._thread = ThreadPoolExecutor(1, "serving-reader")
        self.caught_up = asyncio.Event()
        """Set once everything that the topics held when reading began has been handled."""

    async def run(self) -> None:
        """Feeds `handle`; raises what reader or handler raise."""
        loop = asyncio.get_running_loop()
        reader = await loop.run_in_executor(self._thread, self._open_reader)
        try:
            backlog = Backlog(await loop.run_in_executor(self._thread, reader.offset_ranges))
            while True:
                if not backlog:
                    self.caught_up.set()
                batch = await loop.run_in_executor(self._thread, reader.poll, self._poll_s, self._batch_records)
                if batch:
                    await self._handle(batch)
                    backlog.read(batch)
        finally:
            self._thread.submit(reader.close)
            self._thread.shutdown(wait=False)
