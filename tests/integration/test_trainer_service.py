"""Trainer as a process on a real broker: each request is answered once, by a bundle that loads, whatever kills the process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from confluent_kafka import Producer as RawProducer
from grpc_health.v1 import health_pb2, health_pb2_grpc

from deploy.local import create_topics, free_base_port
from driftloop.artifacts import ArtifactStore
from driftloop.artifacts.bundles import fetch_bundle, load_bundle
from driftloop.artifacts.signing import load_verify_key
from driftloop.contracts import Message, Record, to_value, to_wire
from driftloop.contracts.event.v1.event_pb2 import Event
from driftloop.contracts.features.v1.features_pb2 import FeatureUpdate
from driftloop.contracts.monitor.v1.monitor_pb2 import RETRAIN_REASON_BOOTSTRAP, RETRAIN_REASON_DRIFT, RetrainRequest
from driftloop.contracts.trainer.v1.trainer_pb2 import OUTCOME_PUBLISHED, OUTCOME_REFUSED, Model
from driftloop.featurestore.log import EventLogWriter, FeatureLogWriter
from driftloop.messaging import KafkaProducer, KafkaReader
from driftloop.usecase import HOUR_US, UseCase, load_use_case
from tests.featurestore_twin import updates_of

pytestmark = pytest.mark.timeout(280)
ROOT = Path(__file__).resolve().parents[2]
START_US, MINUTE_US, ROWS = 1_362_139_200_000_000, 60_000_000, 2_400
TURNED_FROM, FIRST = 1_400, 1_200

DECLARATION = """
from driftloop.usecase import Event, Field, Label, Latest, Prediction, Request, UseCase, before

booked = Event("booked", entity="trip", fields={{"bus": Field(str), "load": Field(float), "leaves_at": Field("time")}})
measured = Event("measured", entity="bus", fields={{"bus": Field(str), "wear": Field(float)}})
came = Event("came", entity="trip", fields={{"late": Field(bool)}})
trips = UseCase(
    name="{name}", events=[booked, measured, came], predict=Prediction(on=booked, at=before("leaves_at", "1h")),
    features=[Request("load"), Latest(measured, by="bus", of="wear", max_age="24h")],
    label=Label(on=came, value=lambda e: bool(e["late"]), matures_after="24h"), clock="replay")
"""


class Log:
    """The offline log of trips a minute apart; from row TURNED_FROM on the label means the reverse."""

    def __init__(self, use_case: UseCase, store: ArtifactStore) -> None:
        draws = np.random.default_rng(4)
        self.load, self.wear = draws.normal(size=(2, ROWS))
        logit = 2.5 * self.load + 1.5 * self.wear
        logit[TURNED_FROM:] *= -1
        self.late = draws.random(ROWS) < 1 / (1 + np.exp(-logit))
        self.clock_us = START_US + (ROWS + 60) * MINUTE_US
        self._use_case = use_case
        self._accepted = [record for row in range(ROWS) for record in self._of_row(row)]
        events, features = EventLogWriter(store, use_case, 1), FeatureLogWriter(store, use_case, 1)
        for writer in (events, features):
            writer.restore(0, self, None)
        events.take(0, self, [])
        self.updates = updates_of([self._update(row) for row in range(ROWS)])
        features.take(0, self, [])
        for cut in (events.cut(0, self), features.cut(0, self)):
            cut.write()
            cut.publish()

    def take_accepted(self) -> list[Record]:
        """As Rekeying's."""
        taken, self._accepted = self._accepted, []
        return taken

    def at_us(self, row: int) -> int:
        """When row is asked for."""
        return START_US + row * MINUTE_US

    def _of_row(self, row: int) -> list[Record]:
        at_us = self.at_us(row)
        fields: dict[str, Any] = {"bus": f"b{row}", "load": float(self.load[row]), "leaves_at": at_us + HOUR_US}
        return [
            self._event(2 * row, "booked", row, at_us - HOUR_US, fields),
            self._event(2 * row + 1, "came", row, at_us + HOUR_US, {"late": bool(self.late[row])}),
        ]

    def _event(self, offset: int, kind: str, row: int, known_at_us: int, fields: dict[str, Any]) -> Record:
        declared = self._use_case.event_types[kind].fields
        event = Event(
            use_case=self._use_case.name,
            id=f"{kind}-{row}",
            type=kind,
            entity=f"t{row}",
            event_time_us=known_at_us,
            known_at_us=known_at_us,
            fields=to_wire(fields, declared),
        )
        return Record("events", 0, offset, Message("events", event.entity, event, event.id, "t", 0, known_at_us))

    def _update(self, row: int) -> Message[FeatureUpdate]:
        [view] = self._use_case.views
        key, known_at_us = f"{view.name}|b{row}", self.at_us(row) - HOUR_US
        update = FeatureUpdate(
            use_case=self._use_case.name,
            view=view.name,
            key=key,
            event_time_us=known_at_us,
            known_at_us=known_at_us,
            values=[to_value(float(self.wear[row]))],
            sequence=row,
        )
        return Message("features", key, update, f"u{row}", "t", known_at_us, known_at_us)


class Trainer:
    """The service as a process that can be killed and started again."""

    def __init__(self, bootstrap_servers: str, folder: Path) -> None:
        self.name = f"trips-{uuid.uuid4().hex[:8]}"
        (folder / self.name).mkdir()
        (folder / self.name / "usecase.py").write_text(DECLARATION.format(name=self.name))
        self.use_case = load_use_case(self.name, str(folder))
        self.store = ArtifactStore(folder / "artifacts")
        self.log = Log(self.use_case, self.store)
        create_topics(bootstrap_servers, self.name, 30.0, 1)
        self.bootstrap_servers = bootstrap_servers
        self.address = f"127.0.0.1:{free_base_port()}"
        self._producer = KafkaProducer(bootstrap_servers, self.name, "test")
        self._environment = os.environ | {
            "KAFKA_BOOTSTRAP_SERVERS": bootstrap_servers,
            "DRIFTLOOP_USE_CASE": self.name,
            "DRIFTLOOP_USECASES": str(folder),
            "DRIFTLOOP_ARTIFACTS_URL": self.store.url,
            "DRIFTLOOP_STATE_DIR": str(folder / "state"),
            "TRAINER_ADDRESS": self.address,
            "TRAINER_DATA_TIMEOUT_S": "0.5",
            "TRAINER_DEVICE": "cpu",
            "PYTHONFAULTHANDLER": "1",
        }
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Starts the process."""
        self._process = subprocess.Popen([sys.executable, "-m", "services.trainer"], cwd=ROOT, env=self._environment)

    def end(self, number: signal.Signals) -> int:
        """Sends a signal and returns the exit status."""
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(number)
        try:
            return self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.send_signal(signal.SIGABRT)  # where every thread stands is worth more than a bare timeout
            self._process.wait(10)
            raise

    def ready(self) -> None:
        """Waits until health says SERVING."""
        with grpc.insecure_channel(self.address) as channel:
            asked = health_pb2.HealthCheckRequest(service="driftloop.trainer")
            answers = health_pb2_grpc.HealthStub(channel).Watch(asked, timeout=60, wait_for_ready=True)
            assert any(answer.status == health_pb2.HealthCheckResponse.SERVING for answer in answers)
            answers.cancel()

    def ask(self, request_id: str, rows: int, **fields: Any) -> None:
        """Writes a request whose clock has seen the labels of so many rows."""
        clock_us = START_US + (rows + 60) * MINUTE_US
        payload = RetrainRequest(use_case=self.name, id=request_id, clock_us=clock_us, seed=3, **fields)
        self._producer.send(Message("retrain", self.name, payload, request_id, "driftloop/monitor", clock_us, clock_us))

    def written(self, topic: str, enough: Callable[[list[Record]], bool]) -> list[Record]:
        """All records of a topic, as soon as they are enough."""
        reader = KafkaReader(self.bootstrap_servers, self.name, [topic])
        found: list[Record] = []
        try:
            for _ in range(600):
                found += [record for record in reader.poll(0.2, 10_000) if isinstance(record, Record)]
                if enough(found):
                    return found
        finally:
            reader.close()
        raise AssertionError(f"{topic} holds {len(found)} records: not what was expected")

    def answers(self, count: int) -> list[Model]:
        """The first `count` answers, and all that came with them."""
        return [r.message.payload for r in self.written("models", lambda found: len(found) >= count)]

    def load(self, model: Model, folder: Path) -> Any:
        """The published model, as serving loads it."""
        file = fetch_bundle(
            self.store, model.bundle_url, model.bundle_digest, load_verify_key(self.store), folder / model.id
        )
        return load_bundle(file, folder / "bentoml", model.id)

    def loss(self, model: Any, first: int) -> float:
        """Mean log loss on the rows from `first` on, inputs as serving would give them."""
        rows = slice(first, ROWS)
        numbers = np.column_stack([self.log.load[rows], self.log.wear[rows]])
        found = model.predict(numbers, [[]] * len(numbers))
        return float(-np.mean(np.log(np.where(self.log.late[rows], found, 1 - found))))


@pytest.fixture
def trainer(kafka_bootstrap_servers: str, tmp_path: Path) -> Iterator[Trainer]:
    started = Trainer(kafka_bootstrap_servers, tmp_path)
    try:
        yield started
    finally:
        started.end(signal.SIGKILL)


def test_requests_are_answered_once_each_by_bundles_that_load(trainer: Trainer, tmp_path: Path) -> None:
    trainer.ready()
    trainer.ask("first", FIRST, reason=RETRAIN_REASON_BOOTSTRAP)
    [first] = trainer.answers(1)
    assert (first.outcome, first.request_id) == (OUTCOME_PUBLISHED, "first"), first.because
    champion = trainer.load(first, tmp_path)
    assert champion.inputs_digest == first.inputs_digest == trainer.use_case.inputs_digest
    assert trainer.loss(champion, TURNED_FROM) > np.log(2)  # the concept turns after what it was trained on

    told = trainer.written("progress", lambda found: len(found) >= 5)
    assert {record.message.payload.request_id for record in told} == {"first"}
    datasets = list(trainer.store.list(f"{trainer.name}/datasets"))
    assert sorted(datasets) == [f"{trainer.name}/datasets/{first.dataset_digest}{end}" for end in (".json", ".parquet")]

    trainer.end(signal.SIGKILL)
    trainer.ask("first", FIRST, reason=RETRAIN_REASON_BOOTSTRAP)
    trainer.ask(
        "second",
        2_200,
        reason=RETRAIN_REASON_DRIFT,
        since_us=trainer.log.at_us(TURNED_FROM),
        champion_id=first.id,
        champion_bundle_url=first.bundle_url,
        champion_bundle_digest=first.bundle_digest,
    )
    RawProducer({"bootstrap.servers": trainer.bootstrap_servers}).produce(
        f"{trainer.name}.retrain", b"no request", b"k"
    )
    trainer.ask("beyond", ROWS + 5_000, reason=RETRAIN_REASON_DRIFT)
    trainer.start()
    answers = trainer.answers(3)
    assert Counter(answer.request_id for answer in answers) == {"first": 1, "second": 1, "beyond": 1}

    second, beyond = answers[1], answers[2]
    assert second.outcome == OUTCOME_PUBLISHED, second.because
    assert second.metrics["log_loss"] < second.metrics["champion_log_loss"]
    assert trainer.loss(trainer.load(second, tmp_path), 2_200) < np.log(2) - 0.1
    assert beyond.outcome == OUTCOME_REFUSED
    assert "behind" in beyond.because
    assert trainer.end(signal.SIGTERM) == 0


def test_a_stop_while_a_request_waits_leaves_it_to_the_successor(trainer: Trainer) -> None:
    trainer.ready()
    trainer.ask("first", FIRST, reason=RETRAIN_REASON_BOOTSTRAP)
    assert trainer.end(signal.SIGTERM) == 0
    trainer.start()
    [answer] = trainer.answers(1)
    assert (answer.request_id, answer.outcome) == ("first", OUTCOME_PUBLISHED), answer.because
