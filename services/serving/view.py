"""Holds the newest value of every feature entity, as the topic `features` told it; never fetches and never decides."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

from driftloop.contracts import UNSET_US, Message, from_value
from driftloop.contracts.features.v1.features_pb2 import FeatureUpdate
from driftloop.usecase import FieldValue, UseCase

SECOND_CHANCES = 64  # of entities in use, for each that leaves: an update must not wait until all were looked at


@dataclass(slots=True, eq=False)
class Packed:
    """What a vector, its log record and its answer take of one feature entity; made by assembly, once per update.

    cause: the update's id, empty where nothing was found; numbers: little-endian doubles; reading: a serialised `Vector` of
    the reading alone; fresh: a serialised `PredictResponse` of the freshness alone, as of `fresh_as_of_us`.
    """

    view: str
    found: bool
    cause: bytes
    known_at_us: int
    event_time_us: int
    reading: bytes
    numbers: bytes = b""
    texts: Sequence[str] = ()
    defaulted: Sequence[str] = ()
    fresh: bytes = b""
    fresh_as_of_us: int = -2  # no clock, not even the unset one
    traceparent: str = ""


@dataclass(slots=True)
class Entry:
    """The values of one feature entity, in the view's declared order; None: missing. Times in microseconds, UTC.

    traceparent: the trace that they belong to; "" where it is not sampled.
    """

    update_id: str
    sequence: int
    known_at_us: int
    event_time_us: int
    values: tuple[FieldValue | None, ...]
    traceparent: str = ""
    packed: Packed | None = field(default=None, compare=False, repr=False)
    used: bool = field(default=False, compare=False, repr=False)


class FeatureView:
    """Feature entities by key, at most `max_entities` of them: those that were not used for long leave first.

    To move an entity to the end of a line at each read cost more than to read it. So a read only marks it, and whose turn it is
    to leave stays for another round if it is marked (the clock algorithm: Corbató, "A Paging Experiment with the Multics
    System", 1968).
    It is the authority on what exists while it is `complete`, which supposes that the topic was read from its start.
    """

    def __init__(self, use_case: UseCase, max_entities: int) -> None:
        if max_entities < 1:
            raise ValueError("a feature view holds at least one entity")
        self._sizes = {view.name: len(view.features) for view in use_case.views}
        self._max_entities = max_entities
        self._entries: OrderedDict[str, Entry] = OrderedDict()
        self.newest_us = UNSET_US
        """When the newest of all values that were held was known, in microseconds."""
        self.evicted = 0
        self.ignored = 0
        self.hits = 0
        """Reads that found an entry; whoever counts them may set it back, as `misses`."""
        self.misses = 0

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def complete(self) -> bool:
        """Whether a key that is not here is really unknown."""
        return self.evicted == 0

    def apply(self, message: Message[FeatureUpdate], traceparent: str = "") -> bool:
        """Takes one update in; False if it is not newer than what is held, or of a view that is not declared (any more)."""
        update = message.payload
        if self._sizes.get(update.view) != len(update.values):
            self.ignored += 1
            return False
        values = tuple([from_value(value) for value in update.values])
        times_us = update.known_at_us, update.event_time_us
        return self.admit(update.key, Entry(message.id, update.sequence, *times_us, values, traceparent))

    def admit(self, key: str, entry: Entry) -> bool:
        """Takes an entry in, wherever it was read; False if it is not newer than the one held."""
        held = self._entries.get(key)
        if held is not None and entry.sequence <= held.sequence:
            return False
        if held is None and len(self._entries) >= self._max_entities:
            self._make_room()
        self._entries[key] = entry
        self._entries.move_to_end(key)
        self.newest_us = max(self.newest_us, entry.known_at_us)
        return True

    def _make_room(self) -> None:
        for _ in range(SECOND_CHANCES):
            key, entry = self._entries.popitem(last=False)
            if not entry.used:
                break
            entry.used = False
            self._entries[key] = entry
        else:
            self._entries.popitem(last=False)
        self.evicted += 1

    def read(self, key: str) -> Entry | None:
        """The newest entry of a key, or None."""
        return self.read_all([key])[0]

    def read_all(self, keys: Sequence[str | None]) -> list[Entry | None]:
        """The newest entries of keys; None where there is none, or no key."""
        get = self._entries.get
        found = [get(key) for key in keys]  # type: ignore[arg-type]
        absent = 0
        for entry in found:
            if entry is None:
                absent += 1
            else:
                entry.used = True
        self.hits += len(found) - absent
        if absent:
            self.misses += absent - sum([key is None for key in keys])
        return found
