"""What comes singly leaves together, in order, and nothing of it is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from driftloop.contracts import Encoded, watermark
from driftloop.messaging import MemoryBus
from services.ingest.gateways import Outbox
from tests.unit.ingest_twin import StubbornProducer


class Sender:
    """An outbox that gathers until it is told otherwise, and what its callers were told."""

    def __init__(self, gather_s: float = 60.0) -> None:
        self.bus = MemoryBus("test", 1)
        self.producer = StubbornProducer(self.bus)
        self.outbox = Outbox(self.producer, gather_s)
        self.told: dict[str, Exception | None] = {}

    def send(self, *names: str) -> int:
        records = [Encoded(b"key", name.encode(), []) for name in names]
        return self.outbox.send_encoded("events", records, lambda lost: self.told.update({names[0]: lost}))

    def written(self) -> list[str]:
        records = self.bus.records("events", 0)
        return ["mark" if record.key.startswith(b"~") else record.value.decode() for record in records]

    async def until(self, written: Sequence[str]) -> None:
        async with asyncio.timeout(5):
            while self.written() != list(written):
                await asyncio.sleep(0.001)


async def test_a_lone_event_leaves_at_once_and_those_behind_it_together_later() -> None:
    sender = Sender(gather_s=0.001)
    sender.producer.hold = True
    assert sender.send("a") == 1
    assert sender.written() == ["a"]
    assert (sender.send("b"), sender.send("c")) == (1, 1)
    assert sender.written() == ["a"]
    assert sender.outbox.queued == 3
    await sender.until(["a", "b", "c"])
    await asyncio.sleep(0)
    assert sender.told == {}
    sender.producer.release()
    assert sender.told == {"a": None, "b": None, "c": None}


async def test_whatever_else_is_sent_goes_behind_what_was_gathered() -> None:
    sender = Sender()
    sender.producer.hold = True
    sender.send("a")
    sender.send("b")
    sender.outbox.send(watermark("events", 0, "ingest", 5), lambda _: None)
    sender.send("c")
    sender.send("d", "e")
    sender.send("f")
    sender.outbox.close(1.0)
    assert sender.written() == ["a", "b", "mark", "c", "d", "e", "f"]


async def test_what_found_no_room_waits_for_it_and_keeps_its_order() -> None:
    sender = Sender(gather_s=0.001)
    sender.producer.hold = True
    sender.send("a")
    sender.producer.capacity = 2
    for name in ("b", "c", "d"):
        sender.send(name)
    await sender.until(["a", "b"])
    sender.producer.release()
    await sender.until(["a", "b", "c", "d"])
    await asyncio.sleep(0)
    assert sender.told == dict.fromkeys("abcd")


async def test_a_failure_is_told_to_everybody_who_was_gathered() -> None:
    sender = Sender(gather_s=0.001)
    sender.producer.hold = True
    sender.send("a")
    sender.send("b")
    sender.send("c")
    sender.producer.lose = "events"
    async with asyncio.timeout(5):
        while len(sender.told) < 2:
            await asyncio.sleep(0.001)
    assert set(sender.told) == {"b", "c"}
    assert all(isinstance(lost, Exception) for lost in sender.told.values())
