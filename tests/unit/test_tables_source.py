"""`driftloop new`: what it writes declares what was inferred, can be corrected, and is found from anywhere."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from driftloop.cli.__main__ import main
from driftloop.tables import InferenceOptions, TableError, TableStretch, infer, read_table, use_case_of
from driftloop.usecase import Field, Request, UseCase, load_replay, load_use_case
from tests.sample_tables import demand, payments, tickets

ROWS = 700
HOSTILE = 'a"""\nimport os  # \\ \u2028 {x}'


@dataclasses.dataclass(frozen=True)
class Made:
    """A table's file and what its owner says of it."""

    file: Path
    arguments: list[str]
    options: InferenceOptions


def hostile() -> pd.DataFrame:
    """A table whose names and classes would break a program that took them as they are."""
    table = payments(ROWS, seed=5)[["shop", "amount", "charged_back"]]
    table["charged_back"] = table["charged_back"].where(table.index % 3 > 0, HOSTILE)
    return table.rename(columns={"shop": HOSTILE, "amount": "class", "charged_back": "what's the label?"})


def defaults() -> pd.DataFrame:
    """A thousand rows a day, so many that every part of the policy is the default."""
    at = pd.Timestamp("2024-01-01") + pd.to_timedelta(np.arange(70_000) * 86.4, unit="s")
    rng = np.random.default_rng(0)
    return pd.DataFrame({"at": at, "x": rng.normal(size=70_000), "label": rng.random(70_000) < 0.5})


CASES = {
    "payments": (
        payments(ROWS),
        {"label": "charged_back", "time": "paid at", "label_time": "settled at", "keys": ("shop",)},
    ),
    "tickets": (
        tickets(ROWS),
        {"label": "team", "label_delay": 50, "keys": ("product",), "categorical": ("severity",)},
    ),
    "demand": (demand(ROWS), {"label": "load", "time": "hour", "keys": ("district",)}),
    "hostile": (hostile(), {"label": "what's the label?", "exclude": ("class",)}),
    "class": (demand(ROWS), {"label": "load", "keys": ("district",), "exclude": ("hour", "temperature")}),
    "2024-all-by-default": (defaults(), {"label": "label", "time": "at"}),
}


def made(folder: Path, name: str) -> Made:
    table, about = CASES[name]
    file = folder / f"{name}.csv"
    table.to_csv(file, index=False)
    arguments = [name, "--from", str(file), "--into", str(folder / "mine")]
    for option, value in about.items():
        values = value if isinstance(value, tuple) else (value,)
        arguments += [part for v in values for part in (f"--{option.removesuffix('s').replace('_', '-')}", str(v))]
    return Made(file, arguments, InferenceOptions(**about, name=name))


@pytest.fixture(params=CASES)
def written(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Made, str, Path]]:
    case = made(tmp_path, request.param)
    result = CliRunner().invoke(main, ["new", *case.arguments])
    assert result.exit_code == 0, result.output
    yield case, request.param, tmp_path / "mine"
    forget(request.param)


def forget(name: str) -> None:
    """Use cases of other tests may have the same name."""
    for module in [module for module in sys.modules if module.startswith(f"driftloop_usecases.{name}.")]:
        del sys.modules[module]


def described(use_case: UseCase) -> dict[str, object]:
    """All that a use case says in public; functions by what they give."""
    seen: dict[str, object] = {}
    for name in dir(use_case):
        value = getattr(use_case, name)
        if not name.startswith("_") and not callable(value):
            seen[name] = value
    label, sample = use_case.label, {name: "x" for name in use_case.label.on.fields}
    seen["label"] = (label.on, label.on.fields, [e.name for e in label.never], label.matures_after, label.value(sample))
    seen["features"] = [
        [f if isinstance(f, str) else f.name for f in item.features] if isinstance(item, Request) else item
        for item in use_case.features
    ]
    transforms = use_case.request_transforms
    seen["request_transforms"] = [(t.name, t.of, t.compute(86_400_000_000 * 3 + 7_200_000_000)) for t in transforms]
    seen["fields"] = {event.name: dict(event.fields) for event in use_case.events}
    seen["inputs"] = [(feature.name, feature.numeric) for feature in use_case.inputs]
    seen["request_inputs"] = [(feature.name, feature.numeric) for feature in use_case.request_inputs]
    seen["slices"] = list(use_case.slices)
    seen["events"] = list(use_case.events)
    return seen


def test_the_written_declaration_is_what_was_inferred(written):
    case, name, folder = written
    table = read_table(case.file)
    inferred = use_case_of(infer(table, case.options))
    loaded = load_use_case(name, str(folder))
    assert described(loaded) == described(inferred)


def test_the_written_folder_replays_what_the_table_says(written):
    case, name, folder = written
    table = read_table(case.file)
    from_table = TableStretch(table, infer(table, case.options))
    from_folder = load_replay(name, str(folder)).stretch()
    assert list(from_folder.events()) == list(from_table.events())
    assert list(from_folder.requests()) == list(from_table.requests())


def test_what_is_written_is_in_form(written):
    _, name, folder = written
    for command in (["format", "--check"], ["check"]):
        ruff = [sys.executable, "-m", "ruff", *command, "--isolated", "--line-length", "120", str(folder / name)]
        done = subprocess.run(ruff, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def tickets_folder(tmp_path: Path) -> Iterator[Path]:
    result = CliRunner().invoke(main, ["new", *made(tmp_path, "tickets").arguments])
    assert result.exit_code == 0, result.output
    yield tmp_path / "mine" / "tickets"
    forget("tickets")


def corrected(folder: Path, old: str, new: str):
    file = folder / "usecase.py"
    source = file.read_text()
    assert old in source
    file.write_text(source.replace(old, new))
    return load_replay("tickets", str(folder.parent)).stretch()


def test_a_number_that_the_owner_makes_a_category_is_replayed_as_one(tickets_folder):
    stretch = corrected(tickets_folder, '"words": Field(float', '"words": Field(str')
    texts = {request.fields["words"] for request in stretch.requests() if "words" in request.fields}
    assert "60" in texts


def test_a_field_that_the_table_does_not_have_is_named(tickets_folder):
    with pytest.raises(TableError, match=r"'wordz'.*the table has no such column"):
        corrected(tickets_folder, '"words"', '"wordz"')


def test_a_field_of_another_kind_than_the_table_has_is_named(tickets_folder):
    with pytest.raises(TableError, match="'weekend' is a time"):
        corrected(tickets_folder, '"weekend": Field(bool)', '"weekend": Field("time")')


def test_a_field_that_rows_lack_must_be_optional(tickets_folder):
    with pytest.raises(TableError, match=r"'words', .* say optional=True"):
        corrected(tickets_folder, '"words": Field(float, optional=True)', '"words": Field(float)')


def test_an_event_that_no_row_tells_is_refused(tickets_folder):
    file = tickets_folder / "usecase.py"
    file.write_text(file.read_text().replace("events=[asked,", 'events=[Event("stormy", entity="row"), asked,'))
    with pytest.raises(TableError, match="stormy"):
        load_replay("tickets", str(tickets_folder.parent)).stretch()


def test_a_folder_that_is_there_is_left_as_it_is(tickets_folder, tmp_path):
    before = (tickets_folder / "usecase.py").stat().st_mtime_ns
    result = CliRunner().invoke(main, ["new", *made(tmp_path, "tickets").arguments])
    assert result.exit_code == 2
    assert "is there already" in result.output
    assert (tickets_folder / "usecase.py").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"--label": "nothing"}, "--label nothing: tickets.csv has no such column"),
        ({"--label": None, "--label-delay": None}, "--label-delay says something about a table"),
        ({"--from": "nowhere.csv"}, "nowhere.csv does not exist"),
    ],
)
def test_what_is_wrong_is_said_with_exit_code_2_and_nothing_is_written(tmp_path, changed, said):
    arguments = made(tmp_path, "tickets").arguments
    for option, value in changed.items():
        place = arguments.index(option)
        arguments[place : place + 2] = [] if value is None else [option, value]
    if "--label-delay" in changed:
        arguments += ["--label-delay", "5"]
    result = CliRunner().invoke(main, ["new", *arguments])
    assert result.exit_code == 2
    assert said in " ".join(result.output.split())
    assert not (tmp_path / "mine").exists()


def test_without_a_label_the_columns_are_listed(tmp_path):
    tickets(ROWS).to_csv(tmp_path / "tickets.csv", index=False)
    result = CliRunner().invoke(main, ["new", "tickets", "--from", str(tmp_path / "tickets.csv")])
    assert result.exit_code == 2
    assert "product, severity, words, weekend, team" in result.output


@pytest.mark.parametrize("name", ["../up", "has space", "-x", "a" * 41, ""])
def test_a_name_that_cannot_be_a_use_case_is_refused(tmp_path, name):
    arguments = made(tmp_path, "tickets").arguments[1:]
    result = CliRunner().invoke(main, ["new", *arguments, "--", name])
    assert result.exit_code == 2
    assert "cannot name a use case" in result.output


def test_a_table_of_few_rows_is_shown_whole(tickets_folder):
    assert "driftloop demo tickets   # its rows" in (tickets_folder / "README.md").read_text()


def test_the_data_keep_every_column_so_that_one_left_out_can_be_taken_in(tickets_folder):
    table = read_table(tickets_folder / "data.parquet")
    assert set(table.names) == {"asked_at", "product", "severity", "words", "weekend", "team", "label_known_at"}
    assert load_use_case("tickets", str(tickets_folder.parent)).predict.on.fields["severity"] == Field(str)
