"""What serving measures; declared in `driftloop.telemetry.metrics`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from driftloop.contracts.serving.v1.serving_pb2 import PredictResponse
from driftloop.telemetry import Instruments, instruments

_US = 1e6


class ServingInstruments:
    """Serving's metrics, recorded by what happened."""

    def __init__(self, declared: Instruments | None = None) -> None:
        declared = declared or instruments("serving")
        self._predictions = declared.counter("predictions")
        self._seconds = declared.histogram("predict_seconds")
        self._refused = declared.counter("calls_refused")
        self._defaulted = declared.counter("inputs_defaulted")
        self._age = declared.histogram("feature_age_seconds")
        self._bundles = declared.counter("bundles")
        self._swap = declared.histogram("swap_seconds")
        self._revision = declared.gauge("release_revision")
        self._spool_records = declared.gauge("spool_records")
        self._spool_bytes = declared.gauge("spool_bytes")
        self._rows = declared.gauge("view_rows")
        self._guardrails = declared.counter("guardrails")
        self._clock = declared.gauge("clock_seconds")
        self._dead_letters = declared.counter("dead_letters")

    def answered(self, method: str, seconds: float, responses: Sequence[PredictResponse]) -> None:
        """A call was answered."""
        self._seconds.record(seconds, {"method": method})
        for arm, count in Counter(response.arm for response in responses).items():
            self._predictions.add(count, {"arm": arm})
        # An input's name begins with its view's; a request feature has none.
        defaulted = Counter(
            name.rpartition("__")[0] or "request" for response in responses for name in response.defaulted
        )
        for view, count in defaulted.items():
            self._defaulted.add(count, {"view": view})
        for response in responses:
            for freshness in response.freshness:
                if freshness.found:
                    self._age.record(freshness.age_us / _US, {"view": freshness.view})

    def refused(self, code: str) -> None:
        """A call was not answered; `code` is gRPC's name."""
        self._refused.add(1, {"code": code})

    def read(self, clock_us: int, rows: int) -> None:
        """A batch of records was taken in."""
        self._clock.set(clock_us / _US, {"stage": "serving"})
        self._rows.set(rows)

    def dead_letter(self, rule: str) -> None:
        """A record was set aside."""
        self._dead_letters.add(1, {"rule": rule})

    def bundle(self, outcome: str) -> None:
        """A bundle was `loaded`, or refused for a reason."""
        self._bundles.add(1, {"outcome": outcome})

    def swapped(self, revision: int, seconds: float) -> None:
        """A release was applied."""
        self._revision.set(revision)
        self._swap.record(seconds)

    def guardrail(self, guardrail: str) -> None:
        """Monitor was told of a finding."""
        self._guardrails.add(1, {"guardrail": guardrail})

    def spooled(self, records: int, size_bytes: int) -> None:
        """The log's backlog changed."""
        self._spool_records.set(records)
        self._spool_bytes.set(size_bytes)
