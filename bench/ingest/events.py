"""The events of the benchmark, as every door is given them and as they lie in the log."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from pathlib import Path

from driftloop.contracts import Encoded, rfc3339
from driftloop.contracts.event.v1.event_pb2 import Event
from driftloop.contracts.ingest.v1.ingest_pb2 import IngestBatchRequest, IngestRequest
from driftloop.usecase import load_use_case
from services.ingest.admission import Admission

USE_CASES = Path(__file__).parent / "usecases"
NAME = "orders"
SPREAD = 2
_DAY_US = 86_400_000_000


def now_us() -> int:
    """Wall time in microseconds: the bench's use case is live."""
    return time.time_ns() // 1000


def event(run: str, number: int) -> Event:
    """One event of about 200 bytes; numbers have all their digits, since a cache would help with few."""
    draw = random.Random(number)
    at_us = now_us()
    made = Event(
        use_case=NAME,
        id=f"{run}-{number}",
        type="placed",
        source="shop",
        entity=f"o{draw.randrange(100_000)}",
        event_time_us=at_us,
    )
    fields = made.fields
    fields["shop"].text = draw.choice(("north", "south", "east", "west"))
    fields["country"].text = draw.choice(("DE", "FR", "IT"))
    fields["voucher"].text = f"v{draw.randrange(1_000)}"
    fields["gift"].flag = draw.random() < 0.5
    fields["items"].integer = draw.randrange(1, 20)
    fields["price"].number = draw.uniform(1, 500)
    fields["weight"].number = draw.uniform(0.1, 30)
    fields["lat"].number = draw.uniform(47, 55)
    fields["lon"].number = draw.uniform(6, 15)
    fields["due"].time_us = at_us + draw.randrange(_DAY_US)
    return made


def requests(run: str, count: int) -> list[bytes]:
    """IngestRequests, one event each."""
    return [IngestRequest(event=event(run, number)).SerializeToString() for number in range(count)]


def values(run: str, count: int) -> list[bytes]:
    """Serialised events, as the inbox takes them."""
    return [event(run, number).SerializeToString() for number in range(count)]


def json_events(run: str, count: int) -> list[bytes]:
    """CloudEvents in JSON, structured."""
    return [json.dumps(cloud_event(run, number)).encode() for number in range(count)]


def batches(run: str, count: int, size: int) -> list[bytes]:
    """IngestBatchRequests of `size` events."""
    return [
        IngestBatchRequest(events=[event(run, n) for n in range(first, min(first + size, count))]).SerializeToString()
        for first in range(0, count, size)
    ]


def cloud_event(run: str, number: int) -> dict[str, object]:
    """The same event as a CloudEvent in JSON."""
    made = event(run, number)
    data = {
        name: rfc3339(value.time_us) if value.HasField("time_us") else getattr(value, str(value.WhichOneof("kind")))
        for name, value in made.fields.items()
    }
    return {
        "specversion": "1.0",
        "id": made.id,
        "source": made.source,
        "type": made.type,
        "subject": made.entity,
        "time": rfc3339(made.event_time_us),
        "data": data,
    }


def json_batches(run: str, count: int, size: int) -> list[bytes]:
    """CloudEvents JSON batches of `size` events."""
    return [
        json.dumps([cloud_event(run, n) for n in range(first, min(first + size, count))]).encode()
        for first in range(0, count, size)
    ]


def records(run: str, count: int) -> Iterator[Encoded]:
    """What ingest writes for these events: the same bytes and headers."""
    admission = Admission(load_use_case(NAME, str(USE_CASES)), SPREAD, 1, 1_000)
    for first in range(0, count, 1_000):
        sent = [event(run, number).SerializeToString() for number in range(first, min(first + 1_000, count))]
        taken = admission.take(sent, now_us())
        assert not taken.others, taken.others
        yield from taken.records
        admission.settle(taken, written=True)
