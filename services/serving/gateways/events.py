"""Hands events that may ask for a prediction to the event loop, and commits them once the answers are with the broker."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

from driftloop.contracts import Record
from driftloop.messaging import Malformed, Reader, ReadFailed, TopicPartition

Handle = Callable[[list[Record | Malformed]], Awaitable[None]]
_logger = logging.getLogger(__name__)


class EventFeed:
    """Reads as a member of a group, so that replicas share the partitions, until it is cancelled or told to stop.

    The next batch is asked for when the last one is answered: what waits, waits on the broker. What was answered and not yet
    committed when a process dies is asked again, under the same ids.
    """

    def __init__(
        self,
        open_reader: Callable[[], Reader],
        handle: Handle,
        logged: Callable[[], Awaitable[None]],
        poll_s: float,
        batch_records: int,
        commit_every_s: float,
    ) -> None:
        self._open_reader = open_reader
        self._handle = handle
        self._logged = logged
        self._poll_s = poll_s
        self._batch_records = batch_records
        self._commit_every_s = commit_every_s
        self._thread = ThreadPoolExecutor(1, "serving-events")
        self._stopping = False
        self._at_rest = asyncio.Event()
        self._at_rest.set()

    async def stop(self) -> None:
        """Takes no further event; returns when what was answered is committed."""
        self._stopping = True
        await self._at_rest.wait()

    async def run(self, ready: asyncio.Event) -> None:
        """Feeds `handle` once `ready` is set; raises what handler or reader raise."""
        await ready.wait()
        self._at_rest.clear()
        loop = asyncio.get_running_loop()
        reader = await loop.run_in_executor(self._thread, self._open_reader)
        answered: dict[TopicPartition, int] = {}
        committed_s = loop.time()
        try:
            while not self._stopping:
                batch = await loop.run_in_executor(self._thread, reader.poll, self._poll_s, self._batch_records)
                await self._handle(batch)
                answered |= {(record.topic, record.partition): record.offset + 1 for record in batch}
                if answered and (not batch or loop.time() - committed_s >= self._commit_every_s):
                    await self._commit(reader, answered)
                    answered, committed_s = {}, loop.time()
            if answered:
                await self._commit(reader, answered)
        finally:
            self._at_rest.set()
            self._thread.submit(reader.close)
            self._thread.shutdown(wait=False)

    async def _commit(self, reader: Reader, answered: dict[TopicPartition, int]) -> None:
        await self._logged()
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, reader.commit, answered)
        except ReadFailed as error:
            _logger.info("partitions went to another replica, which asks again under the same ids: %s", error)
