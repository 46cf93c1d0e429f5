"""Wires one replica from what it is given: real gateways in `__main__`, twins in tests; decides nothing."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import grpc

from driftloop.messaging import DeliveryFailed, Producer, Reader
from driftloop.telemetry import add_health_and_reflection
from driftloop.usecase import UseCase
from services.serving.clock import LoopClock
from services.serving.errors import CannotStart
from services.serving.gateways.door import SERVICE, PredictionDoor
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
WRITTEN = ("predictions", "commands", "dead-letters")
_COLLECTED_AFTER = 20_000
_CLOSE_TIMEOUT_S = 1.0
_PUBLISH_EVERY_S = 1.0  # far below the interval at which metrics are exported
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outside:
    """What a replica stands on. `partitions` counts those of the topics that it reads and writes."""

    partitions: Mapping[str, int]
    producer: Producer
    open_reader: Callable[[], Reader]
    loader: Loader
    open_online_reader: Callable[[], OnlineReader]


class Replica:
    """One replica of serving on the running event loop: `start`, `run` until it is told to stop."""

    def __init__(self, use_case: UseCase, settings: ServingSettings, outside: Outside) -> None:
        measured = ServingInstruments()
        producer, partitions = outside.producer, outside.partitions
        self._settings = settings
        self._producer = producer
        self._spool = Spool(
            settings.folder / "spool", settings.spool_segment_bytes, settings.spool_bytes_max, settings.spool_fsync
        )
        self._log = PredictionLog(self._spool, producer, settings.replica, measured, settings.log_pause_s)
        self._clock = LoopClock(partitions["features"])
        self._releases = ReleaseKeeper(
            self._clock,
            outside.loader,
            producer,
            f"serving/{settings.replica}",
            settings.unusable_scores_max,
            measured,
        )
        self._watermarks = WatermarkWriter(self._log, producer, settings.replica, partitions["predictions"])
        self._view = FeatureView(use_case, settings.view_entities_max)
        self._measured = measured
        self._online = OnlineLookup(outside.open_online_reader, settings.lookups_max)
        self._handlers = Handlers(
            use_case,
            settings,
            self._view,
            self._clock,
            self._releases,
            self._log,
            self._watermarks,
            self._online,
            producer,
            measured,
        )
        self._feed = TopicFeed(
            outside.open_reader, self._handlers.records, settings.read_poll_s, settings.read_batch_records
        )
        self._door = PredictionDoor(self._handlers, measured, settings.answer_margin_s, settings.wait_timeout_s)
        self.ready = asyncio.Event()
        """Set once the replica answers: features and the newest release are read and applied."""
        self.listening = asyncio.Event()
        """Set once the door is open on `port`; calls are answered when the replica is ready."""
        self.port = 0

    async def run(self, stopped: asyncio.Event) -> None:
        """Serves until `stopped` is set; raises what cannot be recovered from. CannotStart: the address is taken."""
        settings = self._settings
        server = grpc.aio.server(
            maximum_concurrent_rpcs=settings.calls_max,
            options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", settings.call_bytes_max)],
        )
        self._door.add_to(server)
        health = await add_health_and_reflection(server, "serving", (SERVICE,))
        try:
            self.port = server.add_insecure_port(settings.address)
        except RuntimeError as error:
            raise CannotStart(f"cannot listen on {settings.address}") from error
        await server.start()
        self.listening.set()
        left = self._log.recover()
        _logger.info("listens on port %d; %d answers of an earlier process are still to be logged", self.port, left)

        async def become_ready() -> None:
            await self._feed.caught_up.wait()
            await self._releases.applied()
            self._handlers.ready()
            # What was built at the start stays: the collector need not look through it again while calls wait.
            gc.freeze()
            # An answer's objects die by themselves; looking for cycles after every 700 of them cost a twentieth of the time.
            gc.set_threshold(_COLLECTED_AFTER, 10, 10)
            await health.set_serving(True)
            self.ready.set()
            _logger.info("ready: %d feature entities, release %d", len(self._view), self._clock.applied_revision)
            await stopped.wait()

        async def publish() -> None:
            while True:
                measured.publish()
                await asyncio.sleep(_PUBLISH_EVERY_S)

        measured = self._measured
        work = (
            self._feed.run(),
            self._log.run(),
            self._releases.run(),
            self._watermarks.run(),
            publish(),
            become_ready(),
        )
        tasks = [asyncio.create_task(one) for one in work]
        stop = asyncio.create_task(stopped.wait())
        try:
            done, _ = await asyncio.wait((*tasks, stop), return_when=asyncio.FIRST_COMPLETED)
            await health.set_serving(False)
            await server.stop(settings.stop_grace_s)
            for task in done:
                task.result()
            await self._drain()
        finally:
            for task in (*tasks, stop):
                task.cancel()
            await asyncio.gather(*tasks, stop, return_exceptions=True)
            measured.publish()
            self._online.close()
            self._spool.close()

    async def _drain(self) -> None:
        try:
            await asyncio.wait_for(self._log.drained(), self._settings.drain_timeout_s)
            self._producer.close(_CLOSE_TIMEOUT_S)
        except (TimeoutError, DeliveryFailed):
            _logger.warning("not every answer has reached the broker: the rest is sent after the restart")
