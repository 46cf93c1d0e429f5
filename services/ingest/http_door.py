"""The HTTP door: one handler for each path, CloudEvents in JSON; what is decided, the intake and its heart decide."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote

import msgspec
from aiohttp import web
from opentelemetry.trace import SpanKind

from driftloop.contracts import MalformedRecord, rfc3339
from driftloop.contracts.cloudevents import BATCH, STRUCTURED, CloudEventsReader, Translated, is_json, time_us
from driftloop.messaging import Origin
from driftloop.telemetry import given_traceparent, span
from driftloop.usecase import UseCase
from services.ingest.admission import Admission, Duplicate, Rejected
from services.ingest.errors import CannotStart, EventRejected, IdTaken, IngestError, Overloaded
from services.ingest.instruments import IngestInstruments
from services.ingest.intake import Intake, Outcomes, Sent
from services.ingest.openapi import document
from services.ingest.problems import STATUSES, problem, refusal, told
from services.ingest.settings import IngestSettings

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
EVENTS, CLOCK, OPENAPI, LIVE, READY = "/v1/events", "/v1/clock", "/openapi.json", "/healthz", "/readyz"
_WATCHED = (EVENTS, CLOCK)
_CE = "ce-"


class _Clock(msgspec.Struct, forbid_unknown_fields=True):
    """What moves a replay's clock."""

    known_at: str | int
    usecase: str = ""


class HttpDoor:
    """Answers on HTTP what IngestService answers on gRPC, given an intake that both share. `is_ready`: see /readyz."""

    def __init__(
        self,
        use_case: UseCase,
        reader: CloudEventsReader,
        intake: Intake,
        admission: Admission,
        settings: IngestSettings,
        instruments: IngestInstruments,
    ) -> None:
        self._use_case = use_case.name
        self._intake = intake
        self._admission = admission
        self._settings = settings
        self._instruments = instruments
        self._reader = reader
        self._document = msgspec.json.encode(document(use_case))
        self._calls = 0
        self._runner: web.AppRunner | None = None
        self.is_ready = False

    async def open(self, address: str) -> int:
        """Listens on host:port and returns the port, which the system chooses for 0; CannotStart if it is taken."""
        application = web.Application(client_max_size=self._settings.call_bytes_max, middlewares=[self._guarded])
        application.router.add_post(EVENTS, self.post_events)
        application.router.add_post(CLOCK, self.post_clock)
        application.router.add_get(OPENAPI, self.get_openapi)
        application.router.add_get(LIVE, self.get_live)
        application.router.add_get(READY, self.get_ready)
        self._runner = web.AppRunner(
            application,
            access_log=None,
            keepalive_timeout=self._settings.http_idle_s,
            shutdown_timeout=self._settings.stop_grace_s,
        )
        await self._runner.setup()
        host, _, port = address.rpartition(":")
        try:
            await web.TCPSite(self._runner, host, int(port)).start()
        except (OSError, ValueError) as error:
            raise CannotStart(f"cannot listen on {address}") from error
        return int(self._runner.addresses[0][1])

    async def close(self) -> None:
        """Takes no more connections, lets calls end within the grace, and ends."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def post_events(self, request: web.Request) -> web.StreamResponse:
        """CloudEvents: structured and batch by their media type, binary by their `ce-` headers."""
        media = request.content_type
        if request.charset not in (None, "utf-8", "UTF-8"):
            return problem(415, f"charset {request.charset} is not read, UTF-8 is")
        binary = "ce-specversion" in request.headers or "ce-id" in request.headers
        if media not in (STRUCTURED, BATCH) and not (binary and (is_json(media) or not request.can_read_body)):
            said = f"{media} is not read: send {STRUCTURED}, {BATCH}, or JSON with ce- headers"
            return problem(415, said, {"Accept": f"{STRUCTURED}, {BATCH}"})
        body = await self._body(request)
        with self._traced("HttpEvents", request) as traceparent:
            if media == BATCH:
                return await self._batch(body, traceparent)
            if media == STRUCTURED:
                return await self._one(self._reader.structured(body), Origin(body, _said(media)), traceparent)
            attributes = {
                name[len(_CE) :].lower(): unquote(value)
                for name, value in request.headers.items()
                if name.lower().startswith(_CE)
            }
            if media and "datacontenttype" not in attributes:
                attributes["datacontenttype"] = media
            kept = {
                f"ce_{name}": value.encode(errors="surrogateescape")  # bytes that are no UTF-8, as aiohttp gives them
                for name, value in attributes.items()
                if name != "datacontenttype"
            }
            origin = Origin(body, _said(media) | kept)
            return await self._one(self._reader.binary(attributes, body), origin, traceparent)

    async def post_clock(self, request: web.Request) -> web.StreamResponse:
        """Moves a replay's clock, as Advance does."""
        body = await self._body(request)
        try:
            asked = msgspec.json.decode(body, type=_Clock)
            known_at_us = time_us(asked.known_at)
        except (msgspec.MsgspecError, ValueError) as error:
            return problem(400, f'the body is no {{"known_at": RFC 3339 time}}: {error}')
        with self._traced("HttpClock", request):
            await self._intake.advance(asked.usecase or self._use_case, known_at_us)
        return _json({"clock": rfc3339(self._admission.clock_us)})

    async def get_openapi(self, request: web.Request) -> web.StreamResponse:
        """What can be sent here, down to the use case's fields."""
        return web.Response(body=self._document, content_type="application/json")

    async def get_live(self, request: web.Request) -> web.StreamResponse:
        """Whether the process answers."""
        return _json({"status": "alive"})

    async def get_ready(self, request: web.Request) -> web.StreamResponse:
        """Whether events are taken in."""
        return _json({"status": "ready"} if self.is_ready else {"status": "not ready"}, 200 if self.is_ready else 503)

    async def _one(self, read: Translated, origin: Origin, traceparent: str) -> web.Response:
        """One event; a rejection fails the call."""
        outcomes = await self._intake.submit(Sent(read.events, traceparent, "", read.faults, lambda _: origin))
        rejected = outcomes.others.get(0)
        if isinstance(rejected, Rejected):
            raise (IdTaken if rejected.id_taken else EventRejected)(outcomes.ids[0], rejected.violations)
        return _json(_outcome(outcomes, 0))

    async def _batch(self, body: bytes, traceparent: str) -> web.Response:
        """Many events, an outcome for each, in order; 207 where one of them was rejected."""
        try:
            read = self._reader.batch(body)
        except MalformedRecord as error:
            return problem(400, error.reason)

        parts: Sequence[bytes] = ()

        def origin(position: int) -> Origin:
            nonlocal parts
            parts = parts or self._reader.parts(body)
            return Origin(parts[position], _said(STRUCTURED))

        outcomes = await self._intake.submit(Sent(read.events, traceparent, "", read.faults, origin))
        rejected = any(isinstance(other, Rejected) for other in outcomes.others.values())
        answers = [_outcome(outcomes, position) for position in range(len(outcomes.ids))]
        return _json(answers, 207 if rejected else 200)

    async def _body(self, request: web.Request) -> bytes:
        async with asyncio.timeout(self._settings.http_body_timeout_s):
            return await request.read()

    @web.middleware
    async def _guarded(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Bounds the calls under way, and says every error in one form."""
        counted = request.path in _WATCHED
        try:
            if counted and self._calls >= self._settings.calls_max:
                raise Overloaded("calls", self._settings.retry_after_s)
            self._calls += counted
            try:
                return await handler(request)
            finally:
                self._calls -= counted
        except IngestError as error:
            if isinstance(error, Overloaded):
                self._instruments.refused.add(1, {"bound": error.bound})
            return refusal(error)
        except web.HTTPRequestEntityTooLarge:
            return problem(413, f"the body has more than {self._settings.call_bytes_max} bytes")
        except TimeoutError:
            return problem(408, f"the body did not come within {self._settings.http_body_timeout_s} s")
        except web.HTTPException as error:
            allowed = error.headers.get("Allow")
            return problem(error.status, f"{request.method} {request.path}", {"Allow": allowed} if allowed else None)

    @contextmanager
    def _traced(self, method: str, request: web.Request) -> Iterator[str]:
        started_s = time.perf_counter()
        given = given_traceparent(request.headers.get("traceparent", ""))
        with span(f"ingest.{method}", given, kind=SpanKind.SERVER) as current:
            try:
                yield current.traceparent
            finally:
                self._instruments.call_seconds.record(time.perf_counter() - started_s, {"method": method})


def _json(content: Any, status: int = 200) -> web.Response:
    return web.Response(status=status, body=msgspec.json.encode(content), content_type="application/json")


def _said(media: str) -> dict[str, bytes]:
    return {"content-type": media.encode()}


def _outcome(outcomes: Outcomes, position: int) -> dict[str, Any]:
    event_id, other = outcomes.ids[position], outcomes.others.get(position)
    if other is None:
        return {"id": event_id, "outcome": "accepted"}
    if isinstance(other, Duplicate):
        return {"id": event_id, "outcome": "duplicate"}
    status = STATUSES[IdTaken if other.id_taken else EventRejected]
    return {"id": event_id, "outcome": "rejected", "status": status, "violations": told(other.violations)}
