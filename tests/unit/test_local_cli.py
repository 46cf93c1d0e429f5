"""`driftloop up` and `down` as a person meets them: one sentence and an exit code."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

from deploy.local.loop import SERVICES
from deploy.local.ports import Ports, free_base_port
from deploy.local.settings import REPOSITORY_ROOT


def driftloop(command: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", f"from driftloop.cli.local import {command}; {command}()", *arguments],
        check=False,
        cwd=REPOSITORY_ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_port_in_use_ends_up_with_one_sentence_and_exit_code_1(tmp_path: Path) -> None:
    base = free_base_port()
    port = Ports(base).services(SERVICES)["serving"]
    with socket.create_server(("127.0.0.1", port)):
        result = driftloop("up", "--state", str(tmp_path), DRIFTLOOP_LOCAL_BASE_PORT=str(base))
    assert result.returncode == 1
    assert result.stderr.startswith(f"Error: Port {port}, which serving needs, is in use")
    assert result.stderr.count("\n") == 1


def test_too_little_disk_ends_up_with_one_sentence_and_exit_code_1(tmp_path: Path) -> None:
    result = driftloop("up", "--state", str(tmp_path), DRIFTLOOP_LOCAL_FREE_DISK_BYTES_MIN=str(1 << 60))
    assert result.returncode == 1
    assert "MiB free" in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_folder_that_cannot_be_written_ends_up_with_one_sentence_and_exit_code_1(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    result = driftloop("up", "--state", str(tmp_path / "file" / "below"))
    assert result.returncode == 1
    assert "choose another folder with --state" in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_broker_that_does_not_answer_ends_up_with_one_sentence_and_exit_code_1(tmp_path: Path) -> None:
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unheard.getsockname()[1]}"
        result = driftloop(
            "up",
            "--state",
            str(tmp_path),
            KAFKA_BOOTSTRAP_SERVERS=address,
            DRIFTLOOP_LOCAL_BROKER_ANSWER_TIMEOUT_S="1",
            DRIFTLOOP_LOCAL_BASE_PORT=str(free_base_port()),
        )
    assert result.returncode == 1
    assert f"No Kafka broker answers at {address}" in result.stderr


def test_an_unknown_use_case_is_wrong_use_with_exit_code_2() -> None:
    result = driftloop("up", "--use-case", "nosuch")
    assert result.returncode == 2
    assert "nosuch" in result.stderr


def test_a_wrong_setting_is_wrong_use_with_exit_code_2_and_its_name() -> None:
    result = driftloop("up", DRIFTLOOP_LOCAL_BASE_PORT="80")
    assert result.returncode == 2
    assert "DRIFTLOOP_LOCAL_BASE_PORT" in result.stderr


def test_down_with_nothing_running_says_so(tmp_path: Path) -> None:
    result = driftloop("down", "--state", str(tmp_path))
    assert result.returncode == 0
    assert result.stdout == f"Nothing runs in {tmp_path}.\n"
