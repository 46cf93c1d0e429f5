"""The events of the benchmark, as our topic and the peer's are given them: amounts spent in shops, in the order of time."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from driftloop.contracts import Encoded, Message
from driftloop.contracts.event.v1.event_pb2 import Event

USE_CASES = Path(__file__).parent / "usecases"
NAME = "shops"
START_US = 1_700_000_000_000_000 // 3_600_000_000 * 3_600_000_000
SHOPS = 1_000
PER_S = 100  # events a second of use-case time: all in one hour, so that the newest windows count every event


class Spent(NamedTuple):
    """One event, in order of time."""

    number: int
    at_us: int
    shop: str
    amount: float


def spent(count: int, shops: int = SHOPS) -> Iterator[Spent]:
    """The first so many events: the same each time."""
    draw = random.Random(7)
    for number in range(count):
        yield Spent(number, START_US + number * 1_000_000 // PER_S, f"s{draw.randrange(shops)}", draw.expovariate(0.02))


def message(use_case: str, one: Spent) -> Message[Event]:
    """The event as ingest would write it; known when it happened."""
    event_id, entity = f"v{one.number}", f"v{one.number}"
    made = Event(
        use_case=use_case,
        id=event_id,
        type="spent",
        source="till",
        entity=entity,
        event_time_us=one.at_us,
        known_at_us=one.at_us,
    )
    made.fields["shop"].text = one.shop
    made.fields["amount"].number = one.amount
    return Message("events", entity, made, event_id, "till", one.at_us, one.at_us)


def peers(one: Spent) -> Encoded:
    """The event as the peer reads it: keyed by shop already, so that it needs no repartition, and only what it needs."""
    return Encoded(one.shop.encode(), json.dumps({"amount": one.amount}).encode(), [])
