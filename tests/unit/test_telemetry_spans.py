"""Sampling is decided before a span is built, follows the caller, and costs nothing while nobody collects."""

from __future__ import annotations

import timeit
from collections.abc import Iterator

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from driftloop.telemetry import current_traceparent, setup_telemetry, span
from driftloop.telemetry.export import TelemetrySettings
from driftloop.telemetry.spans import configure_sampling, parse_traceparent
from tests.spans import recorded_spans

SAMPLED = f"00-{'a' * 32}-{'b' * 16}-01"
UNSAMPLED = f"00-{'a' * 32}-{'b' * 16}-00"


@pytest.fixture
def exporter() -> Iterator[InMemorySpanExporter]:
    """Everything that was sampled."""
    with recorded_spans() as found:
        yield found


def test_a_sampled_span_is_exported_under_the_traceparent_it_gives(exporter: InMemorySpanExporter) -> None:
    with span("work", "", attributes={"n": 1}) as current:
        current.set("m", 2)
        assert current_traceparent() == current.traceparent
    (exported,) = exporter.get_finished_spans()
    context = parse_traceparent(current.traceparent)
    assert context is not None
    assert (exported.context.trace_id, exported.context.span_id) == (context.trace_id, context.span_id)
    assert exported.parent is None
    assert dict(exported.attributes or {}) == {"n": 1, "m": 2}
    assert current_traceparent() == ""


def test_a_span_continues_its_callers_trace_and_links_its_causes(exporter: InMemorySpanExporter) -> None:
    other = f"00-{'c' * 32}-{'d' * 16}-01"
    with span("work", SAMPLED, links=[other, "nonsense", ""]):
        pass
    (exported,) = exporter.get_finished_spans()
    assert f"{exported.context.trace_id:032x}" == "a" * 32
    assert exported.parent is not None
    assert f"{exported.parent.span_id:016x}" == "b" * 16
    assert [f"{link.context.trace_id:032x}" for link in exported.links] == ["c" * 32]


def test_what_turns_out_to_have_a_part_in_the_work_is_linked_where_the_span_is_recorded(
    exporter: InMemorySpanExporter,
) -> None:
    with span("work", SAMPLED) as current:
        assert current.is_recorded
        current.link([f"00-{'c' * 32}-{'d' * 16}-01", "nonsense", ""])
    with span("work", UNSAMPLED) as current:
        assert not current.is_recorded
        current.link([SAMPLED])
    (exported,) = exporter.get_finished_spans()
    assert [f"{link.context.trace_id:032x}" for link in exported.links] == ["c" * 32]


def test_a_span_inside_another_belongs_to_it(exporter: InMemorySpanExporter) -> None:
    with span("outer", "") as outer:
        with span("inner"):
            assert trace.get_current_span().get_span_context().trace_id == parse_traceparent(outer.traceparent).trace_id  # type: ignore[union-attr]
        assert current_traceparent() == outer.traceparent
    inner, outermost = exporter.get_finished_spans()
    assert inner.parent is not None
    assert inner.parent.span_id == outermost.context.span_id


def test_a_callers_choice_not_to_sample_is_kept_and_passed_on(exporter: InMemorySpanExporter) -> None:
    with span("work", UNSAMPLED) as current:
        assert current.traceparent == UNSAMPLED
        with span("inner") as inner:
            assert inner.traceparent == UNSAMPLED
    assert exporter.get_finished_spans() == ()


def test_about_the_asked_share_of_new_traces_is_sampled_and_the_rest_say_so(exporter: InMemorySpanExporter) -> None:
    configure_sampling(0.25)
    given = [span("work", "").traceparent for _ in range(2_000)]
    contexts = [parse_traceparent(text) for text in given]
    assert all(context is not None for context in contexts)
    sampled = sum(context.trace_flags & 1 for context in contexts if context is not None)
    assert 400 < sampled < 600


def test_an_error_is_recorded_and_goes_on(exporter: InMemorySpanExporter) -> None:
    with pytest.raises(LookupError), span("work", ""):
        raise LookupError("gone")
    (exported,) = exporter.get_finished_spans()
    assert exported.status.status_code is trace.StatusCode.ERROR
    assert exported.events[0].name == "exception"


@pytest.mark.parametrize(
    "text",
    ["", "00-xyz", f"00-{'0' * 32}-{'b' * 16}-01", f"ff-{'a' * 32}-{'b' * 16}-01", f"00-{'g' * 32}-{'b' * 16}-01"],
)
def test_what_is_no_traceparent_starts_a_trace_of_its_own(exporter: InMemorySpanExporter, text: str) -> None:
    assert parse_traceparent(text) is None
    with span("work", text):
        pass
    (exported,) = exporter.get_finished_spans()
    assert exported.parent is None


def test_without_a_collector_nothing_is_built_and_what_came_in_travels_on() -> None:
    telemetry = setup_telemetry("ingest", TelemetrySettings(exporter_otlp_endpoint=""))
    assert not telemetry.on
    with span("work", SAMPLED) as current:
        assert current_traceparent() == current.traceparent == SAMPLED
        assert not trace.get_current_span().is_recording()
    telemetry.shutdown()


def test_a_span_that_is_not_sampled_costs_little(exporter: InMemorySpanExporter) -> None:
    def work() -> None:
        with span("work", ""):
            pass

    configure_sampling(0.0)
    assert min(timeit.repeat(work, number=2_000, repeat=5)) / 2_000 < 35e-6  # half of what a built span costs
    configure_sampling(None)
    assert min(timeit.repeat(work, number=2_000, repeat=5)) / 2_000 < 20e-6


def test_sampling_and_endpoint_are_set_by_opentelemetrys_own_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4317")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.5")
    found = TelemetrySettings()
    assert (found.exporter_otlp_endpoint, found.traces_sampler_arg) == ("http://collector:4317", 0.5)
