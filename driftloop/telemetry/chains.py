"""Exports a chain of messages as linked spans: one span per message, linked to the spans of its causes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from driftloop.contracts import Message

SPANS_PER_REQUEST = 512


class ExportFailed(Exception):
    """The collector did not take the spans."""


def export_chain(messages: Sequence[Message[Any]], exporter: SpanExporter | None = None) -> int:
    """Exports the messages, causes before consequences, and returns how many spans that were.

    All spans share one trace. A span starts when the message's content happened and ends when it was known (use-case time).
    Without `exporter`, OTLP over gRPC to OTEL_EXPORTER_OTLP_ENDPOINT. Raises ExportFailed at the first part that is not taken.
    """
    collected = InMemorySpanExporter()
    provider = TracerProvider(resource=Resource.create({"service.name": "driftloop-chain"}))
    provider.add_span_processor(SimpleSpanProcessor(collected))
    tracer = provider.get_tracer("driftloop.chains")
    contexts: dict[str, trace.SpanContext] = {}
    ordered = sorted(messages, key=lambda message: (message.known_at_us, message.id))
    known = {message.id for message in ordered}
    left = ordered
    root: trace.SpanContext | None = None
    while left:
        ready = [m for m in left if all(cause in contexts or cause not in known for cause in m.causes)] or left[:1]
        for message in ready:
            links = [trace.Link(contexts[cause]) for cause in message.causes if cause in contexts]
            parent = trace.set_span_in_context(trace.NonRecordingSpan(root)) if root is not None else None
            span = tracer.start_span(
                f"{message.source.removeprefix('driftloop/')} {message.topic}",
                context=parent,
                links=links,
                start_time=message.time_us * 1000,
                attributes={"driftloop.id": message.id, "driftloop.topic": message.topic, "driftloop.key": message.key},
            )
            span.end(end_time=max(message.time_us, message.known_at_us) * 1000)
            contexts[message.id] = span.get_span_context()
            root = root or contexts[message.id]
        done = {message.id for message in ready}
        left = [message for message in left if message.id not in done]
    spans = collected.get_finished_spans()
    exporter = exporter or OTLPSpanExporter()
    try:
        for first in range(0, len(spans), SPANS_PER_REQUEST):
            if exporter.export(spans[first : first + SPANS_PER_REQUEST]) is not SpanExportResult.SUCCESS:
                raise ExportFailed(f"{first} of {len(spans)} spans were taken: is a collector running at the endpoint?")
    finally:
        exporter.shutdown()
    return len(spans)
