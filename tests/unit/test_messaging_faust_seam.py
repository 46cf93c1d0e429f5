"""Batch delivery leans on parts of Faust and aiokafka that promise nothing: an upgrade that moves them fails here first."""

from __future__ import annotations

import inspect
from importlib.metadata import version

import aiokafka
import faust
import pytest
from aiokafka.consumer import fetcher
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.structs import TopicPartition
from faust.tables.recovery import Recovery
from faust.transport import consumer as base
from faust.transport.drivers import aiokafka as driver

from driftloop.messaging import faust_batches
from driftloop.messaging.faust_batches import SEAM, BatchSchema, OneMemberAssignor, faust_application


class _Cluster:
    def __init__(self, **partitions: int) -> None:
        self._partitions = partitions

    def partitions_for_topic(self, topic: str) -> set[int]:
        return set(range(self._partitions[topic]))


class _Member:
    def __init__(self, *topics: str) -> None:
        self.subscription = list(topics)


def test_the_versions_are_those_that_the_seam_was_made_for() -> None:
    assert version("faust-streaming") == faust_batches.FAUST_VERSION == faust.__version__
    assert version("aiokafka") == "0.14.0"


@pytest.mark.parametrize(("owner", "name"), [(owner, name) for owner, names in SEAM.items() for name in names])
def test_a_part_that_is_overridden_or_called_is_there(owner: type, name: str) -> None:
    assert hasattr(owner, name), (
        f"{owner.__name__}.{name} has gone: look at what replaced it before raising the version"
    )


@pytest.mark.parametrize(
    ("function", "parameters"),
    [
        (driver.Consumer._drain_messages, ["self", "fetcher"]),
        (driver.Consumer.perform_seek, ["self"]),
        (driver.Consumer.on_partitions_revoked, ["self", "revoked"]),
        (driver.Consumer.force_commit, ["self", "topics", "start_new_transaction"]),
        (driver.Consumer.seek_wait, ["self", "partitions"]),
        (driver.Consumer._commit, ["self", "offsets"]),
        (driver.Consumer.earliest_offsets, ["self", "partitions"]),
        (driver.Consumer.highwaters, ["self", "partitions"]),
        (driver.AIOKafkaConsumerThread._seek_wait, ["self", "consumer", "partitions"]),
        (
            driver.AIOKafkaConsumerThread._fetch_records,
            ["self", "consumer", "active_partitions", "timeout", "max_records"],
        ),
        (driver.AIOKafkaConsumerThread._create_worker_consumer, ["self", "transport"]),
        (driver.AIOKafkaConsumerThread.call_thread, ["self", "fun", "args", "kwargs"]),
    ],
)
def test_its_parameters_are_as_they_were(function: object, parameters: list[str]) -> None:
    assert list(inspect.signature(function).parameters) == parameters  # type: ignore[arg-type]


def test_fetched_records_are_returned_without_a_pause_after_they_are_taken() -> None:
    # The number of seeks is read right behind the fetch: an await between them would let a seek slip in.
    source = inspect.getsource(driver.AIOKafkaConsumerThread._fetch_records)
    assert source.count("await") == 1
    assert "if not self.consumer.flow_active:" in source


def _batch(first: int, count: int) -> bytes:
    """A producer's batch of records at offsets from `first` on."""
    builder = DefaultRecordBatchBuilder(2, 3, 0, -1, -1, 0, 1 << 20)
    for number in range(count):
        builder.append(number, 1_000, b"k", b"%d" % (first + number), [("h", b"x")])
    return first.to_bytes(8) + bytes(builder.build())[8:]


def _fetched(data: bytes, offset: int) -> fetcher.PartitionRecords:
    return fetcher.PartitionRecords(TopicPartition("t", 0), MemoryRecords(data), [], offset, None, None, True, 0)


def test_what_was_fetched_is_taken_batch_by_batch_from_the_offset_that_was_asked_for() -> None:
    found = _fetched(_batch(10, 4) + _batch(14, 2), 12)
    batches = [[(record.offset, record.value, record.headers) for record in batch] for batch in found]
    assert batches == [
        [(12, b"12", [("h", b"x")]), (13, b"13", [("h", b"x")])],
        [(14, b"14", [("h", b"x")]), (15, b"15", [("h", b"x")])],
    ]
    assert found.next_fetch_offset == 16
    assert "for msg in self._partition_records:" in inspect.getsource(fetcher.FetchResult.getall)


def test_a_damaged_batch_is_not_read() -> None:
    data = bytearray(_batch(0, 4))
    data[-1] ^= 1
    with pytest.raises(CorruptRecordException):
        list(_fetched(bytes(data), 0))


def test_the_recovery_seeks_before_it_lets_records_flow() -> None:
    source = inspect.getsource(Recovery._resume_streams)
    assert 0 < source.index("consumer.perform_seek()") < source.index("consumer.resume_flow()")


def test_a_stream_leaves_out_what_was_delivered_before_a_rebalance() -> None:
    source = inspect.getsource(faust.Stream._py_aiter)
    assert "message.generation_id != self.app.consumer_generation_id" in source


def test_faust_keeps_no_account_of_records_on_a_topic_without_acknowledgements() -> None:
    assert "if self.app.topics.acks_enabled_for(message.topic)" in inspect.getsource(base.Consumer.ack)
    app = faust_application("g", "g-0", "127.0.0.1:1", owner=None)  # type: ignore[arg-type]
    topic = app.topic("t", schema=BatchSchema(), acks=False)
    assert topic.acks is False


def test_the_application_is_set_up_as_batches_need_it() -> None:
    app = faust_application("g", "g-0", "one:1,two:2", owner=None)  # type: ignore[arg-type]
    assert app.conf.consumer_group_instance_id == "g-0"
    assert app.conf.web_enabled is False
    assert app.conf.stream_buffer_maxsize == 16
    assert app.conf.stream_wait_empty is False
    assert app.conf.topic_disable_leader is True
    assert str(app.conf.consumer_auto_offset_reset) == "earliest"
    assert [str(url) for url in app.conf.broker] == ["kafka://one:1", "kafka://two:2"]
    assert app.bootstrap_servers == "one:1,two:2"
    assert app.assignment_strategy is RangePartitionAssignor


def test_partitions_with_one_number_stay_together() -> None:
    cluster = _Cluster(events=4, predictions=4)
    members = {f"monitor-matching-{n}": _Member("events", "predictions") for n in range(3)}
    for found in RangePartitionAssignor.assign(cluster, members).values():
        assigned = dict(found.assignment)
        assert assigned["events"] == assigned["predictions"]


def test_one_member_has_every_partition_and_the_others_none() -> None:
    cluster = _Cluster(predictions=3, scores=1)
    members = {name: _Member("predictions", "scores") for name in ("judging-1-b", "judging-0-a", "judging-2-c")}
    found = OneMemberAssignor.assign(cluster, members)
    assert dict(found["judging-0-a"].assignment) == {"predictions": [0, 1, 2], "scores": [0]}
    assert [list(found[name].assignment) for name in ("judging-1-b", "judging-2-c")] == [[], []]


def test_aiokafka_keeps_its_place_in_the_group_when_it_stops() -> None:
    source = inspect.getsource(aiokafka.consumer.group_coordinator.GroupCoordinator._maybe_leave_group)
    assert "self._group_instance_id is None" in source
