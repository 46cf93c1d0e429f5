"""Serving's hearts: the view of features, assembly, routing, answers and the loop's clock."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftloop.contracts import UNSET_US, Message, derive_id, prediction_id, to_value, to_wire, watermark
from driftloop.contracts.event.v1.event_pb2 import Value
from driftloop.contracts.features.v1.features_pb2 import FeatureUpdate
from driftloop.contracts.monitor.v1.monitor_pb2 import (
    ROLE_CANARY,
    ROLE_CHAMPION,
    ROLE_PREVIOUS,
    ROLE_SHADOW,
    Arm,
    Recalibration,
    Release,
    Role,
    Scaling,
)
from driftloop.contracts.serving.v1.serving_pb2 import PredictRequest
from driftloop.usecase import Event, Field, FieldValue, Label, Latest, Prediction, Request, UseCase, Window, before
from services.serving.assembly import Assembly, Inputs
from services.serving.clock import LoopClock
from services.serving.errors import InvalidRequest, NoUsableScore
from services.serving.prediction import Asked, Together, answer, answer_together, log_record
from services.serving.requests import RequestReader
from services.serving.routing import Model, Router
from services.serving.view import FeatureView
from tests.unit.serving_twin import Constant

ordered = Event(
    "ordered",
    entity="order",
    fields={
        "shop": Field(str, max_length=8),
        "rider": Field(str, optional=True),
        "price": Field(float, ge=0, le=500),
        "items": Field(int),
        "express": Field(bool),
        "kind": Field(str, one_of=("meal", "parcel")),
        "due": Field("time"),
    },
)
delivered = Event(
    "delivered",
    entity="order",
    fields={"shop": Field(str), "rider": Field(str), "minutes": Field(float), "mood": Field(str)},
)
orders = UseCase(
    name="orders",
    events=[ordered, delivered],
    predict=Prediction(on=ordered, at=before("due", "10m")),
    features=[
        Request("price", "kind", "items", "express"),
        Window(delivered, by="shop", of="minutes", over=["1h"], stats=["mean", "count"]),
        Latest(delivered, by="rider", of=["minutes", "mood"], max_age="3h"),
    ],
    label=Label(on=delivered, value=lambda e: e["minutes"] > 30),
)
SHOP, RIDER = (view.name for view in orders.views)
FIELDS: Mapping[str, FieldValue] = {
    "price": 12.5,
    "kind": "meal",
    "items": 3,
    "express": True,
    "shop": "s1",
    "rider": "r1",
}


class Raising:
    """Fails at every call."""

    def predict(self, numbers: np.ndarray, texts: Sequence[Sequence[str]]) -> np.ndarray:
        raise ValueError("no graph")


class Halves:
    """Finds two classes as likely."""

    def predict(self, numbers: np.ndarray, texts: Sequence[Sequence[str]]) -> np.ndarray:
        return np.full((len(texts), 2), 0.5)


class OneScoreTooMany:
    """Answers with a score more than there are rows."""

    def predict(self, numbers: np.ndarray, texts: Sequence[Sequence[str]]) -> np.ndarray:
        return np.full(len(texts) + 1, 0.5)


def update(
    view: str, key: str, values: Sequence[FieldValue | None], sequence: int = 1, known_at_us: int = 90
) -> Message[FeatureUpdate]:
    payload = FeatureUpdate(
        use_case="orders",
        view=view,
        key=key,
        event_time_us=80,
        known_at_us=known_at_us,
        values=[to_value(value) for value in values],
        sequence=sequence,
    )
    return Message("features", key, payload, derive_id(key, sequence), "test", 80, known_at_us)


def release(*arms: tuple[str, Role, float], revision: int = 1) -> Release:
    made = [Arm(model_id=model_id, role=role, share=share) for model_id, role, share in arms]
    return Release(use_case="orders", revision=revision, champion=made[0], arms=made[1:])


def asked(view: FeatureView, entities: Sequence[str], fields: Mapping[str, FieldValue] = FIELDS) -> list[Asked]:
    assembly = Assembly(orders)
    return [Asked(entity, f"r-{entity}", assembly.assemble(fields, view.read_all)) for entity in entities]


def request(**changes: Value | None) -> PredictRequest:
    wire: dict[str, Value] = dict(to_wire(FIELDS, ordered.fields))
    for name, value in changes.items():
        if value is None:
            del wire[name]
        else:
            wire[name] = value
    return PredictRequest(use_case="orders", entity="o1", request_id="1", fields=wire)


# The view


def test_view_keeps_the_newest_sequence_of_a_key() -> None:
    view = FeatureView(orders, 10)
    assert view.apply(update(SHOP, f"{SHOP}|s1", [20.0, 2.0], sequence=5))
    assert not view.apply(update(SHOP, f"{SHOP}|s1", [1.0, 1.0], sequence=4))
    assert not view.apply(update(SHOP, f"{SHOP}|s1", [1.0, 1.0], sequence=5))
    entry = view.read(f"{SHOP}|s1")
    assert entry is not None
    assert entry.values == (20.0, 2.0)
    assert (entry.sequence, entry.known_at_us, entry.event_time_us) == (5, 90, 80)


def test_view_ignores_what_the_use_case_does_not_declare() -> None:
    view = FeatureView(orders, 10)
    assert not view.apply(update("gone_by_shop", "gone_by_shop|s1", [1.0]))
    assert not view.apply(update(SHOP, f"{SHOP}|s1", [1.0, 2.0, 3.0]))
    assert (len(view), view.ignored) == (0, 2)


def test_view_drops_the_least_recently_used_and_says_that_it_is_no_longer_complete() -> None:
    view = FeatureView(orders, 2)
    view.apply(update(SHOP, f"{SHOP}|s1", [1.0, 1.0]))
    view.apply(update(SHOP, f"{SHOP}|s2", [1.0, 1.0]))
    assert view.complete
    assert view.read(f"{SHOP}|s1") is not None
    view.apply(update(SHOP, f"{SHOP}|s3", [1.0, 1.0]))
    assert view.read(f"{SHOP}|s2") is None
    assert view.read(f"{SHOP}|s1") is not None
    assert (len(view), view.complete) == (2, False)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 6)), max_size=30))
def test_view_does_not_depend_on_the_order_of_updates(seen: list[tuple[str, int]]) -> None:
    forward, backward = FeatureView(orders, 10), FeatureView(orders, 10)
    for key, sequence in seen:
        forward.apply(update(SHOP, key, [float(sequence), 1.0], sequence))
    for key, sequence in reversed(seen):
        backward.apply(update(SHOP, key, [float(sequence), 1.0], sequence))
    assert {key: forward.read(key) for key in "abc"} == {key: backward.read(key) for key in "abc"}


# Assembly


def test_vector_is_in_declared_order_with_a_reading_per_view() -> None:
    view = FeatureView(orders, 10)
    view.apply(update(SHOP, f"{SHOP}|s1", [20.0, 2.0], sequence=7))
    view.apply(update(RIDER, f"{RIDER}|r1", [31.0, "calm"], sequence=8))
    assembled = Assembly(orders).assemble(FIELDS, view.read_all)
    vector, defaulted = assembled.vector, assembled.defaulted
    assert dict(zip(orders.numeric_inputs, vector.numbers, strict=True)) == {
        "price": 12.5,
        "items": 3.0,
        "express": 1.0,
        f"{SHOP}__mean_1h": 20.0,
        f"{SHOP}__count_1h": 2.0,
        f"{RIDER}__minutes": 31.0,
    }
    assert dict(zip(orders.text_inputs, vector.texts, strict=True)) == {"kind": "meal", f"{RIDER}__mood": "calm"}
    assert vector.inputs_digest == orders.inputs_digest
    assert [(r.view, r.key, r.found, r.sequence) for r in vector.readings] == [
        (SHOP, f"{SHOP}|s1", True, 7),
        (RIDER, f"{RIDER}|r1", True, 8),
    ]
    assert vector.readings[0].update_id == derive_id(f"{SHOP}|s1", 7)
    assert defaulted == []


def test_unknown_entities_are_answered_by_stated_defaults_that_are_named() -> None:
    assembled = Assembly(orders).assemble(FIELDS, FeatureView(orders, 10).read_all)
    vector, defaulted = assembled.vector, assembled.defaulted
    by_name = dict(zip(orders.numeric_inputs, vector.numbers, strict=True))
    assert math.isnan(by_name[f"{SHOP}__mean_1h"])
    assert by_name[f"{SHOP}__count_1h"] == 0.0
    assert vector.texts[1] == ""
    assert defaulted == [f"{SHOP}__mean_1h", f"{SHOP}__count_1h", f"{RIDER}__minutes", f"{RIDER}__mood"]
    assert [(r.view, r.found, r.key) for r in vector.readings] == [
        (SHOP, False, f"{SHOP}|s1"),
        (RIDER, False, f"{RIDER}|r1"),
    ]


def test_an_absent_optional_key_and_an_unset_value_are_defaulted_by_name() -> None:
    view = FeatureView(orders, 10)
    view.apply(update(SHOP, f"{SHOP}|s1", [None, 0.0]))
    fields = {name: value for name, value in FIELDS.items() if name not in ("rider", "kind")}
    assembled = Assembly(orders).assemble(fields, view.read_all)
    vector, defaulted = assembled.vector, assembled.defaulted
    assert defaulted == ["kind", f"{SHOP}__mean_1h", f"{RIDER}__minutes", f"{RIDER}__mood"]
    assert (vector.readings[1].key, vector.readings[1].found) == ("", False)


# Batches


class Summing:
    """Answers with what depends on every number of a row."""

    def predict(self, numbers: np.ndarray, texts: Sequence[Sequence[str]]) -> np.ndarray:
        words = np.array([sum(map(len, row)) for row in texts], dtype=np.float64)
        return np.abs(np.sin(np.nan_to_num(numbers).sum(axis=1) + words))


orders_asked = st.builds(
    request,
    shop=st.sampled_from(["s1", "s2", "s9"]).map(lambda text: Value(text=text)),
    rider=st.sampled_from([None, Value(), Value(text="r1"), Value(text="r9")]),
    price=st.sampled_from([0.0, 12.5, 500.0]).map(lambda price: Value(number=price)),
    express=st.booleans().map(lambda flag: Value(flag=flag)),
)


@given(st.lists(orders_asked, min_size=1, max_size=6))
def test_a_batch_is_answered_to_the_bit_as_its_requests_are_one_by_one(requests: list[PredictRequest]) -> None:
    view, reader, assembly = FeatureView(orders, 10), RequestReader(orders), Assembly(orders)
    view.apply(update(SHOP, f"{SHOP}|s1", [20.0, None], sequence=7))
    view.apply(update(SHOP, f"{SHOP}|s2", [3.0, 4.0], sequence=8))
    view.apply(update(RIDER, f"{RIDER}|r1", [31.0, "calm"], sequence=9))
    router = Router(release(("m1", ROLE_CHAMPION, 1.0)), {"m1": Summing()})

    def answered(some: Sequence[PredictRequest]) -> list[tuple[bytes, bytes]]:
        inputs = assembly.assemble_all(reader.read_all(some, 0).columns, len(some), view.read_all)
        asks = [Asked(one.entity, one.request_id, each) for one, each in zip(some, inputs, strict=True)]
        found = answer(orders, router, asks, 100)
        return list(zip(found.serialized, [each.payload for each in found.logged], strict=True))

    def inputs_of(some: Sequence[PredictRequest]) -> Inputs:
        return assembly.assemble_columns(reader.read_all(some, 0).columns, len(some), view.read_all)

    def answered_together(some: Sequence[PredictRequest], parts: int) -> list[tuple[bytes, bytes]]:
        read, size = reader.read_all(some, 0), -(-len(some) // parts)
        inputs = Inputs.joined([inputs_of(some[start : start + size]) for start in range(0, len(some), size)])
        asks = Together(read.entities, read.request_ids, inputs, [""] * len(some), [False] * len(some))
        found = answer_together(orders, router, asks, 100)
        return list(zip(found.serialized, [each.payload for each in found.logged], strict=True))

    assert answered(requests) == [alone for one in requests for alone in answered([one])]
    assert answered_together(requests, parts=1) == answered(requests)
    assert answered_together(requests, parts=3) == answered(requests)


def test_inputs_that_are_all_numbers_are_the_same_by_column_and_by_row() -> None:
    runs = UseCase(
        name="runs",
        events=[ordered, delivered],
        predict=Prediction(on=ordered, at=before("due", "10m")),
        features=[
            Request("price"),
            Latest(delivered, by="shop", of="minutes", max_age="3h"),
            Latest(delivered, by="rider", of="minutes", max_age="3h"),
        ],
        label=orders.label,
    )
    view, assembly = FeatureView(runs, 10), Assembly(runs)
    for number, each in enumerate(runs.views):
        view.apply(update(each.name, each.key({"shop": "s1", "rider": "r1"}) or "", [float(number)], sequence=1))
    columns = {"price": [1.5, 2.5, 3.5], "shop": ["s1", "s9", "s1"], "rider": ["r1", None, "r9"]}
    found = assembly.assemble_columns(columns, 3, view.read_all)
    rows = [
        assembly.assemble(
            {name: values[row] for name, values in columns.items() if values[row] is not None}, view.read_all
        )
        for row in range(3)
    ]
    assert found.vectors() == [row.serialized() for row in rows]
    assert found.rows() == rows == Inputs.of(rows).rows()
    assert Inputs.of(rows).vectors() == found.vectors()
    assert found.matrix_bytes == b"".join(row.numbers for row in rows)
    assert found.known_at_us == max(row.known_at_us for row in rows)


# Requests


def test_a_good_request_gives_its_fields_with_declared_types() -> None:
    assert RequestReader(orders).read(request(price=Value(integer=12))) == {**FIELDS, "price": 12.0}
    assert "rider" not in RequestReader(orders).read(request(rider=None))
    assert "rider" not in RequestReader(orders).read(request(rider=Value()))


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("price", None, "required"),
        ("price", Value(), "required"),
        ("price", Value(text="12"), "type"),
        ("price", Value(number=math.nan), "finite"),
        ("price", Value(number=math.inf), "finite"),
        ("price", Value(number=-1), "range"),
        ("price", Value(number=501), "range"),
        ("items", Value(number=3.0), "type"),
        ("express", Value(integer=1), "type"),
        ("kind", Value(text="letter"), "one_of"),
        ("shop", Value(text="a-long-shop-name"), "length"),
        ("colour", Value(text="red"), "unknown_field"),
    ],
)
def test_a_field_that_breaks_the_schema_is_named_with_its_rule(name: str, value: Value | None, rule: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        RequestReader(orders).read(request(**{name: value}))
    assert [(v.field, v.rule) for v in refused.value.violations] == [(f"fields.{name}", rule)]


def test_all_missing_fields_are_named_at_once_and_so_is_the_position() -> None:
    with pytest.raises(InvalidRequest, match="request 3") as refused:
        RequestReader(orders).read_all([request(), PredictRequest(entity="", request_id="x" * 300)], 2)
    assert {(v.field, v.rule) for v in refused.value.violations} == {
        ("entity", "required"),
        ("request_id", "length"),
        *((f"fields.{name}", "required") for name in ("shop", "price", "items", "express", "kind")),
    }


def test_an_entity_cannot_pass_for_a_control_record() -> None:
    asks = request()
    asks.entity = "~watermark/ingest"
    with pytest.raises(InvalidRequest, match="entity"):
        RequestReader(orders).read(asks)


MODELS: Mapping[str, Model] = {"m1": Constant(0.1), "m2": Constant(0.2), "m3": Constant(0.3)}


# Answers


def test_every_arm_scores_every_prediction_the_champion_first() -> None:
    router = Router(
        release(("m1", ROLE_CHAMPION, 0.5), ("m3", ROLE_SHADOW, 0), ("m2", ROLE_CANARY, 0.5), revision=4), MODELS
    )
    entities = [f"o{n}" for n in range(40)]
    answered = answer(orders, router, asked(FeatureView(orders, 10), entities), 1_000)
    assert not answered.unusable
    rows = zip(entities, router.arms_for(entities), answered.responses, answered.predictions, strict=True)
    for entity, arm, response, prediction in rows:
        assert [(s.model_id, s.score) for s in prediction.scores] == [("m1", 0.1), ("m3", 0.3), ("m2", 0.2)]
        assert (prediction.model_id, prediction.arm, prediction.score) == (
            arm.model_id,
            arm.role,
            arm.model.predict(np.zeros((1, 6)), [[]])[0],
        )
        assert (response.model_id, response.arm, response.score) == (
            prediction.model_id,
            prediction.arm,
            prediction.score,
        )
        assert response.prediction_id == prediction.id == prediction_id("orders", entity, f"r-{entity}")
        assert (prediction.revision, prediction.as_of_us) == (4, 1_000)
    assert {prediction.arm for prediction in answered.predictions} == {"champion", "canary"}


def test_a_batch_answers_as_single_calls_do() -> None:
    router = Router(release(("m1", ROLE_CHAMPION, 0.5), ("m2", ROLE_CANARY, 0.5)), MODELS)
    wanted = asked(FeatureView(orders, 10), [f"o{n}" for n in range(10)])
    together = answer(orders, router, wanted, 9)
    alone = [answer(orders, router, [one], 9) for one in wanted]
    # By bytes: a NaN in a vector equals nothing, not even itself.
    assert [p.SerializeToString(deterministic=True) for p in together.predictions] == [
        one.predictions[0].SerializeToString(deterministic=True) for one in alone
    ]


def recalibrated(intercept: float) -> Recalibration:
    return Recalibration(scalings=[Scaling(weight=0.5, slope=1.0, intercepts=[intercept])], labels=80)


def test_an_answer_is_its_own_models_score_as_the_release_recalibrates_it() -> None:
    told = release(("m1", ROLE_CHAMPION, 0.4), ("m2", ROLE_CANARY, 0.3), ("m3", ROLE_PREVIOUS, 0.3))
    told.champion.recalibration.CopyFrom(recalibrated(math.log(81.0)))  # .1 becomes .9
    told.arms[0].recalibration.CopyFrom(recalibrated(-math.log(9.0 / 4.0)))  # .2 becomes .1
    router = Router(told, MODELS)
    entities = [f"o{n}" for n in range(40)]
    answered = answer(orders, router, asked(FeatureView(orders, 10), entities), 1_000)
    expected = {"m1": (0.1 + 0.9) / 2, "m2": (0.2 + 0.1) / 2}
    assert {prediction.model_id for prediction in answered.predictions} == expected.keys()
    for response, prediction in zip(answered.responses, answered.predictions, strict=True):
        assert response.score == prediction.score == pytest.approx(expected[response.model_id])
        assert [(s.model_id, s.score) for s in prediction.scores] == [("m1", 0.1), ("m2", 0.2), ("m3", 0.3)]


def test_a_recalibrated_batch_of_one_model_answers_as_single_calls_do() -> None:
    told = release(("m1", ROLE_CHAMPION, 1.0))
    told.champion.recalibration.CopyFrom(recalibrated(1.0))
    router = Router(told, {"m1": Summing()})
    view = FeatureView(orders, 10)
    wanted = [asked(view, [f"o{n}"], {**FIELDS, "price": float(n)})[0] for n in range(20)]
    together = answer(orders, router, wanted, 9)
    alone = [answer(orders, router, [one], 9).responses[0] for one in wanted]
    assert [one.score for one in together.responses] == [one.score for one in alone]
    said = [prediction.scores[0].score for prediction in together.predictions]
    assert [one.score for one in alone] != said


def test_a_recalibration_that_cannot_be_followed_leaves_the_scores_as_they_are() -> None:
    told = release(("m1", ROLE_CHAMPION, 1.0))
    told.champion.recalibration.CopyFrom(recalibrated(math.nan))
    response = answer(orders, Router(told, MODELS), asked(FeatureView(orders, 10), ["o1"]), 9).responses[0]
    assert response.score == 0.1


def test_who_stands_in_answers_by_its_own_recalibration() -> None:
    told = release(("m1", ROLE_CHAMPION, 1.0), ("m2", ROLE_PREVIOUS, 0.0))
    told.champion.recalibration.CopyFrom(recalibrated(5.0))
    told.arms[0].recalibration.CopyFrom(recalibrated(math.log(4.0)))  # .2 becomes .5
    router = Router(told, {"m1": Constant(math.nan), "m2": Constant(0.2)})
    response = answer(orders, router, asked(FeatureView(orders, 10), ["o1"]), 9).responses[0]
    assert (response.model_id, response.score) == ("m2", pytest.approx(0.35))


def test_classes_are_recalibrated_and_one_of_other_classes_is_left_out() -> None:
    kinds = replace(
        orders,
        predict=replace(orders.predict, task="multiclass", classes=("a", "b")),
        label=Label(on=delivered, value=lambda e: "a"),
    )
    told = release(("m1", ROLE_CHAMPION, 1.0))
    told.champion.recalibration.scalings.add(weight=1.0, slope=1.0, intercepts=[0.0, math.log(3.0)])
    wanted = asked(FeatureView(orders, 10), ["o1"])
    models = {"m1": Halves()}
    response = answer(kinds, Router(told, models), wanted, 9).responses[0]
    assert (response.score, list(response.class_probabilities)) == (pytest.approx(0.75), pytest.approx([0.25, 0.75]))
    told.champion.recalibration.CopyFrom(recalibrated(1.0))
    assert list(answer(kinds, Router(told, models), wanted, 9).responses[0].class_probabilities) == [0.5, 0.5]


def test_freshness_says_how_old_the_values_are_on_the_use_case_clock() -> None:
    view = FeatureView(orders, 10)
    view.apply(update(SHOP, f"{SHOP}|s1", [20.0, 2.0], known_at_us=900))
    router = Router(release(("m1", ROLE_CHAMPION, 1)), MODELS)
    wanted = asked(view, ["o1"])[0]._replace(with_vector=True)
    response = answer(orders, router, [wanted], 1_000).responses[0]
    assert [(f.view, f.found, f.known_at_us, f.age_us) for f in response.freshness] == [
        (SHOP, True, 900, 100),
        (RIDER, False, 0, 0),
    ]
    assert list(response.defaulted) == [f"{RIDER}__minutes", f"{RIDER}__mood"]
    assert response.HasField("vector")
    assert not answer(orders, router, asked(view, ["o1"]), 1_000).responses[0].HasField("vector")


@pytest.mark.parametrize("broken", [Constant(math.nan), Constant(1.5), Constant(-0.1), Raising(), OneScoreTooMany()])
def test_what_is_no_probability_is_never_passed_on_nor_logged(broken: Model) -> None:
    models = {"m1": broken, "m2": Constant(0.2), "m3": Constant(0.3)}
    router = Router(release(("m1", ROLE_CHAMPION, 1), ("m3", ROLE_SHADOW, 0), ("m2", ROLE_PREVIOUS, 0)), models)
    answered = answer(orders, router, asked(FeatureView(orders, 10), ["o1", "o2"]), 5)
    assert [(r.model_id, r.arm, r.score) for r in answered.responses] == [("m2", "previous", 0.2)] * 2
    assert [[s.model_id for s in p.scores] for p in answered.predictions] == [["m3", "m2"]] * 2
    assert [(u.model_id, u.role, u.rows) for u in answered.unusable] == [("m1", "champion", 2)]


class Vectors:
    """Answers every row with the same numbers."""

    def __init__(self, *answer: float) -> None:
        self.answer = answer

    def predict(self, numbers: np.ndarray, texts: Sequence[Sequence[str]]) -> np.ndarray:
        return np.tile(np.array(self.answer), (len(texts), 1))


moods = replace(orders, predict=Prediction(orders.predict.on, orders.predict.at, "multiclass", ["calm", "busy", "mad"]))
minutes = replace(orders, predict=Prediction(orders.predict.on, orders.predict.at, "regression"))


def test_classes_are_answered_and_logged_with_the_probability_of_each() -> None:
    router = Router(
        release(("m1", ROLE_CHAMPION, 1), ("m2", ROLE_SHADOW, 0)),
        {"m1": Vectors(0.25, 0.5, 0.25), "m2": Vectors(0.0, 0.0, 1.0)},
    )
    answered = answer(moods, router, asked(FeatureView(moods, 10), ["o1"]), 5)
    [response], [prediction] = answered.responses, answered.predictions
    assert (response.score, list(response.class_probabilities)) == (0.5, [0.25, 0.5, 0.25])
    assert list(response.classes) == ["calm", "busy", "mad"]
    assert (prediction.score, list(prediction.class_probabilities)) == (0.5, [0.25, 0.5, 0.25])
    assert [(s.score, list(s.class_probabilities)) for s in prediction.scores] == [
        (0.5, [0.25, 0.5, 0.25]),
        (1.0, [0.0, 0.0, 1.0]),
    ]


def test_a_number_is_answered_and_logged_as_it_is() -> None:
    router = Router(release(("m1", ROLE_CHAMPION, 1)), {"m1": Constant(-1234.5)})
    answered = answer(minutes, router, asked(FeatureView(minutes, 10), ["o1"]), 5)
    assert (answered.responses[0].score, answered.predictions[0].scores[0].score) == (-1234.5, -1234.5)
    assert not answered.responses[0].class_probabilities
    assert not answered.responses[0].classes


@pytest.mark.parametrize(
    "broken",
    [
        Vectors(0.5, 0.6, 0.2),
        Vectors(0.2, 0.2, 0.2),
        Vectors(-0.5, 1.0, 0.5),
        Vectors(math.nan, 0.5, 0.5),
        Vectors(math.inf, 0.0, 0.0),
        Vectors(0.5, 0.5),
        Vectors(0.25, 0.25, 0.25, 0.25),
        Constant(0.5),
        Raising(),
    ],
)
def test_what_is_no_distribution_over_the_classes_is_never_passed_on_nor_logged(broken: Model) -> None:
    models = {"m1": broken, "m2": Vectors(0.1, 0.2, 0.7)}
    router = Router(release(("m1", ROLE_CHAMPION, 1), ("m2", ROLE_PREVIOUS, 0)), models)
    answered = answer(moods, router, asked(FeatureView(moods, 10), ["o1"]), 5)
    assert [(r.model_id, list(r.class_probabilities)) for r in answered.responses] == [("m2", [0.1, 0.2, 0.7])]
    assert [[s.model_id for s in p.scores] for p in answered.predictions] == [["m2"]]
    assert [(u.model_id, u.rows) for u in answered.unusable] == [("m1", 1)]


@pytest.mark.parametrize("broken", [Constant(math.nan), Constant(math.inf), Constant(-math.inf), Vectors(1.0, 2.0)])
def test_what_is_no_finite_number_is_never_passed_on_nor_logged(broken: Model) -> None:
    models = {"m1": broken, "m2": Constant(7.0)}
    router = Router(release(("m1", ROLE_CHAMPION, 1), ("m2", ROLE_PREVIOUS, 0)), models)
    answered = answer(minutes, router, asked(FeatureView(minutes, 10), ["o1"]), 5)
    assert [(r.model_id, r.score) for r in answered.responses] == [("m2", 7.0)]
    assert [[s.model_id for s in p.scores] for p in answered.predictions] == [["m2"]]


def test_a_broken_canary_is_replaced_by_the_champion() -> None:
    models = {"m1": Constant(0.1), "m2": Constant(math.nan)}
    router = Router(release(("m1", ROLE_CHAMPION, 0), ("m2", ROLE_CANARY, 1)), models)
    assert answer(orders, router, asked(FeatureView(orders, 10), ["o1"]), 5).responses[0].model_id == "m1"


def test_a_shadow_never_stands_in() -> None:
    models = {"m1": Constant(math.nan), "m2": Constant(0.2)}
    router = Router(release(("m1", ROLE_CHAMPION, 1), ("m2", ROLE_SHADOW, 0)), models)
    with pytest.raises(NoUsableScore, match="m1"):
        answer(orders, router, asked(FeatureView(orders, 10), ["o1"]), 5)


def test_the_log_record_is_caused_by_the_updates_it_read_and_known_just_after_its_clock() -> None:
    view = FeatureView(orders, 10)
    view.apply(update(RIDER, f"{RIDER}|r1", [31.0, "calm"], sequence=8))
    router = Router(release(("m1", ROLE_CHAMPION, 1)), MODELS)
    prediction = answer(orders, router, asked(view, ["o1"]), 1_000).predictions[0]
    record = log_record(prediction, "0")
    assert (record.topic, record.key, record.id) == ("predictions", "o1", prediction.id)
    assert record.causes == (derive_id(f"{RIDER}|r1", 8),)
    # The watermark of 1,000 is written before: nothing known at or before it may follow.
    assert record.known_at_us == 1_001


# The loop's clock


def judged(clock_us: int) -> Message:
    return watermark("releases", 0, "judging", clock_us)


def features(partition: int, clock_us: int) -> Message:
    return watermark("features", partition, f"aggregation/{partition}", clock_us)


def test_the_clock_is_the_minimum_over_the_partitions_of_features() -> None:
    clock = LoopClock(2)
    assert not clock.observe(0, features(0, 10))
    assert clock.clock_us == UNSET_US
    assert clock.observe(1, features(1, 7))
    assert clock.clock_us == 7


def test_behind_names_each_thing_that_is_missing_until_nothing_is() -> None:
    clock = LoopClock(1)
    clock.read(Release(revision=3, pending_retrain="r9"))
    assert len(clock.behind(10)) == 4
    clock.observe(0, features(0, 10))
    assert [text.split()[0] for text in clock.behind(10)] == ["judging", "release", "retrain"]
    clock.observe(0, judged(10))
    clock.applied(3)
    assert clock.behind(10) == ["retrain r9 is open"]
    clock.read(Release(revision=4))
    assert clock.behind(10) == ["release 4 is not applied yet"]
    clock.applied(4)
    assert clock.behind(10) == []
    assert clock.behind(11) != []


def test_an_older_or_repeated_release_is_no_news() -> None:
    clock = LoopClock(1)
    assert clock.read(Release(revision=3))
    assert not clock.read(Release(revision=3, pending_retrain="r1"))
    assert not clock.read(Release(revision=2, pending_retrain="r1"))
    assert clock.pending_retrain == ""
