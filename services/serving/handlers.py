"""One function per call and per message of serving; holds the state of this replica, and sends through what it is given.

An answer is made without giving way from the reading of the clock to the log, so that no watermark can slip in between.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from driftloop.contracts import UNSET_US, Message, Record
from driftloop.contracts.features.v1.features_pb2 import FeatureUpdate
from driftloop.contracts.monitor.v1.monitor_pb2 import Release
from driftloop.contracts.serving.v1.serving_pb2 import (
    GetReleaseRequest,
    GetReleaseResponse,
    PredictBatchRequest,
    PredictBatchResponse,
    PredictRequest,
    PredictResponse,
    WaitForClockRequest,
    WaitForClockResponse,
)
from driftloop.messaging import Malformed, Producer, dead_letter
from driftloop.telemetry import span
from driftloop.usecase import FieldValue, UseCase
from services.serving.clock import LoopClock
from services.serving.errors import InvalidRequest, NoModelYet, NotReady, StillBehind, UnknownUseCase, Violation
from services.serving.gateways.log import PredictionLog
from services.serving.gateways.online import OnlineLookup
from services.serving.gateways.watermarks import WatermarkWriter
from services.serving.instruments import ServingInstruments
from services.serving.logged import logged_of
from services.serving.prediction import Asked, Assembly, answer
from services.serving.releases import ReleaseKeeper
from services.serving.requests import read_request
from services.serving.settings import ServingSettings
from services.serving.view import Entry, FeatureView

_logger = logging.getLogger(__name__)


class Handlers:
    """What one replica knows, and what it does with calls and messages. Everything runs on the event loop's thread."""

    def __init__(
        self,
        use_case: UseCase,
        settings: ServingSettings,
        view: FeatureView,
        clock: LoopClock,
        releases: ReleaseKeeper,
        log: PredictionLog,
        watermarks: WatermarkWriter,
        online: OnlineLookup,
        producer: Producer,
        instruments: ServingInstruments,
    ) -> None:
        self._use_case = use_case
        self._settings = settings
        self._view = view
        self._clock = clock
        self._releases = releases
        self._log = log
        self._watermarks = watermarks
        self._online = online
        self._producer = producer
        self._instruments = instruments
        self._assembly = Assembly(use_case)
        self._moved = releases.moved
        self._ready = False

    def ready(self) -> None:
        """What the topics held at the start is read and applied: calls are answered from now on."""
        self._ready = True
        if self._clock.clock_us != UNSET_US:
            self._watermarks.reach(self._clock.clock_us)

    async def predict(self, request: PredictRequest, traceparent: str, left_s: float | None) -> PredictResponse:
        """Answers one request; raises a ServingError where there is no answer."""
        with span("serving.Predict", traceparent) as traced:
            return (await self._predict((request,), traced.traceparent, left_s, batch=False))[0]

    async def predict_batch(
        self, request: PredictBatchRequest, traceparent: str, left_s: float | None
    ) -> PredictBatchResponse:
        """Answers every request of a batch, or none."""
        most = self._settings.batch_requests_max
        if len(request.requests) > most:
            raise InvalidRequest(
                [Violation("requests", "size", f"{len(request.requests)} requests in a call, more than {most}")]
            )
        with span("serving.PredictBatch", traceparent) as traced:
            responses = await self._predict(request.requests, traced.traceparent, left_s, batch=True)
        return PredictBatchResponse(responses=responses)

    async def get_release(self, request: GetReleaseRequest) -> GetReleaseResponse:
        """The release that answers here; without one if none was applied."""
        self._check_use_case(request.use_case)
        return GetReleaseResponse(release=self._releases.answering)

    async def wait_for_clock(self, request: WaitForClockRequest, timeout_s: float) -> WaitForClockResponse:
        """Returns once the loop has come to a clock; StillBehind after `timeout_s`."""
        self._check_use_case(request.use_case)
        clock = self._clock
        try:
            async with asyncio.timeout(timeout_s), self._moved:
                await self._moved.wait_for(lambda: not clock.behind(request.clock_us))
        except TimeoutError as error:
            raise StillBehind(clock.behind(request.clock_us) or ["nothing: it came at the last moment"]) from error
        return WaitForClockResponse(
            clock_us=clock.clock_us, revision=clock.applied_revision, has_champion=self._releases.router is not None
        )

    async def records(self, batch: Sequence[Record | Malformed]) -> None:
        """Takes a batch of `features` and `releases` in, each record by its own function."""
        moved = False
        for record in batch:
            if isinstance(record, Malformed):
                self.malformed(record)
            elif record.message.is_watermark:
                moved |= self.watermark(record)
            elif record.topic == "features":
                self.feature_update(record.message)
            else:
                self.release(record.message)
        self._instruments.read(self._clock.clock_us, len(self._view))
        if moved:
            async with self._moved:
                self._moved.notify_all()

    def feature_update(self, message: Message[FeatureUpdate]) -> None:
        """The newest values of a feature entity."""
        was_complete = self._view.complete
        self._view.apply(message)
        if was_complete and not self._view.complete:
            _logger.info("the view has reached %d entities: what it drops is looked up in Feast", len(self._view))
            self._online.open_ahead()

    def watermark(self, record: Record) -> bool:
        """How far features, or judging, have come; whether that moved a clock."""
        before_us = self._clock.clock_us
        moved = self._clock.observe(record.partition, record.message)
        if self._ready and self._clock.clock_us != before_us:
            self._watermarks.reach(self._clock.clock_us)
        return moved

    def release(self, message: Message[Release]) -> None:
        """Who answers from now on; applied behind the calls."""
        self._releases.read(message)

    def malformed(self, record: Malformed) -> None:
        """Bytes that are no message: set aside."""
        _logger.warning("%s/%d at %d is no message: %s", record.topic, record.partition, record.offset, record.reason)
        self._instruments.dead_letter(record.rule)
        self._producer.send(dead_letter(record, "serving", self._use_case.name))

    async def _predict(
        self, requests: Sequence[PredictRequest], traceparent: str, left_s: float | None, batch: bool
    ) -> list[PredictResponse]:
        if not self._ready:
            raise NotReady("this replica is still reading features and releases; retry")
        fields = []
        for position, request in enumerate(requests):
            self._check_use_case(request.use_case)
            fields.append(read_request(self._use_case, request, position if batch else None))
        if self._releases.router is None:
            raise NoModelYet("no model has been released yet")
        looked_up = {} if self._view.complete else await self._look_up(fields, left_s)

        # From here to the log nothing may wait: see the module's first lines.
        router, as_of_us = self._releases.router, self._clock.clock_us
        asked = [
            Asked(
                request.entity,
                request.request_id,
                self._assembly.assemble(found, lambda key: self._entry(key, looked_up)),
            )
            for request, found in zip(requests, fields, strict=True)
        ]
        answered = answer(self._use_case, router, asked, as_of_us, [request.include_vector for request in requests])
        self._log.write([logged_of(prediction) for prediction in answered.predictions], as_of_us, traceparent)
        for unusable in answered.unusable:
            self._releases.unusable(router, unusable)
        return answered.responses

    def _entry(self, key: str, looked_up: dict[str, Entry]) -> Entry | None:
        return self._view.read(key) or looked_up.get(key)

    async def _look_up(self, fields: Sequence[dict[str, FieldValue]], left_s: float | None) -> dict[str, Entry]:
        """Entries that the view had to drop, from Feast."""
        keys = {(view, key) for one in fields for view, key in self._assembly.keys(one) if self._view.read(key) is None}
        if not keys:
            return {}
        timeout_s = (
            self._settings.lookup_timeout_s if left_s is None else min(self._settings.lookup_timeout_s, left_s / 2)
        )
        found = await self._online.read(sorted(keys), timeout_s)
        for key, entry in found.items():
            self._view.admit(key, entry)
        return found

    def _check_use_case(self, use_case: str) -> None:
        if use_case != self._use_case.name:
            raise UnknownUseCase(f"use case {use_case[:64]!r} is not served here, {self._use_case.name!r} is")
