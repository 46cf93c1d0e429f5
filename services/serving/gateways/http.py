"""The HTTP/JSON door: the calls of PredictionService as JSON, by the same handlers; decides nothing.

Paths begin with /v1: /v2 is left to the Open Inference Protocol.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from aiohttp import web
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message as Payload
from pydantic import BaseModel, ConfigDict, ValidationError

from driftloop.contracts.serving.v1.serving_pb2 import (
    ExplainRequest,
    GetReleaseRequest,
    ListModelsRequest,
    PredictBatchRequest,
    PredictBatchResponse,
    PredictRequest,
    PredictResponse,
)
from driftloop.telemetry import given_traceparent
from driftloop.usecase import UseCase
from services.serving.errors import CannotStart, InvalidRequest, ServingError, Violation
from services.serving.gateways.openapi import BATCH, EXPLAIN, MODELS, OPENAPI, PREDICT, READY, RELEASE, document
from services.serving.gateways.status import code_of, retry_after_s
from services.serving.handlers import Handlers, Served
from services.serving.instruments import CallInstruments
from services.serving.requests import VIOLATIONS_MAX
from services.serving.settings import ServingSettings
from services.serving.spoken import Spoken

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_STATUSES = {
    "INVALID_ARGUMENT": 400,
    "NOT_FOUND": 404,
    "FAILED_PRECONDITION": 409,
    "RESOURCE_EXHAUSTED": 429,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}
_PROBLEM = "application/problem+json"
_PATH_CHARACTERS_MAX = 64


class _Body(BaseModel):
    """What a call's body may be."""

    model_config = ConfigDict(extra="forbid", strict=True)


class _One(_Body):
    """One request: its fields are plain JSON values."""

    entity: str
    request_id: str
    fields: dict[str, Any]
    include_vector: bool = False


class _Many(_Body):
    requests: list[_One]


class _Explained(_Body):
    prediction_id: str


_Asked = TypeVar("_Asked", bound=_Body)


class HttpDoor:
    """Answers over HTTP what PredictionService answers over gRPC; `is_ready`: what /readyz says."""

    def __init__(
        self, served: Served, use_cases: list[UseCase], settings: ServingSettings, instruments: CallInstruments
    ) -> None:
        self._served = served
        self._settings = settings
        self._instruments = instruments
        self._spoken = {use_case.name: Spoken(use_case.request_fields) for use_case in use_cases}
        self._document = _encoded(document(use_cases))
        self._calls = 0
        self._runner: web.AppRunner | None = None
        self.is_ready = False

    async def open(self, address: str) -> int:
        """Listens on host:port and returns the port, which the system chooses for 0; CannotStart if it is taken."""
        settings = self._settings
        application = web.Application(client_max_size=settings.call_bytes_max, middlewares=[self._guarded])
        application.router.add_post(PREDICT, self.post_predict)
        application.router.add_post(BATCH, self.post_predict_batch)
        application.router.add_post(EXPLAIN, self.post_explain)
        application.router.add_get(RELEASE, self.get_release)
        application.router.add_get(MODELS, self.get_models)
        application.router.add_get(OPENAPI, self.get_openapi)
        application.router.add_get(READY, self.get_ready)
        self._runner = web.AppRunner(
            application, access_log=None, handler_cancellation=True, shutdown_timeout=settings.stop_grace_s
        )
        await self._runner.setup()
        host, _, port = address.rpartition(":")
        try:
            await web.TCPSite(self._runner, host, int(port), reuse_port=settings.share_port or None).start()
        except (OSError, ValueError) as error:
            raise CannotStart(f"cannot listen on {address}") from error
        return int(self._runner.addresses[0][1])

    async def close(self) -> None:
        """Takes no more connections, lets calls end within the grace, and ends."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def post_predict(self, request: web.Request) -> web.StreamResponse:
        """One prediction."""
        handlers, spoken = self._of(request)
        asked = spoken.request(request.match_info["use_case"], await self._body(request, _One), None)
        answered = await handlers.predict(asked, _traceparent(request), None)
        return _json(PredictResponse.FromString(answered))

    async def post_predict_batch(self, request: web.Request) -> web.StreamResponse:
        """Many, in order, or none."""
        handlers, spoken = self._of(request)
        name, many = request.match_info["use_case"], await self._body(request, _Many)
        asked: list[PredictRequest] = [spoken.request(name, one, place) for place, one in enumerate(many.requests)]
        answered = await handlers.predict_batch(PredictBatchRequest(requests=asked), _traceparent(request), None)
        return _json(PredictBatchResponse.FromString(answered))

    async def post_explain(self, request: web.Request) -> web.StreamResponse:
        """What each input contributed to a prediction."""
        handlers, _ = self._of(request)
        prediction_id = (await self._body(request, _Explained)).prediction_id
        asked = ExplainRequest(use_case=request.match_info["use_case"], prediction_id=prediction_id)
        return _json(await handlers.explain(asked))

    async def get_release(self, request: web.Request) -> web.StreamResponse:
        """The release that answers here."""
        handlers, _ = self._of(request)
        return _json(await handlers.get_release(GetReleaseRequest(use_case=request.match_info["use_case"])))

    async def get_models(self, request: web.Request) -> web.StreamResponse:
        """The models that are loaded here."""
        handlers, _ = self._of(request)
        return _json(await handlers.list_models(ListModelsRequest(use_case=request.match_info["use_case"])))

    async def get_openapi(self, request: web.Request) -> web.StreamResponse:
        """What can be asked here, down to the use case's fields."""
        return web.Response(body=self._document, content_type="application/json")

    async def get_ready(self, request: web.Request) -> web.StreamResponse:
        """Whether every use case is answered."""
        return web.json_response({"ready": self.is_ready}, status=200 if self.is_ready else 503)

    def _of(self, request: web.Request) -> tuple[Handlers, Spoken]:
        name = request.match_info["use_case"]
        return self._served.by_use_case(name), self._spoken[name]

    async def _body(self, request: web.Request, kind: type[_Asked]) -> _Asked:
        timeout_s = self._settings.http_body_timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                body = await request.read()
        except TimeoutError as error:
            raise web.HTTPRequestTimeout(reason=f"the body did not come within {timeout_s:g} s") from error
        try:
            return kind.model_validate_json(body)
        except ValidationError as error:
            found = error.errors(include_url=False, include_input=False, include_context=False)[:VIOLATIONS_MAX]
            raise InvalidRequest(
                [Violation(".".join(map(str, e["loc"]))[:_PATH_CHARACTERS_MAX], "json", e["msg"]) for e in found]
            ) from error

    @web.middleware
    async def _guarded(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Bounds the calls under way, and says every error in one form."""
        if self._calls >= self._settings.calls_max:
            return _problem(429, f"{self._calls} calls are open already", retry_s=1)
        self._calls += 1
        try:
            return await handler(request)
        except ServingError as error:
            self._instruments.refused(code_of(error).name)
            return _refusal(error)
        except web.HTTPRequestEntityTooLarge:
            return _problem(413, f"the body has more than {self._settings.call_bytes_max} bytes")
        except web.HTTPException as error:
            return _problem(error.status, f"{request.method} {request.path}: {error.reason}")
        finally:
            self._calls -= 1


def _encoded(plain: Any) -> bytes:
    return json.dumps(plain, separators=(",", ":")).encode()


def _traceparent(request: web.Request) -> str:
    return given_traceparent(request.headers.get("traceparent", ""))


def _json(payload: Payload) -> web.Response:
    plain = MessageToDict(payload, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    return web.Response(body=_encoded(plain), content_type="application/json")


def _refusal(error: ServingError) -> web.Response:
    more: dict[str, Any] = {}
    if isinstance(error, InvalidRequest):
        more["violations"] = [
            {"field": v.field, "rule": v.rule, "description": v.description} for v in error.violations
        ]
    return _problem(_STATUSES.get(code_of(error).name, 500), str(error), retry_after_s(error), **more)


def _problem(status: int, detail: str, retry_s: float = 0.0, **more: Any) -> web.Response:
    body = {"type": "about:blank", "status": status, "detail": detail, **more}
    headers = {"Retry-After": str(max(1, round(retry_s)))} if retry_s else {}
    return web.Response(status=status, body=_encoded(body), content_type=_PROBLEM, headers=headers)
