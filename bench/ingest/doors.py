"""Sends prepared requests through a door as fast as it takes them, with a bounded number unanswered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import grpc

from driftloop.contracts.ingest.v1.ingest_pb2 import OUTCOME_ACCEPTED, IngestBatchResponse, IngestResponse

_SERVICE = "/driftloop.ingest.v1.IngestService/"
_OPTIONS = [("grpc.max_receive_message_length", 8 << 20), ("grpc.max_send_message_length", 8 << 20)]


def _accepted(response: bytes) -> int:
    """Accepted events of a batch; checked after the clock was stopped."""
    return sum(one.outcome == OUTCOME_ACCEPTED for one in IngestBatchResponse.FromString(response).responses)


class GrpcDoor:
    """A channel to a gRPC server; requests and responses are bytes, so that the client costs little."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.aio.insecure_channel(address, options=_OPTIONS)

    async def close(self) -> None:
        """Closes the channel."""
        await self._channel.close(None)

    async def ready(self) -> None:
        """Returns when the server answers."""
        await asyncio.wait_for(self._channel.channel_ready(), 60)

    async def calls(self, method: str, requests: Sequence[bytes], unanswered: int) -> list[bytes]:
        """Unary calls, `unanswered` at once."""
        call: Any = self._channel.unary_unary(_SERVICE + method, None, None)
        waiting: Iterator[bytes] = iter(requests)
        responses: list[bytes] = []

        async def work() -> None:
            for request in waiting:
                responses.append(await call(request))

        await asyncio.gather(*[work() for _ in range(unanswered)])
        return responses

    async def stream(self, method: str, requests: Sequence[bytes], unanswered: int) -> list[bytes]:
        """One stream, `unanswered` messages ahead of the answers."""
        room = asyncio.Semaphore(unanswered)

        async def sent() -> AsyncIterator[bytes]:
            for request in requests:
                await room.acquire()
                yield request

        responses: list[bytes] = []
        call: Any = self._channel.stream_stream(_SERVICE + method, None, None)
        async for response in call(sent()):
            responses.append(response)
            room.release()
        return responses


def accepted(method: str, responses: Sequence[bytes]) -> int:
    """Events that the responses of a method say are accepted."""
    if "Batch" in method:
        return sum(map(_accepted, responses))
    return sum(IngestResponse.FromString(response).outcome == OUTCOME_ACCEPTED for response in responses)
