"""Keeps the models of the newest release loaded and swaps who answers, in one assignment; the last good models stay."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from typing import Protocol

from driftloop.artifacts import BundleRefused
from driftloop.contracts import Message
from driftloop.contracts.monitor.v1.monitor_pb2 import Arm, Release
from driftloop.messaging import Producer
from services.serving.clock import LoopClock
from services.serving.instruments import ServingInstruments
from services.serving.prediction import Unusable
from services.serving.routing import Model, Router, arms_of, next_router, refusal

_logger = logging.getLogger(__name__)


class Loader(Protocol):
    """Where models come from."""

    async def load(self, arm: Arm) -> Model:
        """The arm's model; BundleRefused if it must not answer."""
        ...


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
        instruments: ServingInstruments,
    ) -> None:
        self.router: Router | None = None
        self.moved = asyncio.Condition()
        self._clock = clock
        self._loader = loader
        self._producer = producer
        self._who = who
        self._unusable_max = unusable_max
        self._instruments = instruments
        self._newest: Message[Release] | None = None
        self._applied: Message[Release] | None = None
        self._read_at_s = 0.0
        self._has_news = asyncio.Event()
        self._models: dict[tuple[str, str], Model] = {}
        self._unusable: Counter[tuple[str, int]] = Counter()
        self._told: set[tuple[str, str]] = set()

    @property
    def answering(self) -> Release | None:
        """The release by which calls are answered, or the newest applied one while nothing answers."""
        if self.router is not None:
            return self.router.release
        return None if self._applied is None else self._applied.payload

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
                await self._apply(self._newest, self._read_at_s)

    async def applied(self) -> None:
        """Returns once every release read so far is applied."""
        async with self.moved:
            await self.moved.wait_for(lambda: self._clock.up_to_date)

    def unusable(self, router: Router, found: Unusable) -> None:
        """A released model gave no usable answer: monitor is told once it has happened often enough."""
        place = (found.model_id, router.revision)
        before = self._unusable[place]
        self._unusable[place] += found.rows
        if before == 0:
            _logger.warning("model %s (%s) of release %d: %s", found.model_id, found.role, router.revision, found.why)
        if before < self._unusable_max <= self._unusable[place] and self._applied is not None:
            self._refuse(
                self._applied,
                found.model_id,
                "score",
                f"{self._unusable[place]} rows without a usable answer: {found.why}",
            )

    async def _apply(self, message: Message[Release], read_at_s: float) -> None:
        release = message.payload
        models: dict[tuple[str, str], Model] = {}
        for arm in arms_of(release):
            place = (arm.model_id, arm.bundle_digest)
            if place in self._models:
                models[place] = self._models[place]
                continue
            try:
                models[place] = await self._loader.load(arm)
                self._instruments.bundle("loaded")
            except BundleRefused as error:
                self._instruments.bundle(error.reason)
                self._refuse(message, arm.model_id, "bundle", str(error))
        self.router = next_router(release, {model_id: model for (model_id, _), model in models.items()}, self.router)
        # A refused champion leaves the former models answering: they must stay at hand for the next release too.
        answering = {arm.model_id for arm in self.router.arms} if self.router is not None else set()
        self._models = {place: model for place, model in self._models.items() if place[0] in answering} | models
        self._applied = message
        self._unusable.clear()
        self._clock.applied(release.revision)
        self._instruments.swapped(release.revision, time.perf_counter() - read_at_s)
        arms = (
            ", ".join(f"{arm.model_id} ({arm.role})" for arm in self.router.arms)
            if self.router is not None
            else "nobody"
        )
        _logger.info("release %d applied in %.3f s: %s", release.revision, time.perf_counter() - read_at_s, arms)
        async with self.moved:
            self.moved.notify_all()

    def _refuse(self, message: Message[Release], model_id: str, guardrail: str, why: str) -> None:
        _logger.error("model %s of release %d is refused: %s", model_id, message.payload.revision, why)
        self._instruments.guardrail(guardrail)
        # Monitor answers a refusal with a release, which is tried again: told each time, the two would never come to rest.
        if (model_id, guardrail) not in self._told:
            self._told.add((model_id, guardrail))
            self._clock.refused(model_id)
            self._producer.send(refusal(message, model_id, self._who, why))
