"""A hosted heart loses nothing and never goes on from a state that does not fit its offsets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from driftloop.artifacts import ArtifactStore
from driftloop.artifacts.checkpoints import CheckpointStore
from driftloop.contracts import Message, Record, decode, watermark
from driftloop.contracts.codec import Encoded
from driftloop.messaging import DeliveryFailed, MemoryBus, Producer, QueueFull, TopicPartition
from driftloop.messaging.heart_host import HeartHost
from driftloop.messaging.hosting import AssignmentSplit, HostSettings, RestoreRefused
from tests.hearts import FileSink, Tally, event

NEVER = HostSettings(checkpoint_records=1_000_000, checkpoint_s=1e6)


class Bench:
    """A bus, a store and hosts on them, one after another."""

    def __init__(self, folder: Path, spread: int = 1) -> None:
        self.bus = MemoryBus("test", spread)
        self.spread = spread
        self.checkpoints = CheckpointStore(ArtifactStore(folder / "store"), "test")
        self.sink = FileSink(folder / "sink")
        self.committed: list[dict[TopicPartition, int]] = []

    def host(
        self,
        *,
        inputs: tuple[str, ...] = ("events",),
        producer: Producer | None = None,
        settings: HostSettings = NEVER,
        single: bool = False,
        heart: Callable[[int], Any] = Tally,
        spread: int | None = None,
    ) -> HeartHost:
        host = HeartHost(
            "tally",
            inputs,
            heart,
            producer or self.bus.producer(),
            self.checkpoints,
            use_case="test",
            service="features",
            spread=spread or self.spread,
            single=single,
            sinks=[self.sink],
            settings=settings,
        )

        async def commit(offsets: Mapping[TopicPartition, int]) -> None:
            self.committed.append(dict(offsets))

        host.on_commit(commit)
        return host

    def write(self, *messages: Message[Any]) -> None:
        for message in messages:
            self.bus.append(message)

    async def feed(self, host: HeartHost, *, position: int | None = None, partition: int = 0) -> None:
        """Delivers all records of a partition of `events` from a position (default: the host's own)."""
        place = ("events", partition)
        start = host.positions()[place] if position is None else position
        reader = self.bus.reader(["events"])
        reader.seek({place: start})
        await host.deliver(place, [record for record in reader.poll(0, 10_000) if record.partition == partition])

    def outputs(self, topic: str = "features", partition: int = 0) -> list[Message[Any]]:
        return [decode(topic, *encoded) for encoded in self.bus.records(topic, partition)]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


async def test_outputs_of_every_record_are_sent_in_order(bench: Bench) -> None:
    bench.write(*(event(n) for n in range(5)))
    host = bench.host()
    assert await host.assign([("events", 0)]) == {("events", 0): 0}
    await bench.feed(host)
    assert [message.payload.values[0].integer for message in bench.outputs()] == [1, 2, 3, 4, 5]
    assert host.positions() == {("events", 0): 5}


async def test_what_a_sampled_record_brings_about_belongs_to_its_trace(bench: Bench) -> None:
    sampled, left_out = event(0), event(1)
    sampled.traceparent = f"00-{'a' * 32}-{'b' * 16}-01"
    left_out.traceparent = f"00-{'c' * 32}-{'d' * 16}-00"
    bench.write(sampled)
    host = bench.host()
    await host.assign([("events", 0)])
    await bench.feed(host)
    bench.write(left_out)
    await bench.feed(host)
    first, second = bench.outputs()
    assert first.traceparent.split("-")[1] == "a" * 32
    assert second.traceparent == ""


async def test_what_was_folded_is_skipped_when_it_is_delivered_again(bench: Bench) -> None:
    bench.write(*(event(n) for n in range(5)))
    host = bench.host()
    await host.assign([("events", 0)])
    await bench.feed(host)
    await bench.feed(host, position=2)
    assert len(bench.outputs()) == 5


async def test_a_long_batch_is_folded_in_pieces_that_end_behind_a_watermark_where_there_is_one(bench: Bench) -> None:
    folded: list[int] = []

    class Counting(Tally):
        def fold(self, records: list[Record]) -> list[Message[Any]]:
            folded.append(len(records))
            return super().fold(records)

    events = [event(n) for n in range(12)]
    bench.write(*events[:3], watermark("events", 0, "ingest", 3_000_000), *events[3:])
    host = bench.host(heart=Counting, settings=HostSettings(checkpoint_records=1_000, fold_records_max=6))
    await host.assign([("events", 0)])
    await bench.feed(host)
    assert folded == [4, 6, 3]


async def test_a_restart_goes_on_from_the_checkpoint(bench: Bench) -> None:
    bench.write(*(event(n) for n in range(3)))
    host = bench.host()
    await host.assign([("events", 0)])
    await bench.feed(host)
    await host.request_checkpoint()
    bench.write(event(3), event(4))
    await bench.feed(host)  # folded, not in a checkpoint, and the process dies

    again = bench.host()
    assert await again.assign([("events", 0)]) == {("events", 0): 3}
    await bench.feed(again)
    counts = [message.payload.values[0].integer for message in bench.outputs()]
    assert counts == [1, 2, 3, 4, 5, 4, 5]
    assert len({message.id for message in bench.outputs()}) == 5


async def test_folding_goes_on_while_a_long_state_is_packed_and_the_checkpoint_is_of_its_beginning(
    bench: Bench,
) -> None:
    bench.write(*(event(n, entity=f"x{n}") for n in range(9_000)))
    host = bench.host(settings=HostSettings(checkpoint_records=9_000, checkpoint_s=1e6, fold_records_max=9_000))
    await host.assign([("events", 0)])
    await bench.feed(host)
    folded = 0
    while not bench.committed:
        bench.write(event(9_000 + folded, entity=f"x{folded}"))
        await bench.feed(host)
        folded += 1
        await asyncio.sleep(0)
    assert folded > 3
    assert bench.committed == [{("events", 0): 9_000}]

    again = bench.host()
    assert await again.assign([("events", 0)]) == {("events", 0): 9_000}
    assert again.groups[0].snapshot()["counts"] == dict.fromkeys((f"x{n}" for n in range(9_000)), 1)


async def test_offsets_are_committed_only_when_the_checkpoint_is_there(bench: Bench) -> None:
    bench.write(event(0))
    host = bench.host()
    await host.assign([("events", 0)])
    seen: list[object] = []

    async def commit(offsets: Mapping[TopicPartition, int]) -> None:
        seen.append((dict(offsets), bench.checkpoints.load("tally", 0)))

    host.on_commit(commit)
    await bench.feed(host)
    assert seen == []
    await host.request_checkpoint()
    ((offsets, checkpoint),) = seen  # type: ignore[misc]
    assert offsets == {("events", 0): 1}
    assert checkpoint["offsets"] == [["events", 0, 1]]


async def test_a_checkpoint_comes_by_count(bench: Bench) -> None:
    bench.write(*(event(n) for n in range(10)))
    settings = HostSettings(checkpoint_records=4, fold_records_max=5, checkpoint_s=1e6, checkpoint_load_max=1)
    host = bench.host(settings=settings)
    await host.assign([("events", 0)])
    await bench.feed(host)
    await host.close()
    assert bench.committed[0] == {("events", 0): 5}
    assert bench.committed[-1] == {("events", 0): 10}


async def test_a_checkpoint_comes_by_wall_time_though_nothing_more_arrives(bench: Bench) -> None:
    bench.write(event(0))
    host = bench.host(settings=HostSettings(checkpoint_s=0.05))
    arrived = asyncio.Event()

    async def commit(_: Mapping[TopicPartition, int]) -> None:
        arrived.set()

    host.on_commit(commit)
    await host.assign([("events", 0)])
    await bench.feed(host)
    await asyncio.wait_for(arrived.wait(), 5)
    await host.close()


async def test_nothing_is_checkpointed_where_nothing_was_folded(bench: Bench) -> None:
    host = bench.host(settings=HostSettings(checkpoint_s=0.01))
    await host.assign([("events", 0)])
    await host.close()
    assert bench.committed == []


async def test_a_requested_checkpoint_waits_for_the_clock_it_names(bench: Bench) -> None:
    host = bench.host()
    saved = asyncio.Event()

    async def commit(_: Mapping[TopicPartition, int]) -> None:
        saved.set()

    host.on_commit(commit)
    await host.assign([("events", 0)])
    await host.request_checkpoint(clock_us=7_000_000)
    bench.write(event(6))
    await bench.feed(host)
    assert bench.checkpoints.load("tally", 0) is None
    bench.write(event(7))
    await bench.feed(host)
    await asyncio.wait_for(saved.wait(), 5)
    state = bench.checkpoints.load("tally", 0)
    assert state is not None
    assert state["clock_us"] == 7_000_000


async def test_a_request_for_a_time_long_reached_is_met_without_new_records(bench: Bench) -> None:
    bench.write(event(9))
    host = bench.host()
    saved = asyncio.Event()

    async def commit(_: Mapping[TopicPartition, int]) -> None:
        saved.set()

    host.on_commit(commit)
    await host.assign([("events", 0)])
    await bench.feed(host)
    await host.request_checkpoint(clock_us=5_000_000)
    await asyncio.wait_for(saved.wait(), 5)
    await host.close()


async def test_malformed_bytes_are_dead_lettered_and_the_rest_is_folded(bench: Bench) -> None:
    bench.bus.append_raw("events", 0, Encoded(b"k", b"\xff", []))
    bench.write(event(1))
    for _ in range(2):  # the second host reads it all again: no checkpoint was made
        host = bench.host()
        await host.assign([("events", 0)])
        await bench.feed(host)
    letters = bench.outputs("dead-letters")
    assert {letter.payload.offset for letter in letters} == {0}
    assert len({letter.id for letter in letters}) == 1
    assert letters[0].payload.refused_by == "features"
    assert len({message.id for message in bench.outputs()}) == 1
    assert host.positions() == {("events", 0): 2}


async def test_a_failing_fold_ends_the_hosting_and_is_never_saved(bench: Bench) -> None:
    bench.write(event(0), event(1, entity="explode"), event(2))
    host = bench.host(settings=HostSettings(fold_records_max=1, checkpoint_s=1e6))
    await host.assign([("events", 0)])
    with pytest.raises(ArithmeticError):
        await bench.feed(host)
    assert isinstance(await asyncio.wait_for(host.wait_failed(), 1), ArithmeticError)
    await bench.feed(host, position=2)
    await host.close()
    assert bench.committed == []
    assert bench.checkpoints.load("tally", 0) is None


class _Stuck:
    """A producer whose queue is full for a while, or for good."""

    def __init__(self, bus: MemoryBus, refusals: int) -> None:
        self._inner = bus.producer()
        self._refusals = refusals

    @property
    def queued(self) -> int:
        return self._inner.queued

    def send(self, message: Message[Any], on_ack: Any = None) -> None:
        if self._refusals > 0:
            self._refusals -= 1
            raise QueueFull(0.001)
        self._inner.send(message, on_ack)

    async def drained(self) -> None:
        await self._inner.drained()

    def close(self, timeout_s: float) -> None:
        self._inner.close(timeout_s)


async def test_a_full_queue_is_waited_for_and_nothing_is_dropped(bench: Bench) -> None:
    bench.write(*(event(n) for n in range(5)))
    host = bench.host(producer=_Stuck(bench.bus, 20))
    await host.assign([("events", 0)])
    await bench.feed(host)
    assert len(bench.outputs()) == 5


async def test_a_queue_that_stays_full_ends_the_hosting(bench: Bench) -> None:
    bench.write(event(0))
    settings = HostSettings(send_timeout_s=0.05, checkpoint_s=1e6)
    host = bench.host(producer=_Stuck(bench.bus, 10**9), settings=settings)
    await host.assign([("events", 0)])
    with pytest.raises(DeliveryFailed):
        await bench.feed(host)
    await host.close()
    assert bench.checkpoints.load("tally", 0) is None


async def test_a_fold_that_is_cancelled_between_its_outputs_is_never_saved(bench: Bench) -> None:
    bench.write(event(0), event(1))
    host = bench.host(producer=_Stuck(bench.bus, 10**9))
    await host.assign([("events", 0)])
    folding = asyncio.create_task(bench.feed(host))
    while host.positions() == {("events", 0): 0}:
        await asyncio.sleep(0)
    folding.cancel()
    await asyncio.gather(folding, return_exceptions=True)
    assert isinstance(await asyncio.wait_for(host.wait_failed(), 1), asyncio.CancelledError)
    await host.close()
    assert bench.checkpoints.load("tally", 0) is None


async def test_outputs_of_an_unordered_input_are_in_a_checkpoint_before_they_are_sent(bench: Bench) -> None:
    bench.write(event(0), event(1, entity="decide"))
    host = bench.host(producer=_Stuck(bench.bus, 10**9), settings=HostSettings(send_timeout_s=0.05))
    await host.assign([("events", 0)])
    with pytest.raises(DeliveryFailed):
        await bench.feed(host)
    assert bench.outputs() == []

    again = bench.host()
    assert await again.assign([("events", 0)]) == {("events", 0): 2}
    resent = bench.outputs()
    assert [(message.key, message.payload.values[0].integer) for message in resent] == [("a", 1), ("decide", 1)]


async def test_a_revoked_partition_is_checkpointed_and_let_go(bench: Bench) -> None:
    bench.write(event(0), event(1))
    host = bench.host()
    await host.assign([("events", 0)])
    await bench.feed(host)
    await host.revoke([("events", 0)])
    assert bench.committed == [{("events", 0): 2}]
    assert host.positions() == {}
    bench.write(event(2))
    await bench.feed(host, position=2)  # a batch that was under way: somebody else folds it
    assert len(bench.outputs()) == 2
    other = bench.host()
    assert await other.assign([("events", 0)]) == {("events", 0): 2}


async def test_a_new_assignment_goes_on_where_the_old_one_ended(bench: Bench) -> None:
    bench.write(event(0), event(1))
    host = bench.host()
    await host.assign([("events", 0)])
    await bench.feed(host)
    assert await host.assign([("events", 0)]) == {("events", 0): 2}
    bench.write(event(2))
    await bench.feed(host)
    await host.close()
    assert [message.payload.values[0].integer for message in bench.outputs()] == [1, 2, 3]
    assert bench.sink.named(0) == [message.id for message in bench.outputs()]


async def test_every_partition_has_a_heart_of_its_own(tmp_path: Path) -> None:
    bench = Bench(tmp_path, spread=2)
    bench.write(event(0, 0), event(0, 1), event(1, 1))
    host = bench.host()
    await host.assign([("events", 0), ("events", 1)])
    await bench.feed(host, partition=0)
    await bench.feed(host, partition=1)
    await host.close()
    assert bench.checkpoints.load("tally", 0)["heart"]["counts"] == [["a", 1]]  # type: ignore[index]
    assert bench.checkpoints.load("tally", 1)["heart"]["counts"] == [["a", 2]]  # type: ignore[index]


async def test_a_heart_of_two_topics_is_restored_before_the_first_record_of_either(tmp_path: Path) -> None:
    bench = Bench(tmp_path, spread=2)
    host = bench.host(inputs=("events", "predictions"))
    assert host.members(1) == {("events", 1), ("predictions", 1)}
    positions = await host.assign([("events", 1), ("predictions", 1)])
    assert positions == {("events", 1): 0, ("predictions", 1): 0}
    with pytest.raises(AssignmentSplit, match="predictions"):
        await bench.host(inputs=("events", "predictions")).assign([("events", 0)])


async def test_a_single_heart_takes_every_partition_of_every_input(tmp_path: Path) -> None:
    bench = Bench(tmp_path, spread=2)
    host = bench.host(inputs=("predictions", "scores"), single=True)
    assert host.members(0) == {("predictions", 0), ("predictions", 1), ("scores", 0)}
    await host.assign(sorted(host.members(0)))
    assert list(host.groups) == [0]


async def test_a_checkpoint_of_another_spread_is_refused(bench: Bench) -> None:
    bench.write(event(0))
    host = bench.host()
    await host.assign([("events", 0)])
    await bench.feed(host)
    await host.close()
    with pytest.raises(RestoreRefused, match="partitions"):
        await bench.host(spread=2).assign([("events", 0)])


async def test_a_checkpoint_that_cannot_be_saved_ends_the_hosting(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError("no space left")

    monkeypatch.setattr(bench.checkpoints, "save_packed", full)
    bench.write(event(0))
    host = bench.host()
    await host.assign([("events", 0)])
    await bench.feed(host)
    await host.request_checkpoint()
    assert isinstance(await asyncio.wait_for(host.wait_failed(), 1), OSError)
    assert bench.committed == []
