"""Ingest: production's admission and handlers; a call is made on the handler itself instead of through gRPC."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import grpc

from driftloop.contracts.event.v1.event_pb2 import Event
from driftloop.contracts.ingest.v1.ingest_pb2 import (
    AdvanceRequest,
    IngestBatchResponse,
    SerializedBatch,
)
from services.ingest.admission import Admission
from services.ingest.gateways import MemoryLog, restore
from services.ingest.handlers import IngestHandlers
from services.ingest.instruments import IngestInstruments
from services.ingest.intake import Intake
from simulation.hosted.machine import SPREAD, Machine, Service
from simulation.process import Down, Process
from simulation.settings import GivenIngest


class CallRefused(Exception):
    """The call was answered by an error. `code` is gRPC's."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(f"{code.name}: {details}")
        self.code = code


class _Context:
    """What handlers need of a call."""

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        """No headers."""
        return ()

    async def abort(self, code: grpc.StatusCode, details: str, trailers: Sequence[Any] = ()) -> NoReturn:
        """Ends the call with an error."""
        raise CallRefused(code, details)


class Ingest(Service):
    """Ingest, with the calls that producers make."""

    name = "ingest"

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine)
        self.settings = GivenIngest()
        self.admission: Admission | None = None
        self._handlers: IngestHandlers | None = None

    async def live(self, process: Process) -> None:
        """See `Service.live`."""
        use_case, settings, bus = self.machine.use_case, self.settings, self.machine.broker.bus
        admission = Admission(use_case, SPREAD, settings.window_ids_max, settings.in_flight_max)
        restore(admission, MemoryLog(bus), settings.restore_records_max)
        assert self.producer is not None
        instruments = IngestInstruments()
        intake = Intake(use_case.name, admission, self.producer, settings, instruments, lambda: 0)
        handlers = IngestHandlers(intake, admission, settings, instruments)

        async def failed() -> None:
            raise await intake.failed

        process.keep(failed())
        self.admission, self._handlers = admission, handlers

    async def send(self, events: Sequence[Event]) -> IngestBatchResponse:
        """Sends events; CallRefused or Down: send them again."""
        return await self._answered(
            "IngestBatch", SerializedBatch(events=[event.SerializeToString() for event in events])
        )

    async def advance(self, known_at_us: int) -> None:
        """Moves the clock; CallRefused or Down: ask again."""
        request = AdvanceRequest(use_case=self.machine.use_case.name, known_at_us=known_at_us)
        await self._answered("Advance", request)

    async def _answered(self, method: str, request: Any) -> Any:
        process, handlers = self.process, self._handlers
        if process is None or handlers is None or not self.ready.is_set():
            raise Down("ingest is not ready")
        return await process.call(lambda: getattr(handlers, method)(request, _Context()))
