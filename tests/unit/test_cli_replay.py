"""A replay goes on where ingest did not answer at once, as while a broker restarts."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from rich.console import Console

from driftloop.cli.replay import Played, Replay, load_stretch, replay_progress, step_count, steps_of
from driftloop.contracts.ingest.v1 import ingest_pb2, ingest_pb2_grpc
from driftloop.contracts.serving.v1 import serving_pb2, serving_pb2_grpc
from driftloop.usecase import ReplayEvent, ReplayStep, load_use_case

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
    """Has always followed."""

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
