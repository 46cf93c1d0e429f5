"""Wrong use of a command is said at once, with exit code 2, before a broker or a service is asked."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from driftloop.cli.__main__ import main
from tests.tiny_usecase import write_use_case

NOBODY = "127.0.0.1:9"
REPLAY = """
def stretch():
    return None
"""


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["ab", "start", "--arm", "treatment"], "'treatment' is not NAME=MODEL:SHARE"),
        (["ab", "start", "--arm", "treatment=m2"], "'treatment=m2' is not NAME=MODEL:SHARE"),
        (["ab", "start", "--arm", "treatment=m2:2"], "a share lies between 0 and 1"),
        (["ab", "start", "--arm", "treatment=m2:nan"], "a share lies between 0 and 1"),
        (["rollback", "--timeout", "-1"], "-1.0 is not in the range x>0"),
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


def test_a_replay_that_finds_nobody_at_a_door_says_where_and_how_to_start_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_use_case(tmp_path, "away")
    (tmp_path / "away" / "replay.py").write_text(REPLAY)
    monkeypatch.setenv("DRIFTLOOP_USECASES", str(tmp_path))
    monkeypatch.setattr("driftloop.cli.replay.DOOR_TIMEOUT_S", 0.2)
    found = CliRunner().invoke(main, ["replay", "away", "--ingest", NOBODY])
    assert found.exit_code == 1
    assert found.output == f"Error: nothing answers at {NOBODY}: start the loop (driftloop up), or say --ingest.\n"
