"""A tiny use case of its own on a real broker, and the processes of one service on it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from deploy.local.topics import create_topics
from driftloop.artifacts import ArtifactStore
from driftloop.contracts import Message, Record
from driftloop.messaging import KafkaProducer, KafkaReader
from driftloop.usecase import load_use_case
from tests.tiny_usecase import write_use_case

ROOT = Path(__file__).resolve().parents[1]
PATIENCE_S = 60.0  # starting takes 4 s alone, and many times that beside other tests on the same two cores
START_PATIENCE_S = 150.0  # a process imports and restores on cores that it shares with others; below a test's time


def free_address() -> str:
    """An address on this machine that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{found.getsockname()[1]}"


class ServiceWorld:
    """What a test of one service needs; `reads` are the topics that the test looks at."""

    def __init__(self, service: str, bootstrap_servers: str, folder: Path, spread: int, reads: Sequence[str]) -> None:
        self.service = service
        self.bootstrap_servers = bootstrap_servers
        self.folder = folder
        self.spread = spread
        self.name = f"tiny{uuid.uuid4().hex[:8]}"
        write_use_case(folder / "usecases", self.name)
        self.use_case = load_use_case(self.name, str(folder / "usecases"))
        self.address = free_address()
        self.store = ArtifactStore(folder / "artifacts")
        self.seen: list[Record] = []
        self._reads = list(reads)
        self._processes: list[subprocess.Popen[bytes]] = []

    def create_topics(self) -> None:
        """Creates the topics and opens the test's own producer and reader."""
        create_topics(self.bootstrap_servers, self.name, 30, self.spread)
        self.producer = KafkaProducer(self.bootstrap_servers, self.name, "test")
        self.reader = KafkaReader(self.bootstrap_servers, self.name, self._reads)

    def start(self, address: str = "", service: str = "", **settings: str) -> subprocess.Popen[bytes]:
        """Starts the service, or another one beside it; `settings` are environment variables."""
        service = service or self.service
        environment = {
            **os.environ,
            "KAFKA_BOOTSTRAP_SERVERS": self.bootstrap_servers,
            "KAFKA_SESSION_TIMEOUT_S": "6",
            "DRIFTLOOP_USE_CASE": self.name,
            "DRIFTLOOP_USECASES": str(self.folder / "usecases"),
            "DRIFTLOOP_STATE_DIR": str(self.folder / "state"),
            "DRIFTLOOP_ARTIFACTS_URL": str(self.folder / "artifacts"),
            "DRIFTLOOP_CHECKPOINT_S": "0.5",
            f"{service.upper()}_ADDRESS": address or self.address,
            **settings,
        }
        with (self.folder / f"{service}-{len(self._processes)}.log").open("wb") as log:
            command = [sys.executable, "-m", f"services.{service}"]
            process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=log)
        self._processes.append(process)
        return process

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """kill -9."""
        os.kill(process.pid, signal.SIGKILL)
        process.wait()

    def stop(self, process: subprocess.Popen[bytes]) -> int:
        """SIGTERM; returns the exit code, fails after 10 s."""
        process.send_signal(signal.SIGTERM)
        return process.wait(10)

    def log(self) -> str:
        """What the newest process has logged."""
        newest = len(self._processes) - 1
        return next(self.folder.glob(f"*-{newest}.log")).read_text()

    def status(self, address: str = "") -> int:
        """What the health service answers now, once the door is open."""
        with grpc.insecure_channel(address or self.address) as channel:
            grpc.channel_ready_future(channel).result(PATIENCE_S)
            return int(health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest()).status)

    def await_serving(self, address: str = "", service: str = "", patience_s: float = START_PATIENCE_S) -> None:
        """Returns when the service is ready for work; one that hangs ends itself."""
        with grpc.insecure_channel(address or self.address) as channel:
            grpc.channel_ready_future(channel).result(patience_s)
            request = health_pb2.HealthCheckRequest(service=f"driftloop.{service or self.service}")
            for response in health_pb2_grpc.HealthStub(channel).Watch(request, timeout=patience_s):
                if response.status == health_pb2.HealthCheckResponse.SERVING:
                    return

    def send(self, messages: Sequence[Message[Any]]) -> None:
        """Writes messages and waits for their acknowledgement."""
        for message in messages:
            self.producer.send(message)
        asyncio.run(self.producer.drained())

    def read_until(self, enough: Callable[[], bool], timeout_s: float = PATIENCE_S) -> None:
        """Reads what the service writes until it is enough."""
        deadline = time.monotonic() + timeout_s
        while not enough():
            assert time.monotonic() < deadline, self.log()
            self.seen += [record for record in self.reader.poll(0.1, 5_000) if isinstance(record, Record)]

    def close(self) -> None:
        """Ends every process."""
        for process in self._processes:
            process.kill()
            process.wait()
