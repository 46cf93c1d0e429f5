"""Sends prepared requests through a door as fast as it takes them, with a bounded number unanswered."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import aiohttp
import grpc
from confluent_kafka import Consumer, Producer, TopicPartition

from driftloop.contracts.ingest.v1.ingest_pb2 import OUTCOME_ACCEPTED, IngestBatchResponse, IngestResponse

_SERVICE = "/driftloop.ingest.v1.IngestService/"
_LOOK_S = 0.02
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


class HttpDoor:
    """Connections to an HTTP server; bodies and answers are bytes."""

    def __init__(self, address: str) -> None:
        self._url = f"http://{address}/v1/events"
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))

    async def close(self) -> None:
        """Closes the connections."""
        await self._session.close()

    async def calls(self, media: str, bodies: Sequence[bytes], unanswered: int) -> list[bytes]:
        """Posts, `unanswered` at once."""
        waiting: Iterator[bytes] = iter(bodies)
        answers: list[bytes] = []

        async def work() -> None:
            for body in waiting:
                async with self._session.post(self._url, data=body, headers={"content-type": media}) as answer:
                    assert answer.status == 200, await answer.text()
                    answers.append(await answer.read())

        await asyncio.gather(*[work() for _ in range(unanswered)])
        return answers


class InboxDoor:
    """Writes to a topic and waits until its group has committed all of it."""

    def __init__(self, servers: str, topic: str, group: str) -> None:
        self._topic = topic
        self._producer = Producer(
            {"bootstrap.servers": servers, "acks": "all", "linger.ms": 5, "queue.buffering.max.messages": 1_000_000}
        )
        self._group = Consumer({"bootstrap.servers": servers, "group.id": group, "enable.auto.commit": False})
        listing = self._group.list_topics(topic, timeout=30)
        self._places = [TopicPartition(topic, partition) for partition in listing.topics[topic].partitions]
        self._done = 0

    def close(self) -> None:
        """Ends."""
        self._group.close()

    def send(self, events: Sequence[bytes]) -> None:
        """Returns when all of them are settled."""
        for event in events:
            self._producer.produce(self._topic, event)
            self._producer.poll(0)
        assert self._producer.flush(60) == 0
        self._done += len(events)
        while sum(max(0, at.offset) for at in self._group.committed(self._places, timeout=30)) < self._done:
            time.sleep(_LOOK_S)


def accepted(method: str, responses: Sequence[bytes]) -> int:
    """Events that the responses of a method say are accepted."""
    if method == "Http":
        return sum(response.count(b'"outcome":"accepted"') for response in responses)
    if "Batch" in method:
        return sum(map(_accepted, responses))
    return sum(IngestResponse.FromString(response).outcome == OUTCOME_ACCEPTED for response in responses)
