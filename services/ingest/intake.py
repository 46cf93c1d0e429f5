"""Takes events in for every door alike: asks the heart, writes, waits for the broker, and says what became of each."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from driftloop.contracts import Message
from driftloop.contracts.ingest.v1.ingest_pb2 import Violation
from driftloop.contracts.monitor.v1.monitor_pb2 import Incident
from driftloop.messaging import DeliveryFailed, Origin, Producer, QueueFull, Refused, dead_letter
from services.ingest.admission import TOPIC, Admission, Duplicate, Moved, NotAdmitted, OnItsWay, Rejected, Taken
from services.ingest.errors import BatchTooLarge, NoRoom, NotAcknowledged, NotDelivered, Overloaded
from services.ingest.instruments import IngestInstruments
from services.ingest.settings import IngestSettings
from services.ingest.validation import ID_CHARACTERS_MAX, TIME_US_MAX, described, name_violations

_SERVICE = "ingest"
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Outcomes:
    """What became of a call's events, in their order: their ids, and by position what was not accepted."""

    ids: list[str]
    others: dict[int, Duplicate | Rejected]


class Flight:
    """The messages of one call that the broker has not answered; `is_settled` once it has, `lost` then says why one is lost."""

    __slots__ = ("_left", "_waiters", "is_settled", "lost")

    def __init__(self) -> None:
        self._left = 1  # itself, until everything is sent: answers may come before
        self._waiters: list[asyncio.Future[bool]] = []
        self.is_settled = False
        self.lost: Exception | None = None

    def add(self) -> None:
        """One more answer is waited for."""
        self._left += 1

    def answered(self, lost: Exception | None) -> None:
        """One answer less."""
        self._left -= 1
        self.lost = self.lost or lost
        if not self._left:
            self.is_settled = True
            for waiter in self._waiters:
                if not waiter.done():
                    waiter.set_result(True)

    def wait(self, waiter: asyncio.Future[bool]) -> None:
        """The waiter is done with True when this is settled."""
        self._waiters.append(waiter)


class Patience:
    """Futures that are done with False after `timeout_s`, all in the order in which they were made: one timer for them all."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[tuple[float, asyncio.Future[bool]]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def waiter(self) -> asyncio.Future[bool]:
        """A future for somebody who waits from now on."""
        waiting, loop = self._waiting, self._loop
        while waiting and waiting[0][1].done():
            waiting.popleft()
        waiter: asyncio.Future[bool] = loop.create_future()
        waiting.append((loop.time() + self._timeout_s, waiter))
        if self._timer is None:
            self._timer = loop.call_later(self._timeout_s, self._expire)
        return waiter

    def _expire(self) -> None:
        waiting, now_s = self._waiting, self._loop.time()
        while waiting and (waiting[0][1].done() or waiting[0][0] <= now_s):
            _, waiter = waiting.popleft()
            if not waiter.done():
                waiter.set_result(False)
        self._timer = self._loop.call_at(waiting[0][0], self._expire) if waiting else None


@dataclass(frozen=True, slots=True)
class Sent:
    """Events of one call or poll, serialised. `faults`: what the door could not read of them, by position.

    `origin` gives an event as it came, by position, for its dead letter; asked only for refused ones.
    """

    events: Sequence[bytes]
    traceparent: str = ""
    redrive_of: str = ""
    faults: Mapping[int, Sequence[Violation]] = field(default_factory=dict)
    origin: Callable[[int], Origin] | None = None


@dataclass(slots=True)
class Begun:
    """Events taken in, not yet answered for."""

    sent: Sent
    taken: Taken
    flight: Flight


class Intake:
    """`now_us` is wall time in microseconds; it matters to a live clock only. The producer answers on the event loop.

    `failed` is done with the reason when a message is lost: whether the log has it is then unknown, and only a restart,
    which reads the log, makes the window true again.
    """

    def __init__(
        self,
        use_case: str,
        admission: Admission,
        producer: Producer,
        settings: IngestSettings,
        instruments: IngestInstruments,
        now_us: Callable[[], int],
    ) -> None:
        self._use_case = use_case
        self._admission = admission
        self._producer = producer
        self._settings = settings
        self._instruments = instruments
        self._now_us = now_us
        self._flights: dict[int, Flight] = {}
        self._patience = Patience(settings.acknowledge_timeout_s)
        self._untold: deque[Message[Incident]] = deque(maxlen=settings.incidents_max)
        self.failed: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()

    async def submit(self, sent: Sent) -> Outcomes:
        """Takes events in and returns once the broker has acknowledged what the outcomes speak of.

        Raises BatchTooLarge, Overloaded (nothing, or only a part, was taken in), NotAcknowledged, NotDelivered.
        """
        return await self.finish(self.begin(sent))

    def begin(self, sent: Sent) -> Begun:
        """Decides and sends, without waiting: events get into the log in the order in which they are taken."""
        if self.failed.done():
            raise NotDelivered("the broker lost a message: this process is about to restart")
        events, is_redriven = sent.events, bool(sent.redrive_of)
        if len(events) > self._settings.batch_events_max:
            raise BatchTooLarge(f"{len(events)} events in one call, more than {self._settings.batch_events_max}")
        try:
            taken = self._admission.take(
                events, self._now_us(), sent.traceparent, redriven=is_redriven, faults=sent.faults
            )
        except NoRoom as error:
            raise Overloaded("in_flight", self._settings.retry_after_s) from error
        flight = Flight()
        if taken.records:
            self._write(taken, flight)
        self._tell(flight)
        for position, other in taken.others.items():
            if isinstance(other, Duplicate):
                self._instruments.duplicate.add(1, {"event_type": other.event_type})
            elif isinstance(other, Rejected):
                self._note_rejected(other)
                if not is_redriven:
                    origin = sent.origin(position) if sent.origin is not None else Origin(events[position])
                    self._keep(taken.ids[position], origin, other, flight)
        flight.answered(None)
        return Begun(sent, taken, flight)

    async def begin_when_room(self, sent: Sent) -> Begun:
        """As `begin`, once there is room."""
        while True:
            try:
                return self.begin(sent)
            except Overloaded as error:
                await asyncio.sleep(error.retry_after_s)

    async def finish(self, begun: Begun) -> Outcomes:
        """Waits for what was begun; see `submit`. What stood behind an event of its id is then decided anew."""
        await self._acknowledged(begun.flight)
        others: dict[int, Duplicate | Rejected] = {}
        for position, other in begun.taken.others.items():
            decided = other if not isinstance(other, OnItsWay) else await self._behind(other, begun, position)
            if decided is not None:
                others[position] = decided
        return Outcomes(begun.taken.ids, others)

    async def _behind(self, other: OnItsWay, begun: Begun, position: int) -> Duplicate | Rejected | None:
        found: NotAdmitted | None = other
        while isinstance(found, OnItsWay):
            ahead = self._flights.get(found.number)
            if ahead is not None:
                await self._acknowledged(ahead)
            again = await self.begin_when_room(_alone(begun.sent, position))
            await self._acknowledged(again.flight)
            found = again.taken.others.get(0)
        return found

    async def advance(self, use_case: str, known_at_us: int) -> None:
        """Moves a replay's clock; returns once every partition holds the watermark, behind all events taken in before.

        Raises ClockIsLive, ClockGoesBack, UnknownUseCase, Overloaded, NotAcknowledged or NotDelivered.
        """
        await self._moved(self._admission.advance(use_case, known_at_us))

    async def tick(self) -> None:
        """Moves a live clock to now. What keeps it from doing so skips a tick: the next one says more."""
        try:
            await self._moved(self._admission.tick(self._now_us()))
        except (Overloaded, NotAcknowledged) as error:
            _log.warning("tick skipped: %s", error)

    def observe(self) -> None:
        """Records what is measured by its state rather than by events."""
        self._instruments.in_flight.set(self._admission.in_flight)
        self._instruments.window_ids.set(self._admission.window_ids)
        if self._admission.clock_us > 0:
            self._instruments.clock.set(self._admission.clock_us / 1e6, {"stage": "ingest"})

    async def _moved(self, moved: Moved) -> None:
        self._untold += moved.incidents
        flight = Flight()
        try:
            for message in moved.watermarks:
                self._send(message, flight)
        finally:
            flight.answered(None)
        await self._acknowledged(flight)
        self._instruments.watermarks.add(len(moved.watermarks))
        told = Flight()
        self._tell(told)
        told.answered(None)
        await self._acknowledged(told)

    def _tell(self, flight: Flight) -> None:
        """Sends the incidents not sent yet; those for which the queue has no room go with the next call or tick."""
        while self._untold:
            try:
                self._send(self._untold[0], flight)
            except Overloaded:
                return
            self._instruments.incidents.add(1, {"rule": self._untold.popleft().payload.rule})

    def _write(self, taken: Taken, flight: Flight) -> None:
        self._flights[taken.number] = flight
        flight.add()
        try:
            queued = self._producer.send_encoded(TOPIC, taken.records, partial(self._settle, taken, flight))
        except (QueueFull, DeliveryFailed) as error:
            del self._flights[taken.number]
            self._admission.settle(taken, written=False)
            raise self._refused(error) from error
        is_full = queued < len(taken.records)
        if is_full:
            # Those that found room go their way; the call's retry finds them in the log.
            self._admission.give_back(taken, queued)
        self._untold += self._admission.sent(taken)
        if taken.findings:
            for (rule, consequence), count in Counter((f.rule, f.consequence) for f in taken.findings).items():
                self._instruments.unmet.add(count, {"rule": rule, "consequence": consequence})
        if is_full:
            flight.answered(None)
            raise Overloaded("producer_queue", self._settings.retry_after_s)

    def _settle(self, taken: Taken, flight: Flight, lost: Exception | None) -> None:
        self._flights.pop(taken.number, None)
        self._admission.settle(taken, written=lost is None)
        if lost is None:
            types = taken.admitted.values()
            counts = Counter(types) if len(set(types)) > 1 else dict.fromkeys(types, len(types))
            for event_type, count in counts.items():
                self._instruments.accepted.add(count, {"event_type": event_type})
        self._note(lost)
        flight.answered(lost)

    def _keep(self, event_id: str, origin: Origin, rejected: Rejected, flight: Flight) -> None:
        rules = _rules(rejected)
        named = not name_violations("id", event_id, ID_CHARACTERS_MAX, reserved=",")
        refused = Refused(
            event_id if named else "",
            origin,
            ",".join(rules),
            described(rejected.violations),
            _writable(rejected.event_time_us),
            _writable(rejected.known_at_us),
        )
        self._send(dead_letter(refused, _SERVICE, self._use_case), flight)
        self._instruments.dead_letters.add(1, {"rule": rules[0]})

    def _note_rejected(self, rejected: Rejected) -> None:
        self._instruments.rejected.add(1, {"rule": _rules(rejected)[0]})

    def _send(self, message: Message[Any], flight: Flight) -> None:
        flight.add()
        try:
            self._producer.send(message, partial(self._answered, flight))
        except (QueueFull, DeliveryFailed) as error:
            flight.answered(None)
            raise self._refused(error) from error

    def _answered(self, flight: Flight, lost: Exception | None) -> None:
        self._note(lost)
        flight.answered(lost)

    def _refused(self, error: QueueFull | DeliveryFailed) -> Overloaded | NotDelivered:
        if isinstance(error, QueueFull):
            return Overloaded("producer_queue", error.retry_after_s)
        self._note(error)
        return NotDelivered(str(error))

    def _note(self, lost: Exception | None) -> None:
        if lost is not None and not self.failed.done():
            self.failed.set_result(lost)

    async def _acknowledged(self, flight: Flight) -> None:
        if not flight.is_settled:
            waiter = self._patience.waiter()
            flight.wait(waiter)
            if not await waiter:
                raise NotAcknowledged(self._settings.acknowledge_timeout_s, self._settings.retry_after_s)
        if flight.lost is not None:
            raise NotDelivered(str(flight.lost))


def _rules(rejected: Rejected) -> list[str]:
    return list(dict.fromkeys(violation.rule for violation in rejected.violations))


def _alone(sent: Sent, position: int) -> Sent:
    """One event of a call; it was read without a fault."""
    origin = sent.origin
    own = (lambda _: origin(position)) if origin is not None else None
    return Sent([sent.events[position]], sent.traceparent, sent.redrive_of, origin=own)


def _writable(at_us: int) -> int:
    return at_us if 0 <= at_us <= TIME_US_MAX else 0
