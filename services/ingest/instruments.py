"""What ingest measures; declared in `driftloop.telemetry.metrics`."""

from __future__ import annotations

from driftloop.telemetry import Instruments, instruments


class IngestInstruments:
    """Ingest's metrics, by name."""

    def __init__(self, declared: Instruments | None = None) -> None:
        declared = declared or instruments("ingest")
        self.accepted = declared.counter("events_accepted")
        self.duplicate = declared.counter("events_duplicate")
        self.rejected = declared.counter("events_rejected")
        self.dead_letters = declared.counter("dead_letters")
        self.refused = declared.counter("calls_refused")
        self.call_seconds = declared.histogram("call_seconds")
        self.in_flight = declared.gauge("events_in_flight")
        self.window_ids = declared.gauge("window_ids")
        self.watermarks = declared.counter("watermarks")
        self.unmet = declared.counter("expectations_unmet")
        self.incidents = declared.counter("incidents")
        self.inbox_lag = declared.gauge("lag_records")
        self.clock = declared.gauge("clock_seconds")
