"""The `driftloop` command wherever it is called: what it needs of a checkout is found, what is away is said in one line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from driftloop.cli.__main__ import main


@pytest.mark.parametrize("command", [["features", "backfill"], ["replay-window"]])
def test_a_command_called_from_another_folder_finds_what_it_runs(command: list[str], tmp_path: Path) -> None:
    argv = [str(Path(sys.executable).with_name("driftloop")), *command, "flights", "--from", "noon"]
    found = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (found.returncode, "'noon' is no moment" in found.stderr) == (2, True), found.stderr


@pytest.mark.parametrize(
    ("variable", "value", "command", "said"),
    [
        ("DRIFTLOOP_ARTIFACTS_URL", "tape://1", ["schema", "check"], "Error: tape://1 is no artifact store"),
        (
            "DRIFTLOOP_ARTIFACTS_URL",
            "/dev/null/x",
            ["schema", "accept", "--why", "x"],
            "Error: [Errno 20] Not a directory",
        ),
        ("KAFKA_SECURITY_PROTOCOL", "SASL_SSL", ["incidents"], "Error: Kafka's client refuses the settings KAFKA_…"),
    ],
)
def test_a_place_or_setting_that_cannot_be_used_is_said_in_one_line(
    variable: str, value: str, command: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    found = CliRunner().invoke(main, command)
    assert found.exit_code == 1
    assert found.output.startswith(said)
    assert len(found.output.splitlines()) == 1


@pytest.mark.parametrize("command", [["dead-letters", "list"], ["trace", "x"], ["incidents"]])
def test_a_broker_that_is_away_is_said_in_one_line(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_ANSWER_TIMEOUT_S", "0.2")
    found = CliRunner().invoke(main, [*command, "--bootstrap-servers", "127.0.0.1:9"])
    assert found.exit_code == 1
    assert found.output.startswith("Error: the broker at 127.0.0.1:9 does not answer")
    assert len(found.output.splitlines()) == 1
