"""Logs every answer: to the spool before it leaves, then to the topic `predictions`; knows when everything has arrived."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from driftloop.contracts.serving.v1.serving_pb2 import Prediction
from driftloop.messaging import Producer, QueueFull
from services.serving.gateways.spool import Position, Spool
from services.serving.instruments import ServingInstruments
from services.serving.prediction import log_record

_RESEND_AFTER_S = 1.0  # the broker has been silent for the producer's whole delivery timeout
_SENT_IN_TURN = 128  # about a millisecond; then calls have their turn
_logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Waiting:
    """An answer that the broker has not acknowledged."""

    position: Position
    body: bytes
    acknowledged: bool = False


class PredictionLog:
    """The log of one replica; everything but acknowledgements happens on the event loop's thread.

    Answers leave when they are spooled and go to the producer right behind, from memory. What cannot be sent (the broker
    is away) waits here, bounded by the spool; what an earlier process left goes first.
    """

    def __init__(self, spool: Spool, producer: Producer, replica: int, instruments: ServingInstruments) -> None:
        self._spool = spool
        self._producer = producer
        self._replica = str(replica)
        self._instruments = instruments
        self._loop = asyncio.get_running_loop()
        self._unacknowledged: deque[_Waiting] = deque()
        self._unsent: deque[_Waiting] = deque()
        self._has_unsent = asyncio.Event()
        self._arrivals: deque[tuple[_Waiting, Exception | None]] = deque()
        self._settling = False
        self._drains: deque[tuple[Position, asyncio.Future[None]]] = deque()

    def recover(self) -> int:
        """Takes up what an earlier process had not sent; the number of answers."""
        for position, body in self._spool.recover():
            self._take(position, body)
        return len(self._unsent)

    def write(self, predictions: Sequence[Prediction], traceparent: str = "") -> None:
        """Logs answers, all or none; LogFull: they must not leave. After it returns they survive the process."""
        head = bytes([len(traceparent)]) + traceparent.encode()
        bodies = [head + prediction.SerializeToString() for prediction in predictions]
        for position, body in zip(self._spool.append(bodies), bodies, strict=True):
            self._take(position, body)
        self._measure()

    async def drained(self) -> None:
        """Returns when everything written before the call is acknowledged by the broker."""
        if self._unacknowledged:
            future: asyncio.Future[None] = self._loop.create_future()
            self._drains.append((self._unacknowledged[-1].position, future))
            await future

    async def run(self) -> None:
        """Sends what is written, behind the answers; runs until it is cancelled."""
        while True:
            await self._has_unsent.wait()
            self._has_unsent.clear()
            in_turn = 0
            while self._unsent:
                try:
                    self._send(self._unsent[0])
                except QueueFull as error:
                    await asyncio.sleep(error.retry_after_s)
                    continue
                self._unsent.popleft()
                in_turn += 1
                if in_turn % _SENT_IN_TURN == 0:
                    await asyncio.sleep(0)

    def _take(self, position: Position, body: bytes) -> None:
        waiting = _Waiting(position, body)
        self._unacknowledged.append(waiting)
        self._unsent.append(waiting)
        self._has_unsent.set()

    def _send(self, waiting: _Waiting) -> None:
        start = 1 + waiting.body[0]
        try:
            prediction = Prediction.FromString(waiting.body[start:])
        except DecodeError:
            # The checksum held, so another version wrote it: nobody could read it later either.
            _logger.exception("a spooled answer of %d bytes is none of this version and is dropped", len(waiting.body))
            return self._settle_one(waiting, None)
        message = log_record(prediction, self._replica, waiting.body[1:start].decode())
        self._producer.send(message, lambda error: self._arrived(waiting, error))

    def _arrived(self, waiting: _Waiting, error: Exception | None) -> None:
        """Called by the producer's thread: many arrivals share one wake-up of the loop."""
        self._arrivals.append((waiting, error))
        if not self._settling:
            self._settling = True
            self._loop.call_soon_threadsafe(self._settle)

    def _settle(self) -> None:
        self._settling = False
        while self._arrivals:
            self._settle_one(*self._arrivals.popleft())

    def _settle_one(self, waiting: _Waiting, error: Exception | None) -> None:
        if error is not None:
            _logger.warning("the broker did not take an answer, it is sent again in %g s: %s", _RESEND_AFTER_S, error)
            self._loop.call_later(_RESEND_AFTER_S, self._again, waiting)
            return
        waiting.acknowledged = True
        last = None
        while self._unacknowledged and self._unacknowledged[0].acknowledged:
            last = self._unacknowledged.popleft().position
        if last is None:
            return
        self._spool.acknowledge(last)
        while self._drains and self._drains[0][0] <= last:
            _, future = self._drains.popleft()
            if not future.done():
                future.set_result(None)
        self._measure()

    def _again(self, waiting: _Waiting) -> None:
        self._unsent.append(waiting)
        self._has_unsent.set()

    def _measure(self) -> None:
        self._instruments.spooled(len(self._unacknowledged), self._spool.bytes)
