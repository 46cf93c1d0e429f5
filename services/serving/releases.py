"""Keeps the models of the newest release loaded and swaps who answers, in one assignment; the last good models stay."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
from opentelemetry.trace import SpanKind

from driftloop.artifacts import BundleRefused
from driftloop.contracts import Message
from driftloop.contracts.monitor.v1.monitor_pb2 import (
    COMMAND_KIND_BUNDLE_REFUSED,
    COMMAND_KIND_GUARDRAIL,
    Arm,
    CommandKind,
    Release,
)
from driftloop.contracts.serving.v1.serving_pb2 import ListModelsResponse, ServedModel
from driftloop.messaging import Producer
from driftloop.telemetry import span
from services.serving.clock import LoopClock
from services.serving.explanation import is_explainable
from services.serving.guardrail import LatencyGuardrail
from services.serving.instruments import ServingInstruments
from services.serving.prediction import Unusable
from services.serving.routing import Model, Router, arms_of, next_router, only_recalibrates, refusal, role_of, same_arms

_logger = logging.getLogger(__name__)


class Loader(Protocol):
    """Where models come from."""

    async def load(self, arm: Arm) -> Model:
        """The arm's model; BundleRefused if it must not answer."""
        ...


class _Timed:
    """A model whose calls are timed."""

    def __init__(self, model: Model, took: Callable[[float, int], None]) -> None:
        self._model = model
        self._took = took
        self.scoring = getattr(model, "scoring", None)
        self.prior: Sequence[float] = getattr(model, "prior", ())

    def predict(self, numbers: npt.NDArray[np.float64], texts: Sequence[Sequence[str]]) -> npt.NDArray[np.float64]:
        """See `Model`."""
        started_s = time.perf_counter()
        found = self._model.predict(numbers, texts)
        self._took(time.perf_counter() - started_s, len(texts))
        return found


class ReleaseKeeper:
    """The releases read, the models loaded and the router in use.

    `router` is replaced, never changed: a call that took it keeps its models until it has answered.
    `moved` is notified whenever a release has been applied.
    """

    def __init__(
        self,
        clock: LoopClock,
        loader: Loader,
        producer: Producer,
        who: str,
        unusable_max: int,
        call_s_max: float,
        instruments: ServingInstruments,
    ) -> None:
        self.router: Router | None = None
        self.moved = asyncio.Condition()
        self.refused: dict[str, str] = {}
        """Models of the newest applied release that are not loaded here, and why."""
        self._clock = clock
        self._loader = loader
        self._producer = producer
        self._who = who
        self._unusable_max = unusable_max
        self._call_s_max = call_s_max
        self._instruments = instruments
        self._newest: Message[Release] | None = None
        self._applied: Message[Release] | None = None
        self._read_at_s = 0.0
        self._has_news = asyncio.Event()
        self._models: dict[tuple[str, str], Model] = {}
        self._unusable: Counter[tuple[str, int]] = Counter()
        self._arms_since = 0  # the revision since which the arms are as they are: a recalibration leaves them
        self._told: set[tuple[str, str]] = set()

    @property
    def answering(self) -> Release | None:
        """The release by which calls are answered, or the newest applied one while nothing answers."""
        if self.router is not None:
            return self.router.release
        return None if self._applied is None else self._applied.payload

    @property
    def models(self) -> Mapping[str, Model]:
        """The loaded models by id."""
        return {model_id: model for (model_id, _), model in self._models.items()}

    @property
    def standing(self) -> tuple[int, Sequence[str]]:
        """The revision of the newest release applied here, -1 before the first, and the models of it that were refused."""
        return self._clock.applied_revision, sorted(self.refused)

    def listing(self) -> ListModelsResponse:
        """The models of the newest applied release, and those that answer still because it could not be loaded."""
        router, models = self.router, self.models
        answering = [] if router is None else [router.release]
        newest = [] if self._applied is None else [self._applied.payload]
        found: dict[str, ServedModel] = {}
        for release in (*answering, *newest):
            for index, arm in enumerate(arms_of(release)):
                role = role_of(arm, index)
                found[arm.model_id] = ServedModel(
                    model_id=arm.model_id,
                    role=role,
                    share=arm.share,
                    bundle_digest=arm.bundle_digest,
                    arm=arm.name or role,
                    explainable=is_explainable(models.get(arm.model_id)),
                    refused=self.refused.get(arm.model_id, ""),
                )
        return ListModelsResponse(models=found.values(), revision=max(0, self._clock.applied_revision))

    def read(self, message: Message[Release]) -> bool:
        """Takes note of a release, to be applied by `run`; False if it is not newer than the newest."""
        if not self._clock.read(message.payload):
            return False
        self._newest, self._read_at_s = message, time.perf_counter()
        self._has_news.set()
        return True

    async def run(self) -> None:
        """Applies the newest release whenever there is one; runs until it is cancelled."""
        while True:
            await self._has_news.wait()
            self._has_news.clear()
            if self._newest is not None:
                with span("serving.Release", self._newest.traceparent, kind=SpanKind.CONSUMER):
                    await self._apply(self._newest, self._read_at_s)

    async def applied(self) -> None:
        """Returns once every release read so far is applied."""
        async with self.moved:
            await self.moved.wait_for(lambda: self._clock.up_to_date)

    def unusable(self, router: Router, found: Unusable) -> None:
        """A released model gave no usable answer: monitor is told once it has happened often enough."""
        place = (found.model_id, self._arms_since if router.revision >= self._arms_since else router.revision)
        before = self._unusable[place]
        self._unusable[place] += found.rows
        if before == 0:
            _logger.warning("model %s (%s) of release %d: %s", found.model_id, found.role, router.revision, found.why)
        if before < self._unusable_max <= self._unusable[place]:
            why = f"{self._unusable[place]} rows without a usable answer: {found.why}"
            self._tell(found.model_id, "errors", why, COMMAND_KIND_GUARDRAIL)

    async def _apply(self, message: Message[Release], read_at_s: float) -> None:
        release = message.payload
        models: dict[tuple[str, str], Model] = {}
        refused: dict[str, str] = {}
        for arm in arms_of(release):
            place = (arm.model_id, arm.bundle_digest)
            if place in self._models:
                models[place] = self._models[place]
                continue
            if only_recalibrates(release) and arm.model_id in self.refused:
                refused[arm.model_id] = self.refused[arm.model_id]  # tried again with a release of another kind
                continue
            try:
                models[place] = self._timed(arm.model_id, await self._loader.load(arm))
                self._instruments.bundle("loaded")
            except BundleRefused as error:
                self._instruments.bundle(error.reason)
                refused[arm.model_id] = str(error)
        self.router = next_router(release, {model_id: model for (model_id, _), model in models.items()}, self.router)
        # A refused champion leaves the former models answering: they must stay at hand for the next release too.
        router = self.router
        answering = set() if router is None else {arm.model_id for arm in (*router.arms, *router.standby)}
        self._models = {place: model for place, model in self._models.items() if place[0] in answering} | models
        has_same_arms = self._applied is not None and same_arms(self._applied.payload, release)
        self._applied, self.refused = message, refused
        if not has_same_arms:
            self._arms_since = release.revision
            self._unusable.clear()
        # A model that comes back is told of again.
        self._told = {told for told in self._told if told[0] in {arm.model_id for arm in arms_of(release)}}
        # Of a release that is no longer the newest, an earlier life may have told: that was answered, and is not again.
        if message is self._newest:
            for model_id, why in refused.items():
                self._tell(model_id, "bundle", why, COMMAND_KIND_BUNDLE_REFUSED)
        self._clock.applied(release.revision)
        self._instruments.swapped(release.revision, time.perf_counter() - read_at_s)
        arms = "nobody" if router is None else ", ".join(f"{arm.model_id} ({arm.name})" for arm in router.arms)
        _logger.log(
            logging.DEBUG if only_recalibrates(release) else logging.INFO,
            "release %d applied in %.3f s: %s",
            release.revision,
            time.perf_counter() - read_at_s,
            arms,
        )
        async with self.moved:
            self.moved.notify_all()

    def _timed(self, model_id: str, model: Model) -> Model:
        guardrail = LatencyGuardrail(self._call_s_max)

        def took(seconds: float, rows: int) -> None:
            if guardrail.took(seconds, rows):
                why = f"its calls take longer than {self._call_s_max:g} s, the newest {seconds:.3f} s for {rows} rows"
                self._tell(model_id, "latency", why, COMMAND_KIND_GUARDRAIL)

        return _Timed(model, took)

    def _tell(self, model_id: str, guardrail: str, why: str, kind: CommandKind) -> None:
        # Monitor answers a refusal with a release, which is tried again: told each time, the two would never come to rest.
        if (model_id, guardrail) in self._told or self._applied is None:
            return
        self._told.add((model_id, guardrail))
        _logger.error("model %s of release %d: %s", model_id, self._applied.payload.revision, why)
        self._instruments.guardrail(guardrail)
        self._clock.refused(model_id)
        self._producer.send(refusal(self._applied, model_id, self._who, why, kind))
