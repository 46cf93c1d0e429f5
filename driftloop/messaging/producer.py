"""Sends messages to Kafka: idempotent, acknowledged by all replicas, in order; one thread of its own collects the answers."""

from __future__ import annotations

import threading
from functools import partial
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka import Message as KafkaMessage
from confluent_kafka import Producer as ConfluentProducer

from driftloop.contracts import Message, encode
from driftloop.messaging.errors import DeliveryFailed, QueueFull
from driftloop.messaging.interfaces import OnAck
from driftloop.messaging.outstanding import Outstanding
from driftloop.messaging.settings import KafkaSettings
from driftloop.telemetry import Instruments

_UNASSIGNED = -1  # librdkafka: the partitioner decides
_POLL_S = 0.5  # how long the owner thread sleeps where nothing is answered: it wakes at once for every answer


class KafkaProducer:
    """A `Producer` on Kafka. `send` may be called from any thread; `on_ack` runs on the producer's own thread."""

    def __init__(
        self,
        bootstrap_servers: str,
        use_case: str,
        client_id: str,
        settings: KafkaSettings | None = None,
        instruments: Instruments | None = None,
    ) -> None:
        settings = settings or KafkaSettings()
        self._prefix = f"{use_case}."
        self._retry_after_s = settings.retry_after_s
        self._outstanding = Outstanding()
        self._produced = instruments.counter("messages_produced") if instruments else None
        self._failures = instruments.counter("delivery_failures") if instruments else None
        self._producer = ConfluentProducer(
            settings.client_config(bootstrap_servers, client_id)
            | {
                "acks": "all",
                "enable.idempotence": True,
                "compression.type": "lz4",
                # librdkafka's default partitioner puts three keys of four elsewhere than Java, aiokafka and our twin do.
                "partitioner": "murmur2_random",
                "linger.ms": settings.linger_ms,
                "queue.buffering.max.messages": settings.queue_messages_max,
                "queue.buffering.max.kbytes": settings.queue_kbytes_max,
                "delivery.timeout.ms": int(settings.delivery_timeout_s * 1000),
                "error_cb": self._on_error,
            }
        )
        self._closed = threading.Event()
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
            self._producer.produce(
                self._prefix + message.topic,
                value,
                key,
                partition,
                on_delivery=answered,
                headers=headers,
            )
        except BufferError as error:
            self._outstanding.unsent(number)
            raise QueueFull(self._retry_after_s) from error
        except KafkaException as error:
            self._outstanding.unsent(number)
            raise DeliveryFailed(f"message {message.id} for {message.topic}: {error.args[0].str()}") from error

    async def drained(self) -> None:
        """See `Producer.drained`."""
        await self._outstanding.drained()

    def close(self, timeout_s: float) -> None:
        """See `Producer.close`; calling it again does nothing."""
        if self._closed.is_set():
            return
        self._closed.set()
        left = self._producer.flush(timeout_s)
        self._owner.join(timeout_s + _POLL_S)
        if left:
            raise DeliveryFailed(f"{left} messages were not acknowledged within {timeout_s} s")
        if self._outstanding.failure is not None:
            raise self._outstanding.failure

    def _collect(self) -> None:
        while not self._closed.is_set():
            self._producer.poll(_POLL_S)

    def _on_delivery(self, number: int, topic: str, error: KafkaError | None, _record: KafkaMessage) -> None:
        if error is None:
            if self._produced is not None:
                self._produced.add(1, {"topic": topic})
            self._outstanding.answered(number, None)
            return
        if self._failures is not None:
            self._failures.add(1, {"topic": topic})
        self._outstanding.answered(number, DeliveryFailed(f"a message for {topic} was not delivered: {error.str()}"))

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal():
            self._outstanding.fail(DeliveryFailed(f"the producer cannot go on: {error.str()}"))
