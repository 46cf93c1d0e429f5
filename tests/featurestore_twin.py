"""A small use case, feature updates of it, and a heart that stands for its writer: for tests of log, join and online store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from driftloop.contracts import Message, Record, from_value, to_value
from driftloop.contracts.event.v1.event_pb2 import Event as WireEvent
from driftloop.contracts.features.v1.features_pb2 import FeatureUpdate
from driftloop.usecase import Event, Field, Label, Latest, Prediction, Request, UseCase, Window, before

ordered = Event("ordered", entity="order", fields={"shop": Field(str), "town": Field(str), "due_at": Field("time")})
sold = Event("sold", entity="order", fields={"shop": Field(str), "price": Field(float)})
seen = Event("seen", entity="order", fields={"town": Field(str), "sky": Field(str), "warm": Field(bool)})
paid = Event("paid", entity="order", fields={"late": Field(bool)})
withdrawn = Event("withdrawn", entity="order")

shop = UseCase(
    name="shop",
    events=[ordered, sold, seen, paid, withdrawn],
    predict=Prediction(on=ordered, at=before("due_at", "1h")),
    features=[
        Request("town"),
        Window(sold, by="shop", of="price", over=["1h"], stats=["mean", "count"]),
        Latest(seen, by="town", of=["sky", "warm"], max_age="5h"),
    ],
    label=Label(on=paid, value=lambda e: bool(e["late"]), never=[withdrawn]),
)
SOLD, SEEN = shop.views


class Writer:
    """A heart's clock, the events that it accepted, and the updates that its newest fold made."""

    def __init__(self, clock_us: int = 10**9, updates: Sequence[Message[FeatureUpdate]] = ()) -> None:
        self.clock_us = clock_us
        self.accepted: list[Record] = []
        self.updates = updates_of(updates)

    def take_accepted(self) -> list[Record]:
        """As Rekeying's."""
        taken, self.accepted = self.accepted, []
        return taken


def updates_of(messages: Sequence[Message[Any]]) -> dict[str, list[tuple[Any, ...]]]:
    """Messages as updates of `Aggregation.updates`."""
    found: dict[str, list[tuple[Any, ...]]] = {}
    for message in messages:
        payload = message.payload
        if isinstance(payload, FeatureUpdate):
            values = [float(v) if isinstance(v, bool | int) else v for v in map(from_value, payload.values)]
            row = (payload.key, payload.event_time_us, payload.known_at_us, payload.sequence, message.id, values)
            found.setdefault(payload.view, []).append(row)
    return found


def update(
    view: str, key: str, known_at_us: int, sequence: int, values: Sequence[Any], event_time_us: int = 0
) -> Message[FeatureUpdate]:
    """A feature update as aggregation emits it."""
    payload = FeatureUpdate(
        use_case="shop",
        view=view,
        key=key,
        event_time_us=event_time_us or known_at_us,
        known_at_us=known_at_us,
        values=[to_value(value) for value in values],
        sequence=sequence,
    )
    identity = f"{key}@{sequence}"
    return Message("features", key, payload, identity, "test", payload.event_time_us, known_at_us)


def accepted(number: int, known_at_us: int) -> Record:
    """An accepted event at offset `number`."""
    event = WireEvent(
        use_case="shop", id=f"e{number}", type="ordered", entity=f"o{number}", event_time_us=5, known_at_us=known_at_us
    )
    return Record("events", 0, number, Message("events", event.entity, event, event.id, "test", 5, known_at_us))
