"""Wherever a process dies, what comes out by distinct id, and what sinks hold, is what an undisturbed run gives."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from driftloop.artifacts import ArtifactStore
from driftloop.artifacts.checkpoints import CheckpointStore
from driftloop.contracts import decode
from driftloop.messaging import MemoryBus
from driftloop.messaging.heart_host import HeartHost
from driftloop.messaging.hosting import HostSettings
from tests.hearts import FileCut, FileSink, Tally, event
from tests.mortal import Died, Fate, MortalProducer

EVENTS = 60


class MortalStore(CheckpointStore):
    fate = Fate(None)

    def save_packed(self, heart: str, partition: int, packed: bytes) -> int:
        self.fate.step()
        written = super().save_packed(heart, partition, packed)
        self.fate.step()
        return written


class MortalSink(FileSink):
    fate = Fate(None)

    def cut(self, group: int, heart: Any) -> FileCut:
        cut = super().cut(group, heart)
        write, publish = cut.write, cut.publish

        def mortal_write() -> None:
            self.fate.step()
            write()

        def mortal_publish() -> None:
            self.fate.step()
            publish()

        cut.write, cut.publish = mortal_write, mortal_publish  # type: ignore[method-assign]
        return cut


async def _live(bus: MemoryBus, folder: Path, fate: Fate, seed: int) -> bool:
    """One life of the process: True if it came to the end of the topic and stopped in order."""
    drawn = random.Random(seed)
    MortalStore.fate = MortalSink.fate = fate
    checkpoints = MortalStore(ArtifactStore(folder / "store"), "test")
    producer = MortalProducer(bus, fate, drawn)
    host = HeartHost(
        "tally",
        ["events"],
        Tally,
        producer,
        checkpoints,
        use_case="test",
        service="features",
        spread=1,
        sinks=[MortalSink(folder / "sink")],
        settings=HostSettings(checkpoint_records=7, fold_records_max=5, checkpoint_load_max=1, checkpoint_s=1e6),
    )
    try:
        positions = await host.assign([("events", 0)])
        reader = bus.reader(["events"])
        reader.seek(positions)
        while batch := reader.poll(0, drawn.randint(1, 12)):
            await host.deliver(("events", 0), batch)
            for _ in range(drawn.randint(0, 3)):
                await asyncio.sleep(0)
        await host.close()
        await producer.drained()
    except Died:
        return False
    finally:
        if host._ticker is not None:
            host._ticker.cancel()
    return not host._failed.is_set()


def _run(folder: Path, deaths: list[int], seed: int) -> tuple[list[str], list[str]]:
    """Distinct ids of outputs in order of first appearance, and what the sink's manifest names."""
    bus = MemoryBus("test", 1)
    drawn = random.Random(seed)
    for number in range(EVENTS):
        bus.append(event(number, entity="decide" if drawn.random() < 0.1 else f"x{drawn.randint(0, 3)}"))
    for life, after in enumerate([*deaths, None]):
        if asyncio.run(_live(bus, folder, Fate(after), seed + life)):
            break
    ids = dict.fromkeys(decode("features", *encoded).id for encoded in bus.records("features", 0))
    return list(ids), FileSink(folder / "sink").named(0)


@settings(max_examples=60)
@given(deaths=st.lists(st.integers(0, 120), max_size=4), seed=st.integers(0, 3))
def test_deaths_at_any_point_change_nothing_that_can_be_seen(
    tmp_path_factory: Any, deaths: list[int], seed: int
) -> None:
    expected, rows = _run(tmp_path_factory.mktemp("calm"), [], seed)
    assert len(expected) == EVENTS
    assert rows == expected
    assert _run(tmp_path_factory.mktemp("mortal"), deaths, seed) == (expected, expected)
