"""With a collector named, a process's spans and metrics reach it; at the latest when it shuts down."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

pytestmark = pytest.mark.timeout(60)
ROOT = Path(__file__).resolve().parents[2]

WORK = """
from driftloop.telemetry import instruments, setup_telemetry, span
telemetry = setup_telemetry("ingest")
counter = instruments("ingest").counter("events_accepted")
for _ in range(200):
    with span("ingest.Ingest", "") as current:
        counter.add(1, {"event_type": "a"})
telemetry.shutdown()
"""


class Collector(trace_service_pb2_grpc.TraceServiceServicer, metrics_service_pb2_grpc.MetricsServiceServicer):
    """An OTLP collector that keeps what it is sent."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.metrics: dict[str, Any] = {}
        self.services: set[str] = set()

    def Export(self, request: Any, context: Any) -> Any:
        if isinstance(request, trace_service_pb2.ExportTraceServiceRequest):
            for sent in request.resource_spans:
                self._resource(sent)
                self.spans += [each for scope in sent.scope_spans for each in scope.spans]
            return trace_service_pb2.ExportTraceServiceResponse()
        for sent in request.resource_metrics:
            self._resource(sent)
            self.metrics |= {each.name: each for scope in sent.scope_metrics for each in scope.metrics}
        return metrics_service_pb2.ExportMetricsServiceResponse()

    def _resource(self, sent: Any) -> None:
        self.services |= {a.value.string_value for a in sent.resource.attributes if a.key == "service.name"}


@pytest.fixture
def collector() -> Iterator[tuple[Collector, str]]:
    found = Collector()
    server = grpc.server(ThreadPoolExecutor(4))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(found, server)
    metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(found, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield found, f"http://127.0.0.1:{port}"
    server.stop(None).wait(5)


@pytest.mark.parametrize(("ratio", "least", "most"), [("1", 200, 200), ("0.5", 50, 150), ("0", 0, 0)])
def test_the_collector_gets_all_metrics_and_the_sampled_share_of_spans(
    collector: tuple[Collector, str], ratio: str, least: int, most: int
) -> None:
    found, endpoint = collector
    environment = os.environ | {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_TRACES_SAMPLER_ARG": ratio}
    subprocess.run([sys.executable, "-c", WORK], cwd=ROOT, env=environment, check=True, timeout=40)
    accepted = found.metrics["driftloop.ingest.events_accepted"]
    assert sum(point.as_int for point in accepted.sum.data_points) == 200
    assert found.services == {"driftloop-ingest"}
    assert least <= len(found.spans) <= most
    assert len({each.trace_id for each in found.spans}) == len(found.spans)
