"""The chain of causes, both ways, as text and as linked spans."""

from __future__ import annotations

from itertools import pairwise

import pytest
from click.testing import CliRunner
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from driftloop.cli.__main__ import main
from driftloop.cli.trace import STAGES, Chain, describe
from driftloop.contracts import Message, topics
from driftloop.telemetry.chains import ExportFailed, export_chain

PATH = ["events", "features", "predictions", "scores", "drift", "retrain", "models", "decisions", "releases"]


def message(topic: str, message_id: str, at_us: int, *causes: str) -> Message:
    return Message(topic, "k", topics()[topic].payload_class(), message_id, "driftloop/test", at_us, at_us, causes)


def chain_of(path=tuple(PATH)) -> dict[str, Message]:
    found = {}
    before: tuple[str, ...] = ()
    for at_us, topic in enumerate(path):
        found[f"{topic}-1"] = message(topic, f"{topic}-1", at_us, *before)
        before = (f"{topic}-1",)
    found["events-2"] = message("events", "events-2", 0)
    return found


def test_every_cause_and_consequence_is_found_from_the_middle():
    links = Chain(chain_of()).around("scores-1")
    distances = {link.message.topic: link.distance for link in links}
    assert distances["events"] == -3
    assert distances["releases"] == 5
    assert "events-2" not in {link.message.id for link in links}


def test_one_full_path_leads_from_an_event_to_the_release():
    assert [m.topic for m in Chain(chain_of()).event_to_release("releases-1")] == PATH


def test_a_chain_that_is_broken_is_no_chain():
    messages = chain_of()
    del messages["drift-1"]
    assert Chain(messages).event_to_release("releases-1") == []


def test_every_kind_of_message_can_be_told_to_a_person():
    for stage in STAGES:
        assert isinstance(describe(message(stage, "x", 1)), str)


def test_spans_are_linked_to_the_spans_of_their_causes():
    exporter = InMemorySpanExporter()
    assert export_chain(list(chain_of().values()), exporter) == 10
    spans = {span.attributes["driftloop.id"]: span for span in exporter.get_finished_spans()}
    for before, after in pairwise(PATH):
        assert spans[f"{before}-1"].context.span_id in {link.context.span_id for link in spans[f"{after}-1"].links}


class FullCollector(SpanExporter):
    """A collector that takes nothing."""

    def export(self, spans):
        return SpanExportResult.FAILURE


def test_spans_that_the_collector_does_not_take_are_no_export():
    with pytest.raises(ExportFailed, match="0 of 10"):
        export_chain(list(chain_of().values()), FullCollector())


def test_an_export_without_an_endpoint_is_wrong_use(monkeypatch):
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", raising=False)
    result = CliRunner().invoke(main, ["trace", "x", "--otlp"])
    assert result.exit_code == 2
    assert "OTEL_EXPORTER_OTLP_ENDPOINT" in result.output
