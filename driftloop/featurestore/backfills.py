"""What was computed anew from the event log: parts beside the live log, and which of them holds for which time.

A backfill owns its stretch of known time: there a join reads its updates alone, of two the later's. Outside of it, and for whoever
asks what serving could see, the live log holds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from driftloop.artifacts.errors import ArtifactNotFound
from driftloop.artifacts.store import ArtifactStore
from driftloop.contracts import derive_id
from driftloop.featurestore.errors import BackfillOvertaken, LogDamaged
from driftloop.featurestore.log import write_part
from driftloop.featurestore.manifest import MANIFEST_BYTES_MAX, manifest_folder

_VERSION = 1
_FOLDER = "backfills"
_GENERATIONS_MAX = 1_024
_LOWEST = -(1 << 62)

Span = tuple[int, int]
"""From a known time until before another, in microseconds."""


def backfilled_sequence(known_at_us: int, generation: int) -> int:
    """The sequence of a backfilled update: below every live one, rising with the time, then with the generation.

    >>> backfilled_sequence(2, 1) < backfilled_sequence(2, 2) < backfilled_sequence(3, 1) < 0
    True
    """
    return _LOWEST + known_at_us * _GENERATIONS_MAX + min(generation, _GENERATIONS_MAX - 1)


@dataclass(frozen=True)
class Backfill:
    """One backfill: its number, the stretch that it owns, and its parts' paths by view."""

    generation: int
    from_us: int
    to_us: int
    parts: Mapping[str, Sequence[str]]


def backfills(store: ArtifactStore, use_case: str) -> list[Backfill]:
    """All backfills of a use case that count, oldest first; LogDamaged."""
    try:
        found = json.loads(store.get(_manifest_path(use_case), MANIFEST_BYTES_MAX))
        if found["version"] != _VERSION:
            raise LogDamaged(f"backfills of version {found['version']}, this process reads {_VERSION}")
        return [Backfill(b["generation"], b["from_us"], b["to_us"], b["parts"]) for b in found["backfills"]]
    except ArtifactNotFound:
        return []
    except (ValueError, KeyError, TypeError) as error:
        raise LogDamaged(f"the list of backfills cannot be read: {error}") from error


def owners(found: Sequence[Backfill], view: str) -> list[tuple[Backfill, list[Span]]]:
    """The backfills of a view, newest first, each with the spans in which it holds."""
    taken: list[Span] = []
    owning = []
    for backfill in reversed(found):
        if view in backfill.parts:
            spans = _without((backfill.from_us, backfill.to_us), taken)
            taken.append((backfill.from_us, backfill.to_us))
            if spans:
                owning.append((backfill, spans))
    return owning


def _without(span: Span, taken: Sequence[Span]) -> list[Span]:
    left = [span]
    for begin, end in taken:
        left = [
            (a, b) for start, stop in left for a, b in ((start, min(stop, begin)), (max(start, end), stop)) if a < b
        ]
    return left


class BackfillWriter:
    """Writes the parts of one backfill; they count from `publish` on. What a crash leaves behind is read by nobody."""

    def __init__(self, store: ArtifactStore, use_case: str, from_us: int, to_us: int) -> None:
        self._store = store
        self._use_case = use_case
        self._before = backfills(store, use_case)
        self._span = (from_us, to_us)
        self._parts: dict[str, list[str]] = {}
        self.generation = 1 + max((each.generation for each in self._before), default=0)
        self.id = derive_id("backfill", use_case, self.generation, from_us, to_us)

    def add(self, view: str, table: pa.Table) -> None:
        """Writes updates of a view, columns as in `view_schema`; a view without any owns its stretch as well."""
        parts = self._parts.setdefault(view, [])
        if len(table):
            path = f"{self._use_case}/offline/{_FOLDER}/{self.generation:06d}-{self.id}/{view}/{len(parts):06d}.parquet"
            write_part(self._store, path, table)
            parts.append(path)

    def publish(self) -> Backfill:
        """Lets readers see it; BackfillOvertaken if another one was published since this one began."""
        if [each.generation for each in backfills(self._store, self._use_case)] != [b.generation for b in self._before]:
            raise BackfillOvertaken("another backfill was published meanwhile: run this one again")
        made = Backfill(self.generation, *self._span, self._parts)
        rows = [
            {"generation": b.generation, "from_us": b.from_us, "to_us": b.to_us, "parts": b.parts}
            for b in [*self._before, made]
        ]
        document: dict[str, Any] = {"version": _VERSION, "backfills": rows}
        self._store.put(_manifest_path(self._use_case), json.dumps(document, separators=(",", ":")).encode())
        return made


def _manifest_path(use_case: str) -> str:
    return f"{manifest_folder(use_case)}/backfills.json"
