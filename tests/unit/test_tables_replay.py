"""A table as a use case's history: what is announced, asked and told, and when."""

from __future__ import annotations

import numpy as np
import pandas as pd

from driftloop.tables import InferenceOptions, TableStretch, infer, read_table, use_case_of
from driftloop.usecase import replay_steps

ROWS = 600


def frame(rows: int = ROWS) -> pd.DataFrame:
    rng = np.random.default_rng(3)
    return pd.DataFrame(
        {
            "placed": pd.date_range("2024-03-01", periods=rows, freq="13min"),
            "shop": rng.choice(["north", "south", "west"], rows),
            "amount": np.where(rng.random(rows) < 0.1, np.nan, rng.normal(50, 9, rows)),
            "late": rng.choice(["yes", "no"], rows, p=[0.2, 0.8]),
        }
    )


def stretch_of(tmp_path, table: pd.DataFrame, rows: int | None = None, **options):
    file = tmp_path / "orders.csv"
    table.to_csv(file, index=False)
    read = read_table(file)
    inferred = infer(read, InferenceOptions(**({"label": "late"} | options)))
    return use_case_of(inferred), TableStretch(read, inferred, rows)


def test_every_row_is_announced_asked_and_labelled_once_in_order_of_time_known(tmp_path):
    _, stretch = stretch_of(tmp_path, frame(), time="placed", keys=["shop"])
    events, requests = list(stretch.events()), list(stretch.requests())
    assert [(e.known_at_us, e.id) for e in events] == sorted((e.known_at_us, e.id) for e in events)
    assert [(r.at_us, r.entity) for r in requests] == sorted((r.at_us, r.entity) for r in requests)
    by_type = {kind: [e.entity for e in events if e.type == kind] for kind in ("asked", "labelled")}
    assert by_type["asked"] == by_type["labelled"] == [r.entity for r in requests]
    assert len(requests) == stretch.rows == ROWS
    assert all(stretch.start_us <= e.known_at_us < stretch.end_us for e in events)


def test_a_row_without_a_label_is_closed_and_missing_values_are_left_out(tmp_path):
    table = frame()
    table.loc[4, "late"] = None
    table.loc[4, "amount"] = None
    _, stretch = stretch_of(tmp_path, table, time="placed")
    told = [event for event in stretch.events() if event.entity == "row-00000004"]
    assert [event.type for event in told] == ["asked", "closed"]
    assert set(told[0].fields) == {"placed", "shop"}


def test_a_label_that_comes_rows_later_is_known_just_before_the_row_that_many_later(tmp_path):
    _, stretch = stretch_of(tmp_path, frame(), time="placed", label_delay=25)
    known = {e.entity: e.known_at_us for e in stretch.events() if e.type == "labelled"}
    asked = {r.entity: r.at_us for r in stretch.requests()}
    assert known["row-00000010"] == asked["row-00000035"] - 1


def test_the_first_rows_alone_can_be_replayed(tmp_path):
    use_case, stretch = stretch_of(tmp_path, frame(), rows=100)
    steps = list(replay_steps(stretch, use_case.step_us))
    assert sum(len(step.requests) for step in steps) == 100
    assert sum(len(step.events) for step in steps) == 200


def test_csv_and_parquet_tell_the_same(tmp_path):
    table = frame()
    table["late"] = table["late"] == "yes"
    _, from_csv = stretch_of(tmp_path, table, time="placed", keys=["shop"])
    table.to_parquet(tmp_path / "orders.parquet")
    read = read_table(tmp_path / "orders.parquet")
    from_parquet = TableStretch(read, infer(read, InferenceOptions(label="late", time="placed", keys=["shop"])))
    assert list(from_parquet.events()) == list(from_csv.events())
