"""Everything that one replica holds and does for one use case; wired here, opened by the replica that it belongs to."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

from driftloop.messaging import DeliveryFailed, Producer, Reader
from driftloop.usecase import UseCase
from services.serving.clock import LoopClock
from services.serving.gateways.events import EventFeed
from services.serving.gateways.feed import TopicFeed
from services.serving.gateways.log import PredictionLog
from services.serving.gateways.online import OnlineLookup, OnlineReader
from services.serving.gateways.spool import Spool
from services.serving.gateways.watermarks import WatermarkWriter
from services.serving.handlers import Handlers
from services.serving.instruments import ServingInstruments
from services.serving.releases import Loader, ReleaseKeeper
from services.serving.settings import ServingSettings
from services.serving.view import FeatureView

READ = ("features", "releases")
ASKING = "events"
"""Read where a use case lets events ask for predictions."""
WRITTEN = ("predictions", "commands", "dead-letters")
_CLOSE_TIMEOUT_S = 1.0
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outside:
    """What a desk stands on. `partitions` counts those of the topics that it reads and writes."""

    partitions: Mapping[str, int]
    producer: Producer
    open_reader: Callable[[], Reader]
    open_event_reader: Callable[[], Reader]
    loader: Loader
    open_online_reader: Callable[[], OnlineReader]


class Desk:
    """One use case at one replica: `recover`, keep `work` running, `leave`."""

    def __init__(
        self, use_case: UseCase, settings: ServingSettings, outside: Outside, instruments: ServingInstruments
    ) -> None:
        producer, partitions, replica = outside.producer, outside.partitions, settings.replica
        self.name = use_case.name
        self._settings = settings
        self._producer = producer
        self._spool = Spool(
            settings.folder_of(use_case.name) / "spool",
            settings.spool_segment_bytes,
            settings.spool_bytes_max,
            settings.spool_fsync,
        )
        self._log = PredictionLog(self._spool, producer, replica, instruments, settings.log_pause_s)
        self.clock = LoopClock(partitions["features"])
        self.releases = ReleaseKeeper(
            self.clock,
            outside.loader,
            producer,
            f"serving/{replica}",
            settings.unusable_scores_max,
            settings.model_call_s_max,
            instruments,
        )
        self._watermarks = WatermarkWriter(
            self._log, producer, replica, partitions["predictions"], lambda: self.releases.standing
        )
        self.view = FeatureView(use_case, settings.view_entities_max)
        self._online = OnlineLookup(outside.open_online_reader, settings.lookups_max)
        self.handlers = Handlers(
            use_case,
            settings,
            self.view,
            self.clock,
            self.releases,
            self._log,
            self._watermarks,
            self._online,
            producer,
            instruments,
        )
        self._feed = TopicFeed(
            outside.open_reader, self.handlers.records, settings.read_poll_s, settings.read_batch_records
        )
        self._events: EventFeed | None = None
        if use_case.predict.asked_by is not None:
            self._events = EventFeed(
                outside.open_event_reader,
                self.handlers.events,
                self._log.drained,
                settings.read_poll_s,
                settings.read_batch_records,
                settings.asking_commit_s,
            )
        self._instruments = instruments
        self.ready = asyncio.Event()
        """Set once calls are answered: features and the newest release are read and applied."""

    def recover(self) -> int:
        """Takes up the answers that an earlier process had still to log; how many."""
        return self._log.recover()

    def work(self) -> list[Coroutine[Any, Any, None]]:
        """What has to run until the replica ends; what any of it raises cannot be recovered from."""
        asking = [] if self._events is None else [self._events.run(self.ready)]
        return [
            *asking,
            self._feed.run(),
            self._log.run(),
            self.releases.run(),
            self._watermarks.run(),
            self._become_ready(),
        ]

    async def _become_ready(self) -> None:
        await self._feed.caught_up.wait()
        await self.releases.applied()
        self.handlers.ready()
        self.ready.set()
        _logger.info("%s: %d feature entities, release %d", self.name, len(self.view), self.clock.applied_revision)

    async def drain(self) -> None:
        """Sends what is spooled, for a bounded time: the rest follows after the restart."""
        try:
            async with asyncio.timeout(self._settings.drain_timeout_s):
                if self._events is not None:
                    await self._events.stop()
                await self._log.drained()
            self._producer.close(_CLOSE_TIMEOUT_S)
        except (TimeoutError, DeliveryFailed):
            _logger.warning(
                "%s: not every answer has reached the broker: the rest follows after the restart", self.name
            )

    def close(self) -> None:
        """Lets go of files and threads; `work` has ended."""
        self._instruments.publish()
        self._online.close()
        self._spool.close()
