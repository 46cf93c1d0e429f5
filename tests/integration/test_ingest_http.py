"""Ingest's HTTP door as a process on a real broker, called as any plain client would."""

from __future__ import annotations

import contextlib
import json
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deploy.local import LocalKafka
from driftloop.contracts import rfc3339
from tests.integration.ingest_process import NOON_US, Ingest

pytestmark = pytest.mark.timeout(120)
STRUCTURED, BATCH = "application/cloudevents+json", "application/cloudevents-batch+json"


def cloud_event(number: int, **data: Any) -> dict[str, Any]:
    return {
        "specversion": "1.0",
        "id": f"a{number}",
        "source": "curl",
        "type": "announced",
        "subject": f"order-{number % 50}",
        "time": rfc3339(NOON_US + number),
        "knownat": rfc3339(NOON_US + 1 + number),
        "data": {"shop": "n", "price": 5, "due": NOON_US + number} | data,
    }


def call(ingest: Ingest, path: str, content: Any = None, media: str = STRUCTURED) -> tuple[int, Any, Any]:
    """Status, JSON and headers of an answer."""
    body = None if content is None else json.dumps(content).encode()
    request = urllib.request.Request(f"http://{ingest.http_address}{path}", body, {"content-type": media})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.load(answer), answer.headers
    except urllib.error.HTTPError as refused:
        return refused.code, json.load(refused), refused.headers


def insistent(ingest: Ingest, batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The outcomes of a batch by a client that comes again when it is told to."""
    for _ in range(300):
        status, answer, _ = call(ingest, "/v1/events", batch, BATCH)
        if status == 200:
            return list(answer)
        assert status in (429, 503), answer
        time.sleep(answer["retry_after_s"])
    raise AssertionError("the broker has not come back")


def test_batches_over_http_lose_nothing_and_write_nothing_twice_when_it_is_killed_and_called_again(
    start_ingest: Callable[..., Ingest],
) -> None:
    ingest = start_ingest()
    ingest.ready()
    assert call(ingest, "/readyz")[0] == 200
    assert call(ingest, "/v1/clock", {"known_at": rfc3339(NOON_US)})[1] == {"clock": rfc3339(NOON_US)}
    batches = [[cloud_event(first + n) for n in range(250)] for first in range(0, 1_000, 250)]
    assert {each["outcome"] for each in call(ingest, "/v1/events", batches[0], BATCH)[1]} == {"accepted"}
    ingest.end(signal.SIGKILL)
    ingest.start()
    ingest.ready()
    outcomes = [each for batch in batches for each in call(ingest, "/v1/events", batch, BATCH)[1]]
    assert [each["outcome"] for each in outcomes] == ["duplicate"] * 250 + ["accepted"] * 750
    status, answer, _ = call(ingest, "/v1/events", cloud_event(1_000, price=501))
    assert (status, answer["violations"][0]["field"]) == (400, "data.price")
    ids = [record.message.id for record in ingest.events()]
    assert sorted(ids) == sorted({f"a{number}" for number in range(1_000)})
    (letter,) = ingest.written("dead-letters")
    assert json.loads(letter.message.payload.value)["id"] == "a1000"
    assert ingest.end(signal.SIGTERM) == 0


def test_while_the_broker_is_away_http_says_when_to_come_again_and_none_is_lost(tmp_path: Path) -> None:
    bound = {
        "INGEST_IN_FLIGHT_MAX": "300",
        "INGEST_BATCH_EVENTS_MAX": "300",
        "INGEST_ACKNOWLEDGE_TIMEOUT_S": "0.5",
    }
    with LocalKafka(tmp_path / "kafka") as kafka, pytest.MonkeyPatch.context() as patch:
        for name, value in bound.items():
            patch.setenv(name, value)
        ingest = Ingest(kafka.bootstrap_servers, tmp_path)
        with contextlib.ExitStack() as stack:
            stack.callback(ingest.end, signal.SIGKILL)
            ingest.ready()
            call(ingest, "/v1/clock", {"known_at": rfc3339(NOON_US)})
            kafka.kill()
            batches = [[cloud_event(first + n) for n in range(200)] for first in (0, 200)]
            refused = [call(ingest, "/v1/events", batch, BATCH) for batch in batches]
            assert [(status, headers["retry-after"]) for status, _, headers in refused] == [(503, "1"), (429, "1")]
            kafka.wait_ready()
            outcomes = [each for batch in batches for each in insistent(ingest, batch)]
            assert {each["outcome"] for each in outcomes} <= {"accepted", "duplicate"}
            ids = [record.message.id for record in ingest.events()]
            assert sorted(ids) == sorted({f"a{n}" for n in range(400)})
