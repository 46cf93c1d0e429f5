"""Answers requests: reads them, looks up what they refer to, has the models score them, and logs; who asked is no matter here.

An answer is made without giving way from the reading of the clock to the log, so that no watermark can slip in between.
"""

from __future__ import annotations

from collections.abc import Sequence

from driftloop.contracts import UNSET_US
from driftloop.contracts.serving.v1.serving_pb2 import PredictRequest
from driftloop.usecase import UseCase
from services.serving.assembly import Assembly, Columns, Inputs, Lookup
from services.serving.clock import LoopClock
from services.serving.errors import DeadlinePassed, NoModelYet, NotReady, UnknownUseCase
from services.serving.gateways.log import PredictionLog
from services.serving.gateways.online import OnlineLookup
from services.serving.instruments import ServingInstruments
from services.serving.prediction import Answered, Together, answer_together
from services.serving.recent import RecentAnswers
from services.serving.releases import ReleaseKeeper
from services.serving.requests import Read, RequestReader
from services.serving.settings import ServingSettings
from services.serving.view import Entry, FeatureView


class Answering:
    """What answers rest on at one replica: the view, the models, the clock and the log. For the event loop's thread."""

    def __init__(
        self,
        use_case: UseCase,
        settings: ServingSettings,
        view: FeatureView,
        clock: LoopClock,
        releases: ReleaseKeeper,
        log: PredictionLog,
        online: OnlineLookup,
        instruments: ServingInstruments,
    ) -> None:
        self._use_case = use_case
        self._settings = settings
        self._view = view
        self._clock = clock
        self._releases = releases
        self._log = log
        self._online = online
        self._instruments = instruments
        self._assembly = Assembly(use_case)
        self._requests = RequestReader(use_case)
        self.recent = RecentAnswers(settings.explained_answers_max)
        """The newest answers that were given."""
        self.ready = False
        """Whether what the topics held at the start is read and applied: nothing is answered before."""

    def check_use_case(self, use_case: str) -> None:
        """UnknownUseCase if it is another one than is answered here."""
        if use_case != self._use_case.name:
            raise UnknownUseCase(f"use case {use_case[:64]!r} is not served here, {self._use_case.name!r} is")

    def read(self, requests: Sequence[PredictRequest], left_s: float | None, position: int | None) -> Read:
        """Requests that can be answered now; `position` 0: those of a batch."""
        if left_s is not None and left_s <= 0:
            raise DeadlinePassed("the call's deadline has passed: nothing was predicted")
        if not self.ready:
            raise NotReady("this replica is still reading features and releases; retry")
        name = self._use_case.name
        for request in requests:
            if request.use_case != name:
                self.check_use_case(request.use_case)
        found = self._requests.read_all(requests, position)
        if self._releases.router is None:
            raise NoModelYet("no model has been released yet")
        return found

    async def lookup(self, columns: Columns, left_s: float | None) -> Lookup:
        """Where the values of those entities are found that some requests refer to."""
        return self._view.read_all if self._view.complete else await self._looked_up(columns, left_s)

    def assembled(self, columns: Columns, rows: int, lookup: Lookup) -> Inputs:
        """The inputs of `rows` requests."""
        return self._assembly.assemble_columns(columns, rows, lookup)

    def answer(self, asked: Together, least_us: int = UNSET_US) -> Answered:
        """Answers and logs; between the reading of the clock and the log nothing may wait: see the module's first lines.

        least_us: the answers are as of this time at the least, when what asked for them became known.
        """
        router = self._releases.router
        if router is None:
            raise NoModelYet("no model has been released yet")
        # Updates come ahead of the watermarks behind them: an answer is as of what it read, where that is later than the clock.
        as_of_us = max(self._clock.clock_us, least_us)
        if self._view.newest_us > as_of_us:
            as_of_us = max(as_of_us, asked.inputs.known_at_us)
        answered = answer_together(self._use_case, router, asked, as_of_us)
        self._log.write(answered.logged, as_of_us)
        self.recent.add([answer.payload for answer in answered.logged])
        for unusable in answered.unusable:
            self._releases.unusable(router, unusable)
        self._instruments.answered(as_of_us, answered.arms, asked.inputs)
        return answered

    async def _looked_up(self, columns: Columns, left_s: float | None) -> Lookup:
        """A look-up that knows, besides the view, what the view had to drop."""
        found = await self._look_up(columns, left_s)
        return lambda keys: [
            entry if key is None or entry is not None else found.get(key)
            for key, entry in zip(keys, self._view.read_all(keys), strict=True)
        ]

    async def _look_up(self, columns: Columns, left_s: float | None) -> dict[str, Entry]:
        """Entries that the view had to drop, from Feast."""
        keys = {(view, key) for view, key in self._assembly.keys(columns) if self._view.read(key) is None}
        if not keys:
            return {}
        timeout_s = (
            self._settings.lookup_timeout_s if left_s is None else min(self._settings.lookup_timeout_s, left_s / 2)
        )
        found = await self._online.read(sorted(keys), timeout_s)
        for key, entry in found.items():
            self._view.admit(key, entry)
        self._instruments.fetched(len(found))
        return found
