"""The caller of a run: asks predictions, sends events, moves the clock and waits for the loop, as `driftloop replay` does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from driftloop.contracts import to_wire
from driftloop.contracts.event.v1.event_pb2 import Event
from driftloop.contracts.ingest.v1.ingest_pb2 import OUTCOME_REJECTED
from driftloop.contracts.serving.v1.serving_pb2 import PredictRequest, PredictResponse
from driftloop.usecase import ReplayEvent, ReplayRequest, ReplayStep, UseCase
from services.serving.errors import LogFull, NoModelYet, NotReady, StillBehind
from simulation.faults import Chance
from simulation.hosted.ingest import CallRefused, Ingest
from simulation.hosted.serving import Serving
from simulation.process import Down

RETRY_S = 0.2
WAIT_S = 25.0
PATIENCE_S = 3_600.0  # an outage lasts a minute and a half, a service is back within seconds
AHEAD_STEPS_MAX = 4  # a caller in a hurry waits after so many steps
T = TypeVar("T")


class NeverFollowed(Exception):
    """The loop did not answer, or did not come to a time, within more than an hour of virtual time."""


@dataclass
class Told:
    """What callers were told: the outside's whole knowledge of the loop."""

    acknowledged: dict[str, Event] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    answered: dict[str, PredictResponse] = field(default_factory=dict)
    before_model: int = 0
    contradictions: list[str] = field(default_factory=list)


class Caller:
    """Plays steps against ingest and serving; whatever fails for a while is tried again, with the same ids."""

    def __init__(self, use_case: UseCase, ingest: Ingest, serving: Serving, chance: Chance, told: Told) -> None:
        self.told = told
        self._use_case, self._ingest, self._serving, self._chance = use_case, ingest, serving, chance
        self._declared = {event.name: event.fields for event in use_case.events}
        self._ahead = 0

    async def begin(self, clock_us: int) -> None:
        """Sets the clock."""
        await self._persist(lambda: self._ingest.advance(clock_us))
        await self._follow(clock_us)

    async def play(self, step: ReplayStep, last: bool = False) -> bool:
        """Plays one step; whether the loop has followed to its end, which is waited for after the `last` in any case."""
        await self._ask(step.requests)
        await self._send(step.events)
        await self._persist(lambda: self._ingest.advance(step.end_us))
        if not last and self._ahead < AHEAD_STEPS_MAX and self._chance.happens("hurry"):
            self._ahead += 1
            return False
        self._ahead = 0
        await self._follow(step.end_us)
        return True

    async def _ask(self, requests: Sequence[ReplayRequest]) -> None:
        chance = self._chance
        for part in _parts(chance.shuffled(requests), chance):
            asked = [
                PredictRequest(
                    use_case=self._use_case.name,
                    entity=request.entity,
                    request_id=f"at-{request.at_us}",
                    fields=to_wire(request.fields, self._use_case.request_fields),
                    include_vector=True,
                )
                for request in part
            ]
            for _ in range(2 if chance.happens("duplicate") else 1):
                try:
                    answers = await self._persist(lambda asked=asked: self._serving.predict(asked))  # type: ignore[misc]
                except NoModelYet:
                    self.told.before_model += len(part)
                else:
                    self._take_answers(answers)

    def _take_answers(self, answers: Iterable[PredictResponse]) -> None:
        for answer in answers:
            self.told.answered.setdefault(answer.prediction_id, answer)

    async def _send(self, events: Sequence[ReplayEvent]) -> None:
        chance = self._chance
        for part in _parts(chance.shuffled(events), chance):
            wire = [self._event(event) for event in part]
            for _ in range(2 if chance.happens("duplicate") else 1):
                copies = [_copied(event) for event in wire]  # ingest may stamp what it is given
                responses = (await self._persist(lambda copies=copies: self._ingest.send(copies))).responses  # type: ignore[misc]
                for event, response in zip(wire, responses, strict=True):
                    if response.outcome == OUTCOME_REJECTED:
                        self.told.refused[event.id] = "; ".join(f"{v.field} {v.rule}" for v in response.violations)
                    else:
                        self.told.acknowledged.setdefault(event.id, event)

    def _event(self, event: ReplayEvent) -> Event:
        return Event(
            use_case=self._use_case.name,
            id=event.id,
            type=event.type,
            source="replay",
            entity=event.entity,
            event_time_us=event.event_time_us,
            known_at_us=event.known_at_us,
            fields=to_wire(event.fields, self._declared[event.type]),
        )

    async def _follow(self, clock_us: int) -> None:
        await self._persist(lambda: self._serving.wait_for_clock(clock_us, WAIT_S))

    async def _persist(self, call: Callable[[], Awaitable[T]]) -> T:
        """Tries until there is an answer. NeverFollowed: there is none."""
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + PATIENCE_S
        while True:
            try:
                return await call()
            except (Down, CallRefused, NotReady, LogFull, StillBehind) as error:
                if loop.time() > deadline_s:
                    raise NeverFollowed(f"after {PATIENCE_S:.0f} s: {error}") from error
                await asyncio.sleep(self._chance.pause_s(RETRY_S))


def _parts(items: Sequence[T], chance: Chance) -> list[Sequence[T]]:
    parts: list[Sequence[T]] = []
    first = 0
    while first < len(items):
        count = chance.share(len(items) - first)
        parts.append(items[first : first + count])
        first += count
    return parts


def _copied(event: Event) -> Event:
    copy = Event()
    copy.CopyFrom(event)
    return copy
