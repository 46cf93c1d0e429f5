"""Serving through its gRPC door: what a caller is told, good and bad, and what is logged of it."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Sequence
from pathlib import Path

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from driftloop.contracts import watermark
from driftloop.contracts.codec import Encoded
from driftloop.contracts.event.v1.event_pb2 import Value
from driftloop.contracts.monitor.v1.monitor_pb2 import (
    COMMAND_KIND_GUARDRAIL,
    ROLE_CANARY,
    ROLE_CHAMPION,
    ROLE_PREVIOUS,
    ROLE_SHADOW,
    Recalibration,
    Scaling,
)
from driftloop.contracts.serving.v1.serving_pb2 import (
    GetReleaseRequest,
    PredictBatchRequest,
    PredictBatchResponse,
    PredictResponse,
    WaitForClockRequest,
)
from driftloop.messaging import MemoryBus
from services.serving.errors import (
    AlreadyRunning,
    CannotStart,
    DeadlinePassed,
    InvalidRequest,
    NoUsableScore,
    Overloaded,
)
from services.serving.view import Entry
from tests.unit.serving_twin import RIDER, SHOP, SPREAD, Constant, Twin, request, twin

Code = grpc.StatusCode


async def refusal(call: Awaitable[object]) -> grpc.aio.AioRpcError:
    """The error that a call ends with."""
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    return refused.value


async def health(replica: Twin) -> int:
    stub = health_pb2_grpc.HealthStub(replica.channel)
    return int((await stub.Check(health_pb2.HealthCheckRequest(service="driftloop.serving"))).status)


# Too much at once


async def test_of_more_batches_than_can_wait_the_first_are_answered_and_the_rest_is_refused_at_once(
    tmp_path: Path,
) -> None:
    async with twin(tmp_path, waiting_requests_max=320) as replica:
        await replica.released(("m1", ROLE_CHAMPION))
        handlers = replica.replica.served.by_use_case("orders")
        made = [PredictBatchRequest(requests=[request(f"o{n}-{i}") for i in range(64)]) for n in range(9)]
        found = await asyncio.gather(*[handlers.predict_batch(each, "", None) for each in made], return_exceptions=True)
        assert [type(each) for each in found] == [bytes] * 5 + [Overloaded] * 4
        answered = [PredictBatchResponse.FromString(each) for each in found if isinstance(each, bytes)]
        assert len((await replica.stub.PredictBatch(made[8])).responses) == 64
        await replica.marked(9_000)
        told = {answer.prediction_id for each in answered for answer in each.responses}
        assert told < {record.message.id for record in replica.records("predictions")}
        assert len(replica.records("predictions")) == 6 * 64


class Seen(Constant):
    """Remembers how many rows it was asked for at once; has no answer where an order is expensive."""

    def __init__(self) -> None:
        super().__init__(0.1)
        self.rows: list[int] = []

    def predict(self, numbers: np.ndarray, texts: Sequence[Sequence[str]]) -> np.ndarray:
        self.rows.append(len(texts))
        return np.where(numbers[:, 0] > 400, math.nan, numbers[:, 0] / 1_000)


async def test_batches_that_wait_are_scored_together_and_each_gets_its_own_answers(tmp_path: Path) -> None:
    model = Seen()
    async with twin(tmp_path, {"m1": model}, together_requests_max=16) as replica:
        await replica.released(("m1", ROLE_CHAMPION))
        handlers = replica.replica.served.by_use_case("orders")
        made = [
            PredictBatchRequest(requests=[request(f"o{n}-{i}", price=float(10 * n + i)) for i in range(1, n)])
            for n in range(2, 8)
        ]
        found = await asyncio.gather(*[handlers.predict_batch(each, "", None) for each in made])
        assert model.rows == [1 + 2 + 3 + 4 + 5, 6]
        told = [PredictBatchResponse.FromString(each).responses for each in found]
        assert [[answer.score for answer in each] for each in told] == [
            [(10 * n + i) / 1_000 for i in range(1, n)] for n in range(2, 8)
        ]
        await replica.marked(9_000)
        logged = {record.message.id: record.message.payload for record in replica.records("predictions")}
        assert {answer.prediction_id: answer.score for each in told for answer in each} == {
            name: prediction.score for name, prediction in logged.items()
        }


async def test_of_batches_that_wait_together_only_that_fails_which_is_wrong_or_has_no_answer(tmp_path: Path) -> None:
    model = Seen()
    async with twin(tmp_path, {"m1": model}) as replica:
        await replica.released(("m1", ROLE_CHAMPION))
        handlers = replica.replica.served.by_use_case("orders")
        prices = {"good": 10.0, "wrong": 900.0, "unanswerable": 450.0, "gone": 20.0, "late": 30.0, "fine": 40.0}
        calls = {
            name: asyncio.create_task(
                handlers.predict_batch(
                    PredictBatchRequest(requests=[request(f"{name}-{n}", price=price) for n in range(3)]),
                    "",
                    1e-9 if name == "late" else None,
                )
            )
            for name, price in prices.items()
        }
        await asyncio.sleep(0)
        calls["gone"].cancel()
        found = await asyncio.gather(*calls.values(), return_exceptions=True)
        kinds = [bytes, InvalidRequest, NoUsableScore, asyncio.CancelledError, DeadlinePassed, bytes]
        assert [type(each) for each in found] == kinds
        assert model.rows[0] == 9
        await replica.marked(9_000)
        logged = [record.message.key for record in replica.records("predictions")]
        assert sorted(logged) == [f"{name}-{n}" for name in ("fine", "good") for n in range(3)]


async def test_a_batch_whose_caller_has_gone_holds_up_nobody(tmp_path: Path) -> None:
    async with twin(tmp_path, waiting_requests_max=1) as replica:
        await replica.released(("m1", ROLE_CHAMPION))
        handlers = replica.replica.served.by_use_case("orders")
        batch = PredictBatchRequest(requests=[request("o1")])
        gone = asyncio.create_task(handlers.predict_batch(batch, "", None))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.wait([gone])
        assert PredictBatchResponse.FromString(await handlers.predict_batch(batch, "", None)).responses[0].score == 0.1


async def test_a_batch_whose_deadline_passes_while_it_waits_is_not_predicted(tmp_path: Path) -> None:
    async with twin(tmp_path, waiting_requests_max=100_000) as replica:
        await replica.released(("m1", ROLE_CHAMPION))
        made = [PredictBatchRequest(requests=[request(f"o{n}-{i}") for i in range(512)]) for n in range(40)]
        calls = [replica.stub.PredictBatch(each, timeout=0.05) for each in made]
        found = await asyncio.gather(*calls, return_exceptions=True)
        late = [each for each in found if isinstance(each, grpc.aio.AioRpcError)]
        assert {each.code() for each in late} == {Code.DEADLINE_EXCEEDED}
        await replica.marked(9_000)
        assert len(replica.records("predictions")) < 40 * 512


# Answers


async def test_an_answer_names_its_model_clock_freshness_and_vector_and_is_logged_with_them(tmp_path: Path) -> None:
    async with twin(tmp_path) as replica:
        update_id = replica.feature(SHOP, f"{SHOP}|s1", [20.0, 2.0], sequence=7, known_at_us=900)
        await replica.released(("m1", ROLE_CHAMPION), ("m2", ROLE_SHADOW))
        asks = request()
        asks.include_vector = True
        answered = await replica.stub.Predict(asks)
        assert (answered.model_id, answered.arm, answered.score, answered.as_of_us) == ("m1", "champion", 0.1, 2_000)
        assert [(f.view, f.found, f.age_us) for f in answered.freshness] == [(SHOP, True, 1_100), (RIDER, False, 0)]
        assert list(answered.defaulted) == [f"{RIDER}__minutes"]
        assert list(answered.vector.numbers)[:3] == [12.5, 20.0, 2.0]
        await replica.marked(3_000)
        (record,) = replica.records("predictions")
        logged = record.message.payload
        assert (logged.id, logged.entity, logged.request_id, logged.revision) == (answered.prediction_id, "o1", "1", 1)
        assert [(s.model_id, s.score) for s in logged.scores] == [("m1", 0.1), ("m2", 0.2)]
        assert list(logged.vector.readings) == list(answered.vector.readings)
        assert record.message.causes == (update_id,)


async def test_an_answer_is_as_of_the_newest_value_that_it_read_where_the_clock_is_behind_that(tmp_path: Path) -> None:
    async with twin(tmp_path) as replica:
        replica.feature(SHOP, f"{SHOP}|s1", [20.0, 2.0], sequence=7, known_at_us=5_000)
        await replica.released(("m1", ROLE_CHAMPION))
        ahead = await replica.stub.Predict(request("o1"))
        behind = await replica.stub.Predict(request("o2", shop="nowhere"))
        assert (replica.clock_us, ahead.as_of_us, behind.as_of_us) == (2_000, 5_000, 2_000)
        assert [f.age_us for f in ahead.freshness if f.found] == [0]
        await replica.marked(6_000)
        known = {record.message.payload.entity: record.message.known_at_us for record in replica.records("predictions")}
        assert known == {"o1": 5_001, "o2": 2_001}


async def test_a_retry_is_the_same_prediction(tmp_path: Path) -> None:
    async with twin(tmp_path) as replica:
        await replica.released(("m1", ROLE_CHAMPION))
        first, again, other = [await replica.stub.Predict(request(request_id=r)) for r in ("1", "1", "2")]
        assert first.prediction_id == again.prediction_id != other.prediction_id


async def test_a_batch_is_answered_in_its_order(tmp_path: Path) -> None:
    async with twin(tmp_path) as replica:
        await replica.released(("m1", ROLE_CHAMPION), ("m2", ROLE_CANARY), shares=[0.5, 0.5])
        entities = [f"o{n}" for n in range(32)]
        alone = [await replica.stub.Predict(request(entity)) for entity in entities]
        together = await replica.stub.PredictBatch(
            PredictBatchRequest(requests=[request(entity) for entity in entities])
        )
        assert list(together.responses) == alone
        assert {response.arm for response in alone} == {"champion", "canary"}


async def test_an_entity_without_known_features_is_answered_from_defaults_that_are_named(tmp_path: Path) -> None:
    async with twin(tmp_path) as replica:
        await replica.released(("m1", ROLE_CHAMPION))
        answered = await replica.stub.Predict(request("never-seen", shop="nowhere", rider=None))
        assert list(answered.defaulted) == [f"{SHOP}__mean_1h", f"{SHOP}__count_1h", f"{RIDER}__minutes"]
        assert not any(freshness.found for freshness in answered.freshness)


async def test_the_trace_of_a_caller_goes_on_in_the_log(tmp_path: Path) -> None:
    traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with twin(tmp_path) as replica:
        await replica.released(("m1", ROLE_CHAMPION))
        await replica.stub.Predict(request(), metadata=(("traceparent", traceparent),))
        await replica.marked(3_000)
        (record,) = replica.records("predictions")
        assert record.message.traceparent == traceparent


# Refusals


async def test_before_the_first_model_a_call_is_told_so(tmp_path: Path) -> None:
    async with twin(tmp_path) as replica:
        refused = await refusal(replica.stub.Predict(request()))
        assert (refused.code(), refused.details()) == (Code.FAILED_PRECONDITION, "no model has been released yet")
        assert await health(replica) == health_pb2.HealthCheckResponse.SERVING


async def test_missing_and_mistyped_fields_are_named(tmp_path: Path) -> None:
    async with twin(tmp_path) as replica:
        await replica.released(("m1", ROLE_CHAMPION))
        asks = request(shop=None)
        asks.fields["price"].CopyFrom(Value(number=math.nan))
        refused = await refusal(replica.stub.Predict(asks))
        assert refused.code() == Code.INVALID_ARGUMENT
        assert refused.details() == (
            "fields.price (finite): is no finite number: leave an unknown one out; fields.shop (required): a text is missing"
        )
        assert not replica.records("predictions")


async def test_one_bad_request_fails_its_batch_and_is_named_by_its_position(tmp_path: Path) -> None:
    async with twin(tmp_path) as replica:
        await replica.released(("m1", ROLE_CHAMPION))
        batch = PredictBatchRequest(requests=[request("o1"), request("o2", shop=None), request("o3")])
        refused = await refusal(replica.stub.PredictBatch(batch))
        assert (refused.code(), "request 1: fields.shop" in str(refused.details())) == (Code.INVALID_ARGUMENT, True)
        assert not replica.records("predictions")


async def test_a_batch_above_its_bound_is_refused(tmp_path: Path) -> None:
    async with twin(tmp_path, batch_requests_max=2) as replica:
        refused = await refusal(replica.stub.PredictBatch(PredictBatchRequest(requests=[request()] * 3)))
        assert (refused.code(), "3 requests" in str(refused.details())) == (Code.INVALID_ARGUMENT, True)


async def test_a_use_case_of_others_is_not_found(tmp_path: Path) -> None:
    async with twin(tmp_path) as replica:
        for call in (
            replica.stub.Predict(request(use_case="flights")),
            replica.stub.PredictBatch(PredictBatchRequest(requests=[request(use_case="flights")])),
            replica.stub.GetRelease(GetReleaseRequest(use_case="flights")),
            replica.stub.WaitForClock(WaitForClockRequest(use_case="flights")),
        ):
            assert (await refusal(call)).code() == Code.NOT_FOUND


async def test_no_answer_leaves_that_cannot_be_logged(tmp_path: Path) -> None:
    async with twin(tmp_path, spool_bytes_max=100) as replica:
        await replica.released(("m1", ROLE_CHAMPION))
        refused = await refusal(replica.stub.Predict(request()))
        assert refused.code() == Code.RESOURCE_EXHAUSTED
        assert ("grpc-retry-pushback-ms", "1000") in list(refused.trailing_metadata() or ())


async def test_a_model_that_gives_no_probability_is_replaced_and_monitor_is_told_once(tmp_path: Path) -> None:
    models = {"m1": Constant(math.nan), "m2": Constant(0.2)}
    async with twin(tmp_path, models, unusable_scores_max=3) as replica:
        await replica.released(("m1", ROLE_CHAMPION), ("m2", ROLE_PREVIOUS))
        answers = [await replica.stub.Predict(request(f"o{n}")) for n in range(5)]
        assert {(a.model_id, a.arm, a.score) for a in answers} == {("m2", "previous", 0.2)}
        (command,) = [record.message.payload for record in replica.records("commands")]
        assert (command.kind, command.model_id, command.who) == (COMMAND_KIND_GUARDRAIL, "m1", "serving/0")


async def test_releases_that_only_recalibrate_do_not_make_a_failing_model_look_new(tmp_path: Path) -> None:
    models = {"m1": Constant(math.nan), "m2": Constant(0.2)}
    arms = (("m1", ROLE_CHAMPION), ("m2", ROLE_PREVIOUS))
    async with twin(tmp_path, models, unusable_scores_max=3) as replica:
        for n in range(3):
            recalibration = Recalibration(scalings=[Scaling(weight=0.5, slope=1.0, intercepts=[n])])
            await replica.released(*arms, recalibration=recalibration)
            await replica.stub.Predict(request(f"o{n}"))
        (command,) = [record.message.payload for record in replica.records("commands")]
        assert (command.kind, command.model_id) == (COMMAND_KIND_GUARDRAIL, "m1")


async def test_without_a_usable_model_the_call_fails_rather_than_guesses(tmp_path: Path) -> None:
    async with twin(tmp_path, {"m1": Constant(math.nan)}) as replica:
        await replica.released(("m1", ROLE_CHAMPION))
        assert (await refusal(replica.stub.Predict(request()))).code() == Code.INTERNAL


# Releases


async def test_a_refused_bundle_changes_nothing_but_tells_monitor_once_and_the_clock_waits_for_its_answer(
    tmp_path: Path,
) -> None:
    async with twin(tmp_path) as replica:
        await replica.released(("m1", ROLE_CHAMPION))
        replica.release(("forged", ROLE_CHAMPION), ("m1", ROLE_PREVIOUS))
        waiting = WaitForClockRequest(use_case="orders", clock_us=replica.clock_us)
        assert await asyncio.to_thread(replica.bus.reader(["commands"]).poll, 10.0, 1)
        behind = await refusal(replica.stub.WaitForClock(waiting, timeout=0.5))
        assert "monitor has not answered the refusal of model forged" in str(behind.details())
        answered = await replica.stub.Predict(request())
        assert (answered.model_id, answered.arm) == ("m1", "champion")
        release = (await replica.stub.GetRelease(GetReleaseRequest(use_case="orders"))).release
        assert (release.revision, release.champion.model_id) == (1, "m1")
        await replica.released(("forged", ROLE_CHAMPION), ("m1", ROLE_PREVIOUS))
        (record,) = replica.records("commands")
        command = record.message.payload
        assert (command.model_id, command.why) == ("forged", "signature: the signature of forged does not match")
        assert record.message.causes == ("release-2",)


async def test_a_recalibration_answers_no_refusal_and_fetches_no_refused_bundle_again(tmp_path: Path) -> None:
    recalibration = Recalibration(scalings=[Scaling(weight=0.5, slope=1.0, intercepts=[1.0])])
    arms = (("m1", ROLE_CHAMPION), ("forged", ROLE_SHADOW))
    async with twin(tmp_path) as replica:
        await replica.released(("m1", ROLE_CHAMPION))
        replica.release(*arms)
        assert await asyncio.to_thread(replica.bus.reader(["commands"]).poll, 10.0, 1)
        replica.models.models["forged"] = Constant(0.5)  # another fetch would find it now
        replica.release(*arms, recalibration=recalibration)
        waiting = WaitForClockRequest(use_case="orders", clock_us=replica.clock_us)
        said = ""
        async with asyncio.timeout(10):
            while "is not applied" in said or not said:
                said = str((await refusal(replica.stub.WaitForClock(waiting, timeout=0.3))).details())
        assert "monitor has not answered the refusal of model forged" in said
        assert "forged" not in replica.models.loaded
        await replica.released(*arms)
        assert "forged" in replica.models.loaded


async def test_a_bundle_that_a_newer_release_no_longer_names_is_not_refused_nor_waited_for(tmp_path: Path) -> None:
    async with twin(tmp_path) as replica:
        await replica.released(("m1", ROLE_CHAMPION))
        waiting = WaitForClockRequest(use_case="orders", clock_us=replica.clock_us)

        async def read(revision: int) -> None:
            said = ""
            while f"release {revision} is not applied yet" not in said:
                try:
                    await replica.stub.WaitForClock(waiting, timeout=0.3)
                except grpc.aio.AioRpcError as behind:
                    said = str(behind.details())

        replica.models.gate.clear()
        async with asyncio.timeout(10):
            await read(replica.release(("m1", ROLE_CHAMPION), ("forged", ROLE_SHADOW)))
            await read(replica.release(("m1", ROLE_CHAMPION)))
        replica.models.gate.set()
        await replica.at(replica.clock_us)
        assert replica.records("commands") == []


async def test_a_cold_start_waits_for_the_newest_release(tmp_path: Path) -> None:
    bus = MemoryBus("orders", SPREAD)
    async with twin(tmp_path, bus=bus) as before:
        await before.released(("m1", ROLE_CHAMPION))
        before.release(("m2", ROLE_CHAMPION))
    async with twin(tmp_path, bus=bus, wait=False) as after:
        after.models.gate.clear()
        refused = await refusal(after.stub.Predict(request()))
        assert refused.code() == Code.UNAVAILABLE
        assert await health(after) == health_pb2.HealthCheckResponse.NOT_SERVING
        after.models.gate.set()
        async with asyncio.timeout(10):
            await after.replica.ready.wait()
        assert (await after.stub.Predict(request())).model_id == "m2"
        assert after.models.loaded == ["m2"]
        assert await health(after) == health_pb2.HealthCheckResponse.SERVING


async def test_a_start_waits_for_nothing_that_retention_has_deleted(tmp_path: Path) -> None:
    bus = MemoryBus("orders", SPREAD)
    bus.append(watermark("features", 0, "aggregation/0", 1_000))
    bus.delete_before({("features", 0): 1})
    async with twin(tmp_path, bus=bus) as orders:
        await orders.released(("m1", ROLE_CHAMPION))
        assert (await orders.stub.Predict(request())).model_id == "m1"


async def test_hot_swaps_fail_and_delay_no_call_and_every_answer_is_of_the_version_it_names(tmp_path: Path) -> None:
    scores = {f"m{n}": (n + 1) / 1_000 for n in range(201)}
    async with twin(tmp_path, {model_id: Constant(score) for model_id, score in scores.items()}) as replica:
        await replica.released(("m0", ROLE_CHAMPION))
        answered: list[PredictResponse] = []
        took_s: dict[bool, list[float]] = {True: [], False: []}
        going, swapping, grew = True, False, asyncio.Event()

        async def caller(number: int) -> None:
            call = 0
            while going:
                call += 1
                began_s, during = time.perf_counter(), swapping
                answered.append(await replica.stub.Predict(request(f"o{number}", str(call))))
                took_s[during or swapping].append(time.perf_counter() - began_s)
                grew.set()

        async def answers(more: int) -> None:
            wanted = len(answered) + more
            while len(answered) < wanted and not any(task.done() for task in callers):
                grew.clear()
                await grew.wait()

        callers = [asyncio.create_task(caller(number)) for number in range(32)]
        for model_id in scores:
            if model_id != "m0":
                swapping = True
                await replica.released((model_id, ROLE_CHAMPION))
                await answers(len(callers))  # those in flight at the swap
                swapping = False
            await answers(2 * len(callers))
        going = False
        await asyncio.gather(*callers)
        await replica.marked(replica.clock_us + 1)
        assert {a.model_id for a in answered} == set(scores)
        assert all(a.score == scores[a.model_id] for a in answered)
        logged = {r.message.id: r.message.payload for r in replica.records("predictions")}
        assert all(
            (logged[a.prediction_id].model_id, logged[a.prediction_id].score) == (a.model_id, a.score) for a in answered
        )
        during, outside = (sorted(took_s[when])[int(len(took_s[when]) * 0.99)] for when in (True, False))
        assert during <= 2 * outside


# The clock


async def test_waiting_for_the_clock_ends_when_the_last_condition_is_met(tmp_path: Path) -> None:
    async with twin(tmp_path) as replica:
        await replica.released(("m1", ROLE_CHAMPION))
        waiting = asyncio.ensure_future(replica.at(5_000))
        replica.models.gate.clear()
        replica.release(("m1", ROLE_CHAMPION), pending_retrain="r1")
        replica.advance(5_000, judging=False)
        replica.judge(5_000)
        await asyncio.wait([waiting], timeout=0.1)
        assert not waiting.done()
        replica.release(("m2", ROLE_CHAMPION))
        await asyncio.wait([waiting], timeout=0.1)
        assert not waiting.done()
        replica.models.gate.set()
        found = await waiting
        assert (found.clock_us, found.revision, found.has_champion) == (5_000, 3, True)


async def test_a_wait_that_is_too_long_says_what_is_behind(tmp_path: Path) -> None:
    async with twin(tmp_path) as replica:
        replica.release(pending_retrain="r7")
        replica.advance(1_000, judging=False)
        late = replica.stub.WaitForClock(WaitForClockRequest(use_case="orders", clock_us=2_000), timeout=0.5)
        refused = await refusal(late)
        assert refused.code() == Code.DEADLINE_EXCEEDED
        for said in ("features/0 by aggregation/0", "judging at no clock", "retrain r7 is open"):
            assert said in str(refused.details())


async def test_the_watermark_of_a_clock_follows_the_answers_given_before_it_on_every_partition(tmp_path: Path) -> None:
    async with twin(tmp_path) as replica:
        await replica.released(("m1", ROLE_CHAMPION))
        for n in range(20):
            await replica.stub.Predict(request(f"o{n}"))
        await replica.marked(9_000)
        for n in range(20):
            await replica.stub.Predict(request(f"o{n}", "2"))
        for partition in range(SPREAD):
            marked = -1
            answers = 0
            for record in replica.records("predictions", control=True):
                if record.partition == partition and record.message.is_watermark:
                    marked = record.message.payload.known_at_us
                elif record.partition == partition:
                    answers += 1
                    assert record.message.known_at_us > marked
            assert answers > 0
            assert marked == 9_000


# Features beyond the view, and bytes that are none


class Store:
    """An online store of some shops."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def read(self, view: str, keys: Sequence[str]) -> dict[str, Entry]:
        self.asked += keys
        return {key: Entry(f"update-of-{key}", 3, 900, 900, (33.0, 1.0)) for key in keys if key == f"{SHOP}|s1"}


class Broken:
    """An online store that fails."""

    def read(self, view: str, keys: Sequence[str]) -> dict[str, Entry]:
        raise ConnectionError("no route")


async def overflow(replica: Twin) -> None:
    """Makes the view drop shop s1."""
    for n in range(1, 6):
        replica.feature(SHOP, f"{SHOP}|s{n}", [20.0, 2.0], sequence=n, known_at_us=900)
    await replica.released(("m1", ROLE_CHAMPION))


async def test_what_the_view_has_dropped_is_looked_up_in_the_online_store(tmp_path: Path) -> None:
    store = Store()
    async with twin(tmp_path, online=store, view_entities_max=3) as replica:
        await overflow(replica)
        asks = request(shop="s1", rider=None)
        asks.include_vector = True
        answered = await replica.stub.Predict(asks)
        assert list(answered.vector.numbers)[1:3] == [33.0, 1.0]
        assert answered.vector.readings[0].update_id == f"update-of-{SHOP}|s1"
        await replica.stub.Predict(asks)
        assert store.asked == [f"{SHOP}|s1"]


async def test_while_the_view_is_complete_nobody_asks_the_online_store(tmp_path: Path) -> None:
    store = Store()
    async with twin(tmp_path, online=store) as replica:
        await overflow(replica)
        await replica.stub.Predict(request(shop="elsewhere"))
        assert store.asked == []


async def test_a_broken_online_store_costs_the_values_and_says_so(tmp_path: Path) -> None:
    async with twin(tmp_path, online=Broken(), view_entities_max=3) as replica:
        await overflow(replica)
        answered = await replica.stub.Predict(request(shop="s1"))
        assert f"{SHOP}__mean_1h" in answered.defaulted


async def test_bytes_that_are_no_message_go_to_dead_letters_and_the_rest_is_read(tmp_path: Path) -> None:
    async with twin(tmp_path) as replica:
        replica.bus.append_raw("features", 0, Encoded(b"key", b"\xff", []))
        await replica.released(("m1", ROLE_CHAMPION))
        (record,) = replica.records("dead-letters")
        letter = record.message.payload
        assert (letter.topic, letter.partition, letter.value, letter.refused_by) == ("features", 0, b"\xff", "serving")


async def test_the_service_can_be_discovered_by_reflection(tmp_path: Path) -> None:
    async with twin(tmp_path) as replica:
        stub = reflection_pb2_grpc.ServerReflectionStub(replica.channel)
        asks = reflection_pb2.ServerReflectionRequest(list_services="")
        async for answered in stub.ServerReflectionInfo(iter([asks])):
            names = {service.name for service in answered.list_services_response.service}
            assert {"driftloop.serving.v1.PredictionService", "grpc.health.v1.Health"} <= names
            break


# Two replicas in one place


async def test_a_replica_whose_address_is_taken_cannot_start(tmp_path: Path) -> None:
    async with twin(tmp_path / "first") as replica:
        with pytest.raises(CannotStart, match=str(replica.replica.port)):
            async with twin(tmp_path / "second", address=f"127.0.0.1:{replica.replica.port}"):
                raise AssertionError("both listen")


async def test_a_replica_whose_spool_is_held_by_another_process_cannot_start(tmp_path: Path) -> None:
    async with twin(tmp_path):
        with pytest.raises(AlreadyRunning):
            async with twin(tmp_path):
                raise AssertionError("both write")
