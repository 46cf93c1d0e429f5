"""A tiny heart and sink for tests of what hosts them: every output depends on the whole state, so a wrong state shows."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from driftloop.contracts import UNSET_US, Message, Record, derive_id, to_value
from driftloop.contracts.event.v1.event_pb2 import Event
from driftloop.contracts.features.v1.features_pb2 import FeatureUpdate


def event(number: int, partition: int = 0, entity: str = "a") -> Message[Event]:
    """An event of the test's use case, known at `number` seconds."""
    known_at_us = number * 1_000_000
    payload = Event(use_case="test", id=f"e{partition}-{number}", entity=entity, known_at_us=known_at_us)
    return Message("events", entity, payload, payload.id, "test", known_at_us, known_at_us, partition=partition)


class Tally:
    """Counts events per entity and says the count so far, under an id that holds it."""

    def __init__(self, partition: int) -> None:
        self.partition = partition
        self.counts: dict[str, int] = {}
        self.clock_us = UNSET_US
        self.needs_checkpoint = False

    def fold(self, records: list[Record]) -> list[Message[Any]]:
        """One message of topic `features` per event; `explode` breaks it, `decide` asks for a checkpoint."""
        self.needs_checkpoint = False
        out: list[Message[Any]] = []
        for record in records:
            message = record.message
            self.clock_us = max(self.clock_us, message.known_at_us)
            if message.is_watermark:
                continue
            if message.key == "explode":
                raise ArithmeticError("a fold that breaks")
            self.needs_checkpoint |= message.key == "decide"
            count = self.counts[message.key] = self.counts.get(message.key, 0) + 1
            out.append(
                Message(
                    topic="features",
                    key=message.key,
                    payload=FeatureUpdate(view="tally", key=message.key, values=[to_value(count)], sequence=count),
                    id=derive_id("tally", record.partition, record.offset, message.key, count),
                    source="test",
                    time_us=message.time_us,
                    known_at_us=message.known_at_us,
                    causes=(message.id,),
                    partition=record.partition,
                )
            )
        return out

    def snapshot(self) -> dict[str, Any]:
        """State as plain values."""
        return {"version": 1, "counts": self.counts, "clock_us": self.clock_us}

    def begin_snapshot(self) -> dict[str, Any]:
        """See `Heart.begin_snapshot`."""
        return {**self.snapshot(), "counts": iter(list(self.counts.items()))}

    def restore(self, state: dict[str, Any]) -> None:
        """Takes a snapshot back."""
        self.counts, self.clock_us = dict(state["counts"]), state["clock_us"]


class FileSink:
    """Writes ids of outputs into immutable parts that a manifest names, as the offline log does; full once a file `full` is there."""

    name = "files"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._rows: dict[int, list[str]] = {}
        self._parts: dict[int, list[str]] = {}

    def restore(self, group: int, heart: Any, state: Any) -> None:
        """See `Sink.restore`."""
        self._rows[group], self._parts[group] = [], list(state or [])
        if state is not None:
            self._manifest(group, state)

    def take(self, group: int, heart: Any, outputs: Sequence[Message[Any]]) -> None:
        """See `Sink.take`."""
        self._rows[group] += [message.id for message in outputs]

    def cut(self, group: int, heart: Any) -> FileCut:
        """See `Sink.cut`."""
        rows, self._rows[group] = self._rows[group], []
        part = f"{group}-{len(self._parts[group])}.json"
        self._parts[group] = [*self._parts[group], part]
        return FileCut(self, group, part, rows, self._parts[group])

    def release(self, group: int) -> None:
        """See `Sink.release`."""
        del self._rows[group], self._parts[group]

    def _manifest(self, group: int, parts: list[str]) -> None:
        fresh = self._folder / f"manifest-{group}.new"
        fresh.write_text(json.dumps(parts))
        fresh.replace(self._folder / f"manifest-{group}.json")

    def named(self, group: int) -> list[str]:
        """All rows that the manifest names."""
        manifest = self._folder / f"manifest-{group}.json"
        parts = json.loads(manifest.read_text()) if manifest.exists() else []
        return [row for part in parts for row in json.loads((self._folder / part).read_text())]


class FileCut:
    """See `Cut`."""

    def __init__(self, sink: FileSink, group: int, part: str, rows: list[str], parts: list[str]) -> None:
        self._sink, self._group, self._part, self._rows, self.state = sink, group, part, rows, parts

    def write(self) -> None:
        """See `Cut.write`."""
        if (self._sink._folder / "full").exists():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        (self._sink._folder / self._part).write_text(json.dumps(self._rows))

    def publish(self) -> None:
        """See `Cut.publish`."""
        self._sink._manifest(self._group, self.state)
