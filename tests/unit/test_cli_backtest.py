"""`driftloop backtest` as people call it: what is wrong is said in a sentence, and Ctrl-C leaves a report."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner, Result

from driftloop.cli.__main__ import main
from tests.backtest_twin import returns

ROOT = Path(__file__).resolve().parents[2]


def written(table: pd.DataFrame, folder: Path) -> str:
    path = folder / "orders.csv"
    table.to_csv(path, index=False)
    return str(path)


def called(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["backtest", *arguments])


ORDERS = returns(600)


RETURNED = ["--label", "returned"]
TIMED = [*RETURNED, "--time", "ordered"]
TOLD = pd.to_datetime(ORDERS["ordered"]) - pd.Timedelta("1h")


@pytest.mark.parametrize(
    ("table", "arguments", "wrong", "remedy"),
    [
        (ORDERS, [], "which column of", "Say --label COL"),
        (ORDERS, ["--label", "return"], "has no such column", "did you mean 'returned'?"),
        (ORDERS[:300], RETURNED, "has 300 rows", "at least 500 are needed"),
        (ORDERS.assign(returned=True), RETURNED, "with one class there is nothing to predict", "or another --label"),
        (ORDERS.assign(returned=None), RETURNED, "has no value in any row", "give another --label, or fill it in"),
        (ORDERS.assign(coupon=None), RETURNED, "'coupon' has no value in any row", "--exclude coupon"),
        (ORDERS.assign(ordered="soon"), TIMED, "row 1: 'soon'", "ISO 8601"),
        (ORDERS[::-1], TIMED, "the newest row comes first", "sort the rows"),
        (ORDERS.sample(frac=1.0, random_state=0), TIMED, "is not sorted by time 'ordered'", "sort the rows"),
        (
            ORDERS.assign(told=TOLD),
            [*TIMED, "--label-time", "told"],
            "600 rows have their label before their prediction",
            "correct the times, or give another column",
        ),
        (pd.concat([ORDERS, ORDERS]), RETURNED, "600 of 1,200 rows repeat an earlier row", "--allow-repeated"),
        (ORDERS, [*RETURNED, "--policy", "static,weekly"], "no policy 'weekly'", "periodic-"),
        (ORDERS, [*RETURNED, "--policy", "drift,drift"], "named twice", ""),
        (ORDERS, [*RETURNED, "--policy", "periodic-300%"], "1 % to 90 %", ""),
        (ORDERS, [*RETURNED, "--days", "3"], "is a table", ""),
    ],
)
def test_bad_input_ends_with_what_is_wrong_and_what_to_do_and_code_2(
    table: pd.DataFrame, arguments: list[str], wrong: str, remedy: str, tmp_path: Path
) -> None:
    result = called(written(table, tmp_path), *arguments, "--out", str(tmp_path / "out"))
    assert result.exit_code == 2, result.output
    said = " ".join(result.output.split())
    assert wrong in said
    assert remedy in said
    assert "Traceback" not in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "no use case 'nowhere'"),
        (["flights", "--label", "delay"], "declares its label"),
        (["usecases/flights", "--start", "1999-01-01"], "the data are of 2013"),
        (["missing.csv", "--label", "x"], "missing.csv"),
    ],
)
def test_what_is_not_there_is_said_with_code_2(arguments: list[str], said: str, tmp_path: Path) -> None:
    result = called(*arguments, "--out", str(tmp_path / "out"))
    assert result.exit_code == 2, result.output
    assert said in result.output.replace("\n", " ")


def test_json_prints_the_report_and_nothing_else(tmp_path: Path) -> None:
    out = tmp_path / "out"
    data = written(returns(900), tmp_path)
    command = [sys.executable, "-m", "driftloop.cli", "backtest", data, "--label", "returned", "--time", "ordered"]
    done = subprocess.run(
        [*command, "--policy", "static", "--out", str(out), "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == json.loads((out / "report.json").read_text())
    assert "label 'returned'" in done.stderr


def test_ctrl_c_leaves_a_report_of_what_is_finished_and_ends_with_130(tmp_path: Path) -> None:
    out = tmp_path / "out"
    data = written(returns(4_000), tmp_path)
    command = [sys.executable, "-m", "driftloop.cli", "backtest", data, "--label", "returned", "--time", "ordered"]
    process = subprocess.Popen(
        [*command, "--policy", "static,periodic-1%", "--jobs", "1", "--out", str(out)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("static: done"):
            process.send_signal(signal.SIGINT)
            break
    printed, said = process.communicate(timeout=120)
    assert process.returncode == 130, said
    report = json.loads((out / "report.json").read_text())
    assert (list(report["policies"]), report["interrupted"]) == (["static"], ["periodic-1%"])
    assert "interrupted" in (out / "report.html").read_text()
    assert "static" in printed
