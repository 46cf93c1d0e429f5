"""What is inferred from a table, how it is said, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from driftloop.tables import (
    InferenceOptions,
    Inferred,
    TableError,
    TableSettings,
    UnfitLabel,
    UnfitRows,
    UnfitTimes,
    UnknownColumn,
    UnreadableTable,
    infer,
    read_table,
    use_case_of,
)
from driftloop.usecase import DAY_US, HOUR_US, MINUTE_US
from tests.sample_tables import demand, payments, tickets

ROWS = 800


def frame(rows: int = ROWS, **columns) -> pd.DataFrame:
    rng = np.random.default_rng(7)
    made = {
        "at": pd.date_range("2024-03-01", periods=rows, freq="10min"),
        "size": rng.normal(10, 2, rows),
        "kind": rng.choice(["a", "b", "c"], rows),
        "label": rng.choice(["good", "bad"], rows, p=[0.7, 0.3]),
    }
    return pd.DataFrame(made | columns)


def inferred(tmp_path: Path, table: pd.DataFrame, **options) -> Inferred:
    file = tmp_path / "things.csv"
    table.to_csv(file, index=False)
    return infer(read_table(file), InferenceOptions(**({"label": "label"} | options)))


def column(found: Inferred, name: str):
    return next(column for column in found.columns if column.name == name)


# the label


@pytest.mark.parametrize(
    ("values", "true"),
    [(["good", "bad"], "bad"), (["No", "Yes"], "Yes"), ([0, 1], "1"), ([1, 2], "2"), ([True, False], "true")],
)
def test_of_two_values_the_one_that_says_so_or_the_larger_or_the_rarer_is_predicted(tmp_path, values, true):
    label = np.random.default_rng(0).choice(np.array(values, dtype=object), ROWS, p=[0.7, 0.3])
    found = inferred(tmp_path, frame(label=label))
    assert found.label.task == "binary"
    assert found.label.classes[1] == true
    assert any(f"'{true}' is what is predicted" in sentence for sentence in found.sentences())


def test_the_other_of_two_classes_can_be_asked_for(tmp_path):
    assert inferred(tmp_path, frame(), positive="good").label.classes == ("bad", "good")


@pytest.mark.parametrize(
    ("values", "options", "task"),
    [
        (["x", "y", "z"], {}, "multiclass"),
        ([1, 2, 3], {}, "multiclass"),
        ([1, 2, 3], {"task": "regression"}, "regression"),
        (list(range(40)), {}, "regression"),
        (list(range(40)), {"task": "classification"}, "multiclass"),
        ([0.5, 1.5, 2.5], {}, "regression"),
    ],
)
def test_the_task_follows_from_the_label_unless_it_is_said(tmp_path, values, options, task):
    label = np.random.default_rng(0).choice(np.array(values, dtype=object), ROWS)
    found = inferred(tmp_path, frame(label=label), **options)
    assert found.label.task == task
    assert len(found.label.classes) == (len(values) if task == "multiclass" else 0)


def test_rows_without_a_label_are_said_and_closed_not_judged(tmp_path):
    table = frame()
    table.loc[:9, "label"] = None
    found = inferred(tmp_path, table)
    assert found.unlabelled == 10
    assert any("rows without a label: 10" in sentence for sentence in found.sentences())
    assert [event.name for event in use_case_of(found).label.never] == ["closed"]


# the columns


def test_what_carries_nothing_is_left_out_with_its_reason(tmp_path):
    table = frame(
        order=range(ROWS),
        customerId=np.random.default_rng(0).integers(0, 10_000, ROWS),
        note=[f"free text {i}" for i in range(ROWS)],
        same="x",
        grows=np.sort(np.random.default_rng(0).normal(size=ROWS)),
    )
    found = inferred(tmp_path, table)
    reasons = {c.name: c.because for c in found.columns if c.role == "left out"}
    assert set(reasons) == {"order", "customerId", "note", "same", "grows"}
    assert "id" in reasons["customerId"]
    assert "clock" in reasons["grows"]


def test_a_column_without_any_value_is_refused_until_it_is_left_out(tmp_path):
    table = frame(empty=None, void=None)
    with pytest.raises(UnfitRows, match=r"'empty', 'void' have no value in any row: .* --exclude empty,void"):
        inferred(tmp_path, table)
    found = inferred(tmp_path, table, exclude=["empty", "void"])
    assert {c.name for c in found.columns if c.role == "left out"} == {"empty", "void"}


def test_numbers_with_few_values_stay_numbers_until_they_are_said_to_be_codes(tmp_path):
    table = frame(grade=np.random.default_rng(0).integers(1, 5, ROWS))
    found = inferred(tmp_path, table)
    assert column(found, "grade").role == "number"
    assert any("--categorical grade" in sentence for sentence in found.sentences())
    said = inferred(tmp_path, table, categorical=["grade"])
    assert use_case_of(said).predict.on.fields["grade"].type is str


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (lambda number: f"{number:.3f}".replace(".", ","), "numbers with a comma"),
        (lambda number: "n. a." if number > 12.2 else f"{number:.3f}", "the first that is none is 'n. a.'"),
    ],
)
def test_what_keeps_a_column_of_numbers_from_being_one_is_said(tmp_path, written, said):
    table = frame()
    table["weight"] = [written(10 + 0.003 * place) for place in range(ROWS)]
    sentences = inferred(tmp_path, table).sentences()
    assert any("left out 'weight'" in sentence and said in sentence for sentence in sentences)


def test_a_category_of_numbers_but_for_a_few_texts_is_doubted(tmp_path):
    table = frame(age=[f"{place % 40}" if place % 40 else "unknown" for place in range(ROWS)])
    sentences = inferred(tmp_path, table).sentences()
    assert any(
        "column 'age': it is taken for 40 texts" in sentence and "'unknown'" in sentence for sentence in sentences
    )


def test_names_that_cannot_be_fields_get_one_and_that_is_said(tmp_path):
    table = frame(
        **{"Größe (cm)": 1.5 * np.arange(ROWS) % 7, "2nd": np.arange(ROWS) % 9, "size!": np.arange(ROWS) % 11}
    )
    found = inferred(tmp_path, table)
    assert [column(found, name).field for name in ("size", "Größe (cm)", "2nd", "size!")] == [
        "size",
        "Groe_cm",
        "column_2nd",
        "size_2",
    ]
    assert any("Größe (cm) (named Groe_cm" in sentence for sentence in found.sentences())


@pytest.mark.parametrize(
    "leak",
    [
        lambda table: np.where(table["label"] == "bad", 5.0, 1.0) + np.random.default_rng(1).normal(0, 0.1, ROWS),
        lambda table: table["label"].map({"good": "closed", "bad": "refunded"}),
    ],
)
def test_a_column_that_tells_the_label_alone_is_warned_of(tmp_path, leak):
    table = frame()
    table["outcome"] = leak(table)
    said = [sentence for sentence in inferred(tmp_path, table).sentences() if "beware" in sentence]
    assert len(said) == 1
    assert "--exclude outcome" in said[0]


def test_dates_become_their_hour_and_weekday_where_these_tell_rows_apart(tmp_path):
    days = pd.to_datetime("2023-01-01") + pd.to_timedelta(np.arange(ROWS) % 300, unit="D")
    found = inferred(tmp_path, frame(signed_up=days.date), time="at")
    use_case = use_case_of(found)
    assert "weekday_of_signed_up" in use_case.numeric_inputs
    assert "hour_of_signed_up" not in use_case.numeric_inputs
    assert "hour_of_at" in use_case.numeric_inputs


def test_a_key_brings_what_is_known_of_it_so_far(tmp_path):
    use_case = use_case_of(inferred(tmp_path, frame(), keys=["kind"], time="at"))
    assert {view.name for view in use_case.views} == {"labelled_label_by_kind", "labelled_latest_by_kind"}
    assert use_case.slices == ["kind"]


def test_a_key_with_very_many_values_is_a_join_key_and_no_input(tmp_path):
    table = frame(customer=np.random.default_rng(0).integers(0, 400, ROWS))
    use_case = use_case_of(inferred(tmp_path, table, keys=["customer"]))
    assert "customer" in use_case.request_fields
    assert "customer" not in use_case.text_inputs


# time


def test_rows_without_a_time_come_one_a_minute(tmp_path):
    found = inferred(tmp_path, frame().drop(columns="at"))
    assert set(np.diff(found.clock.at_us)) == {MINUTE_US}
    assert found.durations.step_us == 10 * MINUTE_US


def test_rows_of_one_day_are_spread_over_it_and_those_of_one_second_within_it(tmp_path):
    days = pd.to_datetime("2024-03-01") + pd.to_timedelta(np.arange(ROWS) // 8, unit="D")
    assert set(np.diff(inferred(tmp_path, frame(at=days.date), time="at").clock.at_us)) == {3 * HOUR_US}
    pairs = pd.to_datetime("2024-03-01 00:00:05") + pd.to_timedelta(np.arange(ROWS) // 2 * 3_600, unit="s")
    assert set(np.diff(inferred(tmp_path, frame(at=pairs), time="at").clock.at_us)) == {500_000, HOUR_US - 500_000}


@pytest.mark.parametrize("unit", [1, 1_000, 1_000_000])
def test_times_can_be_numbers_since_1970(tmp_path, unit):
    seconds = 1_700_000_000 + 60 * np.arange(ROWS)
    assert inferred(tmp_path, frame(at=seconds * unit), time="at").clock.at_us[1] == 1_700_000_060_000_000


def test_times_with_a_zone_are_taken_as_utc(tmp_path):
    table = frame()
    table["at"] = table["at"].dt.tz_localize("Europe/Vienna").map(lambda at: at.isoformat())
    first = inferred(tmp_path, table, time="at").clock.at_us[0]
    assert first == int(pd.Timestamp("2024-02-29 23:00:00").timestamp()) * 1_000_000


def test_the_time_of_day_alone_can_be_what_is_predicted_from(tmp_path):
    assert inferred(tmp_path, frame()[["at", "label"]], time="at").time_transforms == ("hour",)


def test_a_label_date_stands_for_its_whole_day(tmp_path):
    found = inferred(tmp_path, frame(told=frame()["at"].dt.date), time="at", label_time="told")
    assert np.all(found.clock.known_at_us > found.clock.at_us)
    assert np.all((found.clock.known_at_us + 1) % DAY_US == 0)


def test_the_durations_follow_from_how_often_rows_come(tmp_path):
    found = inferred(tmp_path, frame(at=pd.date_range("2020-01-01", periods=ROWS, freq="D")), time="at")
    assert found.durations.step_us == 10 * DAY_US
    assert (found.durations.cohort, found.durations.cooldown) == ("40d", "100d")
    assert found.durations.budget == "1 retrain/week"


def test_quiet_nights_do_not_make_millions_of_empty_steps(tmp_path):
    bursts = pd.to_datetime("2020-01-01") + pd.to_timedelta(
        np.arange(ROWS) // 50 * 86_400 * 30 + np.arange(ROWS) % 50, unit="s"
    )
    found = inferred(tmp_path, frame(at=bursts), time="at")
    assert found.clock.span_us / found.durations.step_us < ROWS


# what is refused


def mended(column: str, row: int, value: object) -> pd.DataFrame:
    table = frame().astype({column: object})
    table.loc[row, column] = value
    return table


@pytest.mark.parametrize(
    ("table", "options", "error", "said"),
    [
        (
            frame(),
            {"label": "labl"},
            UnknownColumn,
            r"--label labl: things.csv has no such column \(did you mean 'label'",
        ),
        (frame(), {"keys": ["shop"]}, UnknownColumn, "--key shop"),
        (frame(), {"keys": ["label"]}, UnknownColumn, "already"),
        (frame(), {"time": "label"}, UnknownColumn, "for two things"),
        (frame(rows=499), {}, UnfitRows, "499 rows, at least 500"),
        (frame(label="good"), {}, UnfitLabel, "one class there is nothing to predict"),
        (frame(label=None), {}, UnfitLabel, "no value in any row"),
        (frame(label=["x", "y"] + [None] * (ROWS - 2)), {}, UnfitLabel, "2 of 800 rows have a label"),
        (frame(label=[f"c{i % 60}" for i in range(ROWS)]), {}, UnfitLabel, "60 classes, at most 50"),
        (mended("size", 3, np.inf), {"label": "size"}, UnfitLabel, "infinite in 1 rows, the first is row 4"),
        (mended("size", 3, np.inf), {}, UnfitRows, "'size' is infinite in 1 rows"),
        (frame(), {"task": "regression"}, UnfitLabel, "holds texts"),
        (frame(), {"positive": "ugly"}, UnfitLabel, "'bad' and 'good'"),
        (frame(label=np.linspace(0, 1, ROWS)), {"task": "classification"}, UnfitLabel, "--task regression"),
        (mended("at", 5, "soon"), {"time": "at"}, UnfitTimes, "row 6: 'soon'"),
        (mended("at", 5, None), {"time": "at"}, UnfitTimes, "row 6: remove them or fill it in"),
        (frame(), {"time": "size"}, UnfitTimes, "no times since 1970"),
        (frame().iloc[::-1], {"time": "at"}, UnfitTimes, "the newest row comes first; sort the rows"),
        (mended("at", 5, "2024-01-01"), {"time": "at"}, UnfitTimes, r"the first is row 6 .*sort the rows"),
        (frame(told=frame()["at"]), {"label_time": "told"}, UnfitTimes, "needs --time"),
        (
            frame(told=frame()["at"] - pd.Timedelta("1min")),
            {"time": "at", "label_time": "told"},
            UnfitTimes,
            "800 rows have their label before their prediction, the first is row 1",
        ),
        (frame(told=frame()["at"]), {"time": "at", "label_time": "told", "label_delay": 5}, UnfitTimes, "one of them"),
        (frame(told=None), {"time": "at", "label_time": "told"}, UnfitTimes, "--label-delay"),
        (frame(), {"label_delay": 0}, UnfitTimes, "between 1 and 799"),
        (pd.concat([frame(), frame()]), {}, UnfitRows, "800 of 1,600 rows repeat an earlier row .* row 801"),
        (frame()[["label"]].assign(size="x"), {}, UnfitRows, "no column to predict from: 'size' is left out"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_with_what_is_wrong_and_what_to_do(
    tmp_path, table, options, error, said
):
    with pytest.raises(error, match=said):
        inferred(tmp_path, table, **options)


def test_rows_that_repeat_because_the_world_does_are_kept(tmp_path):
    rng = np.random.default_rng(0)
    few = pd.DataFrame({"a": rng.choice(list("xyz"), ROWS), "b": rng.choice(list("pq"), ROWS)})
    few["label"] = rng.choice(["good", "bad"], ROWS)
    assert any("repeat an earlier one" in sentence for sentence in inferred(tmp_path, few).sentences())
    flights = pd.DataFrame({"number": rng.permutation(np.arange(ROWS) % 200), "minutes": 0.0})
    flights["minutes"] = flights["number"] * 1.7
    flights["day"] = 0.1 * flights["number"]
    flights["label"] = rng.choice(["good", "bad"], ROWS)
    assert inferred(tmp_path, flights).label.labelled == ROWS


def test_rows_told_twice_pass_where_their_owner_says_that_they_happened(tmp_path):
    twice = pd.concat([frame(), frame()])
    assert inferred(tmp_path, twice, allow_repeated=True).label.labelled == 2 * ROWS


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("none.csv", None, "does not exist"),
        ("empty.csv", b"", "is empty"),
        ("table.json", b"{}", "neither Parquet nor named as CSV"),
        ("broken.parquet", b"PAR1 and nothing else", "no readable Parquet"),
        ("ragged.csv", b"a,b\n1,2\n1,2,3\n" * 5, "as many fields in every row"),
        ("long.csv", b"a,b\n" + b"1,2\n" * 30 + b"1,Doe, John\n" + b"3,4\n" * 9, "line 32 has 3 fields, the header 2"),
        (
            "last.csv",
            b"a,b\n" + b"1,2\n" * 30 + b"1,Doe, John\n",
            "line 32 has 3 fields, the header 2; give one header",
        ),
        ("short.csv", b"a;b;c\n" + b"1;2;3\n" * 30 + b"1;2\n", "line 32 has 2 fields, the header 3"),
        (".", None, "is a folder"),
        ("latin.csv", "größe,label\n1,2\n".encode("latin-1") * 9, "not written in UTF-8"),
        ("later.csv", b"a,label\n" + b"1,2\n" * 9 + b"\xff,1\n", r"not written in UTF-8 \(line 11\)"),
    ],
)
def test_a_file_that_is_no_table_is_refused(tmp_path, name, content, said):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UnreadableTable, match=said):
        read_table(tmp_path / name)


@pytest.mark.parametrize("bound", [{"file_bytes_max": 100}, {"rows_max": 10}, {"columns_max": 2}])
def test_a_table_beyond_its_bounds_is_refused_with_the_setting_that_raises_them(tmp_path, bound):
    frame().to_csv(tmp_path / "things.csv", index=False)
    with pytest.raises(UnreadableTable, match=f"TABLES_{next(iter(bound)).upper()}"):
        read_table(tmp_path / "things.csv", TableSettings(**bound))


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_delimiters_spaces_and_words_for_nothing_are_understood(tmp_path, separator):
    rows = [separator.join(("size", "kind", "label"))]
    rows += [separator.join((f" {i}", " x" if i % 3 else "NA", "?" if i == 7 else f"{i % 2}")) for i in range(ROWS)]
    (tmp_path / "things.csv").write_text("\n".join(rows))
    table = read_table(tmp_path / "things.csv")
    assert (table.kind("size"), table.kind("kind"), table.kind("label")) == ("number", "text", "number")
    assert set(table.texts("kind")) == {"x", None}
    assert int(table.missing("label").sum()) == 1


def test_a_header_with_another_delimiter_in_its_names_and_a_title_above_it_are_understood(tmp_path):
    (tmp_path / "odd.csv").write_text("size, colour, or kind;label\n" + "1;0\n2;1\n" * 9)
    assert read_table(tmp_path / "odd.csv").names == ("size, colour, or kind", "label")
    (tmp_path / "titled.csv").write_text("Orders of May\n\nsize,kind,label\n" + "1,a,0\n2,b,1\n" * 9)
    assert read_table(tmp_path / "titled.csv").names == ("size", "kind", "label")


def test_every_refusal_is_a_table_error():
    assert all(issubclass(e, TableError) for e in (UnfitLabel, UnfitRows, UnfitTimes, UnknownColumn, UnreadableTable))


def test_the_sample_tables_are_what_they_look_like(tmp_path):
    paid = inferred(
        tmp_path, payments(2_000), label="charged_back", time="paid at", label_time="settled at", keys=["shop"]
    )
    assert (paid.label.task, paid.label.classes, paid.slices) == ("binary", ("no", "yes"), ("country",))
    assert paid.label.share < 0.06
    asked = inferred(tmp_path, tickets(2_000), label="team", label_delay=50, categorical=["severity"])
    assert (asked.label.task, len(asked.label.classes), asked.unlabelled > 0) == ("multiclass", 4, True)
    drawn = inferred(tmp_path, demand(2_000), label="load", time="hour")
    assert (drawn.label.task, drawn.time_transforms) == ("regression", ("hour", "weekday"))
