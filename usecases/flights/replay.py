"""Replays the flights of 2013: each fact when it became known, and what to ask; never checks or sends anything."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from datetime import date
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from driftloop.usecase import (
    DAY_US,
    MINUTE_US,
    Fields,
    FieldValue,
    ReplayEvent,
    ReplayRequest,
    UseCaseError,
    floor_us,
)

from . import changes
from .recorded import READINGS, Times, load_flights, load_weather, local_midnight_us, times

STEP_US = 15 * MINUTE_US
ANNOUNCED_BEFORE_US = DAY_US  # schedules are public for months; a day ahead is before anything here asks for them
ASKED_BEFORE_US = 60 * MINUTE_US
OVERDUE_AFTER_US = 20 * MINUTE_US  # fewer minutes are a closed door that waits; more are known too late to say much

ONSET_SHARE = (2, 5)  # of the stretch's length: 40 %
FAULT_SHARE = (1, 4)  # of the stretch's length

# Alphabetical, so that a code orders as the id that begins with the name does.
TYPES = (
    "flight_arrived",
    "flight_cancelled",
    "flight_departed",
    "flight_diverted",
    "flight_overdue",
    "flight_scheduled",
    "weather_observed",
)
ARRIVED, CANCELLED, DEPARTED, DIVERTED, OVERDUE, SCHEDULED, WEATHER = range(len(TYPES))


class UnknownStretch(UseCaseError):
    """There is no such stretch or change of it: correct the arguments."""


def stretch(
    start: str = "2013-03-01", days: int = 42, inject: str | None = None, seed: int = 0, shuffle_hours: bool = False
) -> Stretch:
    """The flights that were to depart, by the origin's calendar, on `days` days from `start` (ISO date in 2013).

    `inject="concept"` reflects the arrival delays of UA and DL about the label's threshold from 40 % of the stretch on. A fault of
    the weather's sensors begins there, too, and lasts a quarter of the stretch: "sensor-unit" has every reading in metric units,
    "sensor-stuck" has every station repeat its last, "sensor-missing" leaves them out.
    `shuffle_hours` moves hours of flights and weather to other hours, drawn with `seed`, so that no drift is left.
    Raises UnknownStretch if there are no such flights or the arguments contradict each other, ReplayDataMissing
    without the data.
    """
    if inject not in (None, *changes.INJECTED):
        raise UnknownStretch(f"inject={inject!r}: what can be injected is one of {', '.join(changes.INJECTED)}")
    if inject is not None and shuffle_hours:
        raise UnknownStretch("shuffled hours have no onset: give inject or shuffle_hours, not both")
    first = _date(start)
    flights = load_flights(first, days)
    if flights.empty:
        raise UnknownStretch(f"no flight was to depart on {days} days from {first}: the data are of 2013")
    weather = load_weather()
    span_us = _span_us(flights)
    weather = _known_within(span_us, weather)
    injected_at_us = None
    if inject is not None:
        injected_at_us = local_midnight_us(first) + days * DAY_US * ONSET_SHARE[0] // ONSET_SHARE[1]
        healed_at_us = injected_at_us + days * DAY_US * FAULT_SHARE[0] // FAULT_SHARE[1]
        flights, weather = changes.inject(inject, flights, weather, injected_at_us, healed_at_us)
    if shuffle_hours:
        flights, weather = changes.shuffle_hours(flights, weather, span_us, np.random.default_rng(seed))
        span_us = _span_us(flights)
        weather = _known_within(span_us, weather)
    return Stretch(flights, weather, span_us, injected_at_us)


def history() -> Stretch:
    """The whole recorded year: what a backtest runs over."""
    return stretch(start="2013-01-01", days=365)


class Stretch:
    """A stretch of flights (a `driftloop.usecase.ReplayStretch`); its events are made while they are read.

    `start_us` ≤ every known_at and request < `end_us`; both lie on the 15-minute step. `rows` is the number of flights.
    """

    def __init__(
        self, flights: pd.DataFrame, weather: pd.DataFrame, span_us: tuple[int, int], injected_at_us: int | None
    ) -> None:
        self.start_us, self.end_us = span_us
        self.injected_at_us = injected_at_us
        self.rows = len(flights)
        self._flights = flights
        self._weather = weather

    def events(self) -> Iterator[ReplayEvent]:
        """Every event in order of (known_at, id): about three per flight, and one per station and hour."""
        make = _event_makers(self._flights, self._weather)
        for known_at_us, code, row in zip(*self._order(), strict=True):
            yield make[code](row, known_at_us)

    def requests(self) -> Iterator[ReplayRequest]:
        """One request per flight, flown or not, in order of (at, entity)."""
        flights = self._flights
        at_us = times(flights, "departs_us") - ASKED_BEFORE_US
        order = np.lexsort((_texts(flights, "flight_id"), at_us))
        announced = _announced_fields(flights)
        ids = flights["flight_id"].tolist()
        for at, row in zip(at_us[order].tolist(), order.tolist(), strict=True):
            yield ReplayRequest(at, ids[row], announced(row))

    def _order(self) -> tuple[list[int], list[int], list[int]]:
        """When each event is known, its type's code and its row, sorted by (known_at, id)."""
        flights, weather = self._flights, self._weather
        known: list[Times] = []
        codes: list[Times] = []
        rows: list[Times] = []
        ranks: list[Times] = []

        def add(code: int, known_at_us: Times, names: Times, where: npt.NDArray[np.bool_]) -> None:
            chosen = np.flatnonzero(where)
            known.append(known_at_us[chosen])
            codes.append(np.full(len(chosen), code))
            rows.append(chosen)
            ranks.append(names[chosen])

        names = _ranks(_texts(flights, "flight_id"))
        departs_us, departed_us = times(flights, "departs_us"), times(flights, "departed_us")
        left, landed = _true(flights, "left"), _true(flights, "landed")
        add(SCHEDULED, departs_us - ANNOUNCED_BEFORE_US, names, np.ones(len(flights), dtype=bool))
        add(DEPARTED, departed_us, names, left)
        add(ARRIVED, times(flights, "arrived_us"), names, landed)
        add(CANCELLED, departs_us, names, ~left)
        add(DIVERTED, _diverted_us(flights), names, left & ~landed)
        overdue_us = departs_us + OVERDUE_AFTER_US
        add(OVERDUE, overdue_us, names, left & (departed_us > overdue_us))
        observed = np.ones(len(weather), dtype=bool)
        add(WEATHER, times(weather, "known_at_us"), _ranks(_texts(weather, "name")), observed)

        known_all, code_all, row_all = np.concatenate(known), np.concatenate(codes), np.concatenate(rows)
        order = np.lexsort((np.concatenate(ranks), code_all, known_all))
        return known_all[order].tolist(), code_all[order].tolist(), row_all[order].tolist()


def _event_makers(flights: pd.DataFrame, weather: pd.DataFrame) -> list[Callable[[int, int], ReplayEvent]]:
    """For each type's code: (row, known_at_us) → the event."""
    ids: list[str] = flights["flight_id"].tolist()
    carriers, origins, dests, numbers = (flights[name].tolist() for name in ("carrier", "origin", "dest", "number"))
    tails: list[str | None] = flights["tail_number"].tolist()
    departure_delays: list[float] = flights["departure_delay"].tolist()
    arrival_delays: list[float] = flights["arrival_delay"].tolist()
    lost_min: list[float] = (flights["arrival_delay"] - flights["departure_delay"]).tolist()
    prefixes = [f"{name}:" for name in TYPES]
    announced = _announced_fields(flights)
    stations: list[str] = weather["origin"].tolist()
    observations: list[str] = weather["name"].tolist()
    observed_us: list[int] = weather["event_time_us"].tolist()
    readings = [(name, weather[name].tolist()) for name in READINGS]

    def of_flight(code: int, row: int, at_us: int, fields: Fields) -> ReplayEvent:
        return ReplayEvent(TYPES[code], prefixes[code] + ids[row], ids[row], at_us, at_us, fields)

    def of_route(row: int) -> dict[str, FieldValue]:
        return {"carrier": carriers[row], "origin": origins[row], "dest": dests[row]}

    def arrived(row: int, at_us: int) -> ReplayEvent:
        fields: dict[str, FieldValue] = {
            "carrier": carriers[row],
            "origin": origins[row],
            "dest": dests[row],
            "number": numbers[row],
            "delay": arrival_delays[row],
            "lost": lost_min[row],
        }
        tail = tails[row]
        if tail is not None:
            fields["tail_number"] = tail
        return of_flight(ARRIVED, row, at_us, fields)

    def cancelled(row: int, at_us: int) -> ReplayEvent:
        return of_flight(CANCELLED, row, at_us, of_route(row))

    def departed(row: int, at_us: int) -> ReplayEvent:
        fields = of_route(row)
        fields["delay"] = departure_delays[row]
        tail = tails[row]
        if tail is not None:
            fields["tail_number"] = tail
        return of_flight(DEPARTED, row, at_us, fields)

    def diverted(row: int, at_us: int) -> ReplayEvent:
        return of_flight(DIVERTED, row, at_us, {"carrier": carriers[row], "origin": origins[row]})

    def overdue(row: int, at_us: int) -> ReplayEvent:
        return of_flight(OVERDUE, row, at_us, of_route(row))

    def scheduled(row: int, at_us: int) -> ReplayEvent:
        return of_flight(SCHEDULED, row, at_us, announced(row))

    def observed(row: int, known_at_us: int) -> ReplayEvent:
        fields: dict[str, FieldValue] = {"origin": stations[row]}
        for reading, values in readings:
            if not math.isnan(values[row]):
                fields[reading] = values[row]
        name = f"{TYPES[WEATHER]}:{observations[row]}"
        return ReplayEvent(TYPES[WEATHER], name, stations[row], observed_us[row], known_at_us, fields)

    return [arrived, cancelled, departed, diverted, overdue, scheduled, observed]


def _announced_fields(flights: pd.DataFrame) -> Callable[[int], Fields]:
    """Row → what the schedule says of a flight; a request carries exactly the same."""
    carriers, origins, dests, numbers = (flights[name].tolist() for name in ("carrier", "origin", "dest", "number"))
    tails: list[str | None] = flights["tail_number"].tolist()
    distances: list[float] = flights["distance"].tolist()
    departs_us: list[int] = flights["departs_us"].tolist()

    def fields_of(row: int) -> Fields:
        fields: dict[str, FieldValue] = {
            "carrier": carriers[row],
            "origin": origins[row],
            "dest": dests[row],
            "number": numbers[row],
            "distance": distances[row],
            "departs_at": departs_us[row],
        }
        tail = tails[row]
        if tail is not None:
            fields["tail_number"] = tail
        return fields

    return fields_of


def _span_us(flights: pd.DataFrame) -> tuple[int, int]:
    """From the step of the first announcement to the end of the step in which the last thing about a flight is known."""
    departs_us = times(flights, "departs_us")
    # The zeros of flights that did not leave or land are never the largest.
    last = max(departs_us.max(), times(flights, "departed_us").max(), times(flights, "arrived_us").max())
    gone_astray = _true(flights, "left") & ~_true(flights, "landed")
    if gone_astray.any():
        last = max(last, _diverted_us(flights)[gone_astray].max())
    start = int(departs_us.min()) - ANNOUNCED_BEFORE_US
    return floor_us(start, STEP_US), floor_us(int(last), STEP_US) + STEP_US


def _diverted_us(flights: pd.DataFrame) -> Times:
    """When a flight that left was expected: the data have no better time at which a diversion becomes known.

    A late departure moves it, because a flight cannot be diverted before it has left.
    """
    late_us = np.maximum(times(flights, "departed_us") - times(flights, "departs_us"), 0)
    return times(flights, "arrives_us") + late_us


def _date(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise UnknownStretch(f"start={text!r} is not a date such as 2013-03-01") from error


def _known_within(span_us: tuple[int, int], weather: pd.DataFrame) -> pd.DataFrame:
    known_at_us = times(weather, "known_at_us")
    return weather[(known_at_us >= span_us[0]) & (known_at_us < span_us[1])]


def _true(frame: pd.DataFrame, name: str) -> npt.NDArray[np.bool_]:
    return frame[name].to_numpy(dtype=bool)


def _texts(frame: pd.DataFrame, name: str) -> npt.NDArray[Any]:
    # Bytes sort as the ASCII texts do, and many times faster than objects.
    return frame[name].to_numpy().astype(np.bytes_)


def _ranks(texts: npt.NDArray[Any]) -> Times:
    ranks = np.empty(len(texts), dtype=np.int64)
    ranks[np.argsort(texts, kind="stable")] = np.arange(len(texts))
    return ranks
