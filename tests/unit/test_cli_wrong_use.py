"""Wrong use of a command is said at once, with exit code 2, before a broker or a service is asked."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from driftloop.cli.__main__ import main
from driftloop.usecase import load_use_case
from tests.tiny_usecase import write_use_case
from tests.unit.ingest_twin import door

NOBODY = "127.0.0.1:9"
REPLAY = """
class Stretch:
    start_us, end_us, injected_at_us, rows = 1_800_000_000, 2_700_000_000, None, 0

    def events(self):
        return iter(())

    def requests(self):
        return iter(())


def stretch():
    return Stretch()
"""


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["ab", "start", "--arm", "treatment"], "'treatment' is not NAME=MODEL:SHARE"),
        (["ab", "start", "--arm", "treatment=m2"], "'treatment=m2' is not NAME=MODEL:SHARE"),
        (["ab", "start", "--arm", "treatment=m2:2"], "a share lies between 0 and 1"),
        (["ab", "start", "--arm", "treatment=m2:nan"], "a share lies between 0 and 1"),
        (["rollback", "--timeout", "-1"], "-1.0 is not in the range x>0"),
        (["rollback", "--timeout", "nan"], "'nan' is no number of seconds"),
        (["ab", "start", "--arm", "b=m2:0.2", "--timeout", "inf"], "'inf' is no number of seconds"),
        (["dead-letters", "redrive", "an-id", "--all"], "either by id, or --all"),
        (["replay-window", "flights", "--from", "2013-03-09", "--to", "2013-03-08"], "--from lies at or after --to"),
        (["features", "backfill", "flights", "--from", "2013-03-09", "--to", "2013-03-09"], "--from lies at or after"),
        (["features", "parity", "flights", "--from", "2013-03-09", "--to", "2013-03-08"], "--from lies at or after"),
    ],
)
def test_what_cannot_be_meant_is_said_at_once(command: list[str], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", NOBODY)
    monkeypatch.setenv("KAFKA_ANSWER_TIMEOUT_S", "0.2")
    found = CliRunner().invoke(main, command)
    assert found.exit_code == 2, found.output
    assert said in found.output


@pytest.mark.parametrize(
    "command",
    [
        ["incidents"],
        ["trace", "an-id"],
        ["dead-letters", "list"],
        ["replay-window", "flights"],
        ["features", "parity", "flights"],
        ["bundles", "prune"],
        ["rollback"],
        ["ab", "start", "--arm", "treatment=m2:0.2"],
        ["up"],
    ],
    ids=" ".join,
)
def test_a_command_asks_no_broker_where_the_variable_that_names_it_is_empty(
    command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "")
    found = CliRunner().invoke(main, command)
    assert found.exit_code == 2, found.output
    assert "KAFKA_BOOTSTRAP_SERVERS" in found.output.splitlines()[-1]
    assert "names no broker" in found.output.splitlines()[-1]


def test_an_option_that_names_no_broker_is_wrong_use_and_one_that_does_comes_before_the_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "")
    monkeypatch.setenv("KAFKA_CONNECT_TIMEOUT_S", "0.2")
    given = CliRunner().invoke(main, ["incidents", "--bootstrap-servers", NOBODY])
    assert (given.exit_code, NOBODY in given.output) == (1, True), given.output
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", NOBODY)
    empty = CliRunner().invoke(main, ["incidents", "--bootstrap-servers", ""])
    assert empty.exit_code == 2
    assert "names no broker" in empty.output.splitlines()[-1]


@pytest.fixture
def replayed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a use case with a replay whose first step begins at 1970-01-01T00:15."""
    write_use_case(tmp_path, "replayed")
    (tmp_path / "replayed" / "replay.py").write_text(REPLAY)
    monkeypatch.setenv("DRIFTLOOP_USECASES", str(tmp_path))
    return "replayed"


def test_a_demo_on_a_running_loop_asks_no_broker_where_the_variable_that_names_it_is_empty(
    replayed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "")
    found = CliRunner().invoke(main, ["demo", replayed, "--running"])
    assert found.exit_code == 2
    assert "KAFKA_BOOTSTRAP_SERVERS: names no broker" in found.output.splitlines()[-1]


def test_a_replay_that_finds_nobody_at_a_door_says_where_and_how_to_start_one(
    replayed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("driftloop.cli.replay.DOOR_TIMEOUT_S", 0.2)
    found = CliRunner().invoke(main, ["replay", replayed, "--ingest", NOBODY])
    assert found.exit_code == 1
    assert found.output == f"Error: nothing answers at {NOBODY}: start the loop (driftloop up), or say --ingest.\n"


async def test_a_replay_of_what_the_loop_has_behind_it_says_where_its_clock_is_and_what_to_do(replayed: str) -> None:
    async with door(load_use_case(replayed, os.environ["DRIFTLOOP_USECASES"])) as ingest:
        await ingest.intake.advance(replayed, 1_000_000_000_000_000)
        command = ["replay", replayed, "--ingest", ingest.address, "--serving", ingest.address]
        found = await asyncio.to_thread(CliRunner().invoke, main, command)
    assert found.exit_code == 1
    assert "the clock is at 2001-09-09T01:46:40.000000Z and cannot go to 1970-01-01T00:15:00.000000Z" in found.output
    assert found.output.endswith(": replay what comes later (--start), or start a loop without data\n")
