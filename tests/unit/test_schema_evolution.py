"""A schema may change as long as nobody breaks; who would is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from driftloop.artifacts import ArtifactStore, SchemaRefused
from driftloop.artifacts.schemas import SchemaHistory
from driftloop.cli.__main__ import main
from driftloop.contracts import to_value
from driftloop.contracts.event.v1.event_pb2 import Event as Wire
from driftloop.contracts.evolution import LOG, PRODUCERS, compare, judge
from driftloop.contracts.schemas import schema_of
from driftloop.usecase import Event, Expectation, Field, Label, Prediction, Request, UseCase, Window, before
from services.ingest.validation import EventRules

FIELDS: dict[str, Field] = {
    "shop": Field(str, one_of=("north", "south")),
    "price": Field(float, unit="EUR", ge=0, le=500),
    "items": Field(int, ge=1),
    "code": Field(str, pattern="[A-Z]+", max_length=16, optional=True),
    "old": Field(str, optional=True, deprecated="code"),
    "due": Field("time"),
}


def orders(version: int = 1, expectations: tuple[Expectation, ...] = (), **fields: Field | None) -> UseCase:
    """A use case whose event `placed` has FIELDS, but for `fields`, which replace, add or (None) remove some."""
    kept = {name: field for name, field in (FIELDS | fields).items() if field is not None}
    placed = Event("placed", entity="order", fields=kept, expectations=expectations)
    late = Event("late", entity="order", fields={"is_late": Field(bool), "note": Field(str, optional=True)})
    views = (
        [Window(placed, by="shop", of="price", over=["1h"], stats=["mean"])] if {"shop", "price"} <= kept.keys() else []
    )
    return UseCase(
        name="orders",
        events=[placed, late],
        predict=Prediction(on=placed, at=before("due", "60m")),
        features=[Request("items"), *views] if "items" in kept else views,
        label=Label(on=late, value=lambda e: bool(e["is_late"])),
        schema_version=version,
    )


ALLOWED: dict[str, Callable[[], UseCase]] = {
    "a new optional field": lambda: orders(2, colour=Field(str, optional=True)),
    "a whole number becomes a number": lambda: orders(2, items=Field(float, ge=1)),
    "a wider range": lambda: orders(2, price=replace(FIELDS["price"], ge=-10, le=None)),
    "another text": lambda: orders(2, shop=Field(str, one_of=("north", "south", "east"))),
    "any text": lambda: orders(2, shop=Field(str)),
    "a longer text without a pattern": lambda: orders(2, code=Field(str, max_length=17, optional=True)),
    "it may be left out": lambda: orders(2, price=replace(FIELDS["price"], optional=True)),
    "it only warns": lambda: orders(2, price=replace(FIELDS["price"], ge=10, otherwise="warn")),
    "deprecated": lambda: orders(2, code=replace(FIELDS["code"], deprecated="shop")),
    "a deprecated field goes": lambda: orders(2, old=None),
    "an expectation that warns": lambda: orders(2, (Expectation("cheap", lambda e: e["price"] < 9),)),
}
BREAKING: dict[str, tuple[Callable[[], UseCase], str, set[str]]] = {
    "a new required field": (lambda: orders(2, colour=Field(str)), "placed.colour", {PRODUCERS}),
    "a field goes": (
        lambda: orders(2, price=None),
        "placed.price",
        {PRODUCERS, "feature placed_price_by_shop"},
    ),
    "another kind": (
        lambda: orders(2, items=Field(str)),
        "placed.items",
        {PRODUCERS, "request"},
    ),
    "another unit": (
        lambda: orders(2, price=replace(FIELDS["price"], unit="USD")),
        "placed.price",
        {PRODUCERS, "feature placed_price_by_shop"},
    ),
    "a narrower range": (lambda: orders(2, price=replace(FIELDS["price"], le=499)), "placed.price", {PRODUCERS}),
    "a text less": (lambda: orders(2, shop=Field(str, one_of=("north",))), "placed.shop", {PRODUCERS}),
    "another pattern": (
        lambda: orders(2, code=replace(FIELDS["code"], pattern="[A-Z]*")),
        "placed.code",
        {PRODUCERS},
    ),
    "no longer left out": (lambda: orders(2, code=replace(FIELDS["code"], optional=False)), "placed.code", {PRODUCERS}),
    "an expectation that refuses": (
        lambda: orders(2, (Expectation("cheap", lambda e: e["price"] < 9, otherwise="reject"),)),
        "placed",
        {PRODUCERS},
    ),
}


@pytest.mark.parametrize("changed", ALLOWED.values(), ids=ALLOWED)
def test_what_breaks_nobody_is_allowed_and_said(changed: Callable[[], UseCase]) -> None:
    verdict = judge([schema_of(orders())], schema_of(changed()))
    assert verdict.refused == ()
    assert verdict.is_new
    assert len(verdict.changes) >= 1


@pytest.mark.parametrize(("changed", "place", "broken"), BREAKING.values(), ids=BREAKING)
def test_what_breaks_somebody_is_refused_and_names_them(
    changed: Callable[[], UseCase], place: str, broken: set[str]
) -> None:
    verdict = judge([schema_of(orders())], schema_of(changed()))
    (change,) = [change for change in verdict.changes if change.breaks]
    assert change.place == place
    assert broken <= set(change.breaks)
    assert all(name in verdict.refused[0] for name in broken)


def test_a_change_needs_a_higher_version_and_older_code_is_told_apart() -> None:
    first, second = schema_of(orders()), schema_of(orders(2, colour=Field(str, optional=True)))
    assert judge([first], schema_of(orders(1, colour=Field(str, optional=True)))).refused == (
        "the schema has changed: say schema_version=2",
    )
    assert "older code" in judge([first, second], first).refused[0]
    assert judge([first], first).is_new is False
    assert judge([], first).is_new


def test_neither_order_nor_readers_are_a_change() -> None:
    plain = orders()
    placed = plain.events[0]
    turned = replace(placed, fields=dict(reversed(list(placed.fields.items()))))
    other = replace(
        plain, events=[plain.events[1], turned], predict=Prediction(turned, before("due", "60m")), features=[]
    )
    assert schema_of(other).digest == schema_of(plain).digest
    assert compare(schema_of(plain), schema_of(other)) == []


def test_the_label_reads_what_its_function_asks_for() -> None:
    (late,) = [event for event in schema_of(orders()).events if event.name == "late"]
    assert {field.name: list(field.readers) for field in late.fields} == {"is_late": ["label"], "note": []}


def test_a_field_does_not_come_back_as_another_kind() -> None:
    history = [schema_of(orders(1)), schema_of(orders(2, old=None))]
    (change,) = [c for c in judge(history, schema_of(orders(3, old=Field(int, optional=True)))).changes if c.breaks]
    assert (change.place, change.breaks) == ("placed.old", (LOG,))
    assert judge(history, schema_of(orders(3, old=Field(str, optional=True)))).refused == ()


NUMBERS = st.none() | st.integers(-3, 3)
KINDS: st.SearchStrategy[Any] = st.sampled_from([float, int])
NUMERIC = st.builds(
    lambda kind, ge, le, optional, otherwise: Field(
        kind,
        ge=ge,
        le=None if le is None else max(le, -3 if ge is None else ge),
        optional=optional,
        otherwise=otherwise,
    ),
    KINDS,
    NUMBERS,
    NUMBERS,
    st.booleans(),
    st.sampled_from(["reject", "warn"]),
)
TEXTS = st.builds(
    lambda one_of, longest, pattern, optional: Field(
        str,
        one_of=tuple(text for text in one_of if len(text) <= longest and (not pattern or "c" not in text)),
        max_length=longest,
        pattern=pattern,
        optional=optional,
    ),
    st.lists(st.sampled_from(["a", "bb", "ccc"]), unique=True),
    st.integers(1, 4),
    st.sampled_from(["", "[a-b]+"]),
    st.booleans(),
)


def _accepts(field: Field, value: Any) -> bool:
    event = Event("e", entity="x", fields={"f": field})
    wire = Wire(fields={} if value is None else {"f": to_value(value)})
    return EventRules(event).kept(wire.fields) is not None


@given(
    st.tuples(NUMERIC, NUMERIC) | st.tuples(TEXTS, TEXTS) | st.tuples(NUMERIC, TEXTS),
    st.none()
    | st.integers(-5, 5)
    | st.sampled_from([-0.5, 2.5])
    | st.sampled_from(["", "a", "bb", "ccc", "dddd", "eeeee"]),
)
def test_what_is_not_called_breaking_is_accepted_as_before(fields: tuple[Field, Field], value: Any) -> None:
    old, new = fields

    def schema(field: Field) -> Any:
        event = Event("e", entity="x", fields={"f": field, "due": Field("time")})
        label = Label(on=event, value=lambda e: True)
        return schema_of(
            UseCase(name="u", events=[event], predict=Prediction(event, before("due", "1h")), features=[], label=label)
        )

    breaks = any(PRODUCERS in change.breaks for change in compare(schema(old), schema(new)))
    if not breaks and _accepts(old, value):
        assert _accepts(new, value)


def test_history_is_kept_and_a_refused_schema_is_not(tmp_path: Path) -> None:
    history = SchemaHistory(ArtifactStore(tmp_path), "orders")
    assert history.accept(orders()).is_new
    assert not history.accept(orders()).is_new
    history.accept(orders(2, colour=Field(str, optional=True)))
    with pytest.raises(SchemaRefused) as refused:
        history.accept(orders(3, colour=Field(str, optional=True), price=None))
    assert "placed.price" in str(refused.value)
    assert "feature placed_price_by_shop" in str(refused.value)
    assert [schema.version for schema in history.stored()] == [1, 2]
    found = CliRunner().invoke(
        main, ["schema", "history", "--use-case", "orders", "--artifacts", str(tmp_path), "--json"]
    )
    told = json.loads(found.output)
    assert [(version["version"], len(version["digest"]) > 8) for version in told["versions"]] == [(1, True), (2, True)]
    assert told["versions"][0]["changes"] == []
    assert [change["place"] for change in told["versions"][1]["changes"]] == ["placed.colour"]
