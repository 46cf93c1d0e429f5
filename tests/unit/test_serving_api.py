"""The rest of serving's gRPC door: streams, explanations, listings, rich errors, several use cases, A/B arms and stand-ins."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message as Payload
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_health.v1 import health_pb2, health_pb2_grpc

from driftloop.contracts.monitor.v1.monitor_pb2 import (
    COMMAND_KIND_GUARDRAIL,
    ROLE_AB,
    ROLE_CANARY,
    ROLE_CHAMPION,
    ROLE_PREVIOUS,
    ROLE_SHADOW,
    ROLE_STANDBY,
    Recalibration,
    Role,
    Scaling,
)
from driftloop.contracts.serving.v1.serving_pb2 import (
    ExplainRequest,
    ListModelsRequest,
    PredictBatchRequest,
    PredictStreamResponse,
)
from services.serving.errors import DeadlinePassed
from tests.unit.serving_twin import SHOP, Constant, Twin, Weighted, pair, request, twin

Code = grpc.StatusCode


def details(error: grpc.aio.AioRpcError) -> dict[type[Payload], Any]:
    """The google.rpc details of an error, by type."""
    trailers: Any = error.trailing_metadata()
    packed_status = next(value for name, value in trailers if name == "grpc-status-details-bin")
    status = Status.FromString(packed_status)
    assert (status.code, status.message) == (error.code().value[0], error.details())
    found = {}
    for packed in status.details:
        for kind in (BadRequest, ErrorInfo, RetryInfo):
            made = kind()
            if packed.Unpack(made):
                found[kind] = made
    return found


async def refusal(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    return refused.value


def batch(*entities: str, **fields: Any) -> PredictBatchRequest:
    return PredictBatchRequest(requests=[request(entity, **fields) for entity in entities])


async def released_and_refused(replica: Twin, *arms: tuple[str, Role]) -> None:
    """Releases what is refused in part, and answers as monitor does."""
    replica.release(*arms)
    assert await asyncio.to_thread(replica.bus.reader(["commands"]).poll, 10.0, 1)
    await replica.released(*arms)


# Streams


async def test_a_stream_answers_every_message_in_order_as_a_batch_would(tmp_path: Path) -> None:
    async with twin(tmp_path) as replica:
        await replica.released(("m1", ROLE_CHAMPION), ("m2", ROLE_CANARY), shares=[0.5, 0.5])
        sent = [batch(*(f"o{n}-{m}" for m in range(n + 1))) for n in range(20)]

        async def messages() -> AsyncIterator[PredictBatchRequest]:
            for message in sent:
                yield message

        answers = [answer async for answer in replica.stub.PredictStream(messages())]
        assert [list(answer.responses) for answer in answers] == [
            list((await replica.stub.PredictBatch(message)).responses) for message in sent
        ]


async def test_a_bad_message_of_a_stream_is_refused_by_name_and_the_stream_goes_on(tmp_path: Path) -> None:
    async with twin(tmp_path) as replica:
        await replica.released(("m1", ROLE_CHAMPION))
        stream = replica.stub.PredictStream()
        await stream.write(batch("o1", "o2", shop=None))
        refused: PredictStreamResponse = await stream.read()
        assert (refused.refusal.code, len(refused.responses)) == (Code.INVALID_ARGUMENT.value[0], 0)
        assert [(v.field, v.rule) for v in refused.refusal.violations] == [("fields.shop", "required")]
        await stream.write(batch("o3"))
        assert [answer.model_id for answer in (await stream.read()).responses] == ["m1"]
        await stream.done_writing()
        assert await stream.code() == Code.OK
        await replica.marked(9_000)
        assert [record.message.key for record in replica.records("predictions")] == ["o3"]


async def test_a_stream_that_never_reads_holds_itself_up_and_nobody_else(tmp_path: Path) -> None:
    async with twin(tmp_path) as replica:
        await replica.released(("m1", ROLE_CHAMPION))
        stream = replica.stub.PredictStream()
        message = batch(*(f"o{n}" for n in range(500)))
        written = 0

        async def write_for_ever() -> None:
            nonlocal written
            while True:
                await stream.write(message)
                written += 1

        writing = asyncio.create_task(write_for_ever())
        before = -1
        while written != before:  # the client may not even write any more: nothing piles up
            before = written
            for n in range(100):
                await replica.stub.Predict(request(f"p{n}"))
        assert written > 0
        writing.cancel()
        stream.cancel()
        assert (await replica.stub.Predict(request("p"))).model_id == "m1"


# Errors and deadlines


async def test_what_is_wrong_is_said_in_google_rpc_details(tmp_path: Path) -> None:
    async with twin(tmp_path) as replica:
        await replica.released(("m1", ROLE_CHAMPION))
        found = details(await refusal(replica.stub.Predict(request(shop=None, price=-1.0))))
        assert {(v.field, v.reason) for v in found[BadRequest].field_violations} == {
            ("fields.shop", "REQUIRED"),
            ("fields.price", "RANGE"),
        }
        assert (found[ErrorInfo].reason, found[ErrorInfo].domain) == ("INVALID_REQUEST", "serving.driftloop")


async def test_a_full_log_says_when_to_come_back(tmp_path: Path) -> None:
    async with twin(tmp_path, spool_bytes_max=100) as replica:
        await replica.released(("m1", ROLE_CHAMPION))
        found = details(await refusal(replica.stub.Predict(request())))
        assert found[RetryInfo].retry_delay.ToTimedelta().total_seconds() == 1.0


async def test_hundreds_of_violations_fit_into_the_answer(tmp_path: Path) -> None:
    async with twin(tmp_path) as replica:
        await replica.released(("m1", ROLE_CHAMPION))
        asks = request("ü" * 256, "x" * 300)
        for number in range(400):
            asks.fields[f"é{number}" * 20].text = "ß" * 100
        refused = await refusal(replica.stub.Predict(asks))
        assert refused.code() == Code.INVALID_ARGUMENT
        assert details(refused)[BadRequest].field_violations


async def test_a_call_whose_deadline_has_passed_or_that_was_given_up_is_neither_predicted_nor_logged(
    tmp_path: Path,
) -> None:
    async with twin(tmp_path) as replica:
        await replica.released(("m1", ROLE_CHAMPION))
        handlers = replica.replica.served.by_use_case("orders")
        with pytest.raises(DeadlinePassed):
            await handlers.predict(request("late"), "", -0.001)
        given_up = asyncio.create_task(handlers.predict(request("given-up"), "", None))
        kept = asyncio.create_task(handlers.predict(request("kept"), "", None))
        await asyncio.sleep(0)
        given_up.cancel()
        await kept
        await replica.marked(9_000)
        assert [record.message.key for record in replica.records("predictions")] == ["kept"]


# Explanations


async def test_an_answer_is_explained_by_the_model_and_vector_that_gave_it(tmp_path: Path) -> None:
    models = {"m1": Weighted({"price": 0.01}, base=0.1), "m2": Weighted({"price": 0.02}, base=0.1)}
    async with twin(tmp_path, models) as replica:
        await replica.released(("m1", ROLE_CHAMPION))
        answered = await replica.stub.Predict(request(price=30.0))
        await replica.released(("m2", ROLE_CHAMPION), ("m1", ROLE_STANDBY))
        asks = ExplainRequest(use_case="orders", prediction_id=answered.prediction_id)
        found = await replica.stub.Explain(asks)
        assert (found.model_id, found.score, found.answered) == ("m1", answered.score, answered.score)
        first = found.attributions[0]
        assert (first.input, first.number) == ("price", 30.0)
        assert math.isclose(sum(each.contribution for each in found.attributions), found.score - found.base)
        assert first.contribution == pytest.approx(0.01 * (30.0 - Weighted.MEAN_PRICE))
        assert {each.input for each in found.attributions if each.missing} >= {f"{SHOP}__mean_1h"}
        assert await replica.stub.Explain(asks) == found


async def test_a_recalibrated_answer_is_explained_by_what_the_model_said_and_what_was_told(tmp_path: Path) -> None:
    recalibration = Recalibration(scalings=[Scaling(weight=1.0, slope=1.0, intercepts=[1.0])], labels=80)
    async with twin(tmp_path, {"m1": Weighted({"price": 0.01}, base=0.1)}) as replica:
        await replica.released(("m1", ROLE_CHAMPION), recalibration=recalibration)
        told = await replica.stub.Predict(request(price=30.0))
        found = await replica.stub.Explain(ExplainRequest(use_case="orders", prediction_id=told.prediction_id))
        assert told.score == found.answered > found.score
        assert math.isclose(sum(each.contribution for each in found.attributions), found.score - found.base)


async def test_an_old_answer_is_explained_from_its_log_record(tmp_path: Path) -> None:
    async with twin(tmp_path, {"m1": Weighted({"price": 0.01}, base=0.1)}, explained_answers_max=1) as replica:
        await replica.released(("m1", ROLE_CHAMPION))
        old = await replica.stub.Predict(request("o1"))
        await replica.stub.Predict(request("o2"))
        refused = await refusal(
            replica.stub.Explain(ExplainRequest(use_case="orders", prediction_id=old.prediction_id))
        )
        assert refused.code() == Code.NOT_FOUND
        await replica.marked(9_000)
        logged = next(r.message.payload for r in replica.records("predictions") if r.message.id == old.prediction_id)
        found = await replica.stub.Explain(
            ExplainRequest(use_case="orders", model_id=logged.model_id, vector=logged.vector)
        )
        assert found.score == pytest.approx(old.score)


async def test_what_cannot_be_explained_is_said(tmp_path: Path) -> None:
    async with twin(tmp_path) as replica:
        await replica.released(("m1", ROLE_CHAMPION))
        answered = await replica.stub.Predict(request())
        of_a_model_without_background = ExplainRequest(use_case="orders", prediction_id=answered.prediction_id)
        assert (await refusal(replica.stub.Explain(of_a_model_without_background))).code() == Code.FAILED_PRECONDITION
        await replica.marked(9_000)
        vector = replica.records("predictions")[0].message.payload.vector
        unknown = ExplainRequest(use_case="orders", model_id="gone", vector=vector)
        assert (await refusal(replica.stub.Explain(unknown))).code() == Code.FAILED_PRECONDITION
        empty = ExplainRequest(use_case="orders", model_id="m1")
        assert (await refusal(replica.stub.Explain(empty))).code() == Code.INVALID_ARGUMENT


# Who answers


async def test_models_are_listed_with_their_role_and_what_became_of_them(tmp_path: Path) -> None:
    async with twin(tmp_path) as replica:
        arms = (("m1", ROLE_CHAMPION), ("m2", ROLE_SHADOW), ("forged", ROLE_STANDBY))
        await released_and_refused(replica, *arms)
        found = await replica.stub.ListModels(ListModelsRequest(use_case="orders"))
        assert [(m.model_id, m.role) for m in found.models] == [
            ("m1", "champion"),
            ("m2", "shadow"),
            ("forged", "standby"),
        ]
        assert [bool(m.refused) for m in found.models] == [False, False, True]
        assert found.revision == 2


async def test_arms_of_a_comparison_answer_their_entities_under_their_names_and_both_are_logged(tmp_path: Path) -> None:
    async with twin(tmp_path) as replica:
        await replica.released(
            ("m1", ROLE_CHAMPION), ("m2", ROLE_AB), shares=[0.5, 0.5], names=["control", "treatment"]
        )
        entities = [f"o{n}" for n in range(60)]
        first = {e: await replica.stub.Predict(request(e, "1")) for e in entities}
        again = {e: await replica.stub.Predict(request(e, "2")) for e in entities}
        assert {e: a.arm for e, a in first.items()} == {e: a.arm for e, a in again.items()}
        assert {(a.arm, a.model_id) for a in first.values()} == {("control", "m1"), ("treatment", "m2")}
        await replica.marked(9_000)
        for record in replica.records("predictions"):
            logged = record.message.payload
            assert logged.arm == first[logged.entity].arm
            assert {each.model_id for each in logged.scores} == {"m1", "m2"}


async def test_a_standby_scores_nothing_until_nobody_else_can_answer(tmp_path: Path) -> None:
    models = {"m1": Constant(0.1), "m2": Constant(0.2)}
    async with twin(tmp_path, models) as replica:
        await replica.released(("m1", ROLE_CHAMPION), ("m2", ROLE_STANDBY))
        await replica.stub.Predict(request("o1"))
        models["m1"].score = math.nan
        answered = await replica.stub.Predict(request("o2"))
        assert (answered.model_id, answered.arm, answered.score) == ("m2", "standby", 0.2)
        assert answered.fallback == "model m1 answered nan, which is no probability"
        await replica.marked(9_000)
        logged = {r.message.key: r.message.payload for r in replica.records("predictions")}
        assert [each.model_id for each in logged["o1"].scores] == ["m1"]
        assert (logged["o2"].fallback, len(logged["o2"].scores)) == (answered.fallback, 0)


async def test_where_no_model_can_answer_the_prior_does_and_says_so(tmp_path: Path) -> None:
    broken = Constant(math.nan)
    broken.prior = (0.3,)
    async with twin(tmp_path, {"m1": broken}) as replica:
        await replica.released(("m1", ROLE_CHAMPION))
        answered = await replica.stub.Predict(request())
        assert (answered.model_id, answered.arm, answered.score) == ("", "prior", 0.3)
        assert "m1" in answered.fallback


async def test_a_model_that_became_slow_is_reported_once(tmp_path: Path) -> None:
    async with twin(tmp_path, model_call_s_max=1e-9) as replica:
        await replica.released(("m1", ROLE_CHAMPION), ("m2", ROLE_PREVIOUS))
        for n in range(220):
            await replica.stub.Predict(request(f"o{n}"))
        commands = [record.message.payload for record in replica.records("commands")]
        assert {(c.kind, c.model_id) for c in commands} == {
            (COMMAND_KIND_GUARDRAIL, "m1"),
            (COMMAND_KIND_GUARDRAIL, "m2"),
        }
        assert len(commands) == 2


async def test_a_watermark_says_which_release_is_applied_and_what_of_it_is_refused(tmp_path: Path) -> None:
    async with twin(tmp_path) as replica:
        await released_and_refused(replica, ("m1", ROLE_CHAMPION), ("forged", ROLE_SHADOW))
        await replica.marked(9_000)
        marks = [r.message.payload for r in replica.records("predictions", control=True) if r.message.is_watermark]
        newest = max(marks, key=lambda mark: mark.known_at_us)
        assert (newest.writer, newest.revision, list(newest.refused_models)) == ("serving/0", 2, ["forged"])


# Several use cases


async def test_several_use_cases_are_served_side_by_side_each_with_its_own_health(tmp_path: Path) -> None:
    async with pair(tmp_path) as (orders_twin, rides_twin):
        stub = health_pb2_grpc.HealthStub(orders_twin.channel)

        async def health(name: str) -> int:
            return int((await stub.Check(health_pb2.HealthCheckRequest(service=name))).status)

        async with asyncio.timeout(10):  # it becomes ready by itself, some time after the door is open
            async for seen in stub.Watch(health_pb2.HealthCheckRequest(service="driftloop.serving/orders")):
                if seen.status == health_pb2.HealthCheckResponse.SERVING:
                    break
        assert await health("driftloop.serving/rides") == health_pb2.HealthCheckResponse.NOT_SERVING
        assert await health("driftloop.serving") == health_pb2.HealthCheckResponse.NOT_SERVING
        await orders_twin.released(("m1", ROLE_CHAMPION))
        assert (await orders_twin.stub.Predict(request())).score == 0.1
        assert (await refusal(orders_twin.stub.Predict(request(use_case="rides")))).code() == Code.UNAVAILABLE
        rides_twin.models.gate.set()
        async with asyncio.timeout(10):
            await rides_twin.replica.ready.wait()
        assert await health("driftloop.serving/rides") == health_pb2.HealthCheckResponse.SERVING
        assert await health("driftloop.serving") == health_pb2.HealthCheckResponse.SERVING
        assert (await rides_twin.stub.Predict(request(use_case="rides"))).score == 0.7
        mixed = PredictBatchRequest(requests=[request(), request(use_case="rides")])
        assert (await refusal(orders_twin.stub.PredictBatch(mixed))).code() == Code.NOT_FOUND
        await rides_twin.marked(9_000)
        assert [r.message.payload.use_case for r in rides_twin.records("predictions")] == ["rides"]
