"""What serving measures; declared in `driftloop.telemetry.metrics`.

Handing a number to the SDK costs four microseconds, a tenth of an answer: counts are kept here and handed over by `publish`,
and of distributions one call in `SAMPLED` is told.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from driftloop.telemetry import Instruments, instruments
from services.serving.assembly import Inputs
from services.serving.view import FeatureView

SAMPLED = 8
_US = 1e6


class CallInstruments:
    """Metrics of calls that reached no use case."""

    def __init__(self, declared: Instruments | None = None) -> None:
        self._refused = (declared or instruments("serving")).counter("calls_refused")
        self._by_code: Counter[str] = Counter()

    def refused(self, code: str) -> None:
        """A call was not answered; `code` is gRPC's name."""
        self._by_code[code] += 1

    def publish(self) -> None:
        """Hands over what was counted since the last time."""
        for code, count in self._by_code.items():
            self._refused.add(count, {"code": code})
        self._by_code.clear()


class ServingInstruments:
    """Serving's metrics for one use case, recorded by what happened. All but `publish` is for the event loop's thread."""

    def __init__(self, use_case: str = "", declared: Instruments | None = None) -> None:
        declared = declared or instruments("serving")
        self._label = {"use_case": use_case}
        self._predictions = declared.counter("predictions")
        self._seconds = declared.histogram("predict_seconds")
        self._defaulted = declared.counter("inputs_defaulted")
        self._age = declared.histogram("feature_age_seconds")
        self._bundles = declared.counter("bundles")
        self._swap = declared.histogram("swap_seconds")
        self._revision = declared.gauge("release_revision")
        self._spool_records = declared.gauge("spool_records")
        self._spool_bytes = declared.gauge("spool_bytes")
        self._rows = declared.gauge("view_rows")
        self._reads = declared.counter("view_reads")
        self._guardrails = declared.counter("guardrails")
        self._clock = declared.gauge("clock_seconds")
        self._dead_letters = declared.counter("dead_letters")
        self._asking = declared.counter("asking_events")
        self._calls = 0
        self._turns = 0
        self._by_arm: Counter[str] = Counter()
        self._by_view: Counter[str] = Counter()
        self._spooled = (0, 0)
        self._clock_us = 0
        self._view: FeatureView | None = None
        self._fetched = 0

    def took(self, method: str, seconds: float) -> None:
        """A call was answered."""
        if self._calls % SAMPLED == 0:
            self._seconds.record(seconds, {"method": method})
        self._calls += 1

    def answered(self, as_of_us: int, arms: Sequence[str], inputs: Inputs) -> None:
        """Requests were answered together: by whom, and from what."""
        if self._turns % SAMPLED == 0:
            for packed in [column[0] for column in inputs.views]:
                if packed.found:
                    self._age.record(max(0, as_of_us - packed.known_at_us) / _US, {"view": packed.view})
        self._turns += 1
        if len(arms) == 1:
            self._by_arm[arms[0]] += 1
        else:
            self._by_arm.update(arms)
        for names in filter(None, inputs.defaulted):
            for name in names:
                # An input's name begins with its view's; a request feature has none.
                self._by_view[name.rpartition("__")[0] or "request"] += 1

    def fetched(self, count: int) -> None:
        """Feature entities that the view had dropped came from the online store."""
        self._fetched += count

    def read(self, clock_us: int, view: FeatureView) -> None:
        """A batch of records was taken in."""
        self._clock_us, self._view = clock_us, view

    def dead_letter(self, rule: str) -> None:
        """A record was set aside."""
        self._dead_letters.add(1, {"rule": rule})

    def asking(self, outcome: str, count: int) -> None:
        """Events that ask for a prediction: `answered`, or why not."""
        self._asking.add(count, {"outcome": outcome})

    def bundle(self, outcome: str) -> None:
        """A bundle was `loaded`, or refused for a reason."""
        self._bundles.add(1, {"outcome": outcome})

    def swapped(self, revision: int, seconds: float) -> None:
        """A release was applied."""
        self._revision.set(revision, self._label)
        self._swap.record(seconds)

    def guardrail(self, guardrail: str) -> None:
        """Monitor was told of a finding."""
        self._guardrails.add(1, {"guardrail": guardrail})

    def spooled(self, records: int, size_bytes: int) -> None:
        """The log's backlog changed."""
        self._spooled = records, size_bytes

    def publish(self) -> None:
        """Hands over what was counted since the last time."""
        for counter, label, counted in (
            (self._predictions, "arm", self._by_arm),
            (self._defaulted, "view", self._by_view),
            (self._reads, "outcome", self._read_outcomes()),
        ):
            for value, count in counted.items():
                counter.add(count, {label: value})
            counted.clear()
        records, size_bytes = self._spooled
        self._spool_records.set(records, self._label)
        self._spool_bytes.set(size_bytes, self._label)
        self._clock.set(self._clock_us / _US, {"stage": f"serving/{self._label['use_case']}"})
        self._rows.set(0 if self._view is None else len(self._view), self._label)

    def _read_outcomes(self) -> Counter[str]:
        if self._view is None:
            return Counter()
        hits, misses = self._view.hits, self._view.misses
        self._view.hits = self._view.misses = 0
        fetched, self._fetched = self._fetched, 0
        found = {"hit": hits, "fetched": fetched, "unknown": max(0, misses - fetched)}
        return Counter({outcome: count for outcome, count in found.items() if count})
