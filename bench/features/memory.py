"""Bytes that a feature entity takes in aggregation, for each kind of view: with one event of its windows, and with many."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from itertools import count

from bench.features.events import NAME, START_US, USE_CASES
from driftloop.contracts import Record
from driftloop.usecase import Event, Latest, Since, Sketch, UseCase, View, Window, load_use_case
from driftloop.usecase.features import Stat
from services.features.aggregation import Aggregation
from services.features.packing import Pack, Parts

STATS: tuple[Stat, ...] = ("count", "mean", "p90")
_PACKED = 1_000
_VALUES = 9_973  # different ones


def views(spent: Event) -> dict[str, View]:
    """One view of each kind, by what it is called."""
    over = ("1h", "12h")
    return {
        "sliding window": Window(spent, "shop", "amount", over, STATS),
        "tumbling window": Window(spent, "shop", "amount", over, STATS, "tumbling"),
        "decayed window": Window(spent, "shop", "amount", over, ("count", "mean"), "decayed"),
        "sketched window, panes of 1h": Window(
            spent, "shop", "amount", over, (*STATS, "distinct"), sketch=Sketch("1h")
        ),
        "latest value": Latest(spent, "shop", "amount", max_age="12h"),
        "time since": Since(spent, "shop", every="1h", max_age="12h"),
    }


def bytes_per_key(view: View, keys: int, events: int) -> float:
    """What a key takes once so many events of eleven hours are in."""
    use_case: UseCase = replace(load_use_case(NAME, str(USE_CASES)), features=[view])
    heart, numbers = Aggregation(use_case, 0, 1), count()
    every_us = 11 * 3_600_000_000 // (keys * events)
    heart.fold(_records(use_case, view, numbers, 1, 1, every_us))  # what is made once
    tracemalloc.start()
    heart.fold(_records(use_case, view, numbers, keys, events, every_us))
    heart.fold([])  # lets go of the updates
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return held / keys


def _records(use_case: UseCase, view: View, numbers: count[int], keys: int, events: int, every_us: int) -> list[Record]:
    pack, found, offset = Pack(use_case.name, use_case.views, 0, 0), [], 0
    for number in range(keys * events):
        offset = next(numbers)
        at_us = START_US + number * every_us
        values = [] if isinstance(view, Since) else [[float(number * 7_919 % _VALUES)]]
        key, event_id = f"{view.name}|s{number % keys}", f"v{offset}"
        pack.add(Parts(view.name, [0], [key], [offset], [event_id], [at_us], [at_us], values, [""], [0]))
        if number % _PACKED == _PACKED - 1 or number + 1 == keys * events:
            message = pack.take()
            assert message is not None
            found.append(Record("keyed", 0, offset, message))
    return found
