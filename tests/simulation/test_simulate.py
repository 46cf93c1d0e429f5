"""Seeds of the whole loop with faults: a fixed set, and some that no run has seen before."""

from __future__ import annotations

import random
import sys
from dataclasses import fields, replace

import pytest
from click.testing import CliRunner

from driftloop.contracts.monitor.v1.monitor_pb2 import (
    DECISION_KIND_BUNDLE_REFUSED,
    LABEL_STATE_CORRECTED,
    LABEL_STATE_MATCHED,
    LABEL_STATE_NEVER,
)
from simulation.__main__ import main
from simulation.faults import MOST, Faults, FaultsUnreadable, drawn, parsed
from simulation.simulate import command, compared, simulate

FIXED = (*range(1, 17), 532516)  # the last: events of one step changed places, and a value was known later
FRESH = 6
SHORT = 50  # a seed of few rows


@pytest.mark.timeout(180)
@pytest.mark.parametrize("seed", FIXED)
def test_a_fixed_seed_holds(seed):
    outcome = simulate(seed, drawn(seed))
    assert outcome.holds, "\n".join([command(seed, outcome.faults), *map(str, outcome.breaches)])


@pytest.mark.timeout(180)
@pytest.mark.parametrize("number", range(FRESH))
def test_a_fresh_seed_holds(number, capsys, record_property):
    seed = random.SystemRandom().randrange(1_000_000)
    record_property("seed", seed)
    with capsys.disabled():
        sys.stdout.write(f"[seed {seed}] ")
    outcome = simulate(seed, drawn(seed))
    assert outcome.holds, "\n".join([command(seed, outcome.faults), *map(str, outcome.breaches)])


@pytest.mark.timeout(180)
def test_a_seed_gives_the_same_run_again():
    faults = parsed("duplicate=0.1,delay=0.02,reorder=1,crash=0.05,rebalance=0.05,outage=0.05,slow=0.05,never=0.03")
    first, second = simulate(5, faults), simulate(5, faults)
    assert first.virtual_s == second.virtual_s
    assert first.deaths == second.deaths
    assert sum(first.deaths.values()) > 0
    places = [
        [(key, record.partition, record.offset) for key, record in outcome.observed.first.items()]
        for outcome in (first, second)
    ]
    assert places[0] == places[1]


def test_the_environment_has_no_say_in_a_run(monkeypatch):
    for name in ("INGEST_BATCH_EVENTS_MAX", "SERVING_BATCH_REQUESTS_MAX", "DRIFTLOOP_DURABLE_TIMEOUT_S"):
        monkeypatch.setenv(name, "0.000001" if name.endswith("_S") else "1")  # each of them would stop it
    monkeypatch.setattr("simulation.caller.PATIENCE_S", 30.0)
    outcome = simulate(SHORT, Faults())
    assert outcome.holds, "\n".join(map(str, outcome.breaches))


def test_the_run_decides_what_a_loop_has_to_decide():
    outcome = simulate(5, parsed("never=0.03,corrected=0.03"))
    assert outcome.holds
    ids = outcome.observed.ids()
    for topic in ("events", "keyed", "features", "predictions", "scores", "retrain", "models", "releases", "decisions"):
        assert ids[topic], topic
    assert outcome.observed.told.refused


@pytest.mark.timeout(180)
def test_every_fault_strikes_and_the_run_holds():
    outcome = simulate(SHORT, replace(MOST, corrupt=0.5))
    assert outcome.holds, "\n".join([command(SHORT, outcome.faults), *map(str, outcome.breaches)])
    of_the_machines = {f.name for f in fields(Faults)} - {"never", "corrected", "corrupt"}
    assert set(outcome.struck) == of_the_machines
    assert outcome.outages > 0
    assert all(outcome.deaths.values())
    states = {message.payload.state for message in outcome.observed.of("scores")}
    assert states == {LABEL_STATE_MATCHED, LABEL_STATE_NEVER, LABEL_STATE_CORRECTED}
    kinds = {message.payload.kind for message in outcome.observed.of("decisions")}
    assert DECISION_KIND_BUNDLE_REFUSED in kinds


def test_every_fault_is_drawn_by_some_fixed_seed_and_left_out_by_another():
    for fault in fields(Faults):
        strengths = [getattr(drawn(seed), fault.name) for seed in FIXED]
        assert min(strengths) == 0.0 < max(strengths), fault.name


def test_two_seeds_are_told_apart_by_what_happened():
    one, other = (simulate(seed, parsed("none")) for seed in (1, 2))
    assert compared(one, other, decides_alike=True, in_order=True)


def test_faults_are_read_as_they_are_written():
    assert parsed(str(drawn(3))) == drawn(3)
    with pytest.raises(FaultsUnreadable, match="no fault"):
        parsed("earthquake=1")


def test_the_command_says_what_it_ran_and_ends_with_0():
    result = CliRunner().invoke(main, ["--seed", "1", "--faults", "none"])
    assert result.exit_code == 0, result.output
    assert "python -m simulation --seed 1 --faults none" in result.output


@pytest.mark.timeout(180)
def test_seeds_run_in_several_processes():
    result = CliRunner().invoke(main, ["--first", "1", "--seeds", "2", "--faults", "none", "--jobs", "2"])
    assert result.exit_code == 0, result.output
    assert "2 of 2 seeds hold" in result.output
