"""Faults of data are told from changes of the world, field by field and source by source, with nothing kept beyond its bound."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftloop.contracts import to_wire
from driftloop.contracts.event.v1.event_pb2 import Event
from driftloop.usecase import DAY_US, HOUR_US, Latest, load_use_case
from services.monitor.sources import SERIES_MAX, SourceWatch

FLIGHTS = load_use_case("flights")
DECLARED = FLIGHTS.event_types["weather_observed"].fields
KNOTS = 1.15078  # mph: what the readings are multiples of
ONSET = 500  # hours


def reading(hour: int, station: str = "JFK", **values: float | None) -> Event:
    fields = {"origin": station} | {name: value for name, value in values.items() if value is not None}
    return Event(
        use_case="flights",
        id=f"w{station}{hour}",
        type="weather_observed",
        entity=station,
        known_at_us=hour * HOUR_US,
        fields=to_wire(fields, DECLARED),
    )


def winds(hours: int, seed: int = 0) -> np.ndarray:
    """Hourly winds in mph that keep their level for days."""
    rng, level, found = np.random.default_rng(seed), 8.0, []
    for _ in range(hours):
        level += 0.15 * (8.0 - level) + rng.normal(0.0, 1.5)
        found.append(round(max(0.0, level)) * KNOTS)
    return np.round(found, 5)


def told(values, station: str = "JFK", watch: SourceWatch | None = None):
    """Incidents that begin or end, with the hour at which they were told."""
    watch, found = watch or SourceWatch(FLIGHTS), []
    for hour, value in enumerate(values, start=1):
        found += [(hour, finding) for finding in watch.took(reading(hour, station, wind_speed=value))]
    return found


@settings(max_examples=12)
@given(st.integers(0, 10_000))
def test_a_healthy_sensor_is_never_at_fault(seed):
    assert told(winds(3_000, seed)) == []


@pytest.mark.parametrize(
    ("fault", "broken"),
    [
        ("unit", lambda values: np.round(values * 1.609344, 3)),
        ("stuck", lambda values: np.full(len(values), 7 * KNOTS)),
        ("missing", lambda values: [None] * len(values)),
    ],
)
def test_a_fault_is_named_with_its_source_within_a_day_and_ends_by_itself(fault, broken):
    values = list(winds(ONSET + 400))
    values[ONSET : ONSET + 200] = list(broken(np.array(values[ONSET : ONSET + 200])))
    (begun_at, begun), (ended_at, ended) = told(values)
    assert (begun.fault, begun.event_type, begun.field, begun.key) == (fault, "weather_observed", "wind_speed", "JFK")
    assert begun_at - ONSET <= 30
    assert abs(begun.from_us // HOUR_US - ONSET - 1) <= 4
    assert begun.to_us == 0
    assert (ended.fault, ended.from_us) == (fault, begun.from_us)
    assert 0 < ended_at - ONSET - 200 <= 24


def test_a_storm_is_weather():
    values = winds(1_200)
    values[900:930] = np.round(np.linspace(20, 60, 30)) * KNOTS
    assert told(values) == []


def test_a_resting_sensor_is_not_stuck():
    rain = [0.0 if hour % 90 else 0.05 for hour in range(2_000)]
    rain += [0.0] * 600
    assert told(rain) == []


def test_a_continuous_sensor_that_changes_its_unit_is_found_by_its_medians():
    rng = np.random.default_rng(3)
    celsius = 12 + 6 * np.sin(np.arange(1_200) / 24 * 2 * np.pi) + rng.normal(0, 2, 1_200)
    values = np.concatenate([celsius[:900], celsius[900:] * 1.8 + 32])
    (begun_at, begun), *_ = told(values)
    assert begun.fault == "unit"
    assert 900 < begun_at <= 900 + 5 * 24
    assert told(celsius) == []


def test_a_source_that_is_quiet_for_long_is_told_of_and_heard_again():
    watch = SourceWatch(FLIGHTS)
    assert told(winds(300), watch=watch) == []
    assert watch.silences() == []
    watch.took(reading(310, "LGA", wind_speed=4 * KNOTS))
    assert watch.silences() == []
    watch.took(reading(315, "LGA", wind_speed=4 * KNOTS))
    (silent,) = watch.silences()
    assert (silent.fault, silent.field, silent.key, silent.from_us) == ("silent", "", "JFK", 300 * HOUR_US)
    assert watch.silences() == []
    (heard,) = watch.took(reading(320, wind_speed=4 * KNOTS))
    assert (heard.fault, heard.from_us, heard.to_us) == ("silent", 300 * HOUR_US, 320 * HOUR_US)


def test_what_lasts_becomes_what_is_normal():
    values = list(winds(ONSET + 1_000))
    values[ONSET:] = list(np.round(np.array(values[ONSET:]) * 1.609344, 3))
    (_, begun), (ended_at, ended) = told(values)
    assert (ended.from_us, ended.fault) == (begun.from_us, "unit")
    assert ended_at * HOUR_US - begun.from_us <= 15 * DAY_US
    assert "normal" in ended.what


@settings(max_examples=20)
@given(st.integers(0, 999), st.integers(ONSET - 50, ONSET + 250))
def test_a_restored_state_tells_the_same(seed, cut):
    values = list(winds(ONSET + 300, seed))
    values[ONSET : ONSET + 150] = [None] * 150
    whole = told(values)
    first, second = SourceWatch(FLIGHTS), SourceWatch(FLIGHTS)
    found = told(values[:cut], watch=first)
    second.restore(first.snapshot())
    assert second.snapshot() == first.snapshot()
    for hour, value in enumerate(values[cut:], start=cut + 1):
        found += [(hour, finding) for finding in second.took(reading(hour, wind_speed=value))]
    assert found == whole


def test_of_too_many_sources_the_newest_are_not_watched():
    watch = SourceWatch(FLIGHTS)
    for place in range(SERIES_MAX + 50):
        watch.took(reading(1, f"s{place}", wind_speed=1.0))
    assert len(watch.snapshot()["sources"]) == SERIES_MAX


def test_a_field_that_is_watched_from_now_on_begins_with_the_sources_that_are_known():
    (weather,) = (view for view in FLIGHTS.views if view.event.name == "weather_observed")
    fewer = Latest(weather.event, by="origin", of=weather.of[:1], max_age="3h")
    others = [each for each in FLIGHTS.features if each is not weather]
    before, since = SourceWatch(replace(FLIGHTS, features=[*others, fewer])), SourceWatch(FLIGHTS)
    told(winds(10), watch=before)
    since.restore(before.snapshot())
    assert since.took(reading(11, wind_speed=3.0)) == []
    fields = {name for _, name, *_ in since.snapshot()["fields"]}
    assert fields == set(weather.of)
