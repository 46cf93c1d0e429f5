"""What the benchmark stands on: a broker with the features of parcels on it, a released model, and servers on their core."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import grpc
import numpy as np
from confluent_kafka import Consumer, TopicPartition
from grpc_health.v1 import health_pb2, health_pb2_grpc

from bench.ingest.machine import SERVER_CORES
from bench.serving.parcels import CLOCK_US, NAME, SPREAD, USE_CASES, training_columns, updates
from deploy.local import LocalKafka, Ports, create_topics, free_base_port
from driftloop.artifacts import ArtifactStore
from driftloop.artifacts.bundles import BUNDLE_FILE, build_bundle, publish_bundle
from driftloop.artifacts.signing import ensure_keys
from driftloop.contracts import Message, watermark
from driftloop.contracts.monitor.v1.monitor_pb2 import ROLE_CHAMPION, Arm, Release
from driftloop.messaging import KafkaProducer
from driftloop.usecase import HOUR_US, load_use_case

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "build" / "bench" / "serving"
SERVING = ROOT / ".venvs" / "serving" / "bin"
_MODEL = "bench1"
_TRAINED_ROWS = 4_000
_START_TIMEOUT_S = 90.0


class World:
    """A broker, a model and the features; servers are started as they are needed, and end with it."""

    def __init__(self, stack: ExitStack, servers: str) -> None:
        self._stack = stack
        self.servers = servers
        self.use_case = load_use_case(NAME, str(USE_CASES))
        self.artifacts = FOLDER / "artifacts"
        self.updates = updates(self.use_case)
        self._publish()
        self._release()
        self._replicas = 0
        self._collector = f"127.0.0.1:{free_base_port()}"
        self.spawn([sys.executable, "-m", "bench.serving.collector", self._collector])

    def _publish(self) -> None:
        from services.trainer.attempts import TrainingSet, TrainingSettings
        from services.trainer.training import train

        numbers, labels = training_columns(_TRAINED_ROWS, len(self.use_case.numeric_inputs))
        times = CLOCK_US + HOUR_US * np.arange(_TRAINED_ROWS)
        rows = TrainingSet(
            [f"p{n}" for n in range(_TRAINED_ROWS)],
            times,
            numbers,
            np.empty((_TRAINED_ROWS, 0), dtype=object),
            labels,
            times,
        )
        trained = train(self.use_case, rows, 0, None, 1, TrainingSettings(epochs=5), lambda detail: None)
        built = FOLDER / "built"
        file = build_bundle(NAME, _MODEL, trained.onnx, trained.weights, trained.spec, built, FOLDER / "bentoml")
        store = ArtifactStore(self.artifacts)
        published = publish_bundle(store, NAME, _MODEL, file, ensure_keys(store))
        self.bundle = built / BUNDLE_FILE
        self.arm = Arm(
            model_id=_MODEL, bundle_url=published.url, bundle_digest=published.digest, role=ROLE_CHAMPION, share=1.0
        )

    def _release(self) -> None:
        producer = KafkaProducer(self.servers, NAME, "bench")
        for update in self.updates:
            producer.send(update)
        release = Release(use_case=NAME, revision=1, champion=self.arm, clock_us=CLOCK_US)
        producer.send(Message("releases", NAME, release, "release-1", "bench", CLOCK_US, CLOCK_US))
        for partition in range(SPREAD):
            producer.send(watermark("features", partition, f"aggregation/{partition}", CLOCK_US))
        producer.send(watermark("releases", 0, "judging", CLOCK_US))
        producer.close(30.0)

    def spawn(
        self, argv: Sequence[str], cores: Sequence[int] = (), environment: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Starts a process, on some cores only if they are named; it ends with the world."""

        log = (FOLDER / "servers.log").open("ab")
        process = subprocess.Popen(argv, cwd=ROOT, env=os.environ | dict(environment or {}), stdout=log, stderr=log)
        log.close()
        if cores:
            # Not by preexec_fn: it runs gRPC's fork handlers, which now and then abort a child of a client with connections.
            os.sched_setaffinity(process.pid, cores)
        self._stack.callback(stop, process)
        return process

    def serving(self, cores: Sequence[int] = SERVER_CORES, workers: int = 1) -> Server:
        """A server of the product, in its own environment, traced at 1 %; ready when this returns."""
        self._replicas += 1
        address = f"127.0.0.1:{free_base_port()}"
        started_s = time.perf_counter()
        process = self.spawn(
            [str(SERVING / "python"), "-m", "services.serving"],
            cores,
            {
                "KAFKA_BOOTSTRAP_SERVERS": self.servers,
                "DRIFTLOOP_USE_CASE": NAME,
                "DRIFTLOOP_USECASES": str(USE_CASES),
                "DRIFTLOOP_REPLICA": str(self._replicas),
                "DRIFTLOOP_STATE_DIR": str(FOLDER / "state"),
                "DRIFTLOOP_ARTIFACTS_URL": str(self.artifacts),
                "SERVING_ADDRESS": address,
                "SERVING_WORKERS": str(workers),
                "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{self._collector}",
            },
        )
        await_serving(address, process)
        return Server(address, process, time.perf_counter() - started_s)

    def echo(self, kind: str) -> Server:
        """A bare echo: `aio` or `sync`."""
        address = f"127.0.0.1:{free_base_port()}"
        process = self.spawn([sys.executable, "-m", "bench.serving.echo", address, kind], SERVER_CORES)
        return Server(address, process, 0.0)

    def logged(self) -> int:
        """Predictions on the topic."""
        consumer = Consumer({"bootstrap.servers": self.servers, "group.id": "bench", "enable.auto.commit": False})
        try:
            places = [TopicPartition(f"{NAME}.predictions", partition) for partition in range(SPREAD)]
            return sum(consumer.get_watermark_offsets(place)[1] for place in places)
        finally:
            consumer.close()


class Server:
    """A process behind an address; `start_s`: until it was ready."""

    def __init__(self, address: str, process: subprocess.Popen[bytes], start_s: float) -> None:
        self.address = address
        self.process = process
        self.start_s = start_s


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ends a process."""
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def await_serving(address: str, process: subprocess.Popen[bytes]) -> None:
    """Returns when the standard health check says SERVING."""
    until_s = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < until_s:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with {process.returncode}: see {FOLDER}/servers.log")
        with grpc.insecure_channel(address) as channel:
            try:
                answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=1)
                if answer.status == health_pb2.HealthCheckResponse.SERVING:
                    return
            except grpc.RpcError:
                pass
        time.sleep(0.02)
    raise RuntimeError(f"{address} was not ready within {_START_TIMEOUT_S:g} s: see {FOLDER}/servers.log")


def await_http(url: str) -> None:
    """Returns when a GET is answered, whatever with."""
    until_s = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < until_s:
        try:
            urllib.request.urlopen(url, timeout=2).close()
            return
        except urllib.error.HTTPError:
            return
        except (TimeoutError, OSError):
            time.sleep(0.2)
    raise RuntimeError(f"{url} did not answer within {_START_TIMEOUT_S:g} s: see {FOLDER}/servers.log")


@contextmanager
def world() -> Iterator[World]:
    """A broker of its own, and what the benchmark needs on it."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    ports = Ports(free_base_port())
    with LocalKafka(FOLDER / "kafka", ports.kafka, ports.controller) as kafka, ExitStack() as stack:
        create_topics(kafka.bootstrap_servers, NAME, 30.0, SPREAD)
        yield World(stack, kafka.bootstrap_servers)
