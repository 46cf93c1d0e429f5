"""Sends traces and metrics to an OTLP collector if one is named; otherwise builds nothing at all."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable
from urllib.parse import urlsplit

from opentelemetry import metrics, trace
from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from driftloop.telemetry.spans import configure_sampling


class TelemetrySettings(BaseSettings):
    """Read from OpenTelemetry's own environment variables, so that what operators know about them holds here."""

    model_config = SettingsConfigDict(env_prefix="OTEL_", extra="ignore")

    exporter_otlp_endpoint: str = Field(
        default="", description="http(s)://host:port of an OTLP gRPC collector; empty: telemetry is off"
    )
    traces_sampler_arg: float = Field(
        default=0.01, ge=0, le=1, description="share of new traces that are sampled; a parent's choice is kept"
    )
    metric_export_interval: int = Field(
        default=15_000, gt=0, description="ms between two exports of metrics: a scrape interval's length"
    )
    exporter_otlp_timeout: float = Field(
        default=5.0, gt=0, description="s that one export may take: a slow collector must not hold work up"
    )
    bsp_max_queue_size: int = Field(default=2048, gt=0, description="spans waiting for export; more are dropped")

    @field_validator("exporter_otlp_endpoint")
    @classmethod
    def _is_an_endpoint(cls, endpoint: str) -> str:
        try:
            parts = urlsplit(endpoint if "://" in endpoint else f"//{endpoint}")
            is_one = parts.scheme in ("", "http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:  # of a port that is no number
            is_one = False
        if endpoint and not is_one:
            raise ValueError("write http(s)://host:port")
        return endpoint


class Telemetry:
    """What `setup_telemetry` has started. `on` is False where nothing is collected."""

    def __init__(self, on: bool, stops: tuple[Callable[[], object], ...] = ()) -> None:
        self.on = on
        self._stops = stops

    def shutdown(self) -> None:
        """Exports what is left (each exporter within its timeout) and stops; calling it twice does no harm."""
        stops, self._stops = self._stops, ()
        for stop in stops:
            stop()


class _Once(logging.Filter):
    """Lets the first complaint of an exporter pass, in a sentence of ours: it tries again for ever, and it is no fault."""

    def __init__(self, endpoint: str) -> None:
        super().__init__()
        self._endpoint = endpoint
        self._said = False

    def filter(self, record: logging.LogRecord) -> bool:
        if self._said:
            return False
        self._said = True
        record.msg = "no collector takes telemetry at %s: it is tried again at every export, and this is said once"
        record.args = (self._endpoint,)
        record.exc_info = None
        record.levelno, record.levelname = logging.INFO, "INFO"
        return True


def say_once_that_nobody_listens(endpoint: str) -> None:
    """Keeps the exporters from telling at every export that no collector runs: that is a choice, not an error."""
    once = _Once(endpoint)
    for name in (
        "opentelemetry.exporter.otlp.proto.grpc.exporter",
        "opentelemetry.sdk._shared_internal",
        "opentelemetry.sdk.metrics._internal.export",
    ):
        logging.getLogger(name).addFilter(once)


def setup_telemetry(service: str, settings: TelemetrySettings | None = None) -> Telemetry:
    """Starts export of traces and metrics under `service.name` = driftloop-<service>; call it once, in `__main__`."""
    settings = settings or TelemetrySettings()
    if not settings.exporter_otlp_endpoint:
        configure_sampling(None)
        return Telemetry(on=False)
    # Imported only here: the exporters cost a process 0.3 s that it need not pay when telemetry is off.
    from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    from driftloop.telemetry.metrics import Instruments
    from driftloop.telemetry.process import observe_process
    from driftloop.telemetry.sampling import sampled_provider

    # Replicas and workers are told apart by where they run: without it, one's numbers would overwrite the other's.
    instance = f"{socket.gethostname()}-{os.getpid()}"
    resource = Resource.create({"service.name": f"driftloop-{service}", "service.instance.id": instance})
    endpoint, insecure = settings.exporter_otlp_endpoint, not settings.exporter_otlp_endpoint.startswith("https")
    spans = OTLPSpanExporter(endpoint=endpoint, insecure=insecure, timeout=settings.exporter_otlp_timeout)
    traces = sampled_provider(settings.traces_sampler_arg, resource)
    traces.add_span_processor(BatchSpanProcessor(spans, max_queue_size=settings.bsp_max_queue_size))
    reader = PeriodicExportingMetricReader(
        OTLPMetricExporter(endpoint=endpoint, insecure=insecure, timeout=settings.exporter_otlp_timeout),
        export_interval_millis=settings.metric_export_interval,
    )
    meters = MeterProvider([reader], resource)
    observe_process(Instruments(service, meters))
    say_once_that_nobody_listens(endpoint)
    trace.set_tracer_provider(traces)
    metrics.set_meter_provider(meters)
    configure_sampling(settings.traces_sampler_arg)
    return Telemetry(True, (traces.shutdown, meters.shutdown))
