"""Settings that cannot be are said in one line, by the names of their variables, before a service starts."""

from __future__ import annotations

import importlib

import pytest
from click.testing import CliRunner

from driftloop.cli.__main__ import main


@pytest.mark.parametrize(
    ("service", "wrong", "said"),
    [
        *(
            (service, {"KAFKA_BOOTSTRAP_SERVERS": servers}, "KAFKA_BOOTSTRAP_SERVERS: names no broker")
            for service, servers in (
                ("ingest", ""),
                ("features", ""),
                ("serving", ""),
                ("monitor", ""),
                ("trainer", ""),
                ("serving", " , "),
            )
        ),
        ("ingest", {"INGEST_IN_FLIGHT_MAX": "300"}, "INGEST_IN_FLIGHT_MAX is 300, below INGEST_BATCH_EVENTS_MAX, 5000"),
        ("features", {"DRIFTLOOP_CHECKPOINT_S": "often"}, "DRIFTLOOP_CHECKPOINT_S: Input should be a valid number"),
        ("serving", {"KAFKA_SASL_MECHANISM": "hunter2"}, "KAFKA_SASL_MECHANISM: Input should be 'PLAIN'"),
        ("serving", {"DRIFTLOOP_REPLICA": "-1"}, "DRIFTLOOP_REPLICA: Input should be greater than or equal to 0"),
        ("monitor", {"MONITOR_STAGES": "both"}, "MONITOR_STAGES: stages is a list of matching, judging"),
        (
            "monitor",
            {"MONITOR_ADDRESS": "127.0.0.1:99999"},
            "MONITOR_ADDRESS: there is no port 99999, they end at 65535",
        ),
        (
            "serving",
            {"SERVING_HTTP_ADDRESS": ":65536"},
            "SERVING_HTTP_ADDRESS: there is no port 65536, they end at 65535",
        ),
        (
            "trainer",
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "ftp://x:1"},
            "OTEL_EXPORTER_OTLP_ENDPOINT: write http(s)://host:port",
        ),
        (
            "ingest",
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://"},
            "OTEL_EXPORTER_OTLP_ENDPOINT: write http(s)://host:port",
        ),
        (
            "features",
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x:p"},
            "OTEL_EXPORTER_OTLP_ENDPOINT: write http(s)://host:port",
        ),
    ],
)
def test_a_service_does_not_start_with_settings_that_cannot_be(
    service: str, wrong: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in wrong.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(f"services.{service}.__main__").main()
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"cannot start: {said}")
    assert "hunter2" not in line


def test_a_command_says_which_variable_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_ANSWER_TIMEOUT_S", "soon")
    found = CliRunner().invoke(main, ["incidents"])
    assert found.exit_code == 2
    assert "Error: KAFKA_ANSWER_TIMEOUT_S: Input should be a valid number" in found.output
