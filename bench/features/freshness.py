"""From an event sent to ingest until serving's view has a value with it, at 5,000 events a second, all through the broker."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc

from bench.features.events import spent
from bench.features.processes import features_process, started
from deploy.local import free_base_port
from driftloop.contracts import Record
from driftloop.contracts.event.v1.event_pb2 import Event
from driftloop.contracts.ingest.v1.ingest_pb2 import IngestBatchRequest
from driftloop.messaging import KafkaReader, Malformed
from driftloop.usecase import load_use_case
from services.serving.gateways.feed import TopicFeed
from services.serving.view import FeatureView

NAME = "shopslive"
PER_S = 5_000
EVERY_S = 0.02  # between two calls
SHOPS = 1_000
_BATCH = int(PER_S * EVERY_S)
_PATIENCE_S = 60.0


class _Seen:
    """Serving's view, fed by serving's feed; `delays_s` of the events that it has seen in a value."""

    def __init__(self, use_case: Any) -> None:
        self.sent_s: dict[str, float] = {}
        self.delays_s: dict[str, float] = {}
        self._view = FeatureView(use_case, SHOPS * 2)

    async def take(self, batch: list[Record | Malformed]) -> None:
        """A batch of the topic `features`."""
        for record in batch:
            assert isinstance(record, Record), record
            if not record.message.is_watermark:
                self._view.apply(record.message)
        now_s = time.perf_counter()
        for record in batch:
            assert isinstance(record, Record), record
            for cause in record.message.causes:
                if cause in self.sent_s:
                    self.delays_s.setdefault(cause, now_s - self.sent_s[cause])


def measure(servers: str, folder: Path, seconds: float) -> list[float]:
    """Seconds of each event of the measured stretch; those that came after the newest 16 of a value are not seen."""
    with ExitStack() as stack:
        process = stack.enter_context(features_process(servers, folder, NAME, clock="live", cores=None))
        del process
        address = f"127.0.0.1:{free_base_port()}"
        environment = {
            "KAFKA_BOOTSTRAP_SERVERS": servers,
            "DRIFTLOOP_USE_CASE": NAME,
            "DRIFTLOOP_USECASES": str(folder / "usecases"),
            "DRIFTLOOP_ARTIFACTS_URL": str(folder / "artifacts"),
            "INGEST_ADDRESS": address,
            "INGEST_HTTP_ADDRESS": "",
            "DRIFTLOOP_LOG_LEVEL": "WARNING",
        }
        ingest = stack.enter_context(started([sys.executable, "-m", "services.ingest"], environment))
        del ingest
        return asyncio.run(_measured(servers, folder, address, seconds))


async def _measured(servers: str, folder: Path, address: str, seconds: float) -> list[float]:
    seen = _Seen(load_use_case(NAME, str(folder / "usecases")))
    feed = TopicFeed(lambda: KafkaReader(servers, NAME, ["features"]), seen.take, 0.5, 5_000)
    reading = asyncio.create_task(feed.run())
    async with grpc.aio.insecure_channel(address) as channel:
        await asyncio.wait_for(channel.channel_ready(), _PATIENCE_S)
        call: Any = channel.unary_unary("/driftloop.ingest.v1.IngestService/IngestBatch", None, None)
        await _send(call, seen, "warm", PER_S)  # and then what features loads behind its readiness
        while not seen.delays_s:
            await asyncio.sleep(0.1)
        await asyncio.sleep(15)
        await _send(call, seen, "warmer", PER_S * 2)
        count = int(PER_S * seconds)
        await _send(call, seen, "e", count)
        deadline_s = time.perf_counter() + _PATIENCE_S
        while f"e{count - 1}" not in seen.delays_s:
            assert time.perf_counter() < deadline_s, "the last event was never seen"
            await asyncio.sleep(0.1)
    reading.cancel()
    found = [delay for event_id, delay in seen.delays_s.items() if event_id[1:].isdigit()]
    assert len(found) > 0.95 * count, f"only {len(found)} of {count} events were named by a value"
    return found


async def _send(call: Any, seen: _Seen, run: str, count: int) -> None:
    answers = []
    events = list(spent(count, SHOPS))
    begun_s = time.perf_counter()
    for first in range(0, count, _BATCH):
        due_s = begun_s + first / PER_S
        await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
        request = IngestBatchRequest()
        sent_us = time.time_ns() // 1000
        for one in events[first : first + _BATCH]:
            event_id = f"{run}{one.number}"
            made = Event(
                use_case=NAME, id=event_id, type="spent", source="till", entity=event_id, event_time_us=sent_us
            )
            made.fields["shop"].text = one.shop
            made.fields["amount"].number = one.amount
            request.events.append(made)
        now_s = time.perf_counter()
        seen.sent_s.update((event.id, now_s) for event in request.events)
        answers.append(asyncio.ensure_future(call(request.SerializeToString())))
    await asyncio.gather(*answers)


def percentiles(seconds: Sequence[float]) -> tuple[float, float]:
    """The median and the 99th percentile, in milliseconds."""
    ordered = sorted(seconds)
    return ordered[len(ordered) // 2] * 1000, ordered[int(len(ordered) * 0.99)] * 1000
