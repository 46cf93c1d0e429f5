"""What serving is installed with: its own environment has no torch, and stays small enough for a node to fetch in seconds."""

from __future__ import annotations

import subprocess
from pathlib import Path

ENVIRONMENT = Path(__file__).resolve().parents[2] / ".venvs" / "serving"
SIZE_BYTES_MAX = 1_000_000_000


def test_serving_is_installed_without_torch_and_below_a_gigabyte() -> None:
    found = subprocess.run(
        [ENVIRONMENT / "bin" / "python", "-c", "import importlib.util as u; print(u.find_spec('torch'))"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == "None"
    sizes = {file.stat().st_ino: file.stat().st_size for file in ENVIRONMENT.rglob("*") if file.is_file()}
    assert sum(sizes.values()) < SIZE_BYTES_MAX
