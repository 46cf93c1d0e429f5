"""One loop at a time has a state folder, and whoever has it can be found and stopped."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from deploy.local.claim import Claim, holder, stop_holder
from deploy.local.errors import StopTheOther
from deploy.local.settings import REPOSITORY_ROOT

_HOLD = """
import pathlib, sys
from deploy.local.claim import Claim
claim = Claim.take(pathlib.Path(sys.argv[1]))
print(1, flush=True)
sys.stdin.read()
"""


def another_process_that_holds(state_dir: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(state_dir)],
        cwd=REPOSITORY_ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "1\n"
    return process


def test_a_second_claim_is_refused_with_the_first_ones_process(tmp_path: Path) -> None:
    with another_process_that_holds(tmp_path) as other:
        with pytest.raises(StopTheOther, match=rf"process {other.pid}.*driftloop down"):
            Claim.take(tmp_path)
        other.kill()


def test_a_folder_whose_holder_was_killed_can_be_claimed(tmp_path: Path) -> None:
    with another_process_that_holds(tmp_path) as other:
        other.kill()
    Claim.take(tmp_path).release()


def test_a_released_folder_can_be_claimed_again_and_has_no_holder(tmp_path: Path) -> None:
    Claim.take(tmp_path).release()
    assert holder(tmp_path) is None
    Claim.take(tmp_path).release()


def test_a_process_that_merely_has_the_recorded_pid_is_not_the_holder(tmp_path: Path) -> None:
    me = psutil.Process()
    (tmp_path / "loop.lock").write_text(json.dumps({"pid": me.pid, "create_time": me.create_time() - 1}))
    assert holder(tmp_path) is None
    assert stop_holder(tmp_path, timeout_s=1) is False


def test_the_holder_is_stopped_politely(tmp_path: Path) -> None:
    with another_process_that_holds(tmp_path) as other:
        assert stop_holder(tmp_path, timeout_s=20) is True
        assert other.wait(20) == -signal.SIGTERM
    assert stop_holder(tmp_path, timeout_s=1) is False


def test_where_nothing_ever_ran_there_is_nothing_to_stop(tmp_path: Path) -> None:
    assert stop_holder(tmp_path / "never", timeout_s=1) is False
