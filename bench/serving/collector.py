"""An OpenTelemetry collector that takes everything and keeps nothing: `python -m bench.serving.collector ADDRESS`."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

_SERVICES = (
    "opentelemetry.proto.collector.trace.v1.TraceService",
    "opentelemetry.proto.collector.metrics.v1.MetricsService",
)


def _taken(request: bytes, context: Any) -> bytes:
    return b""


def main() -> None:
    """Serves until it is killed."""
    server = grpc.server(ThreadPoolExecutor(2))
    for service in _SERVICES:
        handlers = {"Export": grpc.unary_unary_rpc_method_handler(_taken)}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    server.add_insecure_port(sys.argv[1])
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    main()
