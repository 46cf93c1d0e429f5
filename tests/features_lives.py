"""Features' two stages on a bus in memory, whose process may die at anything that leaves it: a message, a file, half a checkpoint."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from driftloop.artifacts import ArtifactStore
from driftloop.contracts import Message, from_value, watermark
from driftloop.featurestore.log import OfflineLogReader, view_schema
from driftloop.messaging import MemoryBus, MemoryReader
from driftloop.messaging.heart_host import HeartHost
from driftloop.messaging.hosting import HostSettings
from driftloop.telemetry import instruments
from driftloop.usecase import MINUTE_US, UseCase
from services.features.gateways import build_hosts
from services.features.instruments import OnlineInstruments
from services.features.online import OnlineBounds, OnlineWriteBehind
from tests.mortal import Died, Fate, MortalProducer
from tests.tiny_usecase import START_US, told

SPREAD = 2
_BOUNDS = OnlineBounds(every_s=1.0, batch_rows_max=10, rows_max=100, retry_s_max=1.0)


class _MortalStore(ArtifactStore):
    """Dies before a file is written, or right after."""

    fate = Fate(None)

    def put(self, path: str, data: bytes, *, private: bool = False) -> None:
        self.fate.step()
        super().put(path, data, private=private)
        self.fate.step()


def events_of(use_case: UseCase, seed: int, count: int) -> list[Message[Any]]:
    """Events of some lines with late and repeated ones among them, and watermarks of both partitions behind every few."""
    drawn = random.Random(seed)
    found: list[Message[Any]] = []
    clock_us = START_US
    for number in range(count):
        clock_us += drawn.randrange(4 * MINUTE_US)
        at_us = clock_us - drawn.choice((0, 0, drawn.randrange(90 * MINUTE_US)))
        again = drawn.random() < 0.1 and number > 5
        name = f"t{number - 5 if again else number}"
        kind = drawn.choice(("left", "came"))
        event = told(use_case.name, kind, name, at_us, line=f"l{drawn.randrange(4)}", delay=drawn.uniform(-9, 99))
        event.payload.known_at_us = event.known_at_us = clock_us
        found.append(event)
        if drawn.random() < 0.3 or number + 1 == count:
            found += [watermark("events", partition, "ingest", clock_us) for partition in range(SPREAD)]
    return found


async def _live(use_case: UseCase, bus: MemoryBus, folder: Path, fate: Fate, drawn: random.Random) -> bool:
    """One life: True if it came to the end of both topics and stopped in order."""
    _MortalStore.fate = fate
    producer, declared = MortalProducer(bus, fate, drawn), instruments("features")
    hosts = build_hosts(
        use_case,
        SPREAD,
        producer,
        _MortalStore(folder / "artifacts"),
        declared,
        OnlineWriteBehind(_no_store, _BOUNDS, OnlineInstruments(declared)),
        HostSettings(checkpoint_records=9, fold_records_max=5, checkpoint_load_max=1, checkpoint_s=1e6),
    )
    try:
        readers = [await _reader(host, bus) for host in hosts]
        idle = 0
        while idle < 2:
            idle = 0 if await _turn(hosts, readers, drawn) else idle + 1
            if idle:
                await producer.drained()  # what its queue held may be what the other stage waits for
        for host in hosts:
            await host.close()
        await producer.drained()
    except Died:
        return False
    finally:
        for host in hosts:
            if host._ticker is not None:
                host._ticker.cancel()
    return not any(host._failed.is_set() for host in hosts)


async def _reader(host: HeartHost, bus: MemoryBus) -> MemoryReader:
    positions = await host.assign([(topic, partition) for topic in host.inputs for partition in range(SPREAD)])
    reader = bus.reader(list(host.inputs))
    reader.seek(positions)
    return reader


async def _turn(hosts: Sequence[HeartHost], readers: Sequence[MemoryReader], drawn: random.Random) -> bool:
    """Each stage folds some of what is there; whether there was anything."""
    any_work = False
    for host, reader in zip(hosts, readers, strict=True):
        batch = reader.poll(0, drawn.randint(1, 12))
        any_work |= bool(batch)
        # In one order: how far a partition runs ahead of another decides what values lie between, so it may not be by chance.
        for place in sorted({(record.topic, record.partition) for record in batch}):
            await host.deliver(place, [record for record in batch if (record.topic, record.partition) == place])
        for _ in range(drawn.randint(0, 3)):
            await asyncio.sleep(0)
        if any(other._failed.is_set() for other in hosts):
            raise Died
    return any_work


def _no_store() -> Any:
    raise AssertionError("the write-behind is not started here")


def lived(use_case: UseCase, folder: Path, messages: Sequence[Message[Any]], deaths: Sequence[int], seed: int) -> Any:
    """What can be seen in the end: values of every key at every clock of the log, events logged, values emitted last."""
    bus = MemoryBus(use_case.name, SPREAD)
    producer = bus.producer()
    for message in messages:
        producer.send(message)
    for life, after in enumerate([*deaths, None]):
        if asyncio.run(_live(use_case, bus, folder, Fate(after), random.Random(seed + life))):
            break
    return seen(use_case, bus, folder)


def seen(use_case: UseCase, bus: MemoryBus, folder: Path) -> dict[str, Any]:
    """The log's events and values, and the topic's newest values."""
    snapshot = OfflineLogReader(ArtifactStore(folder / "artifacts"), use_case.name).snapshot()
    values: dict[Any, tuple[int, Any]] = {}
    ids: list[str] = []
    for view in use_case.views:
        for row in snapshot.updates(view.name, view_schema(view)).to_table().to_pylist():
            key, event_time, known_at, sequence, update_id, *now = row.values()
            ids.append(update_id)
            place = (key, known_at)
            if place not in values or values[place][0] < sequence:
                values[place] = (sequence, (event_time, now))
    newest: dict[str, tuple[int, list[Any]]] = {}
    for record in bus.reader(["features"]).poll(0, 1_000_000):
        payload = record.message.payload
        if not record.message.is_watermark and newest.get(record.message.key, (-1,))[0] < payload.sequence:
            newest[record.message.key] = (payload.sequence, [from_value(value) for value in payload.values])
    assert len(ids) == len(set(ids)), "a value was logged twice"
    return {
        "clock": snapshot.clock_us,
        "events": sorted(snapshot.events().to_table()["id"].to_pylist()),
        "values": {place: now for place, (_, now) in values.items()},
        "newest": {key: now for key, (_, now) in newest.items()},
    }
