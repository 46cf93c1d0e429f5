"""What a test's own code traces, and which spans lead to which."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from driftloop.telemetry import spans
from driftloop.telemetry.sampling import sampled_provider

ROUND = [
    ("ingest.IngestBatch", "rekeying fold"),
    ("rekeying fold", "aggregation fold"),
    ("aggregation fold", "serving.FeatureUpdate"),
    ("serving.FeatureUpdate", "serving.PredictBatch"),
    ("serving.PredictBatch", "matching fold"),
    ("matching fold", "judging fold"),
    ("judging fold", "trainer.Retrain"),
    ("trainer.Retrain", "judging fold"),
    ("judging fold", "serving.Release"),
]
"""Spans of which each leads to the next, from an event's arrival around the loop to the release that follows from it."""


@contextmanager
def recorded_spans() -> Iterator[InMemorySpanExporter]:
    """Samples everything; a provider of the test's own, since OpenTelemetry's global one is set once a process."""
    found, before = InMemorySpanExporter(), spans.tracer
    provider = sampled_provider(1.0)
    provider.add_span_processor(SimpleSpanProcessor(found))
    spans.tracer = provider.get_tracer("test")
    spans.configure_sampling(1.0)
    try:
        yield found
    finally:
        spans.tracer = before
        spans.configure_sampling(None)


def edges(found: Iterable[ReadableSpan]) -> Iterator[tuple[str, str]]:
    """The names of every two spans of which one is the other's parent or linked by it; "" where that is none of these."""
    finished = list(found)
    names = {span.context.span_id: span.name for span in finished}
    for span in finished:
        before = [span.parent] if span.parent is not None else []
        for context in (*before, *(link.context for link in span.links)):
            yield names.get(context.span_id, ""), span.name
