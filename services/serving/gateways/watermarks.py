"""Writes this replica's watermark to every partition of `predictions`, behind every answer given before; decides no time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from driftloop.contracts import UNSET_US, watermark
from driftloop.messaging import Producer, QueueFull
from services.serving.gateways.log import PredictionLog

_logger = logging.getLogger(__name__)


class WatermarkWriter:
    """Says on `predictions` how far this replica has come. Times that follow each other closely are said once.

    `standing` gives the revision of the newest release applied here, and the models of it that were refused.
    """

    def __init__(
        self,
        log: PredictionLog,
        producer: Producer,
        replica: int,
        partitions: int,
        standing: Callable[[], tuple[int, Sequence[str]]] = lambda: (0, ()),
    ) -> None:
        self._standing = standing
        self._log = log
        self._producer = producer
        self._writer = f"serving/{replica}"
        self._partitions = partitions
        self._loop = asyncio.get_running_loop()
        self._clock_us = UNSET_US
        self._moved = asyncio.Event()

    def reach(self, clock_us: int) -> None:
        """The features' clock has moved: every answer from now on is as of `clock_us` (microseconds) or later."""
        self._clock_us = clock_us
        self._moved.set()

    async def run(self) -> None:
        """Writes until it is cancelled."""
        while True:
            await self._moved.wait()
            self._moved.clear()
            clock_us = self._clock_us
            # Only what the broker has is sure to stand before the watermark, should it refuse a message.
            await self._log.drained()
            for partition in range(self._partitions):
                await self._send(partition, clock_us)

    async def _send(self, partition: int, clock_us: int) -> None:
        revision, refused = self._standing()
        message = watermark("predictions", partition, self._writer, clock_us, max(0, revision), refused)
        while True:
            try:
                return self._producer.send(message, self._acknowledged)
            except QueueFull as error:
                await asyncio.sleep(error.retry_after_s)

    def _acknowledged(self, error: Exception | None) -> None:
        """Called by the producer's thread."""
        if error is not None:
            _logger.warning("the broker did not take a watermark, it is sent again: %s", error)
            self._loop.call_soon_threadsafe(self._moved.set)
