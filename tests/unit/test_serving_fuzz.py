"""Ten thousand random messages at serving's door: each is answered or refused by name, and nothing is left of them."""

from __future__ import annotations

import asyncio
import gc
import random
from collections import Counter
from pathlib import Path
from typing import Any

import grpc
import psutil

from driftloop.contracts.monitor.v1.monitor_pb2 import ROLE_CHAMPION
from driftloop.contracts.serving.v1.serving_pb2 import ExplainRequest, PredictBatchRequest, Vector
from tests.unit.serving_twin import Weighted, request, twin

MESSAGES, WARM_UP, AT_ONCE = 10_000, 2_000, 32
GROWTH_BYTES_MAX = 32 << 20
METHODS = ("Predict", "PredictBatch", "Explain", "ListModels", "GetRelease")
Code = grpc.StatusCode
# INTERNAL: gRPC's own answer to bytes that are no message.
SAID = {
    Code.OK,
    Code.INVALID_ARGUMENT,
    Code.NOT_FOUND,
    Code.FAILED_PRECONDITION,
    Code.RESOURCE_EXHAUSTED,
    Code.INTERNAL,
}


def message(draw: random.Random) -> bytes:
    """Random bytes, or a good message of any method with bytes changed, taken out, doubled or put in."""
    if draw.random() < 0.2:
        return draw.randbytes(draw.randrange(400))
    good = draw.choice(
        [
            request(f"o{draw.randrange(100)}", str(draw.random()), price=draw.uniform(-1, 501)),
            PredictBatchRequest(requests=[request(f"o{n}") for n in range(draw.randrange(5))]),
            ExplainRequest(use_case="orders", prediction_id=str(draw.random())),
            ExplainRequest(
                use_case="orders", model_id="m1", vector=Vector(numbers=[draw.random()] * draw.randrange(9))
            ),
        ]
    ).SerializeToString()
    made = bytearray(good)
    for _ in range(draw.randrange(4)):
        place = draw.randrange(len(made) + 1)
        end = min(len(made), place + draw.randrange(1, 8))
        made[place:end] = draw.choice([b"", made[place:end] * 2, draw.randbytes(end - place)])
    return bytes(made)


async def test_random_messages_are_answered_or_refused_and_neither_break_nor_fill_the_server(tmp_path: Path) -> None:
    draw = random.Random(7)
    async with twin(tmp_path, {"m1": Weighted({"price": 0.001}, base=0.1)}, explained_answers_max=100) as replica:
        await replica.released(("m1", ROLE_CHAMPION))
        calls: list[Any] = [
            replica.channel.unary_unary(f"/driftloop.serving.v1.PredictionService/{method}", None, None)
            for method in METHODS
        ]
        codes: Counter[Code] = Counter()

        async def send(count: int) -> None:
            for _ in range(count):
                try:
                    await draw.choice(calls)(message(draw), timeout=30)
                    codes[Code.OK] += 1
                except grpc.aio.AioRpcError as error:
                    codes[error.code()] += 1

        async def send_all(count: int) -> None:
            await asyncio.gather(*(send(count // AT_ONCE) for _ in range(AT_ONCE)))
            gc.collect()

        await send_all(WARM_UP)
        process, tasks = psutil.Process(), len(asyncio.all_tasks())
        before = process.memory_info().rss
        await send_all(MESSAGES)
        assert process.memory_info().rss - before < GROWTH_BYTES_MAX
        assert len(asyncio.all_tasks()) == tasks
        assert set(codes) <= SAID, codes
        assert codes[Code.OK] > MESSAGES / 20
        assert codes[Code.INVALID_ARGUMENT] > MESSAGES / 20
        assert (await replica.stub.Predict(request())).model_id == "m1"
