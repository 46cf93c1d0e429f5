"""A replay goes on where ingest did not answer at once, as while a broker restarts, and says what it has played."""

from __future__ import annotations

import asyncio
import io
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from click.testing import CliRunner
from rich.console import Console

from driftloop.cli.__main__ import main
from driftloop.cli.replay import Played, Replay, load_stretch, replay_progress, step_count, steps_of
from driftloop.contracts.ingest.v1 import ingest_pb2, ingest_pb2_grpc
from driftloop.contracts.serving.v1 import serving_pb2, serving_pb2_grpc
from driftloop.usecase import ReplayEvent, ReplayStep, load_use_case
from tests.tiny_usecase import write_use_case
from tests.unit.ingest_twin import door

FLIGHTS = load_use_case("flights")
EVENT = ReplayEvent("flight_cancelled", "e", "f", 15, 15, {})


class Ingest(ingest_pb2_grpc.IngestServiceServicer):
    """Moves its clock, but not at the first two attempts, and takes a batch at the second one, whose events had come by then."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.sent: list[list[str]] = []

    def IngestBatch(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.sent.append([event.id for event in request.events])
        if len(self.sent) == 1:
            context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "the broker did not acknowledge in time")
        duplicate = ingest_pb2.OUTCOME_DUPLICATE
        return ingest_pb2.IngestBatchResponse(
            responses=[ingest_pb2.IngestResponse(event_id=event.id, outcome=duplicate) for event in request.events]
        )

    def Advance(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.asked.append(request.known_at_us)
        if len(self.asked) <= 2:
            context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "the broker did not acknowledge in time")
        return ingest_pb2.AdvanceResponse(clock_us=request.known_at_us)


class Serving(serving_pb2_grpc.PredictionServiceServicer):
    """Has always followed, and answers whoever asks."""

    def Predict(self, request: Any, context: grpc.ServicerContext) -> Any:
        return serving_pb2.PredictResponse(prediction_id="p", model_id="m1", score=0.5)

    def WaitForClock(self, request: Any, context: grpc.ServicerContext) -> Any:
        return serving_pb2.WaitForClockResponse(clock_us=request.clock_us)


def test_a_clock_that_could_not_be_moved_and_events_that_were_not_acknowledged_are_tried_again() -> None:
    ingest = Ingest()
    server = grpc.server(ThreadPoolExecutor(4))
    ingest_pb2_grpc.add_IngestServiceServicer_to_server(ingest, server)
    serving_pb2_grpc.add_PredictionServiceServicer_to_server(Serving(), server)
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    replay = Replay(FLIGHTS, address, address)
    try:
        played = replay.run(iter([ReplayStep(10, 20, [], [EVENT])]))
    finally:
        replay.close()
        server.stop(None).wait(5)
    assert ingest.asked == [10, 10, 10, 20]
    assert ingest.sent == [["e"], ["e"]]
    assert played.events == {"sent": 1, "accepted": 0, "duplicate": 1, "rejected": 0}
    assert (played.steps, played.clock_us) == (1, 20)


def test_a_replay_into_a_log_says_how_far_it_is_in_some_twenty_lines() -> None:
    use_case, stretch = load_stretch("flights", days=2)
    log, played = io.StringIO(), Played()
    with replay_progress(use_case, stretch, Console(file=log, width=80)) as after_step:
        for step in steps_of(use_case, stretch):
            played.steps += 1
            after_step(step, played)
    lines = log.getvalue().splitlines()
    assert 20 <= len(lines) <= 22
    assert lines[0].startswith("day  0.")
    assert lines[-1].endswith(f"/{step_count(use_case, stretch)}")


REPLAY = """
from driftloop.usecase import ReplayEvent, ReplayRequest


class Stretch:
    start_us, end_us, injected_at_us, rows = 1_800_000_000, 3_600_000_000, None, 1

    def events(self):
        yield ReplayEvent("gone", "e1", "t1", 2_000_000_000, 2_000_000_000, {"line": "blue"})
        yield ReplayEvent("gone", "e1", "t1", 2_000_000_000, 2_000_000_000, {"line": "blue"})
        yield from WRONG

    def requests(self):
        yield ReplayRequest(2_000_000_000, "t1", {"line": "blue", "starts_at": 9_000_000_000})


def stretch():
    return Stretch()
"""
WRONG = '[ReplayEvent("gone", "e2", "t2", 2_000_000_001, 2_000_000_001, {"colour": "blue"})]'


@pytest.mark.parametrize("wrong", [True, False])
async def test_what_was_played_is_one_json_object_and_progress_goes_to_the_error_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: bool
) -> None:
    write_use_case(tmp_path, "played")
    (tmp_path / "played" / "replay.py").write_text(REPLAY.replace("WRONG", WRONG if wrong else "()"))
    monkeypatch.setenv("DRIFTLOOP_USECASES", str(tmp_path))
    server = grpc.server(ThreadPoolExecutor(4))
    serving_pb2_grpc.add_PredictionServiceServicer_to_server(Serving(), server)
    serving = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        async with door(load_use_case("played", str(tmp_path))) as ingest:
            command = ["replay", "played", "--ingest", ingest.address, "--serving", serving, "--json"]
            found = await asyncio.to_thread(CliRunner().invoke, main, command)
    finally:
        server.stop(None).wait(5)
    assert json.loads(found.stdout) == {
        "events": {"sent": 2 + wrong, "accepted": 1, "duplicate": 1, "rejected": int(wrong)},
        "predictions": {"answered": 1, "before_model": 0, "failed": 0},
        "steps": 11,
        "clock": "1970-01-01T03:00:00.000000Z",  # two hours behind the end, when the last label has matured
        "failures": int(wrong),
    }
    assert "1 events  1 predictions  11/11" in found.stderr
    assert found.exit_code == int(wrong)
    assert ("1 calls failed, the first: event e2: " in found.stderr) == wrong
