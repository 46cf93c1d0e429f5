"""Logs to stderr, one line per record; an exception is folded into its record's line."""

from __future__ import annotations

import logging
import sys
import time

from opentelemetry import trace

_QUIET = ("grpc", "aiokafka", "kafka", "faust", "mode", "opentelemetry", "asyncio")
"""Libraries that report their own routine at INFO; their warnings are kept."""


class OneLine(logging.Formatter):
    """`2013-03-01T12:00:00.123Z INFO  ingest services.ingest.handlers: text`, with `trace=<id>` inside a sampled span."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        text = record.getMessage()
        if record.exc_info:
            text += " | " + self.formatException(record.exc_info)
        found = trace.get_current_span().get_span_context()
        if found.is_valid and found.trace_flags & 1:
            text += f" trace={found.trace_id:032x}"
        text = text.replace("\r", "\\r").replace("\n", "\\n")
        return f"{stamp}.{int(record.msecs):03d}Z {record.levelname:<7} {self._service} {record.name}: {text}"


def setup_logging(service: str, level: str = "INFO") -> None:
    """Routes every log record of the process to stderr; call it once, in `__main__`. `level` is a name of `logging`'s levels."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLine(service))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    logging.captureWarnings(True)
