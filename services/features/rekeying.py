"""Takes each accepted event once and gives every feature view its part of it, by that view's entity; aggregates nothing."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple
from zlib import crc32

from driftloop.contracts import UNSET_US, Message, Record, from_value, watermark
from driftloop.contracts.event.v1.event_pb2 import Event
from driftloop.usecase import FieldValue, UseCase, View, Window, duration_us, entity_key
from services.features.packing import Pack, Parts, packed_by_event

SNAPSHOT_VERSION = 2
MAX_REMEMBERED_IDS = 5_000_000  # about 0.5 GB; reached only if the horizon holds more events than that
_KNOWN_KEYS_MAX = 100_000  # key values whose key and partition are remembered: about 30 MB

Column = list[FieldValue | None]
Place = tuple[str, int]
"""A feature entity's key and its partition of `keyed`."""


def partition_of_entity(key: str, spread: int) -> int:
    """The partition of `keyed` and of `features` that a feature entity belongs to."""
    return crc32(key.encode()) % spread


class SeenIds:
    """Event ids of the last `horizon_us` of use-case time: an id that comes again within it is a duplicate."""

    def __init__(self, horizon_us: int) -> None:
        self._horizon_us = horizon_us
        self._held: set[str] = set()
        self._order: deque[str] = deque()
        self._known_at_us: deque[int] = deque()

    def is_new(self, event_id: str, known_at_us: int) -> bool:
        """Whether this id comes for the first time; it is remembered."""
        if event_id in self._held:
            return False
        self._held.add(event_id)
        self._order.append(event_id)
        self._known_at_us.append(known_at_us)
        return True

    def new_rows(self, event_ids: Sequence[str], known_at_us: Sequence[int]) -> Sequence[int]:
        """The places of those ids, one after the other, that come for the first time; they are remembered."""
        distinct = set(event_ids)
        if len(distinct) < len(event_ids) or not self._held.isdisjoint(distinct):
            pairs = enumerate(zip(event_ids, known_at_us, strict=True))
            return [row for row, (event_id, known_us) in pairs if self.is_new(event_id, known_us)]
        self._held |= distinct
        self._order += event_ids
        self._known_at_us += known_at_us
        return range(len(event_ids))

    def forget(self, clock_us: int) -> None:
        """Drops the oldest: beyond the horizon at this clock, or above the bound."""
        oldest_us, known_at_us = clock_us - self._horizon_us, self._known_at_us
        while known_at_us and (known_at_us[0] < oldest_us or len(known_at_us) > MAX_REMEMBERED_IDS):
            known_at_us.popleft()
            self._held.remove(self._order.popleft())

    def snapshot(self) -> tuple[list[str], list[int]]:
        """Ids, oldest first, and when each was known."""
        return list(self._order), list(self._known_at_us)

    def restore(self, state: tuple[Sequence[str], Sequence[int]]) -> None:
        """Takes a snapshot back."""
        self._order, self._known_at_us = deque(state[0]), deque(state[1])
        self._held = set(self._order)


class _Reader:
    """One view, as far as rekeying needs it."""

    def __init__(self, view: View, spread: int) -> None:
        self.name = view.name
        self._by, self._of = view.by, view.of
        self._numeric = [view.event.fields[name].is_numeric for name in view.of]
        self._is_window = isinstance(view, Window)
        self._spread = spread
        self._places: dict[Any, Place] = {}

    @property
    def needed(self) -> tuple[str, ...]:
        """Names of the fields that `parts` is given."""
        return (*self._by, *self._of)

    def parts(self, events: _Events, fields: dict[str, Column]) -> dict[int, Parts]:
        """The view's parts of some events, given the columns of their fields, by partition of `keyed`."""
        of = [fields[name] for name in self._of]
        places = self._placed([fields[name] for name in self._by], len(events.rows))
        taken: Sequence[int] = range(len(places))
        if None in places or (self._is_window and not _all_values(of[0])):
            taken = [n for n in taken if places[n] is not None and (not self._is_window or is_value(of[0][n]))]
        by_partition: dict[int, Sequence[int]] = {0: taken} if taken else {}
        if self._spread > 1:
            split: dict[int, list[int]] = {}
            for n in taken:
                split.setdefault(places[n][1], []).append(n)  # type: ignore[index]  # what has no place is not taken
            by_partition = dict(split)
        return {target: self._of_rows(events, chosen, places, of) for target, chosen in by_partition.items()}

    def _of_rows(self, events: _Events, chosen: Sequence[int], places: list[Place | None], of: list[Column]) -> Parts:
        keys = [place[0] for place in picked(places, chosen)]
        ids, columns = picked(events.ids, chosen), [picked(column, chosen) for column in of]
        characters = [len(key) + len(event_id) for key, event_id in zip(keys, ids, strict=True)]
        for column, numeric in zip(columns, self._numeric, strict=True):
            if not numeric:
                texts = zip(characters, column, strict=True)
                characters = [size + (len(text) if isinstance(text, str) else 0) for size, text in texts]
        return Parts(
            view=self.name,
            rows=picked(events.rows, chosen),
            keys=keys,
            source_offset=picked(events.offsets, chosen),
            event_id=ids,
            event_time_us=picked(events.event_time_us, chosen),
            known_at_us=picked(events.known_at_us, chosen),
            values=columns,
            traceparents=picked(events.traceparents, chosen),
            characters=characters,
        )

    def _placed(self, by: list[Column], count: int) -> list[Place | None]:
        """The feature entity of each event; None where a value of its key is absent."""
        keys: Sequence[Any] = by[0] if len(by) == 1 else list(zip(*by, strict=True)) if by else [()] * count
        found = [*map(self._places.get, keys)]
        if None in found:
            for n, place in enumerate(found):
                if place is None:
                    found[n] = self._place(keys[n], (keys[n],) if len(by) == 1 else keys[n])
        return found

    def _place(self, key: Any, values: tuple[FieldValue | None, ...]) -> Place | None:
        if None in values:
            return None
        if len(self._places) >= _KNOWN_KEYS_MAX:
            self._places.clear()
        name = entity_key(self.name, [str(value) for value in values])
        place = self._places[key] = (name, partition_of_entity(name, self._spread))
        return place


class _Events(NamedTuple):
    """Events of one type, columns; `rows`: their places among those that were taken together."""

    rows: Sequence[int]
    ids: Sequence[str]
    offsets: Sequence[int]
    event_time_us: Sequence[int]
    known_at_us: Sequence[int]
    traceparents: Sequence[str]


class Rekeying:
    """The heart of the first stage, for one partition of `events`.

    It is the authority on duplicates: an id is remembered for the policy's `dedupe_horizon` of use-case time. What one fold
    takes between two watermarks goes to a partition of `keyed` as one record, or as the fewest that its bounds allow.
    """

    def __init__(self, use_case: UseCase, partition: int, spread: int) -> None:
        self._spread = spread
        self._writer = f"rekeying/{partition}"
        self._readers: dict[str, list[_Reader]] = {}
        for view in use_case.views:
            self._readers.setdefault(view.event.name, []).append(_Reader(view, spread))
        self._packs = [Pack(use_case.name, use_case.views, partition, target) for target in range(spread)]
        # What can still change an aggregate must not count twice, whatever the horizon.
        self._seen = SeenIds(max(map(duration_us, (use_case.policy.dedupe_horizon, use_case.policy.lateness))))
        self._accepted: list[Record] = []
        self.clock_us = UNSET_US
        self.duplicates = 0
        self.applied = 0

    def fold(self, records: list[Record]) -> list[Message[Any]]:
        """Keyed events and watermarks for a batch of records of the partition, in log order."""
        out: list[Message[Any]] = []
        payloads = [record.message.payload for record in records]
        first = 0
        for place, payload in enumerate(payloads):
            if type(payload) is not Event:
                self._take(records[first:place], payloads[first:place], out)
                self._advance(payload.known_at_us, out)
                first = place + 1
        self._take(records[first:], payloads[first:], out)
        self._send(self._packs, out)
        return out

    def take_accepted(self) -> list[Record]:
        """The events applied for the first time since the last call, for the offline log."""
        taken, self._accepted = self._accepted, []
        return taken

    def _advance(self, clock_us: int, out: list[Message[Any]]) -> None:
        if clock_us <= self.clock_us:
            return
        self.clock_us = clock_us
        self._seen.forget(clock_us)
        self._send(self._packs, out)
        out.extend(watermark("keyed", partition, self._writer, clock_us) for partition in range(self._spread))

    @staticmethod
    def _send(packs: Sequence[Pack], out: list[Message[Any]]) -> None:
        out.extend(message for pack in packs if (message := pack.take()) is not None)

    def _take(self, records: list[Record], events: list[Event], out: list[Message[Any]]) -> None:
        """Takes in what lies between two watermarks."""
        ids = [event.id for event in events]
        known_at_us = [event.known_at_us for event in events]
        new = self._seen.new_rows(ids, known_at_us)
        self.applied += len(new)
        self.duplicates += len(events) - len(new)
        if len(new) < len(events):
            records, events, ids, known_at_us = (picked(column, new) for column in (records, events, ids, known_at_us))
        self._accepted += records
        types = [event.type for event in events]
        parts: dict[int, list[Parts]] = {}
        for kind in dict.fromkeys(types):
            readers = self._readers.get(kind)
            if readers is None:
                continue
            rows = (
                range(len(types))
                if types.count(kind) == len(types)
                else [n for n, each in enumerate(types) if each == kind]
            )
            own, own_records = picked(events, rows), picked(records, rows)
            of_kind = _Events(
                rows=rows,
                ids=picked(ids, rows),
                offsets=[record.offset for record in own_records],
                event_time_us=[event.event_time_us for event in own],
                known_at_us=picked(known_at_us, rows),
                traceparents=[record.message.traceparent for record in own_records],
            )
            fields = fields_of(own, {name for reader in readers for name in reader.needed})
            for reader in readers:
                for target, found in reader.parts(of_kind, fields).items():
                    parts.setdefault(target, []).append(found)
        for target, views in parts.items():
            out.extend(packed_by_event(self._packs[target], views))

    def snapshot(self) -> dict[str, Any]:
        """State as plain values; taken when `take_accepted` has been emptied."""
        return {
            "version": SNAPSHOT_VERSION,
            "clock_us": self.clock_us,
            "seen": self._seen.snapshot(),
            "duplicates": self.duplicates,
            "applied": self.applied,
        }

    def begin_snapshot(self) -> dict[str, Any]:
        """See `Heart.begin_snapshot`: what is seen is copied, which takes 10 ms for a million ids, and told later."""
        state = self.snapshot()
        return {**state, "seen": tuple(map(iter, state["seen"]))}

    def restore(self, state: dict[str, Any]) -> None:
        """Takes a snapshot back."""
        self.clock_us = state["clock_us"]
        self._seen.restore(state["seen"])
        self.duplicates, self.applied = state["duplicates"], state["applied"]


def fields_of(events: Sequence[Event], names: Collection[str]) -> dict[str, Column]:
    """A column of each of some fields; None: absent."""
    getters = [event.fields.get for event in events]
    columns: dict[str, Column] = {}
    for name in names:
        found = [get(name) for get in getters]
        # As `from_value`, which is asked only where neither a number nor a text is set that differs from its default.
        columns[name] = [None if each is None else each.number or each.text or from_value(each) for each in found]
    return columns


def picked(column: Sequence[Any], rows: Sequence[int]) -> Any:
    """The column's values at some rows, in ascending order."""
    return column if len(rows) == len(column) else [column[row] for row in rows]


def _all_values(column: Column) -> bool:
    """Whether a window certainly counts all of a field's values; they may be texts if not."""
    try:
        return all(map(math.isfinite, column))  # type: ignore[arg-type]  # None and texts raise
    except TypeError:
        return False


def is_value(value: FieldValue | None) -> bool:
    """Whether a window counts a field's value: it is there, and finite if it is a number."""
    return value is not None and (isinstance(value, str) or math.isfinite(value))
