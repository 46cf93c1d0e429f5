"""Tells MLflow and OpenLineage of every answered request, behind the work: nothing waits for them, and nothing depends on them.

One thread follows the topic `models` as a consumer group of its own and commits behind what it told, so that no answer is left
out, whenever the process dies. What cannot be told within its attempts is given up, counted, and said in the log: the answer
itself, with all its numbers, is on the topic for ever.
"""

from __future__ import annotations

import logging
import threading
import uuid
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from driftloop.contracts import Record
from driftloop.contracts.monitor.v1.monitor_pb2 import RetrainReason, RetrainRequest
from driftloop.contracts.trainer.v1.trainer_pb2 import OUTCOME_PUBLISHED, Model, Outcome
from driftloop.messaging import Malformed, MessagingError, Reader
from services.trainer.instruments import TrainerInstruments

_log = logging.getLogger(__name__)
PRODUCER = "https://github.com/driftloop/driftloop/services/trainer"
_TEXT_MAX = 4_000  # of a tag: MLflow refuses more than 5,000 characters
_RECORDS_PER_POLL = 100


@dataclass(frozen=True)
class Recorded:
    """A request and its answer, and when the broker took each: s since the epoch."""

    request: RetrainRequest
    answer: Model
    asked_s: float
    answered_s: float

    @property
    def published(self) -> bool:
        """Whether the answer is a model."""
        return bool(self.answer.outcome == OUTCOME_PUBLISHED)

    @property
    def took_s(self) -> float:
        """From the request written to the answer written."""
        return max(0.0, self.answered_s - self.asked_s)


class Recorder(Protocol):
    """One place where answers are recorded. Telling the same answer again changes nothing."""

    name: str

    def record(self, recorded: Recorded) -> None:
        """Returns when it is there; raises whatever its library raises."""
        ...


@dataclass(frozen=True)
class RecordingBounds:
    """See the settings of the same names."""

    requests_max: int
    attempts_max: int
    retry_s: float
    timeout_s: float
    poll_s: float


class Recording:
    """Follows the answers and tells every recorder of them, in order, on a thread of its own."""

    def __init__(
        self,
        recorders: Sequence[Callable[[], Recorder]],
        open_answers: Callable[[], Reader],
        open_requests: Callable[[], Reader],
        bounds: RecordingBounds,
        measured: TrainerInstruments,
    ) -> None:
        """`recorders`: each is opened on the thread, when it is first needed: their libraries take seconds to import.

        `open_answers` opens a reader of `models` in a group, `open_requests` one of `retrain` from its start.
        """
        self._open = list(recorders)
        self._open_answers = open_answers
        self._open_requests = open_requests
        self._bounds = bounds
        self._measured = measured
        self._opened: dict[int, Recorder] = {}
        self._asked: OrderedDict[str, Record] = OrderedDict()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="trainer-recording", daemon=True)

    def start(self) -> None:
        """Starts telling; does nothing where there is nobody to tell."""
        if self._open:
            self._thread.start()

    def close(self, timeout_s: float) -> None:
        """Gives the answer at hand so much time; what is not told is told after the next start."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                with closing(self._open_answers()) as answers, closing(self._open_requests()) as requests:
                    self._follow(answers, requests)
            except MessagingError as error:
                _log.warning("recording goes on in %g s: %s", self._bounds.retry_s, error)
                self._stop.wait(self._bounds.retry_s)

    def _follow(self, answers: Reader, requests: Reader) -> None:
        self._asked.clear()
        while not self._stop.is_set():
            for record in answers.poll(self._bounds.poll_s, 1):
                if not isinstance(record, Malformed) and not record.message.is_watermark:
                    self._tell_all(record, requests)
                if self._stop.is_set():
                    return  # perhaps in the middle of it: the next start tells it again
                answers.commit({(record.topic, record.partition): record.offset + 1})

    def _tell_all(self, record: Record, requests: Reader) -> None:
        answer: Model = record.message.payload
        asked = self._request(answer.request_id, requests)
        if asked is None:
            self._given_up("all", answer, f"its request {answer.request_id} is not on the topic retrain")
            return
        times_s = (asked.appended_at_us / 1e6, record.appended_at_us / 1e6)
        for place, opening in enumerate(self._open):
            self._tell(place, opening, Recorded(asked.message.payload, answer, *times_s))

    def _request(self, request_id: str, requests: Reader) -> Record | None:
        """The request of an answer: it was written before, so what is not there in time never was."""
        while request_id not in self._asked:
            found = requests.poll(self._bounds.timeout_s, _RECORDS_PER_POLL)
            if not found or self._stop.is_set():
                break
            for record in found:
                if not isinstance(record, Malformed) and not record.message.is_watermark:
                    self._asked[record.message.payload.id] = record
            while len(self._asked) > self._bounds.requests_max:
                self._asked.popitem(last=False)
        return self._asked.get(request_id)

    def _tell(self, place: int, opening: Callable[[], Recorder], recorded: Recorded) -> None:
        why: Exception | None = None
        for attempt in range(self._bounds.attempts_max):
            if attempt and self._stop.wait(self._bounds.retry_s * 2 ** (attempt - 1)):
                return
            try:
                if place not in self._opened:
                    self._opened[place] = opening()
                self._opened[place].record(recorded)
            except Exception as error:  # whatever a library of theirs raises: it is tried again, and seen
                why = error
            else:
                self._measured.recorded(self._opened[place].name, "recorded")
                return
        name = self._opened[place].name if place in self._opened else "recorder"
        self._given_up(name, recorded.answer, str(why).partition("\n")[0])

    def _given_up(self, name: str, answer: Model, why: str) -> None:
        self._measured.recorded(name, "failed")
        _log.warning("model %s is not recorded by %s: %s", answer.id, name, why)


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
        started_ms, ended_ms = round(recorded.asked_s * 1000), round(recorded.answered_s * 1000)
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
            (RunState.START, recorded.asked_s, {}),
            (ended, recorded.answered_s, facets),
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
