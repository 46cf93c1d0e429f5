"""The SDK's half of `spans`: a provider that builds a span under the very trace id the decision was made on."""

from __future__ import annotations

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

from driftloop.telemetry.spans import drawn_trace_id


class _DrawnIds(RandomIdGenerator):
    def generate_trace_id(self) -> int:
        return drawn_trace_id() or super().generate_trace_id()


def sampled_provider(ratio: float, resource: Resource | None = None) -> TracerProvider:
    """A provider that samples `ratio` of new traces and follows a parent's choice; spans built without `span` obey it too."""
    return TracerProvider(sampler=ParentBased(TraceIdRatioBased(ratio)), resource=resource, id_generator=_DrawnIds())
