"""What a heart says belongs to the trace of its causes, in whatever fold it says it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from driftloop.contracts import Message, Record
from driftloop.contracts.event.v1.event_pb2 import Event
from driftloop.contracts.message import watermark
from driftloop.messaging.traces import CausalTraces
from tests.spans import recorded_spans


@pytest.fixture
def exporter() -> Iterator[InMemorySpanExporter]:
    """Everything that was sampled."""
    with recorded_spans() as found:
        yield found


def traceparent(trace: str, flags: str = "01") -> str:
    return f"00-{trace * 32}-{trace * 16}-{flags}"


def message(message_id: str, *causes: str, trace: str = "") -> Message[Any]:
    return Message("events", "k", Event(), message_id, "driftloop/test", 0, 0, causes, traceparent=trace)


def folded(traces: CausalTraces, *taken: Message[Any], said: list[Message[Any]]) -> list[str]:
    """Trace ids, a character each, of what a fold says; "" where it has none."""
    with traces.fold([Record("events", 0, place, m) for place, m in enumerate(taken)]) as traced:
        pass
    traces.carry(traced, said)
    return [m.traceparent[3:4] if m.traceparent.endswith("01") else "" for m in said]


def test_what_is_said_long_after_belongs_to_the_trace_of_its_cause(exporter: InMemorySpanExporter) -> None:
    traces = CausalTraces("matching", 8)
    assert folded(traces, message("p", trace=traceparent("a")), said=[]) == []
    assert folded(traces, said=[message("s", "p", "label"), message("t", "other")]) == ["a", ""]
    assert [span.name for span in exporter.get_finished_spans()] == ["matching fold"] * 2


def test_several_causes_are_all_linked(exporter: InMemorySpanExporter) -> None:
    traces = CausalTraces("matching", 8)
    folded(traces, message("p", trace=traceparent("a")), message("e", trace=traceparent("b")), said=[])
    assert folded(traces, said=[message("s", "p", "e")]) == ["a"]
    last = exporter.get_finished_spans()[-1]
    assert last.parent is not None
    assert f"{last.parent.trace_id:032x}" == "a" * 32
    assert [f"{link.context.trace_id:032x}" for link in last.links] == ["b" * 32]


def test_what_one_output_causes_in_the_same_fold_follows_it(exporter: InMemorySpanExporter) -> None:
    traces = CausalTraces("judging", 8)
    folded(traces, message("s", trace=traceparent("a")), said=[])
    assert folded(traces, said=[message("decision", "s"), message("retrain", "decision")]) == ["a", "a"]


def test_every_trace_that_the_heart_knows_of_gets_a_span_of_this_stage(exporter: InMemorySpanExporter) -> None:
    traces = CausalTraces("aggregation", 8)
    said = [
        message("u", trace=traceparent("a")),
        message("v", trace=traceparent("b")),
        message("w", trace=traceparent("b")),
    ]
    assert folded(traces, message("keyed", trace=traceparent("a")), said=said) == ["a", "b", "b"]
    spans = {f"{span.context.span_id:016x}" for span in exporter.get_finished_spans()}
    assert len(spans) == 2
    assert {m.traceparent.split("-")[2] for m in said} == spans


def test_an_output_without_causes_belongs_to_the_fold_unless_it_is_a_watermark(exporter: InMemorySpanExporter) -> None:
    traces = CausalTraces("rekeying", 8)
    said = [message("k"), watermark("keyed", 0, "rekeying/0", 5), message("left", trace=traceparent("c", "00"))]
    assert folded(traces, message("e", trace=traceparent("a")), said=said) == ["a", "", ""]


def test_where_nothing_is_sampled_nothing_is_traced(exporter: InMemorySpanExporter) -> None:
    traces = CausalTraces("matching", 8)
    assert folded(traces, message("p", trace=traceparent("a", "00")), said=[message("s", "p")]) == [""]
    assert exporter.get_finished_spans() == ()


def test_the_oldest_traces_are_forgotten(exporter: InMemorySpanExporter) -> None:
    traces = CausalTraces("matching", 2)
    folded(traces, *(message(name, trace=traceparent(name)) for name in "abc"), said=[])
    assert Counter(folded(traces, said=[message("s", "a"), message("t", "b"), message("u", "c")])) == Counter(
        ["", "b", "c"]
    )
