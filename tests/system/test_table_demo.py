"""A person's table, from a file to a running loop, by the commands that the guide names and in a folder of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sample_tables import tickets

ROWS = 700


def driftloop(folder: Path, *arguments: str) -> str:
    environment = {**os.environ, "DRIFTLOOP_USECASES": "mine"}
    command = [sys.executable, "-c", "from driftloop.cli.__main__ import main; main()", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.system
@pytest.mark.timeout(300)
def test_a_table_of_classes_becomes_a_use_case_whose_loop_releases_a_model(tmp_path):
    tickets().to_csv(tmp_path / "tickets.csv", index=False)
    about = ["--label", "team", "--label-delay", "20", "--key", "product", "--categorical", "severity"]
    said = driftloop(tmp_path, "new", "helpdesk", "--from", "tickets.csv", *about, "--into", "mine")
    assert "label 'team': multiclass" in said
    usecase = tmp_path / "mine" / "helpdesk" / "usecase.py"
    source = usecase.read_text()
    usecase.write_text(source.replace("bootstrap_rows=585", "bootstrap_rows=350"))
    assert usecase.read_text() != source
    driftloop(tmp_path, "demo", "helpdesk", "--rows", str(ROWS), "--out", "demo")
    summary = json.loads((tmp_path / "demo" / "summary.json").read_text())
    assert summary["events"]["accepted"] == summary["events"]["sent"] == 2 * ROWS
    assert summary["predictions"]["failed"] == 0
    assert summary["predictions"]["answered"] > ROWS // 4
    assert summary["labels"]["pending"] == 0
    assert summary["models"][0]["promoted"]
    assert (tmp_path / "demo" / "report.html").stat().st_size > 10_000
