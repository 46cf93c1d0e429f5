"""Serving: production's view, clock, releases, spool, log and handlers; a call is made on the handler instead of through gRPC."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from driftloop.contracts.serving.v1.serving_pb2 import (
    PredictBatchRequest,
    PredictBatchResponse,
    PredictRequest,
    PredictResponse,
    WaitForClockRequest,
)
from services.serving.clock import LoopClock
from services.serving.desk import READ
from services.serving.gateways.log import PredictionLog
from services.serving.gateways.online import OnlineLookup, OnlineReader
from services.serving.gateways.spool import Spool
from services.serving.gateways.watermarks import WatermarkWriter
from services.serving.handlers import Handlers
from services.serving.instruments import ServingInstruments
from services.serving.releases import ReleaseKeeper
from services.serving.routing import Router
from services.serving.view import FeatureView
from simulation.broker import Feed
from simulation.hosted.bundles import SimulatedLoader
from simulation.hosted.machine import SPREAD, Machine, Service
from simulation.process import Down, Process
from simulation.settings import GivenServing

T = TypeVar("T")
_SPOOL_SEGMENT_BYTES = (1 << 20) + 1
_REPLICA = 0
_MODEL_CALL_S_MAX = 3_600.0  # wall time: a slow machine must not change what a seed does


def _no_online_store() -> OnlineReader:
    raise AssertionError("the view holds every entity of the simulation: nothing is looked up")


class Serving(Service):
    """One replica, with the calls that clients make."""

    name = "serving"

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine)
        self.settings = GivenServing(
            state_dir=machine.folder, spool_segment_bytes=_SPOOL_SEGMENT_BYTES, model_call_s_max=_MODEL_CALL_S_MAX
        )
        self.view: FeatureView | None = None
        self._handlers: Handlers | None = None
        self._releases: ReleaseKeeper | None = None
        self._log: PredictionLog | None = None

    @property
    def router(self) -> Router | None:
        """Who answers, while the process lives."""
        return self._releases.router if self._releases is not None else None

    async def live(self, process: Process) -> None:
        """See `Service.live`: what `services.serving.bootstrap` wires, but for the door and the reading thread."""
        assert self.producer is not None
        assert self.store is not None
        settings, machine, measured = self.settings, self.machine, ServingInstruments()
        spool = Spool(
            settings.folder_of(machine.use_case.name) / "spool", settings.spool_segment_bytes, settings.spool_bytes_max
        )
        process.at_end(spool.close)
        log = PredictionLog(spool, self.producer, _REPLICA, measured, settings.log_pause_s)
        clock = LoopClock(SPREAD)
        loader = SimulatedLoader(machine.use_case, self.store, machine.chance.pause_s)
        releases = ReleaseKeeper(
            clock,
            loader,
            self.producer,
            f"serving/{_REPLICA}",
            settings.unusable_scores_max,
            settings.model_call_s_max,
            measured,
        )
        watermarks = WatermarkWriter(log, self.producer, _REPLICA, SPREAD, lambda: releases.standing)
        view = FeatureView(machine.use_case, settings.view_entities_max)
        online = OnlineLookup(_no_online_store, settings.lookups_max)
        handlers = Handlers(
            machine.use_case, settings, view, clock, releases, log, watermarks, online, self.producer, measured
        )
        feed = self.feed(READ)
        log.recover()
        for work in (log.run(), releases.run(), watermarks.run()):
            process.keep(work)
        while feed.lag:
            await self._take(feed, handlers)
        await releases.applied()
        handlers.ready()
        process.keep(self._read(feed, handlers))
        self.view, self._handlers, self._releases, self._log = view, handlers, releases, log

    async def _read(self, feed: Feed, handlers: Handlers) -> None:
        while True:
            await self._take(feed, handlers)

    @staticmethod
    async def _take(feed: Feed, handlers: Handlers) -> None:
        for _, batch in await feed.batches():
            await handlers.records(batch)

    async def leave(self) -> None:
        """See `Service.leave`."""
        assert self._log is not None
        await self._log.drained()
        await super().leave()

    async def predict(self, requests: Sequence[PredictRequest]) -> list[PredictResponse]:
        """Asks for answers, with their vectors; a ServingError or Down: there are none."""
        if len(requests) == 1:
            answer = await self._answered(lambda handlers: handlers.predict(requests[0], "", None))
            return [PredictResponse.FromString(answer)]
        request = PredictBatchRequest(requests=requests)
        answers = await self._answered(lambda handlers: handlers.predict_batch(request, "", None))
        return list(PredictBatchResponse.FromString(answers).responses)

    async def wait_for_clock(self, clock_us: int, timeout_s: float) -> None:
        """Returns once the loop has come to a clock; StillBehind or Down."""
        request = WaitForClockRequest(use_case=self.machine.use_case.name, clock_us=clock_us)
        await self._answered(lambda handlers: handlers.wait_for_clock(request, timeout_s))

    async def _answered(self, ask: Callable[[Handlers], Awaitable[T]]) -> T:
        process, handlers = self.process, self._handlers
        if process is None or handlers is None or not self.ready.is_set():
            raise Down("serving is not ready")
        return await process.call(lambda: ask(handlers))
