"""Ingest's I/O with Kafka: messages out with their acknowledgements, and the log's tail in; decides nothing."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from driftloop.contracts import Message, Record
from driftloop.messaging import KafkaSettings, Producer, Reader
from services.ingest.admission import TOPIC, WRITER, Admission
from services.ingest.errors import CannotStart

Ack = asyncio.Future[Exception | None]
"""Done when the broker has answered: with None, or with why the message is lost. Wait for it with asyncio.wait: awaiting it
directly would cancel it for everybody who waits together with a caller that gives up."""

_POLL_S = 0.2
_POLL_RECORDS_MAX = 2_000


class Outbox:
    """Sends on the event loop and resolves acknowledgements there, however fast the producer's thread reports them."""

    def __init__(self, producer: Producer) -> None:
        self._producer = producer
        self._loop = asyncio.get_running_loop()
        self._reported: deque[tuple[Ack, Callable[[Exception | None], None] | None, Exception | None]] = deque()
        self._woken = False

    def send(self, message: Message[Any], on_settled: Callable[[Exception | None], None] | None = None) -> Ack:
        """Queues a message; `on_settled` runs on the loop before anybody who waits. Raises QueueFull or DeliveryFailed."""
        ack: Ack = self._loop.create_future()
        self._producer.send(message, partial(self._report, ack, on_settled))
        return ack

    def _report(self, ack: Ack, on_settled: Callable[[Exception | None], None] | None, error: Exception | None) -> None:
        # Runs on the producer's thread. One wake-up of the loop serves all that is reported until it runs: waking it costs
        # more than everything else here. The flag is cleared before the queue is emptied, so that nothing is left behind.
        self._reported.append((ack, on_settled, error))
        if not self._woken:
            self._woken = True
            self._loop.call_soon_threadsafe(self._resolve)

    def _resolve(self) -> None:
        self._woken = False
        while self._reported:
            ack, on_settled, error = self._reported.popleft()
            if on_settled is not None:
                on_settled(error)
            ack.set_result(error)


def oldest_offsets(bootstrap_servers: str, use_case: str, partitions: int, settings: KafkaSettings) -> dict[int, int]:
    """The offset of the oldest record that each partition of `events` still holds; CannotStart if the broker won't say."""
    client = AdminClient(settings.client_config(bootstrap_servers, "driftloop-ingest-offsets"))
    places = {
        TopicPartition(f"{use_case}.{TOPIC}", partition): OffsetSpec.earliest() for partition in range(partitions)
    }
    try:
        answers = client.list_offsets(places, request_timeout=settings.answer_timeout_s)
        return {place.partition: answer.result().offset for place, answer in answers.items()}
    except KafkaException as error:
        raise CannotStart(f"the oldest offsets of {TOPIC} are not known: {error.args[0].str()}") from error


def restore(admission: Admission, reader: Reader, oldest: Mapping[int, int], records_max: int, timeout_s: float) -> int:
    """Brings an admission to where the log says it was; returns the number of events remembered.

    Reads the newest `records_max` records of each partition, and further back only where these hold no watermark of ours:
    a clock taken from too early a watermark would let events in that every reader believes complete. Blocks.
    """
    deadline = time.monotonic() + timeout_s
    ends = {partition: offset for (_, partition), offset in reader.end_offsets().items()}
    stretches = {p: (max(oldest[p], end - records_max), end) for p, end in ends.items() if end > oldest[p]}
    events, newest = 0, True
    while stretches:
        clocked = set()
        for record in _read(reader, stretches, ends, deadline):
            if record.message.is_watermark:
                if record.message.payload.writer == WRITER:
                    admission.restore_clock(record.message.known_at_us)
                    clocked.add(record.partition)
            elif newest:
                admission.restore(record.message.payload)
                events += 1
        newest = False
        stretches = {
            p: (max(oldest[p], start - records_max), start)
            for p, (start, _) in stretches.items()
            if p not in clocked and start > oldest[p]
        }
    return events


def _read(
    reader: Reader, stretches: Mapping[int, tuple[int, int]], ends: Mapping[int, int], deadline: float
) -> Iterator[Record]:
    reader.seek({(TOPIC, p): stretches[p][0] if p in stretches else end for p, end in ends.items()})
    left = dict(stretches)
    while left:
        if time.monotonic() > deadline:
            raise CannotStart(f"the tail of {TOPIC} was not read in time: partitions {sorted(left)} are left")
        for record in reader.poll(_POLL_S, _POLL_RECORDS_MAX):
            start, end = stretches.get(record.partition, (0, 0))
            if not start <= record.offset < end:
                continue
            if isinstance(record, Record):
                yield record
            if record.offset == end - 1:
                left.pop(record.partition, None)
