"""Runs a backfill: reads the event log, lets `backfill` say the updates, writes them offline and online; decides no value.

It may run beside the live service. Offline it writes parts of its own, which count from its end on. Online its sequences lie below
every live one, so that the writer, which looks at what is there and writes while nobody else does, never replaces a newer value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute

from driftloop.artifacts import ArtifactStore
from driftloop.contracts import Message, to_value
from driftloop.contracts.features.v1.features_pb2 import TRIGGER_EVENT, FeatureUpdate
from driftloop.featurestore.backfills import BackfillWriter, backfilled_sequence
from driftloop.featurestore.log import EVENT_TIME, KNOWN_AT, LogSnapshot, OfflineLogReader, view_schema
from driftloop.usecase import UseCase, View, Window, duration_us
from services.features.backfill import LoggedEvents, Updates, ViewParts, updates, view_parts, warm_up_us
from services.features.errors import NothingToBackfill

SLICE_EVENTS_MAX = (
    250_000  # events held at once, and those before them that still count: some 400 MB with their updates
)
ONLINE_ROWS_MAX = 2_000  # in one batch, as the live service writes them


class OnlineWriter(Protocol):
    """Feast's online store, as `driftloop.featurestore` writes it."""

    def write(self, updates: Sequence[Message[Any]]) -> int:
        """Writes what is newer than what is there; returns how many rows that were. Blocks."""
        ...


@dataclass
class Backfilled:
    """What a backfill did: its id and stretch, events read, updates logged, values written online (None: not asked)."""

    id: str
    from_us: int
    to_us: int
    events: int = 0
    updates: dict[str, int] = field(default_factory=dict)
    online: int | None = None


def run(
    use_case: UseCase,
    store: ArtifactStore,
    from_us: int | None,
    to_us: int | None,
    open_online: Callable[[], OnlineWriter] | None = None,
    progress: Callable[[int, int], None] = lambda done, all_of_it: None,
) -> Backfilled:
    """Computes the updates known from a time until before another anew (None: all that the log holds); blocks.

    `open_online` is called only if the stretch reaches the log's end, since what held before is no current value. `progress` is
    told the events done and to do. NothingToBackfill, LogBehind, LogDamaged, PartUnreadable, BackfillOvertaken.
    """
    snapshot = OfflineLogReader(store, use_case.name).snapshot()
    end_us = snapshot.clock_us + 1
    if to_us is not None and to_us > end_us:
        raise NothingToBackfill(
            f"the event log is complete up to {snapshot.clock_us} only, and the end asked for is {to_us}"
        )
    begin_us, stop_us = from_us or 0, end_us if to_us is None else to_us
    known_us = _known_us(snapshot, begin_us, stop_us)
    if not len(known_us):
        raise NothingToBackfill(f"no event was known from {begin_us} until before {stop_us}")
    begin_us = max(begin_us, int(known_us[0]))
    writer = BackfillWriter(store, use_case.name, begin_us, stop_us)
    found = Backfilled(writer.id, begin_us, stop_us, updates={view.name: 0 for view in use_case.views})
    newest: dict[str, Message[FeatureUpdate]] = {}
    lateness_us, counts_us = duration_us(use_case.policy.lateness), warm_up_us(use_case)
    held: list[ViewParts] = []
    for number, (first_us, last_us, count) in enumerate(_slices(known_us, begin_us, stop_us)):
        read_us = first_us if held else first_us - counts_us
        parts = view_parts(use_case, _events(snapshot, use_case, read_us, last_us))
        if held:
            parts = [
                before.since(first_us - counts_us).followed_by(each) for before, each in zip(held, parts, strict=True)
            ]
        held = parts
        for each in parts:
            said = updates(each, lateness_us, first_us, last_us, carries=number == 0)
            row = found.updates[each.view.name]
            table = _table(use_case, each.view, said, writer.generation, row)
            writer.add(each.view.name, table)
            found.updates[each.view.name] += len(said)
            if open_online is not None and stop_us == end_us:
                newest |= _newest(use_case, each.view, table)
        found.events += count
        progress(found.events, len(known_us))
    writer.publish()
    if open_online is not None and stop_us == end_us:
        online, rows = open_online(), list(newest.values())
        found.online = sum(
            online.write(rows[first : first + ONLINE_ROWS_MAX]) for first in range(0, len(rows), ONLINE_ROWS_MAX)
        )
    return found


def _known_us(snapshot: LogSnapshot, from_us: int, to_us: int) -> Any:
    """When the events of a stretch became known, ascending."""
    table = snapshot.events().to_table(columns=[KNOWN_AT], filter=_within(from_us, to_us))
    return np.sort(table[KNOWN_AT].cast(pa.int64()).to_numpy())


def _slices(known_us: Any, from_us: int, to_us: int) -> Iterator[tuple[int, int, int]]:
    """The stretch in pieces of bounded numbers of events: from, until before, events."""
    first = 0
    while first < len(known_us):
        last = first + SLICE_EVENTS_MAX
        if last < len(known_us):
            last = max(int(np.searchsorted(known_us, known_us[last])), first + 1)
            last = int(np.searchsorted(known_us, known_us[last - 1], side="right"))
        end_us = to_us if last >= len(known_us) else int(known_us[last])
        begin_us = from_us if first == 0 else int(known_us[first])
        yield begin_us, end_us, min(last, len(known_us)) - first
        first = last


def _events(snapshot: LogSnapshot, use_case: UseCase, from_us: int, to_us: int) -> LoggedEvents:
    """Events that views need, in the order of (known time, id)."""
    types = list({view.event.name for view in use_case.views})
    wanted = _within(max(from_us, 0), to_us) & pyarrow.compute.field("type").isin(types)
    table = snapshot.events().to_table(columns=["type", "id", EVENT_TIME, KNOWN_AT, "fields"], filter=wanted)
    table = table.sort_by([(KNOWN_AT, "ascending"), ("id", "ascending")])
    at_us, known_us = (table[name].cast(pa.int64()).to_numpy() for name in (EVENT_TIME, KNOWN_AT))
    ids = [] if all(isinstance(view, Window) for view in use_case.views) else table["id"].to_numpy()
    return LoggedEvents(table["type"].to_numpy(), ids, at_us, known_us, table["fields"].to_numpy())


def _within(from_us: int, to_us: int) -> Any:
    times = [pa.scalar(at_us, pa.timestamp("us", tz="UTC")) for at_us in (from_us, to_us)]
    known = pyarrow.compute.field(KNOWN_AT)
    return (known >= times[0]) & (known < times[1])


def _table(use_case: UseCase, view: View, said: Updates, generation: int, first_row: int) -> pa.Table:
    prefix = f"{use_case.name}/backfill/{generation}/{view.name}/"
    sequences = backfilled_sequence(0, generation) + said.known_at_us * (
        backfilled_sequence(1, 0) - backfilled_sequence(0, 0)
    )
    columns = [
        said.keys,
        said.event_time_us,
        said.known_at_us,
        sequences,
        [f"{prefix}{row}" for row in range(first_row, first_row + len(said))],
        *said.values,
    ]
    schema = view_schema(view)
    arrays = []
    for column, each in zip(columns, schema, strict=True):
        array = pa.array(column, from_pandas=True)
        arrays.append(array if array.type == each.type else array.cast(each.type))
    return pa.Table.from_arrays(arrays, schema=schema)


def _newest(use_case: UseCase, view: View, table: pa.Table) -> dict[str, Message[FeatureUpdate]]:
    """The last update of each key; rows are in the order of known time."""
    last = {key: row for row, key in enumerate(table.column(0).to_pylist())}
    found = {}
    for row in table.take(pa.array(list(last.values()), pa.int64())).to_pylist():
        key, event_time, known_at, sequence, update_id, *values = row.values()
        at_us, known_at_us = _us(event_time), _us(known_at)
        payload = FeatureUpdate(
            use_case=use_case.name,
            view=view.name,
            key=key,
            event_time_us=at_us,
            known_at_us=known_at_us,
            values=[to_value(value) for value in values],
            sequence=sequence,
            trigger=TRIGGER_EVENT,
        )
        found[key] = Message("features", key, payload, update_id, "driftloop/features", at_us, known_at_us)
    return found


def _us(moment: Any) -> int:
    return int(pa.scalar(moment, pa.timestamp("us", tz="UTC")).cast(pa.int64()).as_py())
