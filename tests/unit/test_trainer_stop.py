"""A trainer that is told to end does so within its bound, whatever a library does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

KEEPS_THE_INTERPRETER = """
import ctypes
from services.trainer.__main__ import end_within
end_within(0.2)
ctypes.PyDLL(None).sleep(50)
"""


def test_a_library_that_keeps_the_interpreters_lock_does_not_keep_the_process_from_ending() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", KEEPS_THE_INTERPRETER], cwd=ROOT, capture_output=True, text=True, timeout=40, check=False
    )
    assert ended.returncode == 1
    assert "Timeout" in ended.stderr
    assert "most recent call first" in ended.stderr
