"""A recorded window of topics, replayed: the same ids and decisions; and where something differs, it says what and where."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from click.testing import CliRunner

from driftloop.cli.replay_window import replay_window
from driftloop.contracts import Message, Record
from driftloop.contracts.monitor.v1.monitor_pb2 import Incident
from driftloop.usecase import DAY_US, load_replay, load_use_case, replay_steps
from simulation.faults import parsed
from simulation.loop import Loop
from simulation.simulate import simulate
from simulation.trainer import RecordedTrainer
from simulation.trips import trips
from simulation.window import TOPICS, Window, WindowUnusable, load, replay, save, window_of
from tests.backtest_twin import QUICK

FAR_US = 1 << 60


@cache
def records(faults: str) -> tuple[Record, ...]:
    outcome = simulate(5, parsed(faults))
    assert outcome.holds, outcome.breaches
    return tuple(outcome.recorded())


def window(faults: str, from_us: int = 0, to_us: int = FAR_US) -> Window:
    return window_of(trips.name, records(faults), from_us, to_us)


@pytest.mark.parametrize(
    "faults",
    [
        "never=0.03,corrected=0.05",
        "duplicate=0.1,reorder=1,crash=0.05,rebalance=0.05,outage=0.03,slow=0.05,never=0.05,corrected=0.05,corrupt=0.3",
    ],
)
def test_a_recorded_run_gives_the_same_ids_and_decisions(faults):
    found = replay(trips, window(faults))
    assert [str(difference) for difference in found.differences] == []
    for topic in ("features", "scores", "decisions", "retrain", "releases"):
        assert found.same[topic] > 0, topic


@pytest.mark.timeout(300)
def test_a_window_of_recorded_flights_gives_the_same_ids_and_decisions():
    declared = load_use_case("flights")
    flights = replace(declared, policy=replace(declared.policy, bootstrap_rows=1_000))
    stretch = load_replay("flights").stretch(days=3)
    loop = Loop(flights, RecordedTrainer(flights, QUICK))
    loop.run(replay_steps(stretch, flights.step_us, DAY_US))
    recorded = [r for place in loop.bus.places(TOPICS) for r in loop.bus.read(*place) if isinstance(r, Record)]
    found = replay(flights, window_of("flights", recorded, stretch.start_us + DAY_US, stretch.end_us))
    assert [str(difference) for difference in found.differences] == []
    assert found.same["features"] > 5_000
    assert found.same["scores"] > 1_000
    for topic in ("decisions", "retrain", "releases"):
        assert found.same[topic] > 0, topic


def test_only_what_lies_in_the_window_is_compared():
    whole = replay(trips, window("never=0.03,corrected=0.05")).same
    clocks = sorted(r.message.known_at_us for r in records("never=0.03,corrected=0.05") if r.topic == "scores")
    middle = clocks[len(clocks) // 2]
    late = replay(trips, window("never=0.03,corrected=0.05", from_us=middle))
    assert late.differences == []
    assert 0 < late.same["scores"] < whole["scores"]


def test_a_recording_that_ends_with_a_decision_gives_it_too():
    recorded = records("never=0.03,corrected=0.05")
    decided_us = [record.message.known_at_us for record in recorded if record.topic == "decisions"]
    last_us = max(decided_us)
    kept = [r for r in recorded if r.topic in ("models", "commands") or r.message.known_at_us <= last_us]
    found = replay(trips, window_of(trips.name, kept, 0, FAR_US))
    assert [str(difference) for difference in found.differences] == []
    assert found.same["decisions"] == len(decided_us)


def test_what_ingest_tells_of_is_given_to_judging_and_is_no_difference():
    found = window("never=0.03,corrected=0.05")
    at_us = found.of("decisions")[0].message.known_at_us
    quiet = Incident(
        use_case=trips.name, id="i1", source="ingest", what="a source is quiet", rule="freshness", clock_us=at_us
    )
    told = Message("incidents", trips.name, quiet, "i1", "driftloop/ingest", at_us, at_us)
    kept = found.records.setdefault(("incidents", 0), [])
    kept.append(Record("incidents", 0, len(kept), told))
    assert replay(trips, found).differences == []


def changed(name: str) -> Window:
    found = window("never=0.03,corrected=0.05")
    for place, recorded in found.records.items():
        if place[0] == name:
            data = [record for record in recorded if not record.message.is_watermark]
            recorded.remove(data[len(data) // 2])
    return found


@pytest.mark.parametrize(("topic", "heart"), [("scores", "matching"), ("decisions", "judging"), ("features", "agg")])
def test_a_message_that_is_not_recorded_is_a_difference(topic, heart):
    differences = replay(trips, changed(topic)).differences
    if topic == "features":  # which is compacted: a message that is gone was replaced
        assert differences == []
    else:
        assert any(d.heart.startswith(heart) and topic in d.what for d in differences), differences


def test_a_saved_window_replays_as_it_was(tmp_path: Path):
    save(window("never=0.03,corrected=0.05"), tmp_path / "w")
    found = replay(trips, load(tmp_path / "w"))
    assert found.differences == []
    assert found.same == replay(trips, window("never=0.03,corrected=0.05")).same


def test_what_is_no_window_is_refused_with_a_sentence(tmp_path: Path):
    (tmp_path / "w").write_bytes(b"something else")
    with pytest.raises(WindowUnusable, match="no saved window"):
        load(tmp_path / "w")
    with pytest.raises(WindowUnusable, match="no events"):
        window_of("trips", [], 0, 1)
    late = [record for record in records("never=0.03,corrected=0.05") if record.offset > 3]
    with pytest.raises(WindowUnusable, match="retention"):
        window_of("trips", late, 0, 1)


def test_the_command_says_what_is_the_same_and_ends_with_1_where_something_differs(tmp_path: Path):
    folder = tmp_path / "usecases" / "trips"
    folder.mkdir(parents=True)
    (folder / "usecase.py").write_text("from simulation.trips import trips as use_case\n")
    save(window("never=0.03,corrected=0.05"), tmp_path / "same")
    save(changed("scores"), tmp_path / "other")
    options = ["--usecases", str(tmp_path / "usecases")]
    same = CliRunner().invoke(replay_window, ["trips", "--file", str(tmp_path / "same"), *options])
    assert same.exit_code == 0, same.output
    assert "nothing differs" in same.output
    other = CliRunner().invoke(replay_window, ["trips", "--file", str(tmp_path / "other"), *options])
    assert other.exit_code == 1
    assert "matching" in other.output
    plain = CliRunner().invoke(replay_window, ["trips", "--file", str(tmp_path / "same"), *options, "--json"])
    told = json.loads(plain.stdout)
    assert (plain.exit_code, told["differences"]) == (0, [])
    assert told["same"]["scores"] > 0
    plain = CliRunner().invoke(replay_window, ["trips", "--file", str(tmp_path / "other"), *options, "--json"])
    assert plain.exit_code == 1
    assert all(difference["heart"] and difference["what"] for difference in json.loads(plain.stdout)["differences"])
