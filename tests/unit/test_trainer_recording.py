"""Every answer is told to MLflow and OpenLineage behind the work; a place that fails or hangs holds up nothing."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from driftloop.contracts import Message
from driftloop.contracts.monitor.v1.monitor_pb2 import RETRAIN_REASON_DRIFT, RetrainRequest
from driftloop.contracts.trainer.v1.trainer_pb2 import OUTCOME_PUBLISHED, OUTCOME_REFUSED, Gate, Model
from driftloop.messaging import MemoryBus, Reader, ReadFailed
from driftloop.telemetry import Instruments
from services.trainer.instruments import TrainerInstruments
from services.trainer.recording import LineageRecorder, MlflowRecorder, Recorded, Recording, RecordingBounds

REQUEST = RetrainRequest(id="request-1", use_case="shop", reason=RETRAIN_REASON_DRIFT, clock_us=5)
BOUNDS = RecordingBounds(requests_max=2, attempts_max=3, retry_s=0.001, timeout_s=0.05, poll_s=0.02)


def model(name: str = "model-1", outcome: int = OUTCOME_PUBLISHED) -> Model:
    return Model(
        use_case="shop",
        id=name,
        request_id=REQUEST.id,
        outcome=outcome,  # type: ignore[arg-type]
        because="it was better",
        bundle_url="shop/bundles/model-1.bento" if outcome == OUTCOME_PUBLISHED else "",
        dataset_digest="d1",
        trained_rows=700,
        metrics={"log_loss": 0.25},
        gates=[Gate(name="size", passed=True)],
        device="cpu",
        candidate="all",
    )


class Counted:
    """Trainer's instruments, and what they counted."""

    def __init__(self) -> None:
        self._reader = InMemoryMetricReader()
        self.instruments = TrainerInstruments(Instruments("trainer", MeterProvider([self._reader])))

    def recordings(self) -> dict[tuple[str, str], int]:
        data = self._reader.get_metrics_data()
        points: list[Any] = [
            point
            for resource in (data.resource_metrics if data else [])
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == "driftloop.trainer.recordings"
            for point in metric.data.data_points
        ]
        return {(point.attributes["to"], point.attributes["outcome"]): point.value for point in points}


class Place:
    """A recorder of the test's own: how often it fails, what it waits for, and what it was told."""

    name = "place"

    def __init__(self, failures: int = 0, gate: threading.Event | None = None) -> None:
        self.told: queue.Queue[str] = queue.Queue()
        self._failures = failures
        self._gate = gate
        self.reached = threading.Event()

    def record(self, recorded: Recorded) -> None:
        self.reached.set()
        if self._gate is not None:
            self._gate.wait(20)
        if self._failures:
            self._failures -= 1
            raise ConnectionError("nobody there")
        self.told.put(recorded.answer.id)

    def next(self, count: int) -> list[str]:
        """The next answers that it is told."""
        return [self.told.get(timeout=20) for _ in range(count)]


class Topics:
    """The topics that trainer writes and reads, and whoever records them."""

    def __init__(self) -> None:
        self.bus = MemoryBus("shop", 1)
        self.counted = Counted()
        self._write("retrain", REQUEST)

    def answer(self, *answers: Model) -> None:
        for answer in answers:
            self._write("models", answer)

    def _write(self, topic: str, payload: Any) -> None:
        self.bus.append(Message(topic, "shop", payload, payload.id, "test", 0, 0))

    def recording(self, place: Place, open_requests: Callable[[], Reader] | None = None) -> Recording:
        recording = Recording(
            [lambda: place],
            lambda: self.bus.reader(["models"], "recording"),
            open_requests or (lambda: self.bus.reader(["retrain"])),
            BOUNDS,
            self.counted.instruments,
        )
        recording.start()
        return recording


def test_a_place_that_fails_is_asked_again_and_then_told() -> None:
    topics, place = Topics(), Place(failures=2)
    recording = topics.recording(place)
    topics.answer(model())
    assert place.next(1) == ["model-1"]
    recording.close(20)
    assert topics.counted.recordings() == {("place", "recorded"): 1}


def test_a_place_that_goes_on_failing_is_given_up_counted_and_does_not_keep_the_next_answer() -> None:
    topics, place = Topics(), Place(failures=3)
    recording = topics.recording(place)
    topics.answer(model("lost"), model("next"))
    assert place.next(1) == ["next"]
    recording.close(20)
    assert topics.counted.recordings() == {("place", "failed"): 1, ("place", "recorded"): 1}


def test_an_answer_that_a_dead_process_had_not_told_is_told_by_its_successor_and_the_others_are_not_told_again() -> (
    None
):
    topics, place = Topics(), Place()
    topics.answer(model("before"))
    recording = topics.recording(place)
    assert place.next(1) == ["before"]
    topics.answer(model("seen"))
    assert place.next(1) == ["seen"]  # by then "before" is committed
    recording.close(20)

    release = threading.Event()
    hangs = Place(gate=release)
    topics.answer(model("cut off"))
    dying = topics.recording(hangs)
    assert hangs.reached.wait(20)
    dying.close(0.01)

    successor = topics.recording(place)
    topics.answer(model("after"))
    told = place.next(1)
    while told[-1] != "after":
        told += place.next(1)
    successor.close(20)
    release.set()
    assert "before" not in told
    assert told[-2:] == ["cut off", "after"]


def test_an_answer_whose_request_is_nowhere_is_given_up_counted_and_does_not_keep_the_next() -> None:
    topics, place = Topics(), Place()
    stray = model("stray")
    stray.request_id = "never asked"
    topics.answer(stray, model("next"))
    recording = topics.recording(place)
    assert place.next(1) == ["next"]
    recording.close(20)
    assert topics.counted.recordings() == {("all", "failed"): 1, ("place", "recorded"): 1}


def test_a_broker_that_is_away_for_a_while_loses_no_recording() -> None:
    topics, place, fails = Topics(), Place(), [ReadFailed("no leader yet"), ReadFailed("no leader yet")]

    def open_requests() -> Reader:
        if fails:
            raise fails.pop()
        return topics.bus.reader(["retrain"])

    topics.answer(model())
    recording = topics.recording(place, open_requests)
    assert place.next(1) == ["model-1"]
    recording.close(20)


def test_without_anybody_to_tell_nothing_is_read() -> None:
    def read() -> Reader:
        raise AssertionError("nobody asked for it")

    recording = Recording([], read, read, BOUNDS, Counted().instruments)
    recording.start()
    recording.close(1)


def lineage(path: Path, *answers: Model) -> list[dict[str, Any]]:
    recorder = LineageRecorder(f"file://{path}", "/data/artifacts", 1.0)
    for answer in answers:
        recorder.record(Recorded(REQUEST, answer, asked_s=990.0, answered_s=1_000.0))
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_lineage_leads_from_the_offline_log_to_the_bundle(tmp_path: Path) -> None:
    started, ended = lineage(tmp_path / "lineage.jsonl", model())
    assert [started["eventType"], ended["eventType"]] == ["START", "COMPLETE"]
    assert started["run"]["runId"] == ended["run"]["runId"]
    assert [found["name"] for found in ended["inputs"]] == ["shop/offline/events", "shop/offline/features"]
    assert [found["name"] for found in ended["outputs"]] == ["shop/datasets/d1.parquet", "shop/bundles/model-1.bento"]
    assert ended["job"]["name"] == "shop.train"


def test_lineage_of_one_answer_is_one_run_however_often_it_is_told(tmp_path: Path) -> None:
    told = lineage(tmp_path / "lineage.jsonl", model(), model(), model("model-2"))
    assert len({event["run"]["runId"] for event in told}) == 2


def test_lineage_of_a_refused_request_has_failed_and_says_why(tmp_path: Path) -> None:
    refused = model(outcome=OUTCOME_REFUSED)
    refused.because = "12 examples, at least 200 are needed"
    ended = lineage(tmp_path / "lineage.jsonl", refused)[1]
    assert ended["eventType"] == "FAIL"
    assert ended["run"]["facets"]["errorMessage"]["message"] == refused.because


@pytest.mark.timeout(120)
def test_mlflow_holds_one_run_per_answer_with_its_numbers_and_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.tracking import MlflowClient

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    uri = (tmp_path / "runs").as_uri()
    for answer in (model(), model(), model("model-2", OUTCOME_REFUSED)):
        MlflowRecorder(uri, 5.0).record(Recorded(REQUEST, answer, asked_s=990.0, answered_s=1_000.0))
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("shop")
    runs = {run.data.tags["driftloop.model_id"]: run for run in client.search_runs([experiment.experiment_id])}
    assert len(client.search_runs([experiment.experiment_id])) == 2
    published, refused = runs["model-1"], runs["model-2"]
    assert (published.info.status, refused.info.status) == ("FINISHED", "FAILED")
    assert published.data.metrics["log_loss"] == 0.25
    assert published.data.params["reason"] == "drift"
    assert published.data.params["rows"] == "700"
    assert published.data.tags["driftloop.bundle_url"] == "shop/bundles/model-1.bento"
    assert (published.info.start_time, published.info.end_time) == (990_000, 1_000_000)
