"""Which parts of the offline log count: one manifest per stage and partition, written after the checkpoint that names it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from driftloop.featurestore.errors import LogDamaged

Stage = Literal["events", "features"]
STAGES: tuple[Stage, ...] = ("events", "features")
MANIFEST_VERSION = 1
MANIFEST_BYTES_MAX = 16 << 20


@dataclass(frozen=True)
class Part:
    """One immutable Parquet file: rows `first` to `last` (offsets in `events`, sequences of updates) of a table.

    `table`: a view's name, or "" in the events stage. `level`: how often it was merged.
    """

    path: str
    table: str
    first: int
    last: int
    rows: int
    level: int = 0

    def to_plain(self) -> list[Any]:
        """As plain values, for checkpoints and manifests."""
        return [self.path, self.table, self.first, self.last, self.rows, self.level]

    @staticmethod
    def from_plain(values: Sequence[Any]) -> Part:
        """Back from plain values."""
        path, table, first, last, rows, level = values
        return Part(str(path), str(table), int(first), int(last), int(rows), int(level))


@dataclass(frozen=True)
class Manifest:
    """What of one stage's partition counts. Everything known at or before `clock_us` is in `parts`; some of later may be."""

    stage: Stage
    partition: int
    spread: int
    clock_us: int
    parts: tuple[Part, ...]

    def to_json(self) -> bytes:
        """The file's bytes."""
        document = {
            "version": MANIFEST_VERSION,
            "stage": self.stage,
            "partition": self.partition,
            "spread": self.spread,
            "clock_us": self.clock_us,
            "parts": [part.to_plain() for part in self.parts],
        }
        return json.dumps(document, separators=(",", ":")).encode()

    @staticmethod
    def from_json(data: bytes) -> Manifest:
        """LogDamaged if it is none of this version."""
        try:
            found = json.loads(data)
            if found["version"] != MANIFEST_VERSION:
                raise LogDamaged(f"manifest of version {found['version']}, this process reads {MANIFEST_VERSION}")
            parts = tuple(Part.from_plain(values) for values in found["parts"])
            return Manifest(found["stage"], found["partition"], found["spread"], found["clock_us"], parts)
        except (ValueError, KeyError, TypeError) as error:
            raise LogDamaged(f"a manifest cannot be read: {error}") from error


def manifest_folder(use_case: str) -> str:
    """Where a use case's manifests lie in the artifact store."""
    return f"{use_case}/offline/manifests"


def manifest_path(use_case: str, stage: Stage, partition: int) -> str:
    """One manifest's path in the artifact store."""
    return f"{manifest_folder(use_case)}/{stage}-{partition}.json"


def part_path(use_case: str, stage: Stage, table: str, partition: int, first: int, last: int) -> str:
    """One part's path in the artifact store."""
    place = f"{stage}/{table}" if table else stage
    return f"{use_case}/offline/{place}/{partition}/{first:012d}-{last:012d}.parquet"
