"""Traces, metrics, logs and health of every service; costs nothing measurable while nobody collects them."""

from driftloop.telemetry.export import Telemetry, TelemetrySettings, setup_telemetry
from driftloop.telemetry.health import (
    Health,
    HealthServer,
    ThreadedHealth,
    add_health_and_reflection,
    serve_health_in_thread,
)
from driftloop.telemetry.logs import setup_logging
from driftloop.telemetry.metrics import METRICS, Instruments, Metric, UndeclaredMetric, instruments
from driftloop.telemetry.spans import SpanHandle, current_traceparent, given_traceparent, span, tracer

__all__ = [
    "METRICS",
    "Health",
    "HealthServer",
    "Instruments",
    "Metric",
    "SpanHandle",
    "Telemetry",
    "TelemetrySettings",
    "ThreadedHealth",
    "UndeclaredMetric",
    "add_health_and_reflection",
    "current_traceparent",
    "given_traceparent",
    "instruments",
    "serve_health_in_thread",
    "setup_logging",
    "setup_telemetry",
    "span",
    "tracer",
]
