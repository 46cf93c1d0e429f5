"""Asks as fast as it is answered, or at a rate whatever happens; latencies in milliseconds, as a caller sees them."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from statistics import quantiles
from typing import Any

import grpc

_SERVICE = "/driftloop.serving.v1.PredictionService/"
_OPTIONS = [("grpc.max_receive_message_length", 8 << 20), ("grpc.use_local_subchannel_pool", 1)]
Ask = Callable[[int], Awaitable[None]]
"""Makes the call of a number, and raises if it is not answered."""


@dataclass
class Load:
    """What came of some calls. `latencies_ms`: since a call was due; `sent_ms`: since the client came to send it, late or not."""

    seconds: float = 0.0
    latencies_ms: list[float] = field(default_factory=list)
    sent_ms: list[float] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    refused_ms: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Calls answered per second."""
        return len(self.latencies_ms) / self.seconds

    def percentile(self, percent: int) -> float:
        """Of the latencies of answered calls."""
        return _percentile(self.latencies_ms, percent)

    def percentile_sent(self, percent: int) -> float:
        """The same without what calls waited for the client itself."""
        return _percentile(self.sent_ms, percent)


def _percentile(values: Sequence[float], percent: int) -> float:
    return quantiles(values, n=100, method="inclusive")[percent - 1]


class GrpcCaller:
    """A client with connections of its own; requests and answers are bytes, so that it costs little."""

    def __init__(self, address: str, connections: int = 1) -> None:
        self._channels = [grpc.aio.insecure_channel(address, options=_OPTIONS) for _ in range(connections)]

    async def ready(self) -> None:
        """Returns when the server answers on every connection."""
        await asyncio.gather(*(asyncio.wait_for(channel.channel_ready(), 60) for channel in self._channels))

    async def close(self) -> None:
        """Closes the connections."""
        for channel in self._channels:
            await channel.close(None)

    def asks(self, method: str, requests: Sequence[bytes], timeout_s: float | None = None) -> Ask:
        """Unary calls, each on the connection with the fewest unanswered: a slow server's get no more than it answers."""
        calls: list[Any] = [channel.unary_unary(_SERVICE + method, None, None) for channel in self._channels]

        unanswered = [0] * len(calls)

        async def ask(number: int) -> None:
            at = unanswered.index(min(unanswered))
            unanswered[at] += 1
            try:
                await calls[at](requests[number], timeout=timeout_s)
            finally:
                unanswered[at] -= 1

        return ask

    async def answer(self, method: str, request: bytes) -> bytes:
        """One unary call's answer."""
        call: Any = self._channels[0].unary_unary(_SERVICE + method, None, None)
        return bytes(await call(request))

    async def stream(self, requests: Sequence[bytes], unanswered: int) -> list[bytes]:
        """One PredictStream, so many messages ahead of the answers."""
        room = asyncio.Semaphore(unanswered)

        async def sent() -> AsyncIterator[bytes]:
            for request in requests:
                await room.acquire()
                yield request

        answers: list[bytes] = []
        call: Any = self._channels[0].stream_stream(_SERVICE + "PredictStream", None, None)
        async for answer in call(sent()):
            answers.append(answer)
            room.release()
        return answers


async def closed(ask: Ask, count: int, unanswered: int) -> Load:
    """`count` calls, so many at once, each of which waits for an answer before the next is made."""
    load, numbers = Load(), iter(range(count))

    async def work() -> None:
        for number in numbers:
            await _timed(ask, number, load)

    started_s = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(unanswered)))
    load.seconds = time.perf_counter() - started_s
    return load


async def arriving(ask: Ask, count: int, rate: float, seed: int) -> Load:
    """`count` calls that come at random (Poisson) `rate` times a second, whether others are answered or not."""
    load, draw = Load(), random.Random(seed)
    started_s = due_s = time.perf_counter()
    calls: set[asyncio.Task[None]] = set()
    for number in range(count):
        due_s += draw.expovariate(rate)
        if (left_s := due_s - time.perf_counter()) > 0:
            await asyncio.sleep(left_s)
        call = asyncio.create_task(_timed(ask, number, load, due_s))
        calls.add(call)
        call.add_done_callback(calls.discard)
    await asyncio.gather(*calls)
    load.seconds = time.perf_counter() - started_s
    return load


async def _timed(ask: Ask, number: int, load: Load, due_s: float | None = None) -> None:
    sent_s = time.perf_counter()
    begun_s = sent_s if due_s is None else due_s
    try:
        await ask(number)
    except grpc.aio.AioRpcError as error:
        load.refused[error.code().name] += 1
        load.refused_ms.append((time.perf_counter() - begun_s) * 1e3)
    else:
        answered_s = time.perf_counter()
        load.latencies_ms.append((answered_s - begun_s) * 1e3)
        load.sent_ms.append((answered_s - sent_s) * 1e3)
