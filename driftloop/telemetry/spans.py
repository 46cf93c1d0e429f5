"""Spans whose sampling is decided before they are built, and the traceparent that travels in messages.

A span costs 70 µs; at 1 % sampling nearly all of that would be thrown away. So `span` draws the trace id itself and applies
the rule of OpenTelemetry's ParentBased(TraceIdRatioBased) to it; only a sampled span reaches the SDK, under that very id.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Self

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, SpanKind, Status, StatusCode, TraceFlags

Attribute = str | int | float | bool
_LOW_BITS = (1 << 64) - 1
_TRACEPARENT_CHARACTERS = 55
_current: ContextVar[str] = ContextVar("driftloop_traceparent", default="")
_drawn: ContextVar[int] = ContextVar("driftloop_drawn_trace_id", default=0)

tracer = trace.get_tracer("driftloop")
"""For spans built the usual way; prefer `span`, which is free when the trace is not sampled."""


class _Sampling:
    """The decision's state: tracing is off until `setup_telemetry` finds a collector."""

    on = False
    bound = 0


def configure_sampling(ratio: float | None) -> None:
    """Samples this share of new traces (0 … 1); None turns tracing off."""
    _Sampling.on = ratio is not None
    _Sampling.bound = round((ratio or 0.0) * (_LOW_BITS + 1))


def drawn_trace_id() -> int:
    """The trace id that `span` has drawn for the span being built, or 0: for the SDK's id generator."""
    return _drawn.get()


def parse_traceparent(text: str) -> SpanContext | None:
    """The W3C trace context of a header (00-<32 hex>-<16 hex>-<2 hex>), or None where it is not one."""
    parts = text.split("-")
    if len(parts) != 4 or [len(part) for part in parts] != [2, 32, 16, 2] or parts[0] == "ff":
        return None
    try:
        trace_id, span_id, flags = (int(part, 16) for part in parts[1:])
    except ValueError:
        return None
    found = SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(flags & 1))
    return found if found.is_valid else None


def given_traceparent(text: str) -> str:
    """A caller's traceparent if it looks like one, else ""; it travels in messages as it is."""
    return text if len(text) == _TRACEPARENT_CHARACTERS and text.isascii() else ""


def _format(context: SpanContext) -> str:
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags & 1:02x}"


def current_traceparent() -> str:
    """The traceparent to put in a message or call made now; "" where there is none."""
    return _current.get()


class SpanHandle:
    """One unit of work, as a context manager; `traceparent` is what its messages carry."""

    __slots__ = ("_attached", "_span", "_token", "traceparent")

    def __init__(self, traceparent: str, recording: Span | None = None) -> None:
        self.traceparent = traceparent
        self._span = recording
        self._token: Token[str] | None = None
        self._attached: object | None = None

    @property
    def is_recorded(self) -> bool:
        """Whether what is set or linked here is exported."""
        return self._span is not None

    def set(self, name: str, value: Attribute) -> None:
        """Adds an attribute; does nothing if the trace is not sampled."""
        if self._span is not None:
            self._span.set_attribute(name, value)

    def link(self, traceparents: Iterable[str]) -> None:
        """Links what turned out to have a part in the work; does nothing if the trace is not sampled."""
        if self._span is not None:
            for found in map(parse_traceparent, traceparents):
                if found is not None:
                    self._span.add_link(found)

    def __enter__(self) -> Self:
        self._token = _current.set(self.traceparent)
        if self._span is not None:
            self._attached = otel_context.attach(trace.set_span_in_context(self._span))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trail: TracebackType | None
    ) -> None:
        if self._token is not None:
            _current.reset(self._token)
        if self._span is not None:
            if error is not None:
                self._span.record_exception(error)
                self._span.set_status(Status(StatusCode.ERROR, str(error)))
            otel_context.detach(self._attached)  # type: ignore[arg-type]
            self._span.end()


def span(
    name: str,
    traceparent: str | None = None,
    *,
    attributes: Mapping[str, Attribute] | None = None,
    links: Sequence[str] = (),
    kind: SpanKind = SpanKind.INTERNAL,
) -> SpanHandle:
    """A span under `traceparent` (None: the current one; "": a new trace), linked to the traceparents in `links`.

    Off: what came in travels on unchanged. Not sampled: about a microsecond. A message that caused the work is a link rather
    than a parent where one batch has many causes.
    """
    given = _current.get() if traceparent is None else traceparent
    if not _Sampling.on:
        return SpanHandle(given)
    parent = parse_traceparent(given) if given else None
    if parent is None:
        trace_id = random.getrandbits(128) or 1
        if trace_id & _LOW_BITS >= _Sampling.bound:
            return SpanHandle(f"00-{trace_id:032x}-{random.getrandbits(64) or 1:016x}-00")
        context, token = otel_context.Context(), _drawn.set(trace_id)
    elif not parent.trace_flags & 1:
        return SpanHandle(given)
    else:
        context, token = trace.set_span_in_context(NonRecordingSpan(parent), otel_context.Context()), None
    try:
        linked = [Link(found) for found in map(parse_traceparent, links) if found is not None]
        recording = tracer.start_span(name, context, kind, attributes, linked)
    finally:
        if token is not None:
            _drawn.reset(token)
    return SpanHandle(_format(recording.get_span_context()), recording)
