"""Batch delivery for Faust 0.15.3: one Event is a list of raw records of one partition; commits are driven by checkpoints.

Faust gives group membership, partitions and flow control. Its own loop makes a task pair for every record and tracks every
record until it is acknowledged, which bounds it at 5,000 records a second. Here the loop hands over what one fetch brought as
one Event per partition, nothing is tracked, and what is committed is what a checkpoint holds.

The parts of Faust and aiokafka that this leans on beyond their public face are named in `SEAM`; a test holds them.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Protocol

import aiokafka
import faust
from aiokafka.consumer import fetcher
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment
from aiokafka.errors import CorruptRecordException
from faust.app.base import BootStrategy
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage

from driftloop.messaging.settings import KafkaSettings

FAUST_VERSION = "0.15.3"
SEAM: Mapping[type, Sequence[str]] = {
    driver.Consumer: (
        "_new_consumer_thread",
        "_drain_messages",
        "perform_seek",
        "on_partitions_revoked",
        "on_buffer_full",
        "on_buffer_drop",
        "force_commit",
        "verify_event_path",
        "seek_wait",
        "earliest_offsets",
        "highwaters",
        "_commit",
        "assignment",
    ),
    driver.AIOKafkaConsumerThread: ("_create_worker_consumer", "_seek_wait", "_fetch_records", "call_thread"),
    faust.App: ("_new_transport", "_create_directories", "_on_partitions_revoked", "consumer_generation_id"),
    faust.Schema: ("compile",),
    fetcher.PartitionRecords: ("_unpack_records",),
}
_POLL_S = 1.0  # how long one fetch waits: a stop is noticed after this at the latest
_RECORDS_MAX = 20_000  # per Event: what a fetch brings, and bounds what is decoded before it is folded: 50 MB
_FETCH_BYTES = 1 << 20  # per partition and fetch: times the buffer of 16 Events, 16 MiB
_BUFFERED_EVENTS = 16
log = logging.getLogger(__name__)
_framework_log = logging.getLogger("faust.driftloop")  # what Faust says through our subclasses is Faust's routine


@dataclass(frozen=True, slots=True)
class Batch:
    """The value of an Event: raw aiokafka records of one partition, in offset order."""

    place: TP
    records: Sequence[Any]
    epoch: int


class PartitionOwner(Protocol):
    """Who decides where reading goes on; knows topics by their name on the broker."""

    async def assigned(self, places: Sequence[TP]) -> Mapping[TP, int]:
        """Called with the whole assignment before its first record; returns the offset to go on at (0: the start)."""

    async def revoked(self, places: Sequence[TP]) -> None:
        """Called before the partitions go elsewhere; they go when it returns."""


class BatchSchema(faust.Schema):  # type: ignore[misc]
    """Marks a topic as delivered in batches: the Event's value is a `Batch`, and nothing is decoded."""

    def compile(self, app: Any, **_: Any) -> Any:
        """See `faust.Schema.compile`."""
        create_event = app.create_event

        async def decode(message: Any, *, propagate: bool = False) -> Any:
            return create_event(None, message.value, None, message)

        return decode


class OneMemberAssignor(RangePartitionAssignor):  # type: ignore[misc]
    """Gives every partition to one member; the others stand by until it is gone. For hearts that must see everything."""

    name = "driftloop-one-member"

    @classmethod
    def assign(cls, cluster: Any, members: Mapping[str, Any]) -> dict[str, ConsumerProtocolMemberAssignment]:
        """The member whose (static) name comes first has it all, so that a restart of another moves nothing."""
        first = min(members)
        assignments = super().assign(cluster, {first: members[first]})
        nothing = ConsumerProtocolMemberAssignment(cls.version, [], b"")
        return {member: assignments.get(member, nothing) for member in members}


class _RecordBatches(fetcher.PartitionRecords):  # type: ignore[misc]
    """What was fetched of a partition: a list of records per batch of the producer's, in place of aiokafka's records one by one.

    To make an object of Python of each costs as much as to parse it. Nothing here reads transactions.
    """

    next_fetch_offset: int

    def _unpack_records(self) -> Iterator[list[Any]]:
        while self._records.has_next():
            batch = self._records.next_batch()
            if self._check_crcs and not batch.validate_crc():
                raise CorruptRecordException(f"a batch of {self._tp} does not match its checksum")
            first, self.next_fetch_offset = self.next_fetch_offset, batch.next_offset
            if not batch.is_control_batch:
                records = list(batch)
                yield records if batch.base_offset >= first else [each for each in records if each.offset >= first]


fetcher.PartitionRecords = _RecordBatches  # the fetcher makes them, and offers no other way to say of what class


class _ConsumerThread(driver.AIOKafkaConsumerThread):  # type: ignore[misc]
    """Faust's consumer thread, which also says of every fetch whether it came before or after a seek."""

    app: BatchApp
    logger = _framework_log
    seek_epoch = 0

    def _create_worker_consumer(self, transport: Any) -> aiokafka.AIOKafkaConsumer:
        app, settings = self.app, self.app.kafka
        security: dict[str, Any] = {"security_protocol": settings.security_protocol}
        if settings.security_protocol.startswith("SASL"):
            security["sasl_mechanism"] = settings.sasl_mechanism
            security["sasl_plain_username"] = settings.sasl_username
            security["sasl_plain_password"] = settings.sasl_password.get_secret_value()
        if settings.security_protocol.endswith("SSL"):
            security["ssl_context"] = ssl.create_default_context(cafile=settings.ssl_ca_file or None)
        session_timeout_ms = int(settings.session_timeout_s * 1000)
        return aiokafka.AIOKafkaConsumer(
            bootstrap_servers=app.bootstrap_servers,
            client_id=app.instance_id,
            group_id=app.conf.id,
            group_instance_id=app.instance_id,
            partition_assignment_strategy=[app.assignment_strategy],
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=settings.fetch_wait_ms_max,
            max_partition_fetch_bytes=_FETCH_BYTES,
            request_timeout_ms=int(app.conf.broker_request_timeout * 1000),
            session_timeout_ms=session_timeout_ms,
            heartbeat_interval_ms=session_timeout_ms // 5,
            rebalance_timeout_ms=int(app.conf.broker_rebalance_timeout * 1000),
            max_poll_interval_ms=int(app.conf.broker_max_poll_interval * 1000),
            metadata_max_age_ms=60_000,
            **security,
        )

    async def _seek_wait(self, consumer: Any, partitions: Mapping[TP, int]) -> None:
        await super()._seek_wait(consumer, partitions)
        for place, offset in partitions.items():
            consumer.seek(place, offset)  # again: a first position that was being looked up must not win over ours
        self.seek_epoch += 1

    async def take(self, timeout_s: float) -> tuple[int, Mapping[TP, list[list[Any]]]]:
        """What has been fetched, and the number of seeks before it; runs in the thread, so no seek can come between."""
        batches = await self._fetch_records(self._ensure_consumer(), None, timeout=timeout_s)
        return self.seek_epoch, batches


class BatchConsumer(driver.Consumer):  # type: ignore[misc]
    """Faust's consumer with batches in, checkpointed offsets out."""

    app: BatchApp
    logger = _framework_log
    _thread: _ConsumerThread

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.epoch = -1  # the seek that delivered records must come after; -1: none may be folded
        self.polled_at_s = time.monotonic()
        super().__init__(*args, **kwargs)

    def _new_consumer_thread(self) -> _ConsumerThread:
        return _ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    # where reading goes on ------------------------------------------------------------------------------------------

    async def perform_seek(self) -> None:
        """Called by Faust after every assignment, before records flow: asks the owner, not the broker's committed offsets."""
        places = sorted(self.assignment())
        wanted = await self.app.owner.assigned(places)
        earliest = await self.earliest_offsets(*places)
        starts = {}
        for place in places:
            start = starts[place] = max(wanted[place], earliest[place])
            if start > wanted[place] > 0:
                log.error("%s: records %d to %d are gone from the broker, unread", place, wanted[place], start - 1)
        await self.seek_wait(starts)
        self.epoch = self._thread.seek_epoch

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Called by Faust when partitions go: delivered batches are void, then the owner checkpoints and lets go."""
        self.epoch = -1
        await super().on_partitions_revoked(revoked)
        await self.app.owner.revoked(sorted(revoked))

    async def commit_offsets(self, offsets: Mapping[TP, int]) -> None:
        """Commits what a checkpoint holds."""
        await self._commit(offsets)

    async def force_commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:
        """Commits nothing: Faust calls it from a timer and at every stop, only a checkpoint knows what is durable."""
        return False

    # the fetch loop -------------------------------------------------------------------------------------------------

    async def _drain_messages(self, fetcher: Any) -> None:
        try:
            while not (self.should_stop or fetcher.should_stop):
                if not self.flow_active:
                    await self.wait(self.can_resume_flow)
                    continue
                epoch, fetched = await self._thread.call_thread(self._thread.take, _POLL_S)
                self.polled_at_s = time.monotonic()
                if epoch == self.epoch:
                    await self._deliver(epoch, fetched)
        except (*self.consumer_stopped_errors, asyncio.CancelledError):
            if not self.app.should_stop:
                raise

    async def _deliver(self, epoch: int, fetched: Mapping[TP, list[list[Any]]]) -> None:
        for place, batches in fetched.items():
            records = list(chain.from_iterable(batches))
            for start in range(0, len(records), _RECORDS_MAX):
                part = records[start : start + _RECORDS_MAX]
                last = part[-1]
                # A full buffer holds this up, and with it the fetching: the only backpressure that is needed.
                await self.callback(
                    ConsumerMessage(
                        place.topic,
                        place.partition,
                        last.offset,
                        last.timestamp / 1000,
                        last.timestamp_type,
                        None,
                        None,
                        Batch(place, part, epoch),
                        None,
                        0,
                        0,
                        place,
                        generation_id=self.app.consumer_generation_id,
                    )
                )

    def on_buffer_full(self, tp: TP) -> None:
        """Pauses nothing: a paused partition would be looked at again after a second."""

    def on_buffer_drop(self, tp: TP) -> None:
        """See `on_buffer_full`."""

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Warns of nothing: Faust judges by acknowledgements, which batches have not. The worker watches progress itself."""


class _BatchTransport(driver.Transport):  # type: ignore[misc]
    Consumer = BatchConsumer


class _ConsumerOnly(BootStrategy):  # type: ignore[misc]
    """No Faust producer, web server or sensors: outputs go out by our own producer, metrics by telemetry."""

    enable_kafka_producer = False
    enable_web = False
    enable_sensors = False


class BatchApp(faust.App):  # type: ignore[misc]
    """A Faust application that reads batches; made by `faust_application`."""

    BootStrategy = _ConsumerOnly
    logger = _framework_log
    owner: PartitionOwner
    kafka: KafkaSettings
    bootstrap_servers: str
    instance_id: str
    assignment_strategy: type[RangePartitionAssignor]

    def _new_transport(self) -> Any:
        return _BatchTransport(self.conf.broker_consumer, self)

    def _create_directories(self) -> None:
        """Makes none: there are no tables."""

    def fresh(self, batch: Batch) -> bool:
        """Whether a delivered batch follows the newest seek; if not, its records will be read again."""
        return batch.epoch == self.consumer.epoch


def faust_application(
    group: str,
    instance_id: str,
    bootstrap_servers: str,
    owner: PartitionOwner,
    *,
    one_member: bool = False,
    settings: KafkaSettings | None = None,
) -> BatchApp:
    """A Faust application of consumer group `group`, without topics or agents yet; opens no connection.

    `instance_id` must be the same after a restart and differ between workers: with it a killed worker is back in seconds,
    without it the group waits for the session to end. Partitions with one number stay together (range assignment);
    `one_member` gives all partitions to one worker and lets the others stand by.
    """
    if faust.__version__ != FAUST_VERSION:
        raise ImportError(f"batch delivery is made for Faust {FAUST_VERSION}, found {faust.__version__}")
    app = BatchApp(
        group,
        broker="kafka://" + ";".join(bootstrap_servers.split(",")),
        consumer_group_instance_id=instance_id,
        consumer_auto_offset_reset="earliest",
        store="memory://",
        web_enabled=False,
        topic_allow_declare=False,
        topic_disable_leader=True,
        stream_buffer_maxsize=_BUFFERED_EVENTS,
        stream_wait_empty=False,
        broker_session_timeout=(settings or KafkaSettings()).session_timeout_s,
        debug=False,
    )
    app.owner = owner
    app.kafka = settings or KafkaSettings()
    app.bootstrap_servers = bootstrap_servers
    app.instance_id = instance_id
    app.assignment_strategy = OneMemberAssignor if one_member else RangePartitionAssignor
    return app
