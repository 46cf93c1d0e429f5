"""Plain Python fields arrive as the kinds that the use case declares."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, timezone
from types import SimpleNamespace

import pytest

import driftloop.client
from driftloop.client import ClientSettings, EventsClient, NewEvent, PredictionRequest, PredictionsClient
from driftloop.client._wire import time_us, wire_fields
from driftloop.contracts import from_value
from driftloop.usecase import ReplayEvent
from services.ingest.validation import Validator
from tests.unit.ingest_twin import NOON_US, announced, orders

FIELDS = {"shop": "north", "price": 12, "items": 3, "gift": False, "due": NOON_US}


def test_declared_fields_take_their_declared_kinds() -> None:
    wire = wire_fields(FIELDS | {"note": None}, announced.fields)
    kinds = {name: value.WhichOneof("kind") for name, value in wire.items()}
    assert kinds == {"shop": "text", "price": "number", "items": "integer", "gift": "flag", "due": "time_us"}


def test_without_a_declaration_python_types_decide() -> None:
    at = datetime(2013, 3, 1, 12, tzinfo=UTC)
    wire = wire_fields({"text": "a", "n": 1, "x": 1.5, "yes": True, "at": at, "none": None, "nan": math.nan}, {})
    kinds = {name: value.WhichOneof("kind") for name, value in wire.items()}
    assert kinds == {"text": "text", "n": "integer", "x": "number", "yes": "flag", "at": "time_us", "nan": None}
    assert from_value(wire["at"]) == NOON_US


def test_a_datetime_is_exact_in_any_zone_and_refused_without_one() -> None:
    at = datetime(2013, 3, 1, 13, 0, 0, 1, tzinfo=timezone(timedelta(hours=1)))
    assert time_us(at) == NOON_US + 1
    with pytest.raises(ValueError, match="time zone"):
        time_us(datetime(2013, 3, 1))


@pytest.mark.parametrize("kind", [NewEvent, ReplayEvent, SimpleNamespace])
def test_whatever_looks_like_an_event_is_sent_as_one(kind: type) -> None:
    event = kind(
        type="announced", id="a1", entity="order-7", event_time_us=NOON_US, known_at_us=NOON_US + 1, fields=FIELDS
    )
    with EventsClient("127.0.0.1:1", orders(), source="shop") as client:
        wire = client.wire(event)
    assert Validator(orders()).check(wire, NOON_US) == []
    assert (wire.source, wire.known_at_us) == ("shop", NOON_US + 1)


def test_a_request_without_an_id_gets_one_of_its_own() -> None:
    with PredictionsClient("127.0.0.1:1", "orders") as client:
        first, second = client.wire(PredictionRequest("o")), client.wire(PredictionRequest("o"))
        assert first.request_id
        assert first.request_id != second.request_id
        assert client.wire(PredictionRequest("o", request_id="mine")).request_id == "mine"


@pytest.mark.parametrize(
    "wrong", [{"retries": 5}, {"retries": -1}, {"deadline_s": 0}, {"batch_events_max": 0}, {"stream_events_max": 0}]
)
def test_settings_out_of_bounds_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="client settings"):
        ClientSettings(**wrong)  # type: ignore[arg-type]


def test_what_the_client_exports_exists_and_its_modules_are_private() -> None:
    assert sorted(driftloop.client.__all__) == list(driftloop.client.__all__)
    assert all(hasattr(driftloop.client, name) for name in driftloop.client.__all__)
    public = {name for name, value in vars(driftloop.client).items() if not name.startswith("_")}
    assert public == set(driftloop.client.__all__)
