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
_logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Waiting:
    """An answer that the broker has not acknowledged."""

    position: Position
    body: bytes
    acknowledged: bool = False


class PredictionLog:
    """The log of one replica; everything but acknowledgements happens on the event loop's thread.

    An answer goes to the producer straight from memory. What cannot be sent (the broker is away) waits here, bounded by
    the spool; what an earlier process left goes first.
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
        self._retry_after_s = _RESEND_AFTER_S

    def recover(self) -> int:
        """Takes up what an earlier process had not sent; the number of answers."""
        for position, body in self._spool.recover():
            waiting = _Waiting(position, body)
            self._unacknowledged.append(waiting)
            self._unsent.append(waiting)
        if self._unsent:
            self._has_unsent.set()
        return len(self._unsent)

    def write(self, predictions: Sequence[Prediction], traceparent: str = "") -> None:
        """Logs answers, all or none; LogFull: they must not leave. After it returns they survive the process."""
        head = bytes([len(traceparent)]) + traceparent.encode()
        bodies = [head + prediction.SerializeToString() for prediction in predictions]
        for position, body, prediction in zip(self._spool.append(bodies), bodies, predictions, strict=True):
            waiting = _Waiting(position, body)
            self._unacknowledged.append(waiting)
            if self._unsent or not self._sent(waiting, prediction, traceparent):
                self._unsent.append(waiting)
                self._has_unsent.set()
        self._measure()

    async def drained(self) -> None:
        """Returns when everything written before the call is acknowledged by the broker."""
        if self._unacknowledged:
            future: asyncio.Future[None] = self._loop.create_future()
            self._drains.append((self._unacknowledged[-1].position, future))
            await future

    async def run(self) -> None:
        """Sends what could not be sent at once; runs until it is cancelled."""
        while True:
            await self._has_unsent.wait()
            while self._unsent:
                waiting = self._unsent[0]
                length = waiting.body[0]
                try:
                    prediction = Prediction.FromString(waiting.body[1 + length :])
                except DecodeError:
                    # The checksum held, so another version wrote it: nobody could read it later either.
                    _logger.exception(
                        "a spooled answer of %d bytes is none of this version and is dropped", len(waiting.body)
                    )
                    self._unsent.popleft()
                    self._settle_one(waiting, None)
                    continue
                if self._sent(waiting, prediction, waiting.body[1 : 1 + length].decode()):
                    self._unsent.popleft()
                else:
                    await asyncio.sleep(self._retry_after_s)
            self._has_unsent.clear()

    def _sent(self, waiting: _Waiting, prediction: Prediction, traceparent: str) -> bool:
        try:
            self._producer.send(
                log_record(prediction, self._replica, traceparent), lambda error: self._arrived(waiting, error)
            )
        except QueueFull as error:
            self._retry_after_s = error.retry_after_s
            return False
        return True

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
