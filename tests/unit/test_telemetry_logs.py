"""Logs go to stderr, one line per record."""

from __future__ import annotations

import logging

import pytest

from driftloop.telemetry import setup_logging
from driftloop.telemetry.logs import OneLine


def test_a_record_is_one_line_with_its_exception() -> None:
    try:
        raise LookupError("first\nsecond")
    except LookupError as error:
        record = logging.LogRecord(
            "a.b", logging.ERROR, "f", 1, "it %s\nso", ("broke",), (type(error), error, error.__traceback__)
        )
    line = OneLine("ingest").format(record)
    assert "\n" not in line
    assert " ERROR   ingest a.b: it broke\\nso | Traceback" in line
    assert line.endswith("LookupError: first\\nsecond")


def test_logs_go_to_stderr_and_libraries_keep_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        setup_logging("ingest", "INFO")
        logging.getLogger("services.ingest").info("ready")
        logging.getLogger("aiokafka").info("joined a group")
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        logging.captureWarnings(False)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.endswith("INFO    ingest services.ingest: ready\n")
