"""Sends messages to Kafka: idempotent, acknowledged by all replicas, in order; one thread collects the answers."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka import Message as KafkaMessage
from confluent_kafka import Producer as ConfluentProducer

from driftloop.contracts import Encoded, Message, encode
from driftloop.messaging.errors import DeliveryFailed, QueueFull
from driftloop.messaging.interfaces import OnAck
from driftloop.messaging.outstanding import Outstanding
from driftloop.messaging.settings import KafkaSettings, made
from driftloop.telemetry import Instruments

_UNASSIGNED = -1  # librdkafka: the partitioner decides
_POLL_S = 0.5  # how long the owner thread sleeps where nothing is answered: it wakes at once for every answer


class _Group:
    """Records that are answered as one: counts what is delivered against what was queued, whichever is known first."""

    __slots__ = ("_answered", "_lock", "_on_answer", "_queued", "_topic", "failure")

    def __init__(self, topic: str, on_answer: Callable[[DeliveryFailed | None, int], None]) -> None:
        self._topic = topic
        self._on_answer: Callable[[DeliveryFailed | None, int], None] | None = on_answer
        self._lock = threading.Lock()
        self._answered = 0
        self._queued = -1
        self.failure: DeliveryFailed | None = None

    def delivered(self, error: KafkaError | None, _record: KafkaMessage) -> None:
        """librdkafka's report of one record; never two at once, so that counting needs no lock."""
        if error is not None and self.failure is None:
            self.failure = DeliveryFailed(f"a record for {self._topic} was not delivered: {error.str()}")
        self._answered += 1
        if self._answered == self._queued:
            self._answer()

    def queued(self, count: int) -> None:
        """That many records were queued, and no more will be."""
        self._queued = count
        if self._answered == count:
            self._answer()

    def _answer(self) -> None:
        with self._lock:  # the last report and the last record may come at once, from two threads
            on_answer, self._on_answer = self._on_answer, None
        if on_answer is not None:
            on_answer(self.failure, self._queued)


class KafkaProducer:
    """A `Producer` on Kafka. `send` may be called from any thread; `on_ack` runs on the producer's own thread.

    `polled`: there is no such thread; `on_ack` runs where the owner calls `poll`. A loop that is busy with Python leaves
    another thread waiting 5 ms for each answer; polling takes thousands at once.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        use_case: str,
        client_id: str,
        settings: KafkaSettings | None = None,
        instruments: Instruments | None = None,
        polled: bool = False,
    ) -> None:
        settings = settings or KafkaSettings()
        self._prefix = f"{use_case}."
        self._retry_after_s = settings.retry_after_s
        self._outstanding = Outstanding()
        self._produced = instruments.counter("messages_produced") if instruments else None
        self._failures = instruments.counter("delivery_failures") if instruments else None
        self._producer = made(
            ConfluentProducer,
            settings.client_config(bootstrap_servers, client_id)
            | {
                "acks": "all",
                "enable.idempotence": True,
                "compression.type": "lz4",
                # librdkafka's default partitioner puts three keys of four elsewhere than Java, aiokafka and our twin do.
                "partitioner": "murmur2_random",
                "linger.ms": settings.linger_ms,
                "max.in.flight.requests.per.connection": settings.requests_in_flight_max,
                "queue.buffering.max.messages": settings.queue_messages_max,
                "queue.buffering.max.kbytes": settings.queue_kbytes_max,
                "delivery.timeout.ms": int(settings.delivery_timeout_s * 1000),
                "error_cb": self._on_error,
            },
        )
        self._delivered: Counter[str] = (
            Counter()
        )  # since it was last counted; touched where `poll` or `flush` is called
        self._closed = threading.Event()
        self._owner: threading.Thread | None = None
        if not polled:
            self._owner = threading.Thread(target=self._collect, name=f"{client_id}-producer", daemon=True)
            self._owner.start()

    @property
    def queued(self) -> int:
        """See `Producer.queued`."""
        return len(self._outstanding)

    def send(self, message: Message[Any], on_ack: OnAck | None = None) -> None:
        """Queues a message; see `Producer.send`."""
        if self._outstanding.failure is not None:
            raise self._outstanding.failure
        if self._closed.is_set():
            raise DeliveryFailed(f"message {message.id} came after the producer was closed")
        key, value, headers = encode(message)
        partition = _UNASSIGNED if message.partition is None else message.partition
        number = self._outstanding.sent(on_ack)
        answered = partial(self._on_delivery, number, message.topic)
        try:
            # By position: names would cost a sixth of the call.
            self._producer.produce(self._prefix + message.topic, value, key, partition, answered, None, 0, headers)
        except BufferError as error:
            self._outstanding.unsent(number)
            raise QueueFull(self._retry_after_s) from error
        except KafkaException as error:
            self._outstanding.unsent(number)
            raise DeliveryFailed(f"message {message.id} for {message.topic}: {error.args[0].str()}") from error

    def send_encoded(self, topic: str, records: Sequence[Encoded], on_ack: OnAck) -> int:
        """See `Producer.send_encoded`."""
        if self._outstanding.failure is not None:
            raise self._outstanding.failure
        if self._closed.is_set():
            raise DeliveryFailed(f"{len(records)} records for {topic} came after the producer was closed")
        number = self._outstanding.sent(on_ack, len(records))
        group = _Group(topic, lambda failure, count: self._on_group(number, topic, failure, count))
        produce, name, delivered = self._producer.produce, self._prefix + topic, group.delivered
        queued = 0
        try:
            for key, value, headers in records:
                # By position: names would cost a sixth of the call.
                produce(name, value, key, _UNASSIGNED, delivered, None, 0, headers)
                queued += 1
        except BufferError as error:
            if not queued:
                self._outstanding.unsent(number)
                raise QueueFull(self._retry_after_s) from error
        except KafkaException as error:
            # The failure is told of all of them, so those that were not tried are as good as failed, too.
            group.failure = DeliveryFailed(f"a record for {topic}: {error.args[0].str()}")
            group.queued(queued)
            return len(records)
        group.queued(queued)
        return queued

    def poll(self) -> bool:
        """Tells of the answers that are there, without waiting; whether there were any. Only for a `polled` producer."""
        is_told = self._producer.poll(0) > 0
        self._count()
        return is_told

    async def drained(self) -> None:
        """See `Producer.drained`."""
        await self._outstanding.drained()

    def close(self, timeout_s: float) -> None:
        """See `Producer.close`; calling it again does nothing."""
        if self._closed.is_set():
            return
        self._closed.set()
        if self._owner is not None:
            self._owner.join(2 * _POLL_S)  # first: what is delivered is counted by one thread at a time
        left = self._producer.flush(timeout_s)
        self._count()
        if left:
            raise DeliveryFailed(f"{left} messages were not acknowledged within {timeout_s} s")
        if self._outstanding.failure is not None:
            raise self._outstanding.failure

    def _collect(self) -> None:
        while not self._closed.is_set():
            self._producer.poll(_POLL_S)
            self._count()

    def _count(self) -> None:
        """Counts what one poll told of: each call of the counter costs as much as the telling."""
        delivered, self._delivered = self._delivered, Counter()
        if self._produced is not None:
            for topic, count in delivered.items():
                self._produced.add(count, {"topic": topic})

    def _on_delivery(self, number: int, topic: str, error: KafkaError | None, _record: KafkaMessage) -> None:
        if error is None:
            self._delivered[topic] += 1
            self._outstanding.answered(number, None)
            return
        if self._failures is not None:
            self._failures.add(1, {"topic": topic})
        self._outstanding.answered(number, DeliveryFailed(f"a message for {topic} was not delivered: {error.str()}"))

    def _on_group(self, number: int, topic: str, failure: DeliveryFailed | None, count: int) -> None:
        if failure is None and self._produced is not None:
            self._produced.add(count, {"topic": topic})
        if failure is not None and self._failures is not None:
            self._failures.add(1, {"topic": topic})
        self._outstanding.answered(number, failure)

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal():
            self._outstanding.fail(DeliveryFailed(f"the producer cannot go on: {error.str()}"))
