"""Serving's HTTP/JSON door: the same answers and refusals as over gRPC, and a document that says what may be asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from driftloop.contracts.monitor.v1.monitor_pb2 import ROLE_CANARY, ROLE_CHAMPION
from tests.unit.serving_twin import RIDER, SHOP, Twin, Weighted, request, twin

PREDICT = "/v1/usecases/orders/predict"


class Http:
    """A client of a replica's HTTP door."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def post(self, path: str, body: Any) -> tuple[int, Any]:
        async with self._session.post(path, json=body) as response:
            return response.status, await response.json(content_type=None)

    async def get(self, path: str) -> tuple[int, Any]:
        async with self._session.get(path) as response:
            return response.status, await response.json(content_type=None)


@asynccontextmanager
async def opened(folder: Path, **changes: Any) -> AsyncIterator[tuple[Twin, Http]]:
    models = {"m1": Weighted({"price": 0.01}, base=0.1), "m2": Weighted({"price": 0.02}, base=0.1)}
    async with (
        twin(folder, models, http_address="127.0.0.1:0", **changes) as replica,
        aiohttp.ClientSession(f"http://127.0.0.1:{replica.replica.http_port}") as session,
    ):
        yield replica, Http(session)


def asked(entity: str = "o1", **fields: Any) -> dict[str, Any]:
    given = {"price": 12.5, "shop": "s1", "rider": "r1", **fields}
    return {"entity": entity, "request_id": "1", "fields": {k: v for k, v in given.items() if v != "absent"}}


async def test_a_prediction_is_the_one_that_grpc_gives(tmp_path: Path) -> None:
    async with opened(tmp_path) as (replica, http):
        await replica.released(("m1", ROLE_CHAMPION), ("m2", ROLE_CANARY), shares=[0.5, 0.5])
        status, found = await http.post(PREDICT, asked() | {"include_vector": True})
        by_grpc = await replica.stub.Predict(request())
        assert status == 200
        assert (found["prediction_id"], found["model_id"], found["score"]) == (
            by_grpc.prediction_id,
            by_grpc.model_id,
            by_grpc.score,
        )
        assert {each["view"] for each in found["freshness"]} == {SHOP, RIDER}
        assert found["vector"]["numbers"][0] == 12.5


async def test_a_batch_is_answered_in_its_order_and_an_integer_is_a_number(tmp_path: Path) -> None:
    async with opened(tmp_path) as (replica, http):
        await replica.released(("m1", ROLE_CHAMPION))
        body = {"requests": [asked("o1", price=10), asked("o2", price=20)]}
        status, found = await http.post(f"{PREDICT}-batch", body)
        assert (status, [each["score"] for each in found["responses"]]) == (200, pytest.approx([0.2, 0.3]))


@pytest.mark.parametrize(
    ("body", "field", "rule"),
    [
        (asked(price="absent"), "fields.price", "required"),
        (asked(price="cheap"), "fields.price", "type"),
        (asked(price=900), "fields.price", "range"),
        (asked(colour="red"), "fields.colour", "unknown_field"),
        (asked(shop=["s1"]), "fields.shop", "type"),
        ({"entity": "o1", "request_id": "1"}, "fields", "json"),
        (asked() | {"more": 1}, "more", "json"),
        ([1], "", "json"),
    ],
    ids=["missing", "mistyped", "out of range", "unknown", "a list", "incomplete", "more than there is", "no object"],
)
async def test_what_is_wrong_is_named_as_a_problem(tmp_path: Path, body: Any, field: str, rule: str) -> None:
    async with opened(tmp_path) as (replica, http):
        await replica.released(("m1", ROLE_CHAMPION))
        status, found = await http.post(PREDICT, body)
        assert (status, found["status"]) == (400, 400)
        assert [(each["field"], each["rule"]) for each in found["violations"]] == [(field, rule)]


async def test_calls_before_a_model_of_other_use_cases_and_other_paths_are_told_so(tmp_path: Path) -> None:
    async with opened(tmp_path) as (_, http):
        assert (await http.post(PREDICT, asked()))[0] == 409
        assert (await http.post("/v1/usecases/rides/predict", asked()))[0] == 404
        assert (await http.get("/v2/models"))[0] == 404
        assert await http.get("/readyz") == (200, {"ready": True})


async def test_a_body_above_the_bound_is_refused(tmp_path: Path) -> None:
    async with opened(tmp_path, call_bytes_max=1_000) as (_, http):
        assert (await http.post(PREDICT, asked(shop="s" * 2_000)))[0] == 413


async def test_explanations_release_and_models_are_there(tmp_path: Path) -> None:
    async with opened(tmp_path) as (replica, http):
        await replica.released(("m1", ROLE_CHAMPION))
        _, made = await http.post(PREDICT, asked(price=30.0))
        status, found = await http.post("/v1/usecases/orders/explain", {"prediction_id": made["prediction_id"]})
        assert (status, found["attributions"][0]["input"]) == (200, "price")
        assert (await http.get("/v1/usecases/orders/release"))[1]["release"]["champion"]["model_id"] == "m1"
        assert [m["role"] for m in (await http.get("/v1/usecases/orders/models"))[1]["models"]] == ["champion"]


def references(value: Any) -> list[dict[str, str]]:
    """Every $ref within a document."""
    if isinstance(value, dict):
        own = [value] if "$ref" in value else []
        return own + [found for each in value.values() for found in references(each)]
    return [found for each in value for found in references(each)] if isinstance(value, list) else []


async def test_the_document_names_every_path_and_the_fields_of_the_use_case(tmp_path: Path) -> None:
    async with opened(tmp_path) as (_, http):
        _, document = await http.get("/openapi.json")
        assert set(document["paths"]) >= {PREDICT, f"{PREDICT}-batch", "/v1/usecases/orders/explain", "/readyz"}
        schemas = document["components"]["schemas"]
        fields = schemas["orders_request"]["properties"]["fields"]
        assert fields["properties"]["price"] == {"type": "number", "minimum": 0, "maximum": 500}
        assert "price" in fields["required"]
        referred = {part["$ref"].rpartition("/")[2] for part in references(document)}
        assert referred <= set(schemas)


async def test_a_body_that_does_not_come_is_given_up_and_its_call_is_free_again(tmp_path: Path) -> None:
    async with opened(tmp_path, http_body_timeout_s=0.1, calls_max=1) as (replica, http):
        await replica.released(("m1", ROLE_CHAMPION))
        reader, writer = await asyncio.open_connection("127.0.0.1", replica.replica.http_port)
        head = (
            f"POST {PREDICT} HTTP/1.1\r\nhost: serving\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n"
        )
        writer.write(head.encode())
        try:
            answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        finally:
            writer.close()
        assert answer.startswith(b"HTTP/1.1 408")
        assert (await http.post(PREDICT, asked()))[0] == 200
