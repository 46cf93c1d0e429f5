"""The Kafka door: takes in what producers write to `inbox`, and commits offsets only once everything before them is settled."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from driftloop.contracts.cloudevents import CloudEventsReader
from driftloop.contracts.ingest.v1.ingest_pb2 import Violation
from driftloop.messaging import Offsets, Origin, RawRecord, ReadFailed, TopicPartition
from services.ingest.errors import NotAcknowledged
from services.ingest.instruments import IngestInstruments
from services.ingest.intake import Begun, Intake, Outcomes, Sent
from services.ingest.settings import IngestSettings

TOPIC = "inbox"
_log = logging.getLogger(__name__)


class InboxReader(Protocol):
    """What is needed of a reader of `inbox`; see `KafkaReader`. Calls block, one at a time."""

    def poll_raw(self, timeout_s: float, max_records: int) -> list[RawRecord]:
        """Up to so many records; waits for the first."""

    def commit(self, offsets: Offsets) -> None:
        """Remembers the next offset of each partition."""

    def lags(self) -> dict[TopicPartition, int]:
        """Records not read yet."""


class Inbox:
    """Takes records in, in the order of each partition; so many at a time that they always find room together.

    After a kill what was not committed is read again: the events that are in the log by then are duplicates, and a refused
    one's dead letter has the same id.
    """

    def __init__(
        self, intake: Intake, events: CloudEventsReader, settings: IngestSettings, instruments: IngestInstruments
    ) -> None:
        self._intake = intake
        self._events = events
        self._settings = settings
        self._instruments = instruments
        self._records_max = min(settings.inbox_records_max, settings.batch_events_max, settings.in_flight_max)

    async def run(self, reader: InboxReader) -> None:
        """Serves until it is cancelled. Raises ReadFailed, or NotDelivered: the process restarts."""
        loop, wait_s = asyncio.get_running_loop(), self._settings.inbox_wait_s
        with ThreadPoolExecutor(1, "inbox") as thread:
            while True:
                posted = await loop.run_in_executor(thread, reader.poll_raw, wait_s, self._records_max)
                for (_, partition), lag in reader.lags().items():
                    self._instruments.inbox_lag.set(lag, {"topic": TOPIC, "partition": str(partition)})
                if not posted:
                    continue
                await self._finished(await self._intake.begin_when_room(self._sent(posted)))
                behind = {(TOPIC, record.partition): record.offset + 1 for record in posted}
                try:
                    await loop.run_in_executor(thread, reader.commit, behind)
                except ReadFailed as error:
                    # The broker is away, or took the partitions from a process that stood still: they are read again.
                    _log.warning("%s", error)

    async def _finished(self, begun: Begun) -> Outcomes:
        while True:
            try:
                return await self._intake.finish(begun)
            except NotAcknowledged as error:
                _log.warning("%s", error)

    def _sent(self, posted: Sequence[RawRecord]) -> Sent:
        events: list[bytes] = []
        faults: dict[int, Sequence[Violation]] = {}
        for position, record in enumerate(posted):
            if record.value is None:
                events.append(b"")
                faults[position] = [Violation(field="", rule="empty", description="is a record without a value")]
                continue
            read = self._events.record(record.value, _headers(record))
            events.append(read.events[0])
            if read.faults:
                faults[position] = read.faults[0]

        def origin(position: int) -> Origin:
            record = posted[position]
            headers = {name: content or b"" for name, content in _headers(record).items()}
            return Origin(record.value or b"", headers, record.key or b"", TOPIC, record.partition, record.offset)

        return Sent(events, faults=faults, origin=origin)


def _headers(record: RawRecord) -> Mapping[str, bytes | None]:
    return dict(record.headers or ())
