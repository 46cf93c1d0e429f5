"""Runs one handler on a thread of its own, so that the consumer goes on polling while a model is trained."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from typing import Protocol

from driftloop.contracts import Record
from driftloop.contracts.trainer.v1.trainer_pb2 import Model
from driftloop.messaging import Malformed, Reader
from services.trainer.errors import Stopping, TooManyRequests

_log = logging.getLogger(__name__)
_REQUESTS_PER_POLL = 16


class Handler(Protocol):
    """What answers a request."""

    def retrain(self, record: Record) -> Model:
        """Returns when the answer is acknowledged; Stopping."""
        ...


class Answering(Protocol):
    """What answers requests while the consumer polls."""

    def ask(self, record: Record) -> None:
        """Takes a request; TooManyRequests."""
        ...

    def done(self) -> list[Record]:
        """Requests answered since the last call, in order; raises what the answering failed with."""
        ...


class Worker:
    """Takes requests in order and says which records are done with; the first failure ends it."""

    def __init__(self, open_handler: Callable[[], Handler], open_requests_max: int) -> None:
        self._open_handler = open_handler
        self._asked: queue.Queue[Record | None] = queue.Queue(open_requests_max)
        self._done: queue.Queue[Record] = queue.Queue(open_requests_max + 1)
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="trainer-worker", daemon=True)

    def start(self) -> None:
        """Begins with opening the handler, which takes long; requests wait meanwhile."""
        self._thread.start()

    def ask(self, record: Record) -> None:
        """Queues a request; TooManyRequests."""
        try:
            self._asked.put_nowait(record)
        except queue.Full as error:
            raise TooManyRequests(f"{self._asked.qsize()} requests are open") from error

    def done(self) -> list[Record]:
        """Requests answered since the last call, in order; raises what the worker failed with."""
        found = []
        while True:
            try:
                found.append(self._done.get_nowait())
            except queue.Empty:
                break
        if not found and self.failure is not None:
            raise self.failure
        return found

    def stop(self, timeout_s: float) -> bool:
        """Lets the worker end after what it does; whether it did so in time."""
        try:
            self._asked.put_nowait(None)
        except queue.Full:
            return False
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            handler = self._open_handler()
            while (record := self._asked.get()) is not None:
                handler.retrain(record)
                self._done.put(record)
        except Stopping as stopping:
            _log.info("left unanswered: %s", stopping)
        except BaseException as error:
            self.failure = error


class Consumption:
    """Reads `retrain`, hands on what is not answered yet, and commits behind the answers."""

    def __init__(
        self, reader: Reader, worker: Answering, answered: set[str], refuse: Callable[[Malformed], None]
    ) -> None:
        self._reader = reader
        self._worker = worker
        self._answered = answered
        self._refuse = refuse
        self._open: list[tuple[Record | Malformed, bool]] = []

    @property
    def open_requests(self) -> int:
        """Records read and not done with."""
        return len(self._open)

    def turn(self, poll_s: float) -> None:
        """One poll and what follows from it; raises what the worker or the broker failed with."""
        for record in self._reader.poll(poll_s, _REQUESTS_PER_POLL):
            if isinstance(record, Malformed):
                self._refuse(record)
                self._open.append((record, True))
            elif record.message.is_watermark or record.message.payload.id in self._answered:
                self._open.append((record, True))
            else:
                # A request that is written twice is answered once.
                self._answered.add(record.message.payload.id)
                self._worker.ask(record)
                self._open.append((record, False))
        done = {(record.partition, record.offset) for record in self._worker.done()}
        self._open = [(record, was or (record.partition, record.offset) in done) for record, was in self._open]
        self._commit()

    def _commit(self) -> None:
        """Commits the records done with, up to the first that is not: a crash must find it again."""
        offsets = {}
        while self._open and self._open[0][1]:
            record, _ = self._open.pop(0)
            offsets[(record.topic, record.partition)] = record.offset + 1
        if offsets:
            self._reader.commit(offsets)
