"""Takes each accepted event once and gives every feature view its part of it, by that view's entity; aggregates nothing."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any
from zlib import crc32

from driftloop.contracts import UNSET_US, Message, Record, from_value, watermark
from driftloop.contracts.event.v1.event_pb2 import Event
from driftloop.usecase import FieldValue, UseCase, View, Window, duration_us, entity_key
from services.features.packing import Pack

SNAPSHOT_VERSION = 2
MAX_REMEMBERED_IDS = 5_000_000  # about 0.5 GB; reached only if the horizon holds more events than that
_KNOWN_KEYS_MAX = 100_000  # key values whose key and partition are remembered: about 30 MB

Values = Sequence[FieldValue | None]
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

    def __init__(self, view: View) -> None:
        self.name, self.by, self.of = view.name, view.by, view.of
        self.by_values: Callable[[Values], tuple[FieldValue | None, ...]] = tuple
        self.of_values: Callable[[Values], tuple[FieldValue | None, ...]] = tuple
        self.needs_value = isinstance(view, Window)
        self.places: dict[tuple[FieldValue | None, ...], Place] = {}


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
            self._readers.setdefault(view.event.name, []).append(_Reader(view))
        self._needed: dict[str, list[str]] = {}
        for name, readers in self._readers.items():
            needed = list(dict.fromkeys(field for reader in readers for field in (*reader.by, *reader.of)))
            self._needed[name] = needed
            for reader in readers:
                reader.by_values = picker([needed.index(field) for field in reader.by])
                reader.of_values = picker([needed.index(field) for field in reader.of])
        self._packs = [Pack(use_case.name, use_case.views, partition, target) for target in range(spread)]
        self._seen = SeenIds(duration_us(use_case.policy.dedupe_horizon))
        self._accepted: list[Record] = []
        self.clock_us = UNSET_US
        self.duplicates = 0
        self.applied = 0

    def fold(self, records: list[Record]) -> list[Message[Any]]:
        """Keyed events and watermarks for a batch of records of the partition, in log order."""
        out: list[Message[Any]] = []
        for record in records:
            if record.message.is_watermark:
                self._advance(record.message.payload.known_at_us, out)
            else:
                self._apply(record, out)
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

    def _apply(self, record: Record, out: list[Message[Any]]) -> None:
        event: Event = record.message.payload
        event_id, known_at_us = event.id, event.known_at_us
        if not self._seen.is_new(event_id, known_at_us):
            self.duplicates += 1
            return
        self.applied += 1
        self._accepted.append(record)
        readers = self._readers.get(event.type)
        if readers is None:
            return
        found, event_time_us, traceparent = event.fields.get, event.event_time_us, record.message.traceparent
        fields = [None if (value := found(name)) is None else from_value(value) for name in self._needed[event.type]]
        full = []
        for reader in readers:
            values = reader.of_values(fields)
            if reader.needs_value and not is_value(values[0]):
                continue
            entity = self._place(reader, reader.by_values(fields))
            if entity is not None:
                key, partition = entity
                pack = self._packs[partition]
                pack.add(reader.name, key, record.offset, event_id, event_time_us, known_at_us, values, traceparent)
                if pack.is_full:
                    full.append(pack)
        if full:
            self._send(full, out)

    def _place(self, reader: _Reader, values: tuple[FieldValue | None, ...]) -> Place | None:
        """The feature entity of some key values, or None where one is absent."""
        found = reader.places.get(values)
        if found is None and None not in values:
            if len(reader.places) >= _KNOWN_KEYS_MAX:
                reader.places.clear()
            key = entity_key(reader.name, [str(value) for value in values])
            found = reader.places[values] = (key, partition_of_entity(key, self._spread))
        return found

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


def picker(places: Sequence[int]) -> Callable[[Values], tuple[FieldValue | None, ...]]:
    """Picks the values at some places, of which there may be none."""
    if not places:
        return lambda values: ()
    if len(places) > 1:
        return itemgetter(*places)
    (place,) = places
    return lambda values: (values[place],)


def is_value(value: FieldValue | None) -> bool:
    """Whether a window counts a field's value: it is there, and finite if it is a number."""
    return value is not None and (isinstance(value, str) or math.isfinite(value))
