"""Wires one replica from what it is given: real gateways in `__main__`, twins in tests; decides nothing."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import grpc

from driftloop.telemetry import add_health_and_reflection
from driftloop.usecase import UseCase
from services.serving.desk import Desk, Outside
from services.serving.errors import CannotStart
from services.serving.gateways.door import SERVICE, PredictionDoor
from services.serving.handlers import Served
from services.serving.instruments import CallInstruments, ServingInstruments
from services.serving.settings import ServingSettings

if TYPE_CHECKING:
    from services.serving.gateways.http import HttpDoor

_COLLECTED_AFTER = 20_000
_PUBLISH_EVERY_S = 1.0  # far below the interval at which metrics are exported
_logger = logging.getLogger(__name__)


class Replica:
    """One replica of serving on the running event loop: a desk for each use case behind one door."""

    def __init__(self, settings: ServingSettings, use_cases: Sequence[tuple[UseCase, Outside]]) -> None:
        self._settings = settings
        self._instruments = [ServingInstruments(use_case.name) for use_case, _ in use_cases]
        self._desks = [
            Desk(use_case, settings, outside, instruments)
            for (use_case, outside), instruments in zip(use_cases, self._instruments, strict=True)
        ]
        self.served = Served({desk.name: desk.handlers for desk in self._desks})
        self._use_cases = [use_case for use_case, _ in use_cases]
        self._calls = CallInstruments()
        self._door = PredictionDoor(self.served, settings, self._calls)
        self._http: HttpDoor | None = None
        self.ready = asyncio.Event()
        """Set once every desk answers."""
        self.listening = asyncio.Event()
        """Set once the door is open on `port`; calls are answered when their desk is ready."""
        self.port = 0
        self.http_port = 0
        """Of the HTTP door; 0 without one."""

    async def run(self, stopped: asyncio.Event) -> None:
        """Serves until `stopped` is set; raises what cannot be recovered from. CannotStart: the address is taken."""
        settings = self._settings
        server = grpc.aio.server(
            maximum_concurrent_rpcs=settings.calls_max,
            options=[
                ("grpc.so_reuseport", int(settings.share_port)),
                ("grpc.max_receive_message_length", settings.call_bytes_max),
                ("grpc.server.max_pending_requests", settings.pending_calls_max // 2),
                ("grpc.server.max_pending_requests_hard_limit", settings.pending_calls_max),
            ],
        )
        self._door.add_to(server)
        health = await add_health_and_reflection(
            server, "serving", (SERVICE,), [f"driftloop.serving/{desk.name}" for desk in self._desks]
        )
        try:
            self.port = server.add_insecure_port(settings.address)
        except RuntimeError as error:
            raise CannotStart(f"cannot listen on {settings.address}") from error
        await server.start()
        if settings.http_address:
            # Imported here: HTTP takes a third of a second, which a replica without this door need not pay.
            from services.serving.gateways.http import HttpDoor

            self._http = HttpDoor(self.served, self._use_cases, settings, self._calls)
            self.http_port = await self._http.open(settings.http_address)
        self.listening.set()
        left = sum(desk.recover() for desk in self._desks)
        _logger.info("listens on port %d; %d answers of an earlier process are still to be logged", self.port, left)

        async def become_ready(desk: Desk) -> None:
            await desk.ready.wait()
            await health.set(f"driftloop.serving/{desk.name}", True)

        async def all_ready() -> None:
            await asyncio.gather(*map(become_ready, self._desks))
            # What was built at the start stays: the collector need not look through it again while calls wait.
            gc.freeze()
            # An answer's objects die by themselves; looking for cycles after every 700 of them cost a twentieth of the time.
            gc.set_threshold(_COLLECTED_AFTER, 10, 10)
            await health.set_serving(True)
            if self._http is not None:
                self._http.is_ready = True
            self.ready.set()
            _logger.info("ready")

        async def publish() -> None:
            while True:
                await asyncio.sleep(_PUBLISH_EVERY_S)
                self._calls.publish()
                for instruments in self._instruments:
                    instruments.publish()

        work = [all_ready(), publish(), *(one for desk in self._desks for one in desk.work())]
        tasks: list[asyncio.Task[Any]] = [asyncio.create_task(one) for one in work]
        stop = asyncio.create_task(stopped.wait())
        try:
            await _first_failure(tasks, stop)
            await health.set_serving(False)
            if self._http is not None:
                self._http.is_ready = False
                await self._http.close()
            await server.stop(settings.stop_grace_s)
            for task in tasks:
                if task.done():
                    task.result()
            await asyncio.gather(*(desk.drain() for desk in self._desks))
        finally:
            for task in (*tasks, stop):
                task.cancel()
            await asyncio.gather(*tasks, stop, return_exceptions=True)
            self._calls.publish()
            for desk in self._desks:
                desk.close()


async def _first_failure(tasks: Sequence[asyncio.Task[Any]], stop: asyncio.Task[Any]) -> None:
    """Returns when one of the tasks has failed, or `stop` is done."""
    left: set[asyncio.Task[Any]] = {*tasks, stop}
    while True:
        done, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
        if stop in done or any(task.exception() is not None for task in done):
            return
