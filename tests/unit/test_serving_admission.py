"""Which batches wait for their turn, and which are turned away before anything of them is read."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

import grpc
import pytest

from driftloop.contracts.monitor.v1.monitor_pb2 import ROLE_CHAMPION
from driftloop.contracts.serving.v1.serving_pb2 import PredictBatchRequest
from services.serving.admission import Admission
from services.serving.errors import InvalidRequest, Overloaded
from services.serving.gathering import BUSY_S, QUIET_TURNS
from tests.unit.serving_twin import request, twin

_PREDICT_BATCH = "/driftloop.serving.v1.PredictionService/PredictBatch"


async def passed(admission: Admission, requests: int) -> None:
    async with admission.turn(requests):
        pass


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize(("pause_s", "let_through"), [(0.0, False), (BUSY_S, True)])
async def test_a_batch_right_behind_an_answer_or_a_failure_waits_until_no_other_is_on_its_way(
    pause_s: float, let_through: bool, fails: bool
) -> None:
    now_s = 10.0
    admission = Admission(1_000, 64, lambda: now_s)
    with suppress(InvalidRequest):
        async with admission.turn(64):
            if fails:
                raise InvalidRequest([])
    now_s += pause_s
    second = asyncio.create_task(passed(admission, 64))
    await turns(QUIET_TURNS)
    assert second.done() is let_through
    await turns(QUIET_TURNS)
    assert second.done()


async def test_batches_wait_until_the_bound_is_reached_and_the_next_is_turned_away_whatever_it_holds() -> None:
    admission = Admission(100, 64)
    waiting = [asyncio.create_task(passed(admission, requests)) for requests in (64, 30, 512)]
    await turns(1)
    assert not admission.announce()
    with pytest.raises(Overloaded):
        await passed(admission, 1)
    await asyncio.gather(*waiting)
    assert admission.announce()


async def test_batches_that_wait_are_let_through_together_up_to_a_bound_and_a_larger_one_alone() -> None:
    admission, let_through = Admission(100_000, 128), []

    async def enter(requests: int) -> None:
        async with admission.turn(requests):
            if not let_through[-1]:
                asyncio.get_running_loop().call_soon(let_through.append, [])  # behind all that are woken with it
            let_through[-1].append(requests)

    let_through.append([])
    await asyncio.gather(*[enter(requests) for requests in (64, 64, 1, 512, 100, 28, 64)])
    assert [each for each in let_through if each] == [[64, 64], [1], [512], [100, 28], [64]]


async def test_under_a_burst_of_batches_the_rest_is_refused_unread_and_told_when_to_come_again(tmp_path: Path) -> None:
    async with twin(tmp_path, waiting_requests_max=64) as replica:
        await replica.released(("m1", ROLE_CHAMPION))
        batch = PredictBatchRequest(requests=[request(f"o{n}") for n in range(64)]).SerializeToString()
        # A client with threads of its own: all calls are on their way before the replica turns to the first.
        with grpc.insecure_channel(f"127.0.0.1:{replica.replica.port}") as channel:
            await asyncio.to_thread(grpc.channel_ready_future(channel).result)
            call = channel.unary_unary(_PREDICT_BATCH)
            made = [call.future(each) for each in [batch, b"\xff\xff"] * 40]
            refused = [await asyncio.to_thread(each.exception) for each in made]
        turned_away = [each for each in refused if each and each.code() is grpc.StatusCode.RESOURCE_EXHAUSTED]
        unread = [each for each in refused[1::2] if each in turned_away]
        assert unread
        assert None in refused
        assert {dict(each.trailing_metadata())["grpc-retry-pushback-ms"] for each in turned_away} == {"100"}
