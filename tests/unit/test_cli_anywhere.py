"""Commands that need more of a checkout than the library find it wherever they are called."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("command", [["features", "backfill"], ["replay-window"]])
def test_a_command_called_from_another_folder_finds_what_it_runs(command: list[str], tmp_path: Path) -> None:
    argv = [str(Path(sys.executable).with_name("driftloop")), *command, "flights", "--from", "noon"]
    found = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (found.returncode, "'noon' is no moment" in found.stderr) == (2, True), found.stderr
