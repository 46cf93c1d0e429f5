"""Metrics are declared once, well formed, and nothing undeclared can be recorded."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from driftloop.telemetry import METRICS, Metric, UndeclaredMetric, instruments
from driftloop.telemetry.metrics import SERVICES, SHARED


def test_every_metric_says_its_unit_and_meaning_and_belongs_to_a_service() -> None:
    for metric in METRICS.values():
        assert re.fullmatch(r"[a-z][a-z_]*", metric.name), metric
        assert metric.service in (*SERVICES, SHARED), metric
        assert metric.unit, metric
        assert metric.meaning.endswith("."), metric
        assert (metric.kind == "histogram") == bool(metric.buckets), metric
        assert list(metric.buckets) == sorted(metric.buckets), metric


def test_the_unit_stands_in_the_name_of_what_is_measured_in_seconds_or_bytes() -> None:
    for metric in METRICS.values():
        assert (metric.unit == "s") == metric.name.endswith("_seconds"), metric
        assert (metric.unit == "By") == metric.name.endswith("_bytes"), metric


def test_no_service_declares_what_all_of_them_share() -> None:
    shared = {metric.name for metric in METRICS.values() if metric.service == SHARED}
    assert not [metric for metric in METRICS.values() if metric.service != SHARED and metric.name in shared]
    counted = Counter(metric.prometheus_name for metric in METRICS.values())
    assert set(counted.values()) == {1}


def test_names_as_a_dashboard_queries_them() -> None:
    names = {metric.prometheus_name for metric in METRICS.values()}
    assert "driftloop_ingest_events_accepted_total" in names
    assert "driftloop_clock_seconds" in names
    assert "driftloop_serving_predict_seconds" in names


def test_what_is_recorded_reaches_the_reader_under_its_declared_name() -> None:
    reader = InMemoryMetricReader()
    declared = instruments("ingest", MeterProvider([reader]))
    declared.counter("events_accepted").add(2, {"event_type": "a"})
    declared.gauge("clock_seconds").set(7.5, {"stage": "ingest"})
    declared.histogram("call_seconds").record(0.003, {"method": "Ingest"})
    data = reader.get_metrics_data()
    assert data is not None
    found = {m.name: m for r in data.resource_metrics for s in r.scope_metrics for m in s.metrics}
    assert set(found) == {
        "driftloop.ingest.events_accepted",
        "driftloop.clock_seconds",
        "driftloop.ingest.call_seconds",
    }
    assert found["driftloop.ingest.events_accepted"].data.data_points[0].value == 2  # type: ignore[union-attr]
    (point,) = found["driftloop.ingest.call_seconds"].data.data_points
    assert tuple(point.explicit_bounds) == METRICS["driftloop.ingest.call_seconds"].buckets  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "ask",
    [
        lambda: instruments("billing"),
        lambda: instruments("ingest").counter("events_eaten"),
        lambda: instruments("ingest").counter("updates"),  # of features
        lambda: instruments("ingest").counter("clock_seconds"),  # a gauge
        lambda: instruments("ingest").histogram("events_accepted"),
    ],
)
def test_an_undeclared_metric_cannot_be_had(ask: object) -> None:
    with pytest.raises(UndeclaredMetric):
        ask()  # type: ignore[operator]


def test_a_metric_is_a_plain_value() -> None:
    metric = Metric("serving", "calls", "counter", "{call}", "Calls.")
    assert (metric.otel_name, metric.prometheus_name) == ("driftloop.serving.calls", "driftloop_serving_calls_total")
