"""Hands the records of topics to the event loop in batches, in order; a thread of its own owns the reader."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

from driftloop.contracts import Record
from driftloop.messaging import Malformed, Reader, TopicPartition

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
            ranges = await loop.run_in_executor(self._thread, reader.offset_ranges)
            left = {place: end for place, (first, end) in ranges.items() if end > first}
            while True:
                if not left:
                    self.caught_up.set()
                batch = await loop.run_in_executor(self._thread, reader.poll, self._poll_s, self._batch_records)
                if batch:
                    await self._handle(batch)
                    _strike_off(left, batch)
        finally:
            self._thread.submit(reader.close)
            self._thread.shutdown(wait=False)


def _strike_off(left: dict[TopicPartition, int], batch: list[Record | Malformed]) -> None:
    """Forgets the partitions whose end the batch has reached."""
    if not left:
        return
    for record in batch:
        place = (record.topic, record.partition)
        if place in left and record.offset >= left[place] - 1:
            del left[place]
