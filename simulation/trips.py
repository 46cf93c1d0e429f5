"""A small use case and histories of it made from a seed: a few hundred trips whose odds of being late turn round half-way.

Everything that the loop does happens on it within some hundred rows: a first model, more of them as rows come in, a change,
labels that never come, that are corrected, that come too late, values that leave their windows.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from driftloop.usecase import (
    HOUR_US,
    MINUTE_US,
    Event,
    Field,
    Label,
    Latest,
    Policy,
    Prediction,
    ReplayEvent,
    ReplayRequest,
    Request,
    UseCase,
    Window,
    before,
)
from simulation.faults import Faults

STEP_US = 15 * MINUTE_US
START_US = 1_700_000_100_000_000 // HOUR_US * HOUR_US
LINES = ("blue", "green", "red")
TRIPS_PER_STEP = 6
ASKED_SHARE = 0.95  # of the trips; nobody asks about the others
UNREADABLE_SHARE = 0.05  # of the measurements: they break the schema and must be refused

booked = Event(
    "booked",
    entity="trip",
    fields={"line": Field(str), "load": Field(float, ge=-10, le=10), "leaves_at": Field("time")},
)
measured = Event("measured", entity="line", fields={"line": Field(str), "wear": Field(float)})
left = Event("left", entity="trip", fields={"line": Field(str), "delay": Field(float)})
came = Event("came", entity="trip", fields={"line": Field(str), "delay": Field(float)})
dropped = Event("dropped", entity="trip", fields={"line": Field(str)})

trips = UseCase(
    name="trips",
    events=[booked, measured, left, came, dropped],
    predict=Prediction(on=booked, at=before("leaves_at", "30m")),
    features=[
        Request("load", "line"),
        Window(left, by="line", of="delay", over=["1h", "3h"], stats=["mean", "count"]),
        Latest(measured, by="line", of="wear", max_age="2h"),
    ],
    label=Label(on=came, value=lambda e: e["delay"] > 0, never=[dropped], matures_after="4h"),
    slices=["line"],
    policy=Policy(
        budget="12 retrains/day",
        bootstrap_rows=120,
        cooldown="1h",
        cohort="30m",
        alarm_labels=2_000,
        block_labels=10,
        recent_rows=40,
        change_rows=40,
        promote_rows=30,
        canary_rows=25,
        give_up_rows=150,
        confidence=0.9,
        lateness="3h",
        dedupe_horizon="8h",
    ),
    clock="replay",
    step_us=STEP_US,
)


@dataclass
class Trips:
    """A `ReplayStretch` of `trips`; `unreadable` are ids of events that ingest has to refuse."""

    start_us: int
    end_us: int
    injected_at_us: int | None
    rows: int
    unreadable: frozenset[str]
    recorded: tuple[ReplayEvent, ...]
    asked: tuple[ReplayRequest, ...]

    def events(self) -> Iterator[ReplayEvent]:
        """See `ReplayStretch.events`."""
        return iter(self.recorded)

    def requests(self) -> Iterator[ReplayRequest]:
        """See `ReplayStretch.requests`."""
        return iter(self.asked)


def history(seed: int, rows: int, faults: Faults) -> Trips:
    """About `rows` trips. `faults`: of the world only, how often a label never comes or is corrected."""
    return _History(random.Random(f"history of {seed}"), rows, faults).made()


class _History:
    def __init__(self, draws: random.Random, rows: int, faults: Faults) -> None:
        self._draws, self._rows, self._faults = draws, rows, faults
        self._events: list[ReplayEvent] = []
        self._asked: list[ReplayRequest] = []
        self._unreadable: set[str] = set()
        self._wear = dict.fromkeys(LINES, 0.0)
        self._turned_at = rows // 2 if draws.random() < 0.7 else None

    def made(self) -> Trips:
        steps = max(1, self._rows // TRIPS_PER_STEP)
        for step in range(steps):
            start_us = START_US + step * STEP_US
            for line in LINES:
                if self._draws.random() < 0.3:
                    self._measure(line, start_us)
            for place in range(TRIPS_PER_STEP):
                self._trip(step * TRIPS_PER_STEP + place, start_us)
        self._events.sort(key=lambda event: (event.known_at_us, event.id))
        self._asked.sort(key=lambda request: (request.at_us, request.entity))
        end_us = max(event.known_at_us for event in self._events)
        turned_us = None if self._turned_at is None else START_US + self._turned_at // TRIPS_PER_STEP * STEP_US
        return Trips(
            START_US,
            end_us,
            turned_us,
            steps * TRIPS_PER_STEP,
            frozenset(self._unreadable),
            tuple(self._events),
            tuple(self._asked),
        )

    def _measure(self, line: str, start_us: int) -> None:
        self._wear[line] = max(-2.0, min(2.0, self._wear[line] + self._draws.gauss(0, 0.7)))
        at_us = start_us + self._draws.randrange(STEP_US)
        known_us = at_us + (self._draws.randrange(5 * HOUR_US) if self._draws.random() < 0.05 else 0)
        self._tell(measured, line, at_us, known_us, {"line": line, "wear": self._wear[line]})

    def _trip(self, number: int, start_us: int) -> None:
        draws, name = self._draws, f"t{number:04d}"
        line, load = draws.choice(LINES), draws.gauss(0, 1)
        booked_us = start_us + draws.randrange(STEP_US)
        leaves_us = booked_us + HOUR_US + draws.randrange(2 * HOUR_US)
        fields: dict[str, str | float | int] = {"line": line, "load": load, "leaves_at": leaves_us}
        self._tell(booked, name, booked_us, booked_us, fields)
        if draws.random() < ASKED_SHARE:
            at_us = trips.prediction_time_us(fields)
            self._asked.append(ReplayRequest(at_us, name, trips.request_of(fields)))
        if draws.random() < 0.04:
            self._tell(dropped, name, leaves_us - 1, leaves_us - 1, {"line": line})
            return
        logit = 2.5 * load + 1.2 * self._wear[line]
        if self._turned_at is not None and number >= self._turned_at:
            logit = -logit
        late = draws.random() < 1.0 / (1.0 + math.exp(-logit))
        delay = draws.uniform(1, 60) * (1 if late else -1)
        told: dict[str, str | float | int] = {"line": line, "delay": delay}
        self._tell(left, name, leaves_us + 1, leaves_us + 1 + draws.randrange(10 * MINUTE_US), told)
        came_us = leaves_us + (20 + draws.randrange(60)) * MINUTE_US
        if draws.random() < self._faults.never:
            return
        self._tell(came, name, came_us, came_us, told)
        if draws.random() < self._faults.corrected:
            again_us = came_us + draws.randrange(1, 6 * HOUR_US)
            self._tell(came, name, came_us, again_us, {"line": line, "delay": -delay}, "again")

    def _tell(
        self,
        kind: Event,
        entity: str,
        at_us: int,
        known_us: int,
        fields: Mapping[str, str | float | int],
        suffix: str = "",
    ) -> None:
        event_id = f"{kind.name}:{entity}:{at_us}{suffix}"
        if kind is measured and self._draws.random() < UNREADABLE_SHARE:
            fields = {**fields, "wear": "much"}
            self._unreadable.add(event_id)
        self._events.append(ReplayEvent(kind.name, event_id, entity, at_us, known_us, fields))
