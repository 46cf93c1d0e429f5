"""The prediction log: spooled before an answer leaves, sent in order, forgotten only when the broker has it."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from driftloop.contracts import Encoded, Message, decode
from driftloop.contracts.serving.v1.serving_pb2 import Prediction
from driftloop.messaging import DeliveryFailed, QueueFull
from services.serving.errors import AlreadyRunning, LogFull
from services.serving.gateways.log import PredictionLog
from services.serving.gateways.spool import Spool
from services.serving.gateways.watermarks import WatermarkWriter
from services.serving.instruments import ServingInstruments
from services.serving.logged import Logged, logged_of

SEGMENT_BYTES = 1_000
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
OnAck = Callable[[Exception | None], None]


class HeldProducer:
    """A producer whose broker answers when the test says so: `acks` are by message, or by group of records."""

    def __init__(self) -> None:
        self.sent: list[Message[Any]] = []
        self.acks: list[OnAck | None] = []
        self.turns: list[int] = []
        self.full = False
        self.room = 1_000
        self._grew = asyncio.Event()

    @property
    def queued(self) -> int:
        return len(self.sent)

    def send(self, message: Message[Any], on_ack: OnAck | None = None) -> None:
        if self.full:
            raise QueueFull(0.001)
        self.sent.append(message)
        self.acks.append(on_ack)
        self._grew.set()

    def send_encoded(self, topic: str, records: Sequence[Encoded], on_ack: OnAck) -> int:
        if self.full:
            raise QueueFull(0.001)
        taken = records[: self.room]
        self.sent += [decode(topic, *record) for record in taken]
        self.turns.append(len(taken))
        self.acks.append(on_ack)
        self._grew.set()
        return len(taken)

    async def has_sent(self, count: int) -> None:
        async with asyncio.timeout(5):
            while len(self.sent) < count:
                self._grew.clear()
                await self._grew.wait()

    def acknowledge(self, *indexes: int, error: Exception | None = None) -> None:
        for index in indexes:
            on_ack = self.acks[index]
            assert on_ack is not None
            on_ack(error)

    async def drained(self) -> None: ...

    def close(self, timeout_s: float) -> None: ...

    def ids(self) -> list[str]:
        return [message.id for message in self.sent if not message.is_watermark]


def spool(folder: Path, max_bytes: int = 100_000) -> Spool:
    return Spool(folder, SEGMENT_BYTES, max_bytes)


def answer(number: int, traceparent: str = "") -> Logged:
    return logged_of(Prediction(use_case="orders", id=f"p{number}", entity=f"o{number}", as_of_us=1), traceparent)


def log(kept: Spool, producer: HeldProducer) -> PredictionLog:
    return PredictionLog(kept, producer, 0, ServingInstruments(), pause_s=0.0)


@asynccontextmanager
async def running(*work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Runs endless work beside a test."""
    tasks = [asyncio.create_task(one) for one in work]
    await settled()
    yield
    for task in tasks:
        task.cancel()
    assert all(isinstance(end, asyncio.CancelledError) for end in await asyncio.gather(*tasks, return_exceptions=True))


async def settled() -> None:
    """Lets the loop run what is ready."""
    for _ in range(5):
        await asyncio.sleep(0)


# The spool alone


def test_what_was_appended_and_not_acknowledged_is_recovered_in_order(tmp_path: Path) -> None:
    first = spool(tmp_path)
    positions = [first.append([b"x%d" % n * 40]) for n in range(100)]
    assert len(list(tmp_path.glob("*.log"))) > 3
    first.acknowledge(positions[59])
    left = first.bytes
    first.close()
    again = spool(tmp_path)
    assert again.bytes == left
    assert [body for _, body in again.recover()] == [b"x%d" % n * 40 for n in range(60, 100)]
    assert again.bytes == left


def test_acknowledged_segments_are_removed(tmp_path: Path) -> None:
    kept = spool(tmp_path)
    positions = [kept.append([b"x" * 400]) for _ in range(10)]
    kept.acknowledge(positions[-1])
    assert len(list(tmp_path.glob("*.log"))) == 1
    assert kept.bytes == 0


def test_a_record_cut_short_by_a_crash_is_left_out_and_counted(tmp_path: Path) -> None:
    first = spool(tmp_path)
    first.append([b"whole"])
    first.append([b"half written"])
    first.close()
    segment = next(tmp_path.glob("*.log"))
    segment.write_bytes(segment.read_bytes()[:-3])
    again = spool(tmp_path)
    assert [body for _, body in again.recover()] == [b"whole"]
    assert again.torn_bytes == len(b"half written") + 8 - 3
    assert again.bytes == len(b"whole") + 8


def test_a_flipped_bit_ends_its_segment_and_no_other(tmp_path: Path) -> None:
    first = spool(tmp_path)
    for n in range(8):
        first.append([b"%d" % n * 300])
    first.close()
    segment = min(tmp_path.glob("*.log"))
    data = bytearray(segment.read_bytes())
    data[20] ^= 1
    segment.write_bytes(data)
    again = spool(tmp_path)
    recovered = [body for _, body in again.recover()]
    assert recovered == [b"%d" % n * 300 for n in range(3, 8)]


def test_a_full_spool_takes_nothing_of_a_batch(tmp_path: Path) -> None:
    full = spool(tmp_path, max_bytes=1_000)
    position = full.append([b"x" * 800])
    before = full.bytes
    with pytest.raises(LogFull, match="bound is 1000"):
        full.append([b"y", b"x" * 300])
    assert full.bytes == before
    full.acknowledge(position)
    full.append([b"x" * 300])
    full.close()
    assert [body for _, body in spool(tmp_path).recover()] == [b"x" * 300]


def test_recovered_answers_can_be_acknowledged_one_by_one(tmp_path: Path) -> None:
    first = spool(tmp_path)
    for n in range(6):
        first.append([b"%d" % n * 300])
    first.close()
    second = spool(tmp_path)
    places = [position for position, _ in second.recover()]
    second.append([b"new"])
    second.acknowledge(places[3])
    second.close()
    third = spool(tmp_path)
    assert [body for _, body in third.recover()] == [b"4" * 300, b"5" * 300, b"new"]


def test_a_damaged_marker_sends_again_rather_than_loses(tmp_path: Path) -> None:
    first = spool(tmp_path)
    first.acknowledge(first.append([b"a"]))
    first.append([b"b"])
    first.close()
    (tmp_path / "acknowledged").write_bytes(b"\xff" * 20)
    assert [body for _, body in spool(tmp_path).recover()] == [b"a", b"b"]


def test_two_processes_cannot_own_one_spool(tmp_path: Path) -> None:
    held = spool(tmp_path)
    with pytest.raises(AlreadyRunning):
        spool(tmp_path)
    held.close()
    spool(tmp_path).close()


def _append_for_ever(folder: Path, told: Any) -> None:
    mine, number = spool(folder, max_bytes=10**9), 0
    while True:
        mine.append([b"%d" % number])
        told.send(number)
        number += 1


def test_kill_9_loses_nothing_that_was_appended(tmp_path: Path) -> None:
    receiving, sending = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(
        target=_append_for_ever, args=(tmp_path, sending), daemon=True
    )
    process.start()
    sending.close()
    while receiving.recv() < 500:
        pass
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    last = 500
    while receiving.poll():
        try:
            last = receiving.recv()
        except EOFError:
            break
    recovered = [int(body) for _, body in spool(tmp_path).recover()]
    assert recovered[: last + 1] == list(range(last + 1))


# The log: spool and producer together


async def test_answers_are_forgotten_only_when_the_broker_has_them(tmp_path: Path) -> None:
    producer, on_disk = HeldProducer(), spool(tmp_path)
    kept = log(on_disk, producer)
    async with running(kept.run()):
        kept.write([answer(1)], 1)
        await settled()
        kept.write([answer(2)], 1)
        drained = asyncio.create_task(kept.drained())
        await producer.has_sent(2)
        assert producer.ids() == ["p1", "p2"]
        producer.acknowledge(1)
        await settled()
        assert not drained.done()
        producer.acknowledge(0)
        await drained
    on_disk.close()
    assert list(spool(tmp_path).recover()) == []


async def test_after_a_restart_the_rest_goes_first_with_its_trace(tmp_path: Path) -> None:
    producer, on_disk = HeldProducer(), spool(tmp_path)
    before = log(on_disk, producer)
    async with running(before.run()):
        before.write([answer(1, TRACEPARENT)], 1)
        await settled()
        before.write([answer(2, TRACEPARENT)], 1)
        before.write([answer(3)], 1)
        await producer.has_sent(3)
        producer.acknowledge(0)
        await settled()
    on_disk.close()

    after = HeldProducer()
    kept = log(spool(tmp_path), after)
    assert kept.recover() == 2
    kept.write([answer(4)], 1)
    async with running(kept.run()):
        assert after.ids() == ["p2", "p3", "p4"]
        assert [message.traceparent for message in after.sent] == [TRACEPARENT, "", ""]
        after.acknowledge(0)
        await kept.drained()


async def test_a_full_queue_keeps_the_order_and_loses_nothing(tmp_path: Path) -> None:
    producer = HeldProducer()
    kept = log(spool(tmp_path), producer)
    async with running(kept.run()):
        producer.full = True
        kept.write([answer(1)], 1)
        await settled()
        kept.write([answer(2)], 1)
        producer.full = False
        await producer.has_sent(2)
        assert producer.ids() == ["p1", "p2"]


async def test_what_finds_no_room_in_the_queue_follows_and_counts_only_when_all_of_it_has_arrived(
    tmp_path: Path,
) -> None:
    producer = HeldProducer()
    producer.room = 2
    kept = log(spool(tmp_path), producer)
    async with running(kept.run()):
        kept.write([answer(1), answer(2), answer(3)], 1)
        drained = asyncio.create_task(kept.drained())
        await producer.has_sent(3)
        assert producer.ids() == ["p1", "p2", "p3"]
        producer.acknowledge(0)
        await settled()
        assert not drained.done()
        producer.acknowledge(1)
        await drained


async def test_the_answers_of_many_calls_travel_together(tmp_path: Path) -> None:
    producer = HeldProducer()
    kept = log(spool(tmp_path), producer)
    for number in range(10):
        kept.write([answer(number)], 1)
    async with running(kept.run()):
        await producer.has_sent(10)
        assert len(producer.acks) == 1
        producer.acknowledge(0)
        await kept.drained()


@pytest.mark.parametrize(("answers", "turns"), [(40, [32, 8]), (400, [50] * 8), (1_200, [512, 512, 176])])
async def test_few_answers_are_sent_in_small_turns_and_many_in_large_ones(
    tmp_path: Path, answers: int, turns: list[int]
) -> None:
    producer = HeldProducer()
    kept = log(spool(tmp_path), producer)
    for number in range(answers):
        kept.write([answer(number)], 1)
    async with running(kept.run()):
        await producer.has_sent(answers)
        assert producer.turns == turns


async def test_what_the_broker_did_not_take_is_sent_again_and_holds_the_watermark_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.serving.gateways.log._RESEND_AFTER_S", 0.0)
    producer = HeldProducer()
    kept = log(spool(tmp_path), producer)
    watermarks = WatermarkWriter(kept, producer, 0, 2)
    async with running(kept.run(), watermarks.run()):
        kept.write([answer(1)], 1)
        watermarks.reach(10)
        await producer.has_sent(1)
        producer.acknowledge(0, error=DeliveryFailed("timed out"))
        await producer.has_sent(2)
        assert producer.ids() == ["p1", "p1"]
        producer.acknowledge(1)
        await producer.has_sent(4)
        assert [(m.payload.writer, m.partition, m.known_at_us) for m in producer.sent[2:]] == [
            ("serving/0", 0, 10),
            ("serving/0", 1, 10),
        ]


async def test_a_watermark_waits_for_every_answer_given_before_it_and_for_none_given_after(tmp_path: Path) -> None:
    producer = HeldProducer()
    kept = log(spool(tmp_path), producer)
    watermarks = WatermarkWriter(kept, producer, 3, 1)
    async with running(kept.run(), watermarks.run()):
        kept.write([answer(1)], 1)
        watermarks.reach(10)
        await producer.has_sent(1)
        kept.write([answer(11)], 1)
        await producer.has_sent(2)
        assert [m.id for m in producer.sent] == ["p1", "p11"]
        producer.acknowledge(0)
        await producer.has_sent(3)
        assert [m.payload.writer for m in producer.sent if m.is_watermark] == ["serving/3"]


async def test_a_watermark_that_the_broker_did_not_take_is_written_again(tmp_path: Path) -> None:
    producer = HeldProducer()
    watermarks = WatermarkWriter(log(spool(tmp_path), producer), producer, 0, 1)
    async with running(watermarks.run()):
        watermarks.reach(10)
        await producer.has_sent(1)
        producer.acknowledge(0, error=DeliveryFailed("timed out"))
        await producer.has_sent(2)
        assert [m.known_at_us for m in producer.sent] == [10, 10]


async def test_a_full_log_refuses_the_answer(tmp_path: Path) -> None:
    kept = log(spool(tmp_path, max_bytes=60), HeldProducer())
    kept.write([answer(1)], 1)
    with pytest.raises(LogFull):
        kept.write([answer(2), answer(3)], 1)
