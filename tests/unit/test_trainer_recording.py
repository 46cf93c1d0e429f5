"""Every answer is told to MLflow and OpenLineage behind the work; a place that fails or hangs holds up nothing."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from driftloop.contracts.monitor.v1.monitor_pb2 import RETRAIN_REASON_DRIFT, RetrainRequest
from driftloop.contracts.trainer.v1.trainer_pb2 import OUTCOME_PUBLISHED, OUTCOME_REFUSED, Gate, Model
from driftloop.telemetry import Instruments
from services.trainer.instruments import TrainerInstruments
from services.trainer.recording import LineageRecorder, MlflowRecorder, Recorded, Recording, RecordingBounds

REQUEST = RetrainRequest(id="request-1", use_case="shop", reason=RETRAIN_REASON_DRIFT, clock_us=5)
BOUNDS = RecordingBounds(queue_max=2, attempts_max=3, retry_s=0.001)


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
    """A recorder of the test's own: what it raises, and what it was told."""

    name = "place"

    def __init__(self, failures: int = 0, gate: threading.Event | None = None) -> None:
        self.told: list[str] = []
        self.attempts = 0
        self._failures = failures
        self._gate = gate
        self.reached = threading.Event()

    def record(self, recorded: Recorded) -> None:
        self.attempts += 1
        self.reached.set()
        if self._gate is not None:
            self._gate.wait(20)
        if self.attempts <= self._failures:
            raise ConnectionError("nobody there")
        self.told.append(recorded.answer.id)


def run(place: Place, counted: Counted, *answers: Model) -> Recording:
    recording = Recording([lambda: place], BOUNDS, counted.instruments, now_s=lambda: 100.0)
    recording.start()
    for answer in answers:
        recording.take(REQUEST, answer, 1.5)
    return recording


def test_a_place_that_fails_is_asked_again_and_then_told() -> None:
    place, counted = Place(failures=2), Counted()
    run(place, counted, model()).close(20)
    assert place.told == ["model-1"]
    assert counted.recordings() == {("place", "recorded"): 1}


def test_a_place_that_goes_on_failing_is_given_up_counted_and_does_not_keep_the_next_answer() -> None:
    place, counted = Place(failures=3), Counted()
    run(place, counted, model("lost"), model("next")).close(20)
    assert place.told == ["next"]
    assert counted.recordings() == {("place", "failed"): 1, ("place", "recorded"): 1}


def test_a_place_that_hangs_holds_up_nobody_and_what_is_too_much_is_dropped_and_counted() -> None:
    release = threading.Event()
    place, counted = Place(gate=release), Counted()
    recording = run(place, counted, model("held"))
    assert place.reached.wait(20)
    for name in ("a", "b", "too many"):
        recording.take(REQUEST, model(name), 1.0)
    assert counted.recordings() == {("all", "dropped"): 1}
    release.set()
    recording.close(20)
    assert place.told == ["held", "a", "b"]


def test_without_anybody_to_tell_nothing_is_kept() -> None:
    recording = Recording([], BOUNDS, Counted().instruments)
    recording.start()
    for _ in range(10):
        recording.take(REQUEST, model(), 1.0)
    recording.close(1)


def lineage(path: Path, *answers: Model) -> list[dict[str, Any]]:
    recorder = LineageRecorder(f"file://{path}", "/data/artifacts", 1.0)
    for answer in answers:
        recorder.record(Recorded(REQUEST, answer, ended_s=1_000.0, took_s=10.0))
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
        MlflowRecorder(uri, 5.0).record(Recorded(REQUEST, answer, ended_s=1_000.0, took_s=10.0))
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
