"""The offline log: immutable Parquet parts that count once a manifest names them; never a value's computation.

A writer is a sink of a hosted heart: what it gathers is cut at a checkpoint, written before the checkpoint is saved, named
in the checkpoint, and shown to readers by a manifest after it. A crash anywhere in between leaves at most a file that
nobody counts: the records behind it are folded again and cut again.
"""

from __future__ import annotations

import io
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet

from driftloop.artifacts.errors import ArtifactNotFound
from driftloop.artifacts.store import ArtifactStore
from driftloop.contracts import UNSET_US, Message, Record
from driftloop.featurestore.errors import FeatureStoreError, LogBehind, LogDamaged, PartUnreadable
from driftloop.featurestore.manifest import (
    MANIFEST_BYTES_MAX,
    STAGES,
    Manifest,
    Part,
    Stage,
    manifest_path,
    part_path,
)
from driftloop.usecase import UseCase, View

KEY, EVENT_TIME, KNOWN_AT, SEQUENCE, UPDATE_ID = "key", "event_time", "known_at", "sequence", "update_id"
# The times once more as whole microseconds, for stores that keep timestamps in seconds: no columns, computed on reading.
EVENT_TIME_US, KNOWN_AT_US = "event_time_us", "known_at_us"
PARTS_PER_MERGE = 16
MERGED_ROWS_MAX = 500_000  # about 100 MB in memory while they are merged
OBSOLETE_CUTS = 16  # cuts for which a merged part's sources stay, so that a reader with an older manifest can finish
_TIME = pa.timestamp("us", tz="UTC")
_REPEATED = (KEY, "type")  # columns whose values come again

EVENTS_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("type", pa.string()),
        ("entity", pa.string()),
        (EVENT_TIME, _TIME),
        (KNOWN_AT, _TIME),
        ("offset", pa.int64()),
        ("fields", pa.binary()),
    ]
)


def view_schema(view: View) -> pa.Schema:
    """Columns of a view's parts: key, times, sequence, id of the update, and one column per feature (null is missing)."""
    return updates_schema({feature.name: feature.numeric for feature in view.features})


def updates_schema(features: Mapping[str, bool]) -> pa.Schema:
    """The schema of `view_schema` from names of features and whether they are numeric."""
    columns = [(name, pa.float64() if numeric else pa.string()) for name, numeric in features.items()]
    fixed = [
        (KEY, pa.string()),
        (EVENT_TIME, _TIME),
        (KNOWN_AT, _TIME),
        (SEQUENCE, pa.int64()),
        (UPDATE_ID, pa.string()),
    ]
    return pa.schema([*fixed, *columns])


class Clocked(Protocol):
    """A heart, as far as the log knows it."""

    @property
    def clock_us(self) -> int: ...


class Accepting(Clocked, Protocol):
    """The heart that knows which events are accepted for the first time."""

    def take_accepted(self) -> list[Record]: ...


class Updating(Clocked, Protocol):
    """The heart that says which updates its newest fold made, by view.

    An update is key, event time, known time, sequence, id and the list of the view's features (float, str or None: missing).
    """

    @property
    def updates(self) -> Mapping[str, Sequence[tuple[Any, ...]]]: ...


@dataclass
class _Group:
    """One partition's log: parts that count, columns of rows gathered since the last cut, and files to remove after some cuts."""

    parts: list[Part] = field(default_factory=list)
    columns: dict[str, list[list[Any]]] = field(default_factory=dict)
    obsolete: list[tuple[str, int]] = field(default_factory=list)


@dataclass(frozen=True)
class LogCut:
    """The rows of one cut on their way to being counted."""

    store: ArtifactStore
    manifest_file: str
    manifest: Manifest
    fresh: tuple[tuple[Part, pa.Schema, list[list[Any]]], ...]
    merges: tuple[tuple[Part, pa.Schema, tuple[Part, ...]], ...]
    obsolete: tuple[tuple[str, int], ...]
    removed: tuple[str, ...]

    @property
    def state(self) -> dict[str, Any]:
        """What the checkpoint keeps."""
        return {
            "clock_us": self.manifest.clock_us,
            "parts": [part.to_plain() for part in self.manifest.parts],
            "obsolete": [list(entry) for entry in self.obsolete],
        }

    def write(self) -> None:
        """Writes the new parts, then those merged from smaller ones."""
        for part, schema, columns in self.fresh:
            arrays = [pa.array(column, type=each.type) for column, each in zip(columns, schema, strict=True)]
            write_part(self.store, part.path, pa.Table.from_arrays(arrays, schema=schema))
        for part, schema, sources in self.merges:
            write_part(self.store, part.path, PartsRows(self.store, [s.path for s in sources], schema).to_table())

    def publish(self) -> None:
        """Shows the parts to readers and removes files that no manifest has named for a while."""
        self.store.put(self.manifest_file, self.manifest.to_json())
        for path in self.removed:
            self.store.delete(path)


class OfflineLogWriter(ABC):
    """Gathers rows per partition and cuts them into parts; one per stage. Not safe to share between threads."""

    stage: Stage
    place: str
    """The column of offsets or sequences by which a part's range is named."""

    def __init__(self, store: ArtifactStore, use_case: UseCase, spread: int) -> None:
        self._store = store
        self._use_case = use_case
        self._spread = spread
        self._groups: dict[int, _Group] = {}

    @property
    def name(self) -> str:
        """The sink's name in checkpoints."""
        return f"offline-{self.stage}"

    @abstractmethod
    def schema(self, table: str) -> pa.Schema:
        """Columns of a table."""

    def restore(self, group: int, heart: Clocked, state: Any) -> None:
        """Takes a checkpoint's state back and shows what it names: a crash may have come before `publish`."""
        del heart
        found = _Group()
        if state is not None:
            found.parts = [Part.from_plain(values) for values in state["parts"]]
            found.obsolete = [(path, int(cuts)) for path, cuts in state["obsolete"]]
            self._cut_of(group, found, state["clock_us"], [], [], []).publish()
        self._groups[group] = found

    def append(self, group: int, table: str, columns: Sequence[Sequence[Any]]) -> None:
        """Gathers rows of a table (a view's name, "" for events), as columns of its schema."""
        held = self._groups.setdefault(group, _Group()).columns.setdefault(table, [[] for _ in columns])
        for column, more in zip(held, columns, strict=True):
            column += more

    def cut(self, group: int, heart: Clocked) -> LogCut:
        """Closes what was gathered since the last cut; it counts as soon as the checkpoint that holds its state is saved."""
        log = self._groups.setdefault(group, _Group())
        fresh, merges = [], []
        for table, columns in sorted(log.columns.items()):
            schema = self.schema(table)
            places = columns[schema.get_field_index(self.place)]
            first, last = min(places), max(places)
            part = Part(
                part_path(self._use_case.name, self.stage, table, group, first, last), table, first, last, len(places)
            )
            fresh.append((part, schema, columns))
            log.parts.append(part)
            merges += self._merge(group, log, table)
        log.columns = {}
        removed = [path for path, cuts in log.obsolete if cuts <= 1]
        log.obsolete = [(path, cuts - 1) for path, cuts in log.obsolete if cuts > 1]
        log.obsolete += [(source.path, OBSOLETE_CUTS) for _, _, sources in merges for source in sources]
        return self._cut_of(group, log, heart.clock_us, fresh, merges, removed)

    def _merge(self, group: int, log: _Group, table: str) -> list[tuple[Part, pa.Schema, tuple[Part, ...]]]:
        """Merges the newest parts of one level, level by level, so that their number grows with the logarithm of the cuts."""
        merges: list[tuple[Part, pa.Schema, tuple[Part, ...]]] = []
        while True:
            newest = [part for part in log.parts if part.table == table][-PARTS_PER_MERGE:]
            rows = sum(part.rows for part in newest)
            whole = len(newest) == PARTS_PER_MERGE and len({part.level for part in newest}) == 1
            if not whole or rows > MERGED_ROWS_MAX:
                return merges
            first, last = newest[0].first, max(part.last for part in newest)
            path = part_path(self._use_case.name, self.stage, table, group, first, last)
            merged = Part(path, table, first, last, rows, newest[0].level + 1)
            kept = [part for part in log.parts if part not in newest]
            log.parts = [*kept, merged]
            merges.append((merged, self.schema(table), tuple(newest)))

    def _cut_of(
        self, group: int, log: _Group, clock_us: int, fresh: list[Any], merges: list[Any], removed: list[str]
    ) -> LogCut:
        return LogCut(
            store=self._store,
            manifest_file=manifest_path(self._use_case.name, self.stage, group),
            manifest=Manifest(self.stage, group, self._spread, clock_us, tuple(log.parts)),
            fresh=tuple(fresh),
            merges=tuple(merges),
            obsolete=tuple(log.obsolete),
            removed=tuple(removed),
        )


class EventLogWriter(OfflineLogWriter):
    """Logs accepted events, each once, by the partition of `events` that they came from."""

    stage: Stage = "events"
    place = "offset"

    def schema(self, table: str) -> pa.Schema:
        return EVENTS_SCHEMA

    def take(self, group: int, heart: Accepting, outputs: Sequence[Message[Any]]) -> None:
        """Gathers what one fold accepted."""
        del outputs
        records = heart.take_accepted()
        if not records:
            return
        events = [record.message.payload for record in records]
        columns = (
            [event.id for event in events],
            [event.type for event in events],
            [event.entity for event in events],
            [event.event_time_us for event in events],
            [event.known_at_us for event in events],
            [record.offset for record in records],
            [event.SerializeToString() for event in events],
        )
        self.append(group, "", columns)


class FeatureLogWriter(OfflineLogWriter):
    """Logs feature updates by the partition of `features` that they go to."""

    stage: Stage = "features"
    place = SEQUENCE

    def __init__(self, store: ArtifactStore, use_case: UseCase, spread: int) -> None:
        super().__init__(store, use_case, spread)
        self._schemas = {view.name: view_schema(view) for view in use_case.views}

    def schema(self, table: str) -> pa.Schema:
        return self._schemas[table]

    def take(self, group: int, heart: Updating, outputs: Sequence[Message[Any]]) -> None:
        """Gathers the updates of one fold: more than its outputs, which hold what is left of them for the topic."""
        del outputs
        for view, updates in heart.updates.items():
            if updates:
                *columns, values = zip(*updates, strict=True)
                self.append(group, view, [*columns, *zip(*values, strict=True)])


class LogSnapshot:
    """What the manifests named at one moment. `clock_us`: everything known by then is in every stage and partition."""

    def __init__(self, store: ArtifactStore, manifests: Sequence[Manifest]) -> None:
        self._store = store
        self._manifests = manifests
        self.clock_us = min((manifest.clock_us for manifest in manifests), default=UNSET_US)

    def paths(self, stage: Stage, table: str = "") -> list[str]:
        """Paths in the artifact store of the parts of a stage's table."""
        return [
            part.path
            for manifest in self._manifests
            if manifest.stage == stage
            for part in manifest.parts
            if part.table == table
        ]

    def offset_ranges(self) -> dict[str, tuple[int, int]]:
        """What the log consists of: by stage, table and partition the first and last offset or sequence of its rows.

        How parts were cut and merged makes no difference.
        """
        found: dict[str, tuple[int, int]] = {}
        for manifest in self._manifests:
            for part in manifest.parts:
                name = "/".join(filter(None, (manifest.stage, part.table, str(manifest.partition))))
                first, last = found.get(name, (part.first, part.last))
                found[name] = (min(first, part.first), max(last, part.last))
        return found

    def events(self) -> PartsRows:
        """The accepted events, columns as in EVENTS_SCHEMA, in no order."""
        return PartsRows(self._store, self.paths("events"), EVENTS_SCHEMA)

    def updates(self, view: str, schema: pa.Schema) -> PartsRows:
        """The feature updates of a view, columns as in `view_schema`, in no order; features unknown to old parts are null."""
        return PartsRows(self._store, self.paths("features", view), schema)


class OfflineLogReader:
    """Reads what the writers' manifests name."""

    def __init__(self, store: ArtifactStore, use_case: str) -> None:
        self._store = store
        self._use_case = use_case

    def snapshot(self) -> LogSnapshot:
        """The log as it counts now; LogBehind while a manifest is missing, LogDamaged if they contradict each other."""
        manifests, missing = self._manifests()
        if missing:
            where = f"{self._use_case}'s offline log in {self._store.url}"
            raise LogBehind(
                f"{where}: not yet written: {', '.join(missing)}; features writes them once it runs (driftloop up), or "
                "correct DRIFTLOOP_ARTIFACTS_URL"
            )
        return LogSnapshot(self._store, manifests)

    def await_clock(self, clock_us: int, timeout_s: float, stop: threading.Event, pause_s: float = 0.1) -> LogSnapshot:
        """The log once everything known at or before `clock_us` is in it; LogBehind after `timeout_s` or once `stop` is set."""
        waited_s = 0.0
        while True:
            manifests, behind = self._manifests()
            behind += [f"{m.stage}-{m.partition} at {m.clock_us}" for m in manifests if m.clock_us < clock_us]
            if not behind:
                return LogSnapshot(self._store, manifests)
            if waited_s >= timeout_s or stop.wait(pause_s):
                raise LogBehind(f"after {waited_s:.0f} s behind {clock_us}: {', '.join(behind)}")
            waited_s += pause_s

    def _manifests(self) -> tuple[list[Manifest], list[str]]:
        """The manifests of every stage and partition, and the names of those that are missing."""
        found: list[Manifest] = []
        missing: list[str] = []
        for stage in STAGES:
            spread, partition = 1, 0
            while partition < spread:
                try:
                    data = self._store.get(manifest_path(self._use_case, stage, partition), MANIFEST_BYTES_MAX)
                except ArtifactNotFound:
                    missing.append(f"{stage}-{partition}")
                else:
                    manifest = Manifest.from_json(data)
                    if partition and manifest.spread != spread:
                        raise LogDamaged(f"{stage}-{partition} is of {manifest.spread} partitions, others of {spread}")
                    spread = manifest.spread
                    found.append(manifest)
                partition += 1
        return found, missing


def write_part(store: ArtifactStore, path: str, table: pa.Table) -> None:
    """Writes one Parquet file; a reader never sees half of it."""
    buffer = io.BytesIO()
    # A dictionary of what is different in every row costs time and room.
    repeated = [name for name in _REPEATED if name in table.column_names]
    pyarrow.parquet.write_table(table, buffer, compression="zstd", use_dictionary=repeated)
    store.put(path, buffer.getvalue())


class PartsRows:
    """The rows of parts; columns that old ones lack are null. Nothing is read before it is asked for. PartUnreadable."""

    def __init__(self, store: ArtifactStore, paths: Sequence[str], schema: pa.Schema) -> None:
        self._store = store
        self._paths = [store.full_path(path) for path in paths]
        self._schema = schema

    @property
    def dataset(self) -> pyarrow.dataset.Dataset:
        """The rows for who reads them in a way of its own, with errors of its own."""
        if not self._paths:
            return pyarrow.dataset.dataset(self._schema.empty_table())
        with self._readable():
            return pyarrow.dataset.dataset(
                self._paths, schema=self._schema, format="parquet", filesystem=self._store.filesystem
            )

    def to_table(self, columns: Sequence[str] | None = None, filter: Any = None) -> pa.Table:
        """The rows that a filter of pyarrow's lets pass, all or some columns."""
        with self._readable():
            return self.dataset.to_table(columns=columns, filter=filter)

    @contextmanager
    def _readable(self) -> Iterator[None]:
        # Each object store's client raises errors of its own, with no base that they share.
        faults = (pa.ArrowException, OSError) if self._store.is_local else Exception
        try:
            yield
        except FeatureStoreError:
            raise
        except faults as error:
            raise PartUnreadable(f" in {self._store.url}", error) from error
