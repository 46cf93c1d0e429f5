"""Reads messages from Kafka with confluent-kafka; for services that are not Faust applications."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka import Message as KafkaMessage

from driftloop.contracts import Record
from driftloop.messaging import interfaces
from driftloop.messaging.dead_letters import Malformed, RawRecord, read_record
from driftloop.messaging.errors import ReadFailed
from driftloop.messaging.settings import KafkaSettings, made

# Waiting does not help with these: a topic is missing or may not be read, or another instance took our place.
_FATAL = {
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._UNKNOWN_PARTITION,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.FENCED_INSTANCE_ID,
    KafkaError._FATAL,
}
# A topic's leader is chosen after the topic is created, and moves when a broker goes: asking again a moment later helps.
_NO_LEADER_YET = {KafkaError.LEADER_NOT_AVAILABLE, KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.UNKNOWN_LEADER_EPOCH}
_ASK_AGAIN_S = 0.05


_Made = TypeVar("_Made")


class KafkaReader:
    """A `Reader` on Kafka.

    Without `group` it reads all partitions of its topics, from their start or (`from_start=False`) their end, and commits
    nothing. With one it shares them with the group's members and goes on where the group stopped; `group_instance_id` is
    then needed too, so that a restart moves no partitions. `connect_timeout_s`: for the broker's first answer, where somebody
    waits for it; otherwise as long as for any other. ReadFailed says that there is none, and why.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        use_case: str,
        topics: Sequence[str],
        group: str | None = None,
        group_instance_id: str | None = None,
        from_start: bool = True,
        settings: KafkaSettings | None = None,
        client_id: str = "driftloop-reader",
        connect_timeout_s: float | None = None,
    ) -> None:
        self._settings = settings or KafkaSettings()
        self._connect_timeout_s = connect_timeout_s
        self._last_fault = ""
        self._prefix = f"{use_case}."
        self._servers = bootstrap_servers
        self._topics = list(topics)
        config = self._settings.client_config(bootstrap_servers, client_id) | {
            "group.id": group or f"{client_id}-no-group",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "earliest" if from_start else "latest",
            "fetch.wait.max.ms": self._settings.fetch_wait_ms_max,
            "queued.max.messages.kbytes": self._settings.read_queue_kbytes_max,
            "session.timeout.ms": int(self._settings.session_timeout_s * 1000),
            "error_cb": self._on_error,
        }
        if group is not None:
            if group_instance_id is None:
                raise ValueError("a reader in a group needs a static group_instance_id")
            config["group.instance.id"] = group_instance_id
        self._consumer = made(Consumer, config)
        self._group = group
        if group is None:
            # The end is asked for here: OFFSET_END would be resolved at the first fetch and skip what comes until then.
            if from_start:
                self._assign({place: OFFSET_BEGINNING for place in self._partitions()})
            else:
                self._assign({place: end for place, (_, end) in self.offset_ranges().items()})
        else:
            self._consumer.subscribe([self._prefix + topic for topic in self._topics])

    def poll(self, timeout_s: float, max_records: int) -> list[Record | Malformed]:
        """See `Reader.poll`."""
        return self._poll(timeout_s, max_records, read_record)

    def poll_raw(self, timeout_s: float, max_records: int) -> list[RawRecord]:
        """As `poll`, for a topic whose records are read by its reader: nothing is refused here."""
        return self._poll(timeout_s, max_records, RawRecord)

    def lags(self) -> dict[interfaces.TopicPartition, int]:
        """Records behind the next one to be read, by partition, as the broker last said; no call is made for it."""
        found = {}
        for at in self._consumer.position(self._consumer.assignment()):
            bounds = self._consumer.get_watermark_offsets(TopicPartition(at.topic, at.partition), cached=True)
            if bounds is not None and at.offset >= 0:
                found[(at.topic.removeprefix(self._prefix), at.partition)] = max(0, bounds[1] - at.offset)
        return found

    def _poll(self, timeout_s: float, max_records: int, make: Callable[..., _Made]) -> list[_Made]:
        # consume() alone would wait for a full batch; so the first record comes by poll(), the rest is what is there.
        first = self._consumer.poll(timeout_s)
        if first is None:
            return []
        rest = self._consumer.consume(max_records - 1, 0) if max_records > 1 else []
        return [record for found in (first, *rest) if (record := self._read(found, make)) is not None]

    def _read(self, found: KafkaMessage, make: Callable[..., _Made]) -> _Made | None:
        if (error := found.error()) is not None:
            if error.code() in _FATAL or error.fatal():
                raise ReadFailed(f"{found.topic() or ', '.join(self._topics)}: {error.str()}")
            return None  # the broker is away: librdkafka connects again by itself
        topic, partition, offset, value = found.topic(), found.partition(), found.offset(), found.value()
        assert topic is not None
        assert partition is not None
        assert offset is not None
        headers = found.headers()
        _, appended_at_ms = found.timestamp()
        short = topic.removeprefix(self._prefix)
        return make(short, partition, offset, found.key(), value, headers, appended_at_ms * 1000)

    def commit(self, offsets: interfaces.Offsets) -> None:
        """See `Reader.commit`; ReadFailed if the group has given the partitions to another member."""
        if self._group is None:
            raise ReadFailed("a reader without a group commits nothing")
        try:
            self._consumer.commit(
                offsets=[TopicPartition(self._prefix + t, p, offset) for (t, p), offset in offsets.items()],
                asynchronous=False,
            )
        except KafkaException as error:
            raise ReadFailed(f"offsets were not committed: {error.args[0].str()}") from error

    def seek(self, offsets: interfaces.Offsets) -> None:
        """See `Reader.seek`; only for a reader without a group."""
        self._assign(self._positions() | dict(offsets))

    def _assign(self, offsets: interfaces.Offsets) -> None:
        self._consumer.assign(
            [TopicPartition(self._prefix + topic, p, offset) for (topic, p), offset in offsets.items()]
        )

    def offset_ranges(self) -> dict[interfaces.TopicPartition, tuple[int, int]]:
        """See `Reader.offset_ranges`."""
        return {place: self._watermark_offsets(place) for place in self._partitions()}

    def close(self) -> None:
        """See `Reader.close`; within `close_timeout_s`, whatever the broker does."""
        # librdkafka knows no bound for it. A daemon: what hangs in there must not keep the process from ending.
        closing = threading.Thread(target=self._consumer.close, name="reader-close", daemon=True)
        closing.start()
        closing.join(self._settings.close_timeout_s)

    def _positions(self) -> dict[interfaces.TopicPartition, int]:
        assigned = self._consumer.assignment()
        # A partition that nothing was read of yet has no position: it is still where it was assigned.
        at = {(p.topic, p.partition): p.offset for p in assigned}
        at.update({(p.topic, p.partition): p.offset for p in self._consumer.position(assigned) if p.offset >= 0})
        return {(topic.removeprefix(self._prefix), partition): offset for (topic, partition), offset in at.items()}

    def _watermark_offsets(self, place: interfaces.TopicPartition) -> tuple[int, int]:
        topic, partition = place
        deadline = time.monotonic() + self._settings.answer_timeout_s
        while True:
            try:
                return self._consumer.get_watermark_offsets(
                    TopicPartition(self._prefix + topic, partition), timeout=max(0.1, deadline - time.monotonic())
                )
            except KafkaException as error:
                if error.args[0].code() not in _NO_LEADER_YET or time.monotonic() > deadline:
                    raise ReadFailed(f"the end of {topic} is not known: {error.args[0].str()}") from error
                time.sleep(_ASK_AGAIN_S)

    def _on_error(self, error: KafkaError) -> None:
        if error.code() != KafkaError._ALL_BROKERS_DOWN:  # which says no more than that the call failed
            self._last_fault = error.str()

    def _partitions(self) -> list[interfaces.TopicPartition]:
        deadline = time.monotonic() + self._settings.answer_timeout_s
        first_s = self._connect_timeout_s
        found: list[interfaces.TopicPartition] = []
        for topic in self._topics:
            left_s = deadline - time.monotonic()
            timeout_s, first_s = left_s if first_s is None else min(first_s, left_s), None
            try:
                listing = self._consumer.list_topics(self._prefix + topic, timeout=max(0.1, timeout_s))
            except KafkaException as error:
                self._consumer.poll(0)  # tells `_on_error` what is known of the connection
                raise ReadFailed(
                    f"the broker at {self._servers} does not answer: start it, or correct KAFKA_BOOTSTRAP_SERVERS "
                    f"({self._last_fault or error.args[0].str()})"
                ) from error
            described = listing.topics[self._prefix + topic]
            if described.error is not None:
                where = f"{self._prefix}{topic} cannot be read at {self._servers}"
                raise ReadFailed(f"{where}: {described.error.str()}; does that use case run there?")
            found.extend((topic, partition) for partition in sorted(described.partitions))
        return found
