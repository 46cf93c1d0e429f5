"""Logs every answer: to the spool before it leaves, then to the topic `predictions`; knows when everything has arrived."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from google.protobuf.message import DecodeError

from driftloop.contracts import Encoded
from driftloop.contracts.serving.v1.serving_pb2 import Prediction
from driftloop.messaging import Producer, QueueFull
from services.serving.gateways.spool import Position, Spool
from services.serving.instruments import ServingInstruments
from services.serving.logged import Logged, encode_logged, logged_of

_RESEND_AFTER_S = 1.0  # the broker has been silent for the producer's whole delivery timeout
_TURNS = 8  # for what waits behind single calls, which have their turns between
_SENT_IN_TURN = 32  # at the least: a fifth of a millisecond
_MANY = 1_000  # wait only behind batches: each of their calls takes longer than a turn of so many, too
_SENT_OF_MANY = 512  # twice as many as 256 save a twentieth of a prediction's time: fewer, larger requests
_TRACE_LENGTHS = [bytes([length]) for length in range(256)]
_logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Written:
    """Answers that were written together, in the spool up to `position`; `left` of them are not acknowledged."""

    position: Position
    answers: Sequence[Logged]
    as_of_us: int
    left: int


@dataclass(slots=True)
class _Shipment:
    """Answers that the broker answers as one: of what was written together those from `start` up to `stop`."""

    parts: list[tuple[_Written, int, int]]

    @property
    def count(self) -> int:
        """Of the answers."""
        return sum(stop - start for _, start, stop in self.parts)

    def records(self, replica: str) -> list[Encoded]:
        """The records of the answers; made whenever they are sent: to keep them costs more than to make them again."""
        return [
            record
            for written, start, stop in self.parts
            for record in encode_logged(written.answers[start:stop], written.as_of_us, replica)
        ]

    def split(self, count: int) -> _Shipment:
        """Keeps the first `count` answers; the rest."""
        kept: list[tuple[_Written, int, int]] = []
        rest: list[tuple[_Written, int, int]] = []
        for written, start, stop in self.parts:
            middle = min(stop, start + count)
            count -= middle - start
            if start < middle:
                kept.append((written, start, middle))
            if middle < stop:
                rest.append((written, middle, stop))
        self.parts = kept
        return _Shipment(rest)


class PredictionLog:
    """The log of one replica; everything but acknowledgements happens on the event loop's thread.

    Answers leave when they are spooled and go to the producer behind, from memory, `pause_s` apart: at a thousand answers a
    second it is the wake-ups that cost, not the records. What cannot be sent (the broker is away) waits here, bounded by the
    spool; what an earlier process left goes first.
    """

    def __init__(
        self, spool: Spool, producer: Producer, replica: int, instruments: ServingInstruments, pause_s: float
    ) -> None:
        self._spool = spool
        self._producer = producer
        self._replica = str(replica)
        self._instruments = instruments
        self._pause_s = pause_s
        self._loop = asyncio.get_running_loop()
        self._unacknowledged: deque[_Written] = deque()
        self._unsent: deque[_Written] = deque()
        self._unsent_answers = 0
        self._shipments: deque[_Shipment] = deque()
        self._has_unsent = asyncio.Event()
        self._hurry = asyncio.Event()
        self._arrivals: deque[tuple[_Shipment, Exception | None]] = deque()
        self._settling = False
        self._drains: deque[tuple[Position, asyncio.Future[None]]] = deque()

    def recover(self) -> int:
        """Takes up what an earlier process had not sent; the number of answers."""
        count = 0
        for position, body in self._spool.recover():
            start = 1 + body[0]
            try:
                prediction = Prediction.FromString(body[start:])
            except DecodeError:
                # The checksum held, so another version wrote it: nobody could read it later either.
                _logger.exception("a spooled answer of %d bytes is none of this version and is dropped", len(body))
                self._take(_Written(position, (), 0, 0))
                continue
            logged = logged_of(prediction, body[1:start].decode())
            self._take(_Written(position, (logged,), prediction.as_of_us, 1))
            count += 1
        return count

    def write(self, answers: Sequence[Logged], as_of_us: int) -> None:
        """Logs answers given as of one clock, all or none; LogFull: they must not leave. After it they survive the process."""
        traces = [answer.traceparent for answer in answers]
        heads = {trace: _TRACE_LENGTHS[len(trace)] + trace for trace in set(traces)}  # one for each call
        position = self._spool.append([answer.payload for answer in answers], [heads[trace] for trace in traces])
        self._take(_Written(position, answers, as_of_us, len(answers)))

    async def drained(self) -> None:
        """Returns when everything written before the call is acknowledged by the broker."""
        if self._unacknowledged:
            future: asyncio.Future[None] = self._loop.create_future()
            self._drains.append((self._unacknowledged[-1].position, future))
            self._hurry.set()
            await future

    async def run(self) -> None:
        """Sends what is written, behind the answers; runs until it is cancelled."""
        while True:
            await self._has_unsent.wait()
            self._has_unsent.clear()
            await self._send_all()
            if not self._drains:
                self._hurry.clear()
                timer = self._loop.call_later(self._pause_s, self._hurry.set)
                await self._hurry.wait()
                timer.cancel()

    async def _send_all(self) -> None:
        waiting = self._unsent_answers
        size = _SENT_OF_MANY if waiting >= _MANY else max(_SENT_IN_TURN, waiting // _TURNS)
        while shipment := self._next_shipment(size):
            try:
                queued = self._producer.send_encoded(
                    "predictions", shipment.records(self._replica), partial(self._arrived, shipment)
                )
            except QueueFull as error:
                self._shipments.appendleft(shipment)
                await asyncio.sleep(error.retry_after_s)
                continue
            if queued < shipment.count:
                self._shipments.appendleft(shipment.split(queued))
            await asyncio.sleep(0)  # calls have their turn

    def _next_shipment(self, size: int) -> _Shipment | None:
        if self._shipments:
            return self._shipments.popleft()
        if not self._unsent:
            return None
        shipment = _Shipment([])
        count = 0
        while self._unsent and count < size:
            written = self._unsent.popleft()
            shipment.parts.append((written, 0, written.left))
            count += written.left
        self._unsent_answers -= count
        return shipment

    def _take(self, written: _Written) -> None:
        self._unacknowledged.append(written)
        self._unsent.append(written)
        self._unsent_answers += len(written.answers)
        self._has_unsent.set()

    def _arrived(self, shipment: _Shipment, error: Exception | None) -> None:
        """Called by the producer's thread: many arrivals share one wake-up of the loop."""
        self._arrivals.append((shipment, error))
        if not self._settling:
            self._settling = True
            self._loop.call_soon_threadsafe(self._settle)

    def _settle(self) -> None:
        self._settling = False
        while self._arrivals:
            shipment, error = self._arrivals.popleft()
            if error is None:
                for written, start, stop in shipment.parts:
                    written.left -= stop - start
            else:
                _logger.warning("the broker did not take answers, sent again in %g s: %s", _RESEND_AFTER_S, error)
                self._loop.call_later(_RESEND_AFTER_S, self._again, shipment)
        last = None
        while self._unacknowledged and not self._unacknowledged[0].left:
            last = self._unacknowledged.popleft().position
        if last is None:
            return
        self._spool.acknowledge(last)
        while self._drains and self._drains[0][0] <= last:
            _, future = self._drains.popleft()
            if not future.done():
                future.set_result(None)
        self._instruments.spooled(len(self._unacknowledged), self._spool.bytes)

    def _again(self, shipment: _Shipment) -> None:
        self._shipments.append(shipment)
        self._has_unsent.set()
