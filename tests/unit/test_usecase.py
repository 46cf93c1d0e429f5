"""What a use case's author writes, and what is wrong with it when it is wrong."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftloop.usecase import (
    HOUR_US,
    DeclarationError,
    Event,
    Field,
    Label,
    LabelRefused,
    Latest,
    Policy,
    Prediction,
    Request,
    Since,
    UnknownUseCase,
    UseCase,
    Window,
    before,
    duration_us,
    entity_key,
    floor_us,
    hour_of,
    load_replay,
    load_use_case,
)

order = Event("order_placed", "order", {"shop": Field(str), "amount": Field(float), "due": Field("time")})
paid = Event("order_paid", "order", {"shop": Field(str), "days": Field(float)})
HURRIED = Event("order_placed", "order", {**order.fields, "due": Field("time", optional=True)})


def declared(**changes):
    values = {
        "name": "orders",
        "events": [order, paid],
        "predict": Prediction(on=order, at=before("due", "1h")),
        "features": [
            Request("amount", hour_of("due")),
            Window(paid, by="shop", of="days", over=["3h", "1h"], stats=["mean", "count"]),
        ],
        "label": Label(on=paid, value=lambda e: e["days"] > 1),
    }
    return UseCase(**(values | changes))


def test_inputs_follow_the_declared_order_with_windows_ascending():
    assert declared().numeric_inputs == (
        "amount",
        "hour_of_due",
        "order_paid_days_by_shop__mean_1h",
        "order_paid_days_by_shop__count_1h",
        "order_paid_days_by_shop__mean_3h",
        "order_paid_days_by_shop__count_3h",
    )


def test_a_request_carries_its_own_fields_and_every_join_key():
    assert set(declared().request_fields) == {"amount", "due", "shop"}


def test_the_prediction_time_is_floored_to_the_step():
    at_us = declared().prediction_time_us({"due": 10 * HOUR_US + 7})
    assert at_us == 9 * HOUR_US


def test_an_absent_request_field_gives_its_stated_default():
    values = declared().request_values({"due": 5 * HOUR_US})
    assert values[0] != values[0]
    assert values[1] == 5.0


def test_a_time_since_has_few_and_equal_steps():
    for every, max_age in (("7m", "1h"), ("1m", "2h"), ("2h", "1h")):
        with pytest.raises(DeclarationError, match=f"max_age {max_age} must be a multiple of every {every}"):
            Since(paid, by="shop", every=every, max_age=max_age)
    found = Since(paid, by="shop", every="1m", max_age="1h")
    assert [feature.name for feature in found.features] == ["order_paid_since_by_shop__seconds"]
    assert found.ages_us[-1] == 60 * found.ages_us[0]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": "no spaces"}, "name"),
        ({"events": [order]}, "not listed"),
        ({"predict": Prediction(on=order, at=before("amount", "1h"))}, "no time field"),
        (
            {
                "events": [HURRIED, paid],
                "predict": Prediction(on=HURRIED, at=before("due", "1h")),
                "features": [Window(paid, by="shop", of="days", over=["1h"], stats=["mean"])],
            },
            "'due' may be left out",
        ),
        ({"features": [Request("nothing")]}, "nothing"),
        ({"slices": ["amount"]}, "slice"),
        (
            {
                "features": [
                    Latest(paid, by="shop", of="days", max_age="1h"),
                    Latest(paid, by="shop", of="days", max_age="2h"),
                ]
            },
            "merge",
        ),
        ({"retention": "a while"}, "duration"),
        ({"events": [order, paid, order]}, "same name"),
    ],
)
def test_a_declaration_that_contradicts_itself_is_refused_with_what_is_wrong(changes, said):
    with pytest.raises(DeclarationError, match=said):
        declared(**changes)


@pytest.mark.parametrize(
    "wrong",
    [
        {"budget": "many"},
        {"canary_share": 0.0},
        {"confidence": 0.4},
        {"fit_budget": 0.5},
        {"recent_rows": 10},
        {"gain": 1.0},
        {"canary_rows": 900},
        {"bootstrap_rows": 5},
    ],
)
def test_a_policy_that_cannot_be_kept_is_refused(wrong):
    with pytest.raises(DeclarationError):
        Policy(**wrong)


@pytest.mark.parametrize("text", ["", "5", "h", "-1h", "0m", "1.5h", "1y"])
def test_a_duration_that_is_none_is_refused(text):
    with pytest.raises(DeclarationError):
        duration_us(text)


@given(st.integers(0, 10**16), st.integers(1, 10**12))
def test_flooring_gives_the_newest_multiple_not_after(at_us, step_us):
    floored = floor_us(at_us, step_us)
    assert floored % step_us == 0
    assert floored <= at_us < floored + step_us


@given(st.lists(st.text(), min_size=2, max_size=2), st.lists(st.text(), min_size=2, max_size=2))
def test_two_entities_never_share_a_key(first, second):
    assert (entity_key("view", first) == entity_key("view", second)) == (first == second)


def test_an_unknown_use_case_is_named_with_where_it_was_looked_for(tmp_path):
    with pytest.raises(UnknownUseCase, match="nowhere"):
        load_use_case("nowhere", str(tmp_path))


def test_a_use_case_is_found_in_a_folder_of_the_users_own(tmp_path):
    (tmp_path / "own").mkdir()
    text = """
from driftloop.usecase import Event, Field, Label, Prediction, Request, UseCase, before
asked = Event("asked", "id", {"at": Field("time"), "x": Field(float)})
told = Event("told", "id", {"y": Field(float)})
own = UseCase("own", [asked, told], Prediction(asked, before("at", "1m")), [Request("x")], Label(told, lambda e: e["y"] > 0))
"""
    (tmp_path / "own" / "usecase.py").write_text(text)
    assert load_use_case("own", str(tmp_path)).numeric_inputs == ("x",)


@pytest.mark.parametrize("importing", ["from .tables import ROWS", "from . import tables\n\nROWS = tables.ROWS"])
def test_a_use_cases_file_can_import_what_lies_beside_it_and_gets_that_of_its_own_folder(tmp_path, importing):
    for folder, rows in (("first", 1), ("second", 2)):
        beside = tmp_path / folder / "split-up"
        beside.mkdir(parents=True)
        (beside / "tables.py").write_text(f"ROWS = {rows}\n")
        (beside / "replay.py").write_text(f"{importing}\n")
    found = [load_replay("split-up", str(tmp_path / folder)).ROWS for folder in ("first", "second", "first")]
    assert found == [1, 2, 1]


def test_an_error_in_a_file_beside_is_refused_with_its_name(tmp_path):
    (tmp_path / "split").mkdir()
    (tmp_path / "split" / "tables.py").write_text("x = 1\ndef (\n")
    (tmp_path / "split" / "replay.py").write_text("\nfrom .tables import x\n")
    for _ in range(2):
        with pytest.raises(DeclarationError, match=r"line 2: SyntaxError: invalid syntax \(tables.py, line 2\)$"):
            load_replay("split", str(tmp_path))


def test_a_file_that_declares_no_use_case_of_its_name_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "usecase.py").write_text("x = 1\n")
    with pytest.raises(DeclarationError, match="exactly one"):
        load_use_case("empty", str(tmp_path))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 1\ndef (", "line 2: SyntaxError: invalid syntax"),
        ("import math\n\n\nx = 1 / 0\n", "line 4: ZeroDivisionError: division by zero"),
        ("import nosuchmodule\n", "line 1: ModuleNotFoundError: No module named 'nosuchmodule'"),
    ],
)
@pytest.mark.parametrize("part", ["usecase", "replay"])
def test_a_file_that_cannot_be_imported_is_refused_with_its_line_each_time(tmp_path, part, text, said):
    (tmp_path / "faulty").mkdir()
    (tmp_path / "faulty" / f"{part}.py").write_text(text)
    load = load_use_case if part == "usecase" else load_replay
    for _ in range(2):
        with pytest.raises(DeclarationError) as refused:
            load("faulty", str(tmp_path))
        assert str(refused.value) == f"{tmp_path / 'faulty' / part}.py cannot be imported: {said}"


def labelled(value, **prediction) -> UseCase:
    said = Event("said", entity="id", fields={"due_at": Field("time")})
    heard = Event("heard", entity="id", fields={})
    return UseCase(
        name="told",
        events=[said, heard],
        predict=Prediction(on=said, at=before("due_at", "1h"), **prediction),
        features=[],
        label=Label(on=heard, value=lambda fields: value),
    )


@pytest.mark.parametrize(("value", "label"), [(True, 1.0), (False, 0.0), (1, 1.0), (0.0, 0.0)])
def test_a_binary_label_is_zero_or_one(value, label):
    assert labelled(value).label_of({}) == label


def test_a_multiclass_label_is_the_place_of_its_class():
    assert labelled("b", task="multiclass", classes=["a", "b", "c"]).label_of({}) == 1.0


def test_a_regression_label_is_the_number():
    assert labelled(-2.5, task="regression").label_of({}) == -2.5
    assert labelled(7, task="regression").label_of({}) == 7.0


@pytest.mark.parametrize(
    ("value", "prediction"),
    [
        (0.7, {}),
        ("yes", {}),
        (None, {}),
        (float("nan"), {"task": "regression"}),
        (float("inf"), {"task": "regression"}),
        ("3", {"task": "regression"}),
        ("d", {"task": "multiclass", "classes": ["a", "b"]}),
        (1.0, {"task": "multiclass", "classes": ["a", "b"]}),
        (None, {"task": "multiclass", "classes": ["a", "b"]}),
    ],
)
def test_a_label_that_the_task_does_not_know_is_refused(value, prediction):
    with pytest.raises(LabelRefused, match="the label is"):
        labelled(value, **prediction).label_of({})


@pytest.mark.parametrize(
    "prediction",
    [
        {"task": "ranking"},
        {"task": "multiclass"},
        {"task": "multiclass", "classes": ["a"]},
        {"task": "multiclass", "classes": ["a", "a"]},
        {"task": "multiclass", "classes": ["a", ""]},
        {"task": "multiclass", "classes": "ab"},
        {"classes": ["a", "b"]},
        {"task": "regression", "classes": ["a", "b"]},
    ],
)
def test_classes_that_do_not_suit_the_task_are_refused(prediction):
    with pytest.raises(DeclarationError):
        labelled(True, **prediction)


def test_a_window_says_which_statistics_its_kind_and_field_allow():
    sold = Event("sold", entity="order", fields={"shop": Field(str), "item": Field(str), "price": Field(float)})
    with pytest.raises(DeclarationError, match="give durations and stats of count, distinct"):
        Window(sold, by="shop", of="item", over=["1h"], stats=["mean"])
    with pytest.raises(DeclarationError, match="give durations and stats of mean, count, sum"):
        Window(sold, by="shop", of="price", over=["1h"], stats=["p90"], kind="decayed")
    assert Window(sold, by="shop", of="item", over=["1h"], stats=["distinct"]).features[0].default == 0.0
    assert Window(sold, "shop", "price", ["1h"], ["std"], "tumbling").name == "sold_price_tumbling_by_shop"
