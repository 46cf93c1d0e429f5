"""What features does with each topic that it reads, found here by the topic's name."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from driftloop.contracts import Record
from driftloop.messaging import Malformed
from driftloop.messaging.faust_worker import Handler
from driftloop.messaging.heart_host import HeartHost

Batch = Sequence[Record | Malformed]
_log = logging.getLogger(__name__)


class RekeyingHandlers:
    """Topics of the first stage; partition p feeds `Rekeying` p."""

    def __init__(self, host: HeartHost) -> None:
        self._host = host

    def by_topic(self) -> Mapping[str, Handler]:
        """The function of each topic."""
        return {"events": self.events}

    async def events(self, partition: int, records: Batch) -> None:
        """An event is taken once, logged for training, and sent to the views that need it."""
        await self._host.deliver(("events", partition), records)


class AggregationHandlers:
    """Topics of the second stage; partition p feeds `Aggregation` p."""

    def __init__(self, host: HeartHost) -> None:
        self._host = host

    def by_topic(self) -> Mapping[str, Handler]:
        """The function of each topic."""
        return {"keyed": self.keyed}

    async def keyed(self, partition: int, records: Batch) -> None:
        """A view's part of an event changes that view's values; they are emitted, logged and written online."""
        await self._host.deliver(("keyed", partition), records)


class RetrainHandler:
    """Trainer is about to read the offline log up to a request's clock, so the log is cut there at once."""

    def __init__(self, hosts: Sequence[HeartHost]) -> None:
        self._hosts = tuple(hosts)
        self._newest_us = -1

    async def retrain(self, record: Record) -> None:
        """Asks for a checkpoint of every heart as soon as it has reached the request's clock."""
        request = record.message.payload
        if request.clock_us <= self._newest_us:
            return
        self._newest_us = request.clock_us
        _log.info("checkpoints are asked for up to %d: retrain %s", request.clock_us, request.id)
        for host in self._hosts:
            await host.request_checkpoint(request.clock_us)
