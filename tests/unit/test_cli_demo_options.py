"""`driftloop demo` and `driftloop replay` take what the use case's replay takes, and say so where it does not."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from driftloop.cli.__main__ import main
from driftloop.cli.replay import load_stretch
from tests.sample_tables import demand

NAME = "district_demand"


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    demand(700).to_parquet(tmp_path / "demand.parquet")
    table = ["--from", str(tmp_path / "demand.parquet"), "--label", "load", "--time", "hour"]
    result = CliRunner().invoke(main, ["new", NAME, *table, "--into", str(tmp_path / "mine")])
    assert result.exit_code == 0, result.output
    monkeypatch.setenv("DRIFTLOOP_USECASES", str(tmp_path / "mine"))
    yield tmp_path / "mine"
    for module in [module for module in sys.modules if module.startswith(f"driftloop_usecases.{NAME}.")]:
        del sys.modules[module]


@pytest.mark.parametrize("command", ["demo", "replay"])
@pytest.mark.parametrize("option", [["--days", "5"], ["--start", "2024-01-01"], ["--inject", "concept"]])
def test_an_option_that_a_table_does_not_have_is_refused_with_those_it_has(folders, command, option):
    result = CliRunner().invoke(main, [command, NAME, *option])
    assert result.exit_code == 2
    said = " ".join(result.output.split())
    assert f"the replay of {NAME} has no {option[0]}; of these options it takes --rows" in said


def test_a_use_case_without_rows_refuses_them_with_its_own_options():
    result = CliRunner().invoke(main, ["demo", "flights", "--rows", "5"])
    assert result.exit_code == 2
    assert "it takes --start, --days, --inject" in " ".join(result.output.split())


def test_a_use_case_on_the_search_path_is_found_and_its_first_rows_are_taken(folders):
    use_case, stretch = load_stretch(NAME, rows=50, start=None, days=None)
    assert (use_case.name, stretch.rows, stretch.injected_at_us) == (NAME, 50, None)
