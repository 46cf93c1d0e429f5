"""Tells MLflow and OpenLineage of every answered request, behind the work: nothing waits for them, and nothing depends on them.

One thread takes from a bounded queue. What cannot be told within its attempts is given up, counted, and said in the log: the
answer itself, with all its numbers, is on the topic `models` for ever.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from driftloop.contracts.monitor.v1.monitor_pb2 import RetrainReason, RetrainRequest
from driftloop.contracts.trainer.v1.trainer_pb2 import OUTCOME_PUBLISHED, Model, Outcome
from services.trainer.instruments import TrainerInstruments

_log = logging.getLogger(__name__)
PRODUCER = "https://github.com/driftloop/driftloop/services/trainer"
_TEXT_MAX = 4_000  # of a tag: MLflow refuses more than 5,000 characters


@dataclass(frozen=True)
class Recorded:
    """A request and its answer. `ended_s`: seconds since the epoch; `took_s`: from the request taken to the answer sent."""

    request: RetrainRequest
    answer: Model
    ended_s: float
    took_s: float

    @property
    def published(self) -> bool:
        """Whether the answer is a model."""
        return bool(self.answer.outcome == OUTCOME_PUBLISHED)


class Recorder(Protocol):
    """One place where answers are recorded. Telling the same answer again changes nothing."""

    name: str

    def record(self, recorded: Recorded) -> None:
        """Returns when it is there; raises whatever its library raises."""
        ...


@dataclass(frozen=True)
class RecordingBounds:
    """See the settings of the same names."""

    queue_max: int
    attempts_max: int
    retry_s: float


class Recording:
    """Takes answers and tells every recorder of them, in order, on a thread of its own."""

    def __init__(
        self,
        recorders: Sequence[Callable[[], Recorder]],
        bounds: RecordingBounds,
        measured: TrainerInstruments,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        """`recorders`: each is opened on the thread, when it is first needed: their libraries take seconds to import."""
        self._open = list(recorders)
        self._bounds = bounds
        self._measured = measured
        self._now_s = now_s
        self._waiting: queue.Queue[Recorded | None] = queue.Queue(bounds.queue_max)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="trainer-recording", daemon=True)

    def start(self) -> None:
        """Starts telling; does nothing where there is nobody to tell."""
        if self._open:
            self._thread.start()

    def take(self, request: RetrainRequest, answer: Model, took_s: float) -> None:
        """Takes an answer and returns at once; one too many is given up."""
        if not self._open:
            return
        try:
            self._waiting.put_nowait(Recorded(request, answer, self._now_s(), took_s))
        except queue.Full:
            self._measured.recorded("all", "dropped")
            _log.warning("model %s is not recorded: %d answers wait already", answer.id, self._bounds.queue_max)

    def close(self, timeout_s: float) -> None:
        """Gives what waits so much time, then leaves it."""
        if not self._thread.is_alive():
            return
        deadline_s = time.monotonic() + timeout_s
        with suppress(queue.Full):
            self._waiting.put(None, timeout=timeout_s)
        self._thread.join(max(0.0, deadline_s - time.monotonic()))
        self._stop.set()

    def _run(self) -> None:
        opened: dict[int, Recorder] = {}
        while not self._stop.is_set() and (recorded := self._waiting.get()) is not None:
            for place, opening in enumerate(self._open):
                self._tell(opened, place, opening, recorded)

    def _tell(
        self, opened: dict[int, Recorder], place: int, opening: Callable[[], Recorder], recorded: Recorded
    ) -> None:
        why: Exception | None = None
        for attempt in range(self._bounds.attempts_max):
            if attempt and self._stop.wait(self._bounds.retry_s * 2 ** (attempt - 1)):
                return
            try:
                if place not in opened:
                    opened[place] = opening()
                opened[place].record(recorded)
            except Exception as error:  # whatever a library of theirs raises: it is tried again, and seen
                why = error
            else:
                self._measured.recorded(opened[place].name, "recorded")
                return
        name = opened[place].name if place in opened else "recorder"
        self._measured.recorded(name, "failed")
        _log.warning("model %s is not recorded by %s: %s", recorded.answer.id, name, str(why).partition("\n")[0])


class MlflowRecorder:
    """One run per answer, in an experiment of the use case's name; a run is found again by its model's id."""

    name = "mlflow"

    def __init__(self, uri: str, timeout_s: float) -> None:
        import os

        # Read at every request: MLflow's own defaults would try for many minutes.
        os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"
        os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = str(max(1, round(timeout_s)))
        from mlflow.tracking import MlflowClient

        self._client: Any = MlflowClient(tracking_uri=uri)

    def record(self, recorded: Recorded) -> None:
        """See `Recorder.record`."""
        from mlflow.entities import Metric, Param, RunTag

        request, answer = recorded.request, recorded.answer
        experiment = self._client.get_experiment_by_name(answer.use_case)
        experiment_id = experiment.experiment_id if experiment else self._client.create_experiment(answer.use_case)
        known = self._client.search_runs([experiment_id], f"tags.`driftloop.model_id` = '{answer.id}'", max_results=1)
        if known and known[0].info.status in ("FINISHED", "FAILED"):
            return
        ended_ms = round(recorded.ended_s * 1000)
        started_ms = ended_ms - round(recorded.took_s * 1000)
        run_id = (
            known[0].info.run_id
            if known
            else self._client.create_run(
                experiment_id,
                start_time=started_ms,
                tags={"driftloop.model_id": answer.id},
                run_name=f"{_reason(request)} {answer.id[:8]}",
            ).info.run_id
        )
        metrics = {**answer.metrics, "row_epochs": answer.row_epochs, "seconds": recorded.took_s}
        metrics |= {f"gate_{gate.name}": float(gate.passed) for gate in answer.gates}
        params = {"reason": _reason(request), "candidate": answer.candidate, "device": answer.device}
        params |= {"rows": str(answer.trained_rows), "clock_us": str(answer.clock_us), "since_us": str(answer.since_us)}
        tags = {
            "driftloop.request_id": answer.request_id,
            "driftloop.outcome": Outcome.Name(answer.outcome).removeprefix("OUTCOME_").lower(),
            "driftloop.because": answer.because[:_TEXT_MAX],
            "driftloop.bundle_url": answer.bundle_url,
            "driftloop.bundle_digest": answer.bundle_digest,
            "driftloop.model_digest": answer.model_digest,
            "driftloop.dataset_digest": answer.dataset_digest,
        }
        self._client.log_batch(
            run_id,
            metrics=[Metric(name, float(value), ended_ms, 0) for name, value in metrics.items()],
            params=[Param(name, value) for name, value in params.items()],
            tags=[RunTag(name, value) for name, value in tags.items() if value],
        )
        self._client.set_terminated(run_id, "FINISHED" if recorded.published else "FAILED", end_time=ended_ms)


class LineageRecorder:
    """One OpenLineage run per answer: from the offline log through the training set to the bundle."""

    name = "openlineage"

    def __init__(self, address: str, artifacts_url: str, timeout_s: float) -> None:
        """`address`: http(s)://host:port of a collector, or file:///path of a file that gets one event a line."""
        from openlineage.client import OpenLineageClient
        from openlineage.client.transport.file import FileConfig, FileTransport
        from openlineage.client.transport.http import HttpConfig, HttpTransport

        if address.startswith("file://"):
            transport: Any = FileTransport(FileConfig(log_file_path=address.removeprefix("file://"), append=True))
        else:
            transport = HttpTransport(HttpConfig(url=address, timeout=timeout_s, retry={"total": 0}))
        self._client: Any = OpenLineageClient(transport=transport)
        self._namespace = artifacts_url if "://" in artifacts_url else f"file://{artifacts_url}"

    def record(self, recorded: Recorded) -> None:
        """See `Recorder.record`: events of one run carry its id, derived from the model's, so that repeating adds none."""
        from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, Run, RunEvent, RunState
        from openlineage.client.facet_v2 import error_message_run

        answer = recorded.answer
        run_id = str(uuid.uuid5(uuid.NAMESPACE_URL, f"driftloop:{answer.id}"))
        place = f"{answer.use_case}/offline"
        inputs = [InputDataset(self._namespace, f"{place}/{stage}") for stage in ("events", "features")]
        outputs = []
        if answer.dataset_digest:
            outputs.append(
                OutputDataset(self._namespace, f"{answer.use_case}/datasets/{answer.dataset_digest}.parquet")
            )
        if answer.bundle_url:
            outputs.append(OutputDataset(self._namespace, answer.bundle_url))
        facets: dict[str, Any] = {}
        if not recorded.published:
            facets["errorMessage"] = error_message_run.ErrorMessageRunFacet(
                message=answer.because[:_TEXT_MAX], programmingLanguage="Python"
            )
        job = Job("driftloop", f"{answer.use_case}.train")
        ended = RunState.COMPLETE if recorded.published else RunState.FAIL
        for state, at_s, found in (
            (RunState.START, recorded.ended_s - recorded.took_s, {}),
            (ended, recorded.ended_s, facets),
        ):
            self._client.emit(
                RunEvent(
                    eventType=state,
                    eventTime=datetime.fromtimestamp(at_s, UTC).isoformat(),
                    run=Run(run_id, facets=found),
                    job=job,
                    producer=PRODUCER,
                    inputs=inputs,
                    outputs=outputs,
                )
            )


def _reason(request: RetrainRequest) -> str:
    return RetrainReason.Name(request.reason).removeprefix("RETRAIN_REASON_").lower()
