"""Takes each accepted event once and sends every feature view its part of it, keyed by that view's entity; aggregates nothing."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from driftloop.contracts import UNSET_US, Message, Record, from_wire, to_value, watermark
from driftloop.contracts.features.v1.features_pb2 import KeyedEvent
from driftloop.usecase import UseCase, View, duration_us

SNAPSHOT_VERSION = 1
MAX_REMEMBERED_IDS = 5_000_000  # about 0.5 GB; reached only if the horizon holds more events than that


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

    def snapshot(self) -> list[tuple[str, int]]:
        """Ids and when each was known, oldest first."""
        return list(zip(self._order, self._known_at_us, strict=True))

    def restore(self, state: Sequence[tuple[str, int]]) -> None:
        """Takes a snapshot back."""
        self._order = deque(event_id for event_id, _ in state)
        self._known_at_us = deque(known_at_us for _, known_at_us in state)
        self._held = set(self._order)


class Rekeying:
    """The heart of the first stage, for one partition of `events`.

    It is the authority on duplicates: an id is remembered for the policy's `dedupe_horizon` of use-case time.
    """

    def __init__(self, use_case: UseCase, partition: int, spread: int) -> None:
        self._use_case = use_case
        self._partition = partition
        self._spread = spread
        self._writer = f"rekeying/{partition}"
        self._views: dict[str, list[View]] = {}
        for view in use_case.views:
            self._views.setdefault(view.event.name, []).append(view)
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
        out.extend(watermark("keyed", partition, self._writer, clock_us) for partition in range(self._spread))

    def _apply(self, record: Record, out: list[Message[Any]]) -> None:
        event = record.message.payload
        if not self._seen.is_new(event.id, event.known_at_us):
            self.duplicates += 1
            return
        self.applied += 1
        self._accepted.append(record)
        views = self._views.get(event.type, ())
        fields = from_wire(event.fields) if views else {}
        for ordinal, view in enumerate(views):
            key = view.key(fields)
            if key is None:
                continue
            payload = KeyedEvent(
                view=view.name,
                key=key,
                event_id=event.id,
                event_time_us=event.event_time_us,
                known_at_us=event.known_at_us,
                values=[to_value(fields.get(name)) for name in view.of],
                source_partition=self._partition,
                source_offset=record.offset,
                ordinal=ordinal,
            )
            out.append(
                Message(
                    topic="keyed",
                    key=key,
                    payload=payload,
                    id=f"{event.id}/{view.name}",
                    source="driftloop/features",
                    time_us=event.event_time_us,
                    known_at_us=event.known_at_us,
                    causes=(event.id,),
                    traceparent=record.message.traceparent,
                )
            )

    def snapshot(self) -> dict[str, Any]:
        """State as plain values; taken when `take_accepted` has been emptied."""
        return {
            "version": SNAPSHOT_VERSION,
            "clock_us": self.clock_us,
            "seen": self._seen.snapshot(),
            "duplicates": self.duplicates,
            "applied": self.applied,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Takes a snapshot back."""
        self.clock_us = state["clock_us"]
        self._seen.restore(state["seen"])
        self.duplicates, self.applied = state["duplicates"], state["applied"]
