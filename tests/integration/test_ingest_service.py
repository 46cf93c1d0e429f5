"""Ingest as a process on a real broker: nothing acknowledged is lost, nothing wrong gets in, and a kill changes neither."""

from __future__ import annotations

import base64
import contextlib
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from click.testing import CliRunner
from google.rpc.error_details_pb2 import BadRequest
from google.rpc.status_pb2 import Status

from deploy.local import LocalKafka
from driftloop.cli.dead_letters import dead_letters
from driftloop.client import ClientError, NewEvent
from driftloop.contracts import Record
from driftloop.contracts.event.v1.event_pb2 import Event
from driftloop.contracts.ingest.v1 import ingest_pb2 as pb
from driftloop.contracts.ingest.v1.ingest_pb2_grpc import IngestServiceStub
from driftloop.usecase import DAY_US
from tests.integration.ingest_process import DECLARATION, NOON_US, ROOT, SPREAD, STEP_US, Ingest, event

pytestmark = pytest.mark.timeout(120)


def test_accepted_events_are_in_the_log_in_order_before_the_watermark(start_ingest: Callable[..., Ingest]) -> None:
    ingest = start_ingest()
    with ingest.client() as client:
        assert client.advance(NOON_US) == NOON_US
        outcomes = client.send_batch([event(number) for number in range(300)])
        assert {outcome.outcome for outcome in outcomes} == {"accepted"}
        assert client.send_batch([event(0)])[0].outcome == "duplicate"
        client.advance(NOON_US + STEP_US)
    records = ingest.written("events")
    for partition in range(SPREAD):
        held = [record for record in records if record.partition == partition]
        marks = [r.message.known_at_us for r in held if r.message.is_watermark]
        assert marks == [NOON_US, NOON_US + STEP_US]
        assert held[0].message.is_watermark
        assert held[-1].message.is_watermark
        known = [r.message.known_at_us for r in held if not r.message.is_watermark]
        assert known == sorted(known)
    accepted = {r.message.id: r.message.payload for r in records if not r.message.is_watermark}
    assert len(accepted) == len(records) - 2 * SPREAD == 300
    assert accepted["a7"].fields["price"].number == 5.0


def test_kill_9_in_the_middle_of_a_stream_loses_nothing_and_writes_nothing_twice(
    start_ingest: Callable[..., Ingest],
) -> None:
    ingest = start_ingest()
    with ingest.client(stream_events_max=500) as client:
        client.advance(NOON_US)
        outcomes = client.stream(event(number) for number in range(3_000))
        found = [next(outcomes) for _ in range(700)]
        ingest.end(signal.SIGKILL)
        ingest.start()
        found += outcomes
        assert [outcome.event_id for outcome in found] == [f"a{number}" for number in range(3_000)]
        assert {outcome.outcome for outcome in found} <= {"accepted", "duplicate"}
        ids = [record.message.id for record in ingest.events()]
        assert sorted(ids) == sorted({f"a{number}" for number in range(3_000)})


def test_a_call_made_while_ingest_is_away_succeeds_once_it_is_back_and_the_clock_is_where_it_was(
    start_ingest: Callable[..., Ingest],
) -> None:
    ingest = start_ingest()
    with ingest.client() as client, ThreadPoolExecutor(1) as threads:
        client.advance(NOON_US)
        client.send(event(1))
        client.advance(NOON_US + STEP_US)
        ingest.end(signal.SIGKILL)
        away = threads.submit(client.send, event(2, after_us=STEP_US))
        ingest.start()
        assert away.result(30).outcome == "accepted"
        assert client.send(event(1)).outcome == "duplicate"
        (late,) = client.send_batch([event(3)])
        assert [violation.rule for violation in late.violations] == ["known_at"]
        (taken,) = client.send_batch([event(1, price=6)])
        assert [violation.rule for violation in taken.violations] == ["id_taken"]
        assert client.advance(NOON_US + STEP_US) == NOON_US + STEP_US


def test_while_the_broker_is_away_events_wait_for_it_up_to_the_bound_and_none_is_lost(tmp_path: Path) -> None:
    bound = {
        "INGEST_IN_FLIGHT_MAX": "300",
        "INGEST_BATCH_EVENTS_MAX": "300",
        "INGEST_ACKNOWLEDGE_TIMEOUT_S": "0.5",
    }
    with LocalKafka(tmp_path / "kafka") as kafka, pytest.MonkeyPatch.context() as patch:
        for name, value in bound.items():
            patch.setenv(name, value)
        ingest = Ingest(kafka.bootstrap_servers, tmp_path)
        try:
            with ingest.client(deadline_s=60) as client, grpc.insecure_channel(ingest.address) as channel:
                client.advance(NOON_US)
                kafka.kill()
                batch = IngestServiceStub(channel).IngestBatch
                codes = []
                for first in (0, 200):
                    sent = pb.IngestBatchRequest(events=[client.wire(event(first + n)) for n in range(200)])
                    with pytest.raises(grpc.RpcError) as refused:
                        batch(sent, timeout=20)
                    codes.append(refused.value.code())
                assert codes == [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED]
                kafka.wait_ready()
                for _ in range(60):
                    with contextlib.suppress(ClientError):
                        outcomes = client.send_batch([event(n) for n in range(200)]) + client.send_batch(
                            [event(n) for n in range(200, 400)]
                        )
                        break
                assert {outcome.outcome for outcome in outcomes} == {"accepted", "duplicate"}
            ids = [record.message.id for record in ingest.events()]
            assert sorted(ids) == sorted({f"a{n}" for n in range(400)})
        finally:
            ingest.end(signal.SIGKILL)


BAD: dict[str, tuple[str, str, Callable[[Event], object]]] = {
    "unknown use case": ("use_case", "UNKNOWN_USE_CASE", lambda e: setattr(e, "use_case", "parcels")),
    "unknown event type": ("type", "UNKNOWN_TYPE", lambda e: setattr(e, "type", "returned")),
    "unknown field": ("fields.colour", "UNKNOWN_FIELD", lambda e: setattr(e.fields["colour"], "text", "red")),
    "wrong type": ("fields.price", "TYPE", lambda e: setattr(e.fields["price"], "text", "5")),
    "NaN": ("fields.price", "FINITE", lambda e: setattr(e.fields["price"], "number", math.nan)),
    "infinity": ("fields.price", "FINITE", lambda e: setattr(e.fields["price"], "number", math.inf)),
    "missing key": ("entity", "REQUIRED", lambda e: setattr(e, "entity", "")),
    "missing id": ("id", "REQUIRED", lambda e: setattr(e, "id", "")),
    "missing field": ("fields.shop", "REQUIRED", lambda e: e.fields.pop("shop")),
    "far in the future": ("known_at_us", "FUTURE", lambda e: setattr(e, "known_at_us", NOON_US + DAY_US)),
    "before the retention": (
        "event_time_us",
        "RETENTION",
        lambda e: setattr(e, "event_time_us", NOON_US - 91 * DAY_US),
    ),
    "over 1 MiB": ("", "SIZE", lambda e: setattr(e.fields["note"], "text", "n" * 1_048_576)),
}


def test_every_bad_event_is_refused_by_name_and_kept_in_dead_letters(start_ingest: Callable[..., Ingest]) -> None:
    ingest = start_ingest()
    with ingest.client() as client, grpc.insecure_channel(ingest.address) as channel:
        client.advance(NOON_US)
        stub = IngestServiceStub(channel)
        for number, (name, (field, rule, corrupt)) in enumerate(BAD.items()):
            bad = client.wire(event(number))
            corrupt(bad)
            with pytest.raises(grpc.RpcError) as caught:
                stub.Ingest(pb.IngestRequest(event=bad), timeout=20)
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT, name
            trailers = dict(caught.value.trailing_metadata() or ())
            (detail,) = Status.FromString(trailers["grpc-status-details-bin"]).details
            violations = BadRequest()
            assert detail.Unpack(violations)
            assert [(v.field, v.reason) for v in violations.field_violations] == [(field, rule)], name
        assert client.send(event(100)).outcome == "accepted"
        with pytest.raises(grpc.RpcError) as caught:
            stub.Ingest(pb.IngestRequest(event=client.wire(event(100, shop="s"))), timeout=20)
        assert caught.value.code() is grpc.StatusCode.ALREADY_EXISTS
    letters = ingest.written("dead-letters", lambda found: len(found) == len(BAD) + 1)
    kept = [letter.message.payload.rule for letter in letters]
    assert kept == [rule.lower() for _, rule, _ in BAD.values()] + ["id_taken"]
    assert {letter.message.payload.refused_by for letter in letters} == {"ingest"}
    assert Event.FromString(letters[3].message.payload.value).fields["price"].text == "5"
    assert [record.message.id for record in ingest.events()] == ["a100"]


def test_the_largest_event_that_is_let_in_is_one_that_the_broker_takes(start_ingest: Callable[..., Ingest]) -> None:
    ingest = start_ingest()
    with ingest.client() as client:
        client.advance(NOON_US)
        room = 983_040 - client.wire(event(1, note="n")).ByteSize() - 16
        largest = event(1, note=os.urandom(room // 2).hex())
        assert client.send(largest).outcome == "accepted"
        assert client.send(event(2)).outcome == "accepted"
    assert {record.message.id for record in ingest.events()} == {"a1", "a2"}


def test_a_live_clock_ticks_in_quiet_times_and_stamps_what_comes(start_ingest: Callable[..., Ingest]) -> None:
    ingest = start_ingest("live")
    ingest.ready()

    def three_ticks_each(found: list[Record]) -> bool:
        marks = [record.partition for record in found if record.message.is_watermark]
        return all(marks.count(partition) >= 3 for partition in range(SPREAD))

    with ingest.client() as client:
        now_us = ingest.written("events", three_ticks_each)[-1].message.known_at_us
        client.send(NewEvent("delivered", "d1", "order-1", now_us, {"late": True}))
        assert client.send(NewEvent("delivered", "d1", "order-1", now_us, {"late": True})).outcome == "duplicate"
    assert ingest.end(signal.SIGTERM) == 0
    records = ingest.written("events")
    (sent,) = [record for record in records if not record.message.is_watermark]
    assert sent.message.payload.known_at_us == sent.message.known_at_us
    before = [r for r in records if r.partition == sent.partition and r.offset < sent.offset]
    after = [r for r in records if r.partition == sent.partition and r.offset > sent.offset]
    assert all(record.message.known_at_us < sent.message.known_at_us for record in before)
    assert all(record.message.known_at_us >= sent.message.known_at_us for record in after)


def test_sigterm_ends_it_cleanly_and_health_says_when_it_is_ready(start_ingest: Callable[..., Ingest]) -> None:
    ingest = start_ingest()
    ingest.ready()
    assert ingest.end(signal.SIGTERM) == 0


def test_without_topics_it_says_so_and_exits(kafka_bootstrap_servers: str, tmp_path: Path) -> None:
    (tmp_path / "orders").mkdir()
    (tmp_path / "orders" / "usecase.py").write_text(DECLARATION.format(name="orders", clock="replay"))
    ended = subprocess.run(
        [sys.executable, "-m", "services.ingest"],
        cwd=ROOT,
        env=os.environ
        | {
            "KAFKA_BOOTSTRAP_SERVERS": kafka_bootstrap_servers,
            "DRIFTLOOP_USE_CASE": "orders",
            "DRIFTLOOP_USECASES": str(tmp_path),
            "DRIFTLOOP_ARTIFACTS_URL": str(tmp_path / "artifacts"),
            "INGEST_START_TIMEOUT_S": "1",
        },
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ended.returncode == 1
    assert [line.split()[1] for line in ended.stderr.splitlines()] == ["INFO", "ERROR"]
    assert "orders.events" in ended.stderr


def test_sigterm_ends_it_while_it_still_waits_for_the_broker(tmp_path: Path) -> None:
    nowhere = os.environ | {"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1", "DRIFTLOOP_USE_CASE": "flights"}
    nowhere["DRIFTLOOP_ARTIFACTS_URL"] = str(tmp_path)
    command = [sys.executable, "-m", "services.ingest"]
    with subprocess.Popen(command, cwd=ROOT, env=nowhere, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert "waiting for the topics of flights" in process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


def test_dead_letters_are_listed_shown_and_sent_again_with_their_ids_and_times(
    start_ingest: Callable[..., Ingest],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ingest = start_ingest()
    monkeypatch.setenv("DRIFTLOOP_USECASES", str(ingest.declaration.parents[1]))
    with ingest.client() as client:
        client.advance(NOON_US + STEP_US)
        late, costly = client.send_batch([event(1), event(2, after_us=STEP_US, price=501)])
        assert [each.violations[0].rule for each in (late, costly)] == ["known_at", "range"]
    options = ["--use-case", ingest.name, "--bootstrap-servers", ingest.bootstrap_servers]
    runner = CliRunner()
    listed = runner.invoke(dead_letters, ["list", *options, "--json", "--rule", "known_at"])
    (row,) = [json.loads(line) for line in listed.output.splitlines()]
    assert row["event_id"] == "a1"
    assert "price" in runner.invoke(dead_letters, ["show", *options, row["id"]]).output
    whole = json.loads(runner.invoke(dead_letters, ["show", *options, "--json", row["id"]]).output)
    assert whole.items() >= (row | {"place": None}).items()
    assert whole["event"]["fields"]["price"] == {"number": 5.0}
    assert Event.FromString(base64.b64decode(whole["base64"]["value"])).id == "a1"
    unknown = runner.invoke(dead_letters, ["redrive", *options, "--ingest", ingest.address, row["id"], "nobody"])
    assert (unknown.exit_code, unknown.output) == (1, f"Error: no dead letter of {ingest.name} has the id nobody\n")
    assert ingest.events() == []
    for expected in ("1 accepted, 1 refused again", "1 duplicate, 1 refused again"):
        sent = runner.invoke(dead_letters, ["redrive", *options, "--ingest", ingest.address, "--all"])
        assert sent.output.splitlines()[-1] == expected
    told = runner.invoke(dead_letters, ["redrive", *options, "--ingest", ingest.address, "--all", "--json"]).output
    again = {found["event_id"]: found for found in map(json.loads, told.splitlines())}
    assert {event_id: found["outcome"] for event_id, found in again.items()} == {
        "a1": "duplicate",
        "a2": "refused again",
    }
    assert "price" in again["a2"]["reason"]
    (record,) = ingest.events()
    assert (record.message.id, record.message.time_us) == ("a1", NOON_US + 2)
    assert record.message.known_at_us > NOON_US + STEP_US
    assert len(ingest.written("dead-letters")) == 2
    ingest.end(signal.SIGTERM)
    monkeypatch.setattr("driftloop.cli.replay.DOOR_TIMEOUT_S", 0.2)
    alone = runner.invoke(dead_letters, ["redrive", *options, "--ingest", ingest.address, "--all"])
    assert alone.exit_code == 1
    assert (
        alone.output == f"Error: nothing answers at {ingest.address}: start the loop (driftloop up), or say --ingest.\n"
    )
