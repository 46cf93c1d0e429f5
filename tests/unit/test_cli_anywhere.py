"""The `driftloop` command wherever it is called: what it needs of a checkout is found, what is away is said in one line."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from driftloop.cli.__main__ import main
from driftloop.cli.orders import myself
from driftloop.messaging import KafkaSettings


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
            "Error: the artifact store /dev/null/x cannot be used: NotADirectoryError: [Errno 20] Not a directory",
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


@pytest.mark.parametrize("argv", [["driftloop.cli", "schema", "check"], ["services.ingest"]])
def test_a_bucket_without_credentials_is_said_in_one_line_with_what_to_do(argv: list[str], tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    # Nor are there any in a home folder, or at an address that only a machine of Amazon's asks.
    environment |= {
        "HOME": str(tmp_path),
        "AWS_EC2_METADATA_DISABLED": "true",
        "DRIFTLOOP_ARTIFACTS_URL": "s3://some/where",
    }
    found = subprocess.run([sys.executable, "-m", *argv], env=environment, capture_output=True, text=True, timeout=60)
    told = found.stdout + found.stderr
    assert found.returncode == 1, told
    (line,) = told.splitlines()
    assert "the artifact store s3://some/where cannot be used: NoCredentialsError: Unable to locate credentials" in line
    assert "give what it asks for (credentials, address, permissions), or correct DRIFTLOOP_ARTIFACTS_URL" in line


@pytest.mark.parametrize(
    "command", [["dead-letters", "list"], ["trace", "x"], ["incidents"], ["rollback"], ["replay-window", "flights"]]
)
def test_a_broker_that_is_away_is_said_in_one_line_with_why_before_anybody_gives_up_waiting(
    command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAFKA_CONNECT_TIMEOUT_S", "0.2")
    began_s = time.monotonic()
    found = CliRunner().invoke(main, [*command, "--bootstrap-servers", "127.0.0.1:9"])
    assert time.monotonic() - began_s < KafkaSettings().answer_timeout_s / 2
    assert found.exit_code == 1
    assert found.output.startswith("Error: the broker at 127.0.0.1:9 does not answer: start it, or correct KAFKA_BOOT")
    assert "Connection refused" in found.output
    assert len(found.output.splitlines()) == 1


def test_a_window_asked_of_a_broker_that_takes_the_call_and_says_nothing_ends_with_1_and_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KAFKA_CONNECT_TIMEOUT_S", "0.5")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        found = CliRunner().invoke(main, ["replay-window", "flights", "--bootstrap-servers", address])
    assert found.exit_code == 1
    assert found.output.startswith(f"Error: the broker at {address} does not answer: start it, or correct KAFKA_BOOT")
    assert len(found.output.splitlines()) == 1


def test_an_order_by_a_user_whom_the_machine_has_no_name_for_is_given_by_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 54_321)  # as in a container that is given any user
    monkeypatch.setattr(socket, "gethostname", lambda: "there")
    assert myself() == "54321@there"
    monkeypatch.setenv("USER", "ada")
    assert myself() == "ada@there"
