"""What can be changed of the recorded year: what delays mean, what the weather's sensors say, when the hours were."""

from __future__ import annotations

import numpy as np
import pandas as pd

from driftloop.usecase import HOUR_US

from .recorded import READINGS, times

CONCEPT = "concept"
FAULTS = ("sensor-unit", "sensor-stuck", "sensor-missing")  # of every station's readings, from the onset on
INJECTED = (CONCEPT, *FAULTS)

IN_OTHER_UNITS = {"wind_speed": 1.609344, "visibility": 1.609344, "precipitation": 25.4}  # km/h, km, mm
REFLECTED_CARRIERS = ("UA", "DL")
REFLECTED_ABOUT_TWICE_MIN = 60.0  # twice the label's threshold: late becomes punctual and the other way round
DELAY_LEAST_MIN = -120.0  # the declared bound of a delay


def inject(
    what: str, flights: pd.DataFrame, weather: pd.DataFrame, onset_us: int, healed_us: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Flights and weather with one of INJECTED from `onset_us` on; a fault ends at `healed_us`, the concept stays."""
    if what == CONCEPT:
        return _reflected(flights, onset_us), weather
    return flights, _faulty(weather, what, onset_us, healed_us)


def shuffle_hours(
    flights: pd.DataFrame, weather: pd.DataFrame, span_us: tuple[int, int], rng: np.random.Generator
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Moves every UTC hour, its departures and its weather together, to another hour.

    Hours with departures change places among themselves, and so do those without, so that nights stay empty.
    """
    departs_hour = times(flights, "departs_us") // HOUR_US
    weather_hour = times(weather, "event_time_us") // HOUR_US
    hours = np.arange(span_us[0] // HOUR_US - 1, span_us[1] // HOUR_US + 1)
    busy = np.isin(hours, departs_hour)
    moved = hours.copy()
    moved[busy] = rng.permutation(hours[busy])
    moved[~busy] = rng.permutation(hours[~busy])
    shift_us = (moved - hours) * HOUR_US
    by_departure, by_observation = shift_us[departs_hour - hours[0]], shift_us[weather_hour - hours[0]]
    of_flight = ("departs_us", "departed_us", "arrives_us", "arrived_us")
    return (
        flights.assign(**{name: times(flights, name) + by_departure for name in of_flight}),
        weather.assign(**{name: times(weather, name) + by_observation for name in ("event_time_us", "known_at_us")}),
    )


def _reflected(flights: pd.DataFrame, onset_us: int) -> pd.DataFrame:
    """The flights with 60 − delay as arrival delay of UA and DL from the onset on; every time stays as it was."""
    touched = flights["carrier"].isin(REFLECTED_CARRIERS) & (flights["departs_us"] >= onset_us)
    reflected = (REFLECTED_ABOUT_TWICE_MIN - flights["arrival_delay"]).clip(lower=DELAY_LEAST_MIN)
    return flights.assign(arrival_delay=flights["arrival_delay"].where(~touched, reflected))


def _faulty(weather: pd.DataFrame, fault: str, onset_us: int, healed_us: int) -> pd.DataFrame:
    """The weather with the readings of one fault where they become known from the onset on and before it is healed."""
    known_at_us = times(weather, "known_at_us")
    touched = (known_at_us >= onset_us) & (known_at_us < healed_us)
    faulty = weather.copy()
    if fault == "sensor-unit":
        for reading, factor in IN_OTHER_UNITS.items():
            faulty.loc[touched, reading] = (weather.loc[touched, reading] * factor).round(3)
    elif fault == "sensor-missing":
        faulty.loc[touched, list(READINGS)] = np.nan
    else:
        order = np.argsort(known_at_us, kind="stable")
        before = weather.iloc[order[known_at_us[order] < onset_us]]
        for station, last in before.groupby("origin")[list(READINGS)].last().iterrows():
            faulty.loc[touched & (weather["origin"] == station), list(READINGS)] = last.to_numpy()
    return faulty
