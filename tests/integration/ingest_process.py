"""Ingest as a process on a real broker, and events for it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from deploy.local import Ports, create_topics, free_base_port
from driftloop.client import ClientSettings, EventsClient, NewEvent
from driftloop.contracts import Record
from driftloop.messaging import KafkaReader
from driftloop.usecase import UseCase, load_use_case

ROOT = Path(__file__).resolve().parents[2]
NOON_US = 1_362_139_200_000_000
STEP_US = 900_000_000
SPREAD = 2

DECLARATION = """
from driftloop.usecase import Event, Field, Label, Prediction, UseCase, before

announced = Event("announced", entity="order", fields={{
    "shop": Field(str), "price": Field(float, ge=0, le=500), "note": Field(str, optional=True, max_length=2_000_000),
    "due": Field("time")}})
delivered = Event("delivered", entity="order", fields={{"late": Field(bool)}})
orders = UseCase(
    name="{name}", events=[announced, delivered], predict=Prediction(on=announced, at=before("due", "60m")), features=[],
    label=Label(on=delivered, value=lambda e: bool(e["late"])), clock="{clock}")
"""


class Ingest:
    """The service as a process that can be killed and started again."""

    def __init__(self, bootstrap_servers: str, folder: Path, clock: str = "replay") -> None:
        self.name = f"orders-{uuid.uuid4().hex[:8]}"
        (folder / self.name).mkdir()
        self.declaration = folder / self.name / "usecase.py"
        self.declaration.write_text(DECLARATION.format(name=self.name, clock=clock))
        self.artifacts = folder / "artifacts"
        self.use_case: UseCase = load_use_case(self.name, str(folder))
        create_topics(bootstrap_servers, self.name, 30.0, SPREAD)
        self.bootstrap_servers = bootstrap_servers
        ports = Ports(free_base_port())
        self.address = f"127.0.0.1:{ports.services(['ingest'])['ingest']}"
        self.http_address = f"127.0.0.1:{ports.http(['ingest'])['ingest']}"
        self._environment = os.environ | {
            "KAFKA_BOOTSTRAP_SERVERS": bootstrap_servers,
            "DRIFTLOOP_USE_CASE": self.name,
            "DRIFTLOOP_USECASES": str(folder),
            "DRIFTLOOP_CLOCK_MODE": "",
            "DRIFTLOOP_ARTIFACTS_URL": str(self.artifacts),
            "INGEST_ADDRESS": self.address,
            "INGEST_HTTP_ADDRESS": self.http_address,
            "INGEST_TICK_S": "0.1",
        }
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self, log: int | None = None) -> subprocess.Popen[bytes]:
        """Starts the process; it serves a moment later, for which every client waits. `log`: where it says things."""
        command = [sys.executable, "-m", "services.ingest"]
        self._process = subprocess.Popen(command, cwd=ROOT, env=self._environment, stderr=log)
        return self._process

    def end(self, number: signal.Signals) -> int:
        """Sends a signal and returns the exit status."""
        assert self._process is not None
        self._process.send_signal(number)
        return self._process.wait(15)

    def ready(self) -> None:
        """Waits until health says SERVING."""
        with grpc.insecure_channel(self.address) as channel:
            asked = health_pb2.HealthCheckRequest(service="driftloop.ingest")
            answers = health_pb2_grpc.HealthStub(channel).Watch(asked, timeout=30, wait_for_ready=True)
            assert any(answer.status == health_pb2.HealthCheckResponse.SERVING for answer in answers)
            answers.cancel()

    def client(self, **settings: Any) -> EventsClient:
        return EventsClient(self.address, self.use_case, settings=ClientSettings(**settings))

    def written(self, topic: str, enough: Callable[[list[Record]], bool] = bool) -> list[Record]:
        """All records of a topic, as soon as they are enough; fails with what there was otherwise."""
        reader = KafkaReader(self.bootstrap_servers, self.name, [topic])
        found: list[Record] = []
        try:
            for _ in range(100):
                there = sum(end for _, end in reader.offset_ranges().values())
                while len(found) < there:
                    found += [record for record in reader.poll(1.0, 10_000) if isinstance(record, Record)]
                if enough(found):
                    return found
                found += [record for record in reader.poll(0.2, 10_000) if isinstance(record, Record)]
        finally:
            reader.close()
        raise AssertionError(f"{topic} holds {len(found)} records: not what was expected")

    def events(self) -> list[Record]:
        """The events written, watermarks left out."""
        return [record for record in self.written("events") if not record.message.is_watermark]


def event(number: int, after_us: int = 0, **fields: Any) -> NewEvent:
    known_at_us = NOON_US + 1 + after_us + number
    plain = {"shop": "n", "price": 5, "due": known_at_us} | fields
    return NewEvent("announced", f"a{number}", f"order-{number % 50}", known_at_us, plain, known_at_us)
