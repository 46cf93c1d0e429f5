"""Tells faults of data from changes of the world: a source whose field changes its unit, sticks, or goes missing; asks for nothing.

Every field that features are made of is held against its own history, source by source. A source is the entity that tells of events
again and again (a weather station); events about what is predicted (a flight) are one source per type. All statistics are robust,
state is bounded, and time is the use-case clock.

- stuck: a run of one value much longer than any before it.
- missing: a run of events without the field, or a silence of the source, much longer than any before.
- unit: values that history has never shown, one after the other, where the sensor's resolution had made values recur; or, where it
  had not, medians of blocks far outside all medians before.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from math import inf
from statistics import median
from typing import Any, Literal

from driftloop.contracts.event.v1.event_pb2 import Event
from driftloop.usecase import DAY_US, HOUR_US, UseCase

Fault = Literal["unit", "stuck", "missing", "silent"]
HISTORY_VALUES = (
    200  # of a field, before anything is said of it: a week of hourly readings, and a day's nights and noons
)
HISTORY_US = 7 * DAY_US  # of a source, before its silence is too long: nights and a weekend
SERIES_MAX = 2_000  # about 10 KB each; of more sources the newest are not watched
DISTINCT_MAX = 1_024  # values of a field that recur; more, and it has no resolution to go by
RECENT = 16  # newest values that a change of unit is seen in
NOVEL_MIN = 13  # of them that history has never shown
LEARNED_MIN = 300  # values other than zero of which history consists before one between them is new to it
RECORDS_MIN = 1_000  # the same for values beyond all others: a storm breaks records, as long as there are few
FIRST_SEEN = 30  # values that are new because history begins
RESTING_SHARE = (
    0.25  # of the values: where a sensor rests so often (no rain, clear sight), long runs of it are no fault
)
RECURRING_MIN = 0.9  # of a field's values must have been seen before, or it has no resolution to go by
RUN_TIMES, RUN_MIN = 4, 12  # a run is stuck at so many times the longest before it, and at so many values at the least
GAP_TIMES, GAP_EVENTS = 6, 12  # the same for a silence, the second in median gaps
HEALTHY = 3  # values in a row that end an incident, for a change of unit NOVEL_MIN of RECENT
BLOCK, BLOCK_MAX = 24, 512  # values per median, of a whole day: a night is no change of unit, nor is a storm
BLOCKS_MIN, BLOCKS_MAX = 20, 200  # medians before one is judged, and medians kept
OUT_SHARE, OUT_BLOCKS = 0.75, 3  # of the medians' whole range beyond it, for so many medians in a row
# After so many values, or so long, in the new state it is what is normal: the incident ends, and history begins anew.
NEW_NORMAL_VALUES, NEW_NORMAL_US = 2_000, 14 * DAY_US


@dataclass(frozen=True)
class Finding:
    """A fault that begins (`to_us` 0) or ends. `key`: the entity that is the source, empty: all of the type. Use-case times."""

    fault: Fault
    event_type: str
    field: str
    key: str
    from_us: int
    to_us: int
    what: str
    last_id: str = ""  # of a silence: the last event before it


@dataclass(slots=True)
class _Open:
    fault: Fault
    from_us: int
    values: int = 0  # since it was opened
    healthy: int = 0


class FieldHistory:
    """One field of one source. Values are floats; None: the event left it out."""

    def __init__(self) -> None:
        self.open: _Open | None = None
        self._start_over()

    def _start_over(self) -> None:
        self._values = 0
        self._counts: dict[float, int] | None = {}
        self._learned = self._repeated = self._zeros = 0
        self._recent: deque[tuple[float, int]] = deque(maxlen=RECENT)  # not zero, not yet in `counts`
        self._run, self._run_value, self._run_us, self._longest_run = 0, 0.0, 0, 1
        self._absent, self._absent_us, self._longest_absent = 0, 0, 0
        self._block: list[float] = []
        self._medians: list[float] = []
        self._block_us = self._out = self._out_us = 0

    def add(self, value: float | None, at_us: int) -> tuple[Fault, int, int, str] | None:
        """Takes in what one event says: (fault, from, to, words) where an incident begins (to 0) or ends."""
        if self.open is not None:
            return self._while_open(self.open, value, at_us)
        found = self._missing(at_us) if value is None else self._present(value, at_us)
        if found is not None:
            fault, from_us, words = found
            self.open = _Open(fault, from_us)
            return fault, from_us, 0, words
        return None

    def _missing(self, at_us: int) -> tuple[Fault, int, str] | None:
        self._absent_us = at_us if not self._absent else self._absent_us
        self._absent += 1
        if self._values >= HISTORY_VALUES and self._absent > max(RUN_MIN, RUN_TIMES * self._longest_absent):
            usual = f"the longest such run before was {self._longest_absent}"
            return "missing", self._absent_us, f"{self._absent} events in a row came without it; {usual}"
        return None

    def _present(self, value: float, at_us: int) -> tuple[Fault, int, str] | None:
        self._longest_absent = max(self._longest_absent, self._absent)
        self._absent = 0
        self._values += 1
        return self._stuck(value, at_us) or self._other_unit(value, at_us)

    def _stuck(self, value: float, at_us: int) -> tuple[Fault, int, str] | None:
        if self._run and value == self._run_value:
            self._run += 1
        else:
            self._longest_run = max(self._longest_run, self._run)
            self._run, self._run_value, self._run_us = 1, value, at_us
        too_long = self._values >= HISTORY_VALUES and self._run > max(RUN_MIN, RUN_TIMES * self._longest_run)
        if too_long and self._often(value) < RESTING_SHARE * self._values:
            usual = f"the longest such run before was {self._longest_run}"
            return "stuck", self._run_us, f"it was {value:g} {self._run} times in a row; {usual}"
        return None

    def _other_unit(self, value: float, at_us: int) -> tuple[Fault, int, str] | None:
        if value == 0.0:  # is zero in any unit that scales
            self._zeros += 1
            return self._block_of(value, at_us)
        counts = self._counts
        if counts is not None:
            if len(self._recent) == RECENT:
                self._learn(counts, self._recent[0][0])
            self._recent.append((value, at_us))
            if len(self._recent) == RECENT and self._learned >= LEARNED_MIN and self._recurs:
                low, high = (min(counts), max(counts)) if self._learned < RECORDS_MIN else (-inf, inf)
                novel = [at for known, at in self._recent if known not in counts and low < known < high]
                if len(novel) >= NOVEL_MIN:
                    of = f"{len(novel)} of its newest {len(self._recent)} values"
                    return "unit", novel[0], f"{of} are none of the {len(counts)} that it ever had"
        return self._block_of(value, at_us)

    def _often(self, value: float) -> int:
        """How often a value came before."""
        return self._zeros if value == 0.0 else (self._counts or {}).get(value, 0)

    @property
    def _recurs(self) -> bool:
        """Whether history has a resolution: but for its beginning, nearly every value came before."""
        return self._counts is not None and self._repeated >= RECURRING_MIN * self._learned - FIRST_SEEN

    def _learn(self, counts: dict[float, int], value: float) -> None:
        self._learned += 1
        self._repeated += value in counts
        counts[value] = counts.get(value, 0) + 1
        if len(counts) > DISTINCT_MAX:
            self._counts = None

    def _block_of(self, value: float, at_us: int) -> tuple[Fault, int, str] | None:
        if not self._block:
            self._block_us = at_us
            self._out_us = self._out_us if self._out else at_us
        if len(self._block) < BLOCK_MAX:
            self._block.append(value)
        if len(self._block) < BLOCK or at_us - self._block_us < DAY_US - HOUR_US:
            return None
        middle, self._block = median(self._block), []
        if len(self._medians) >= BLOCKS_MIN:
            low, high = min(self._medians), max(self._medians)
            beyond = OUT_SHARE * (high - low)
            if not low - beyond <= middle <= high + beyond and high > low:
                self._out += 1
                if self._out >= OUT_BLOCKS:
                    words = f"medians of {BLOCK} values are about {middle:g}, and were from {low:g} to {high:g}"
                    return "unit", self._out_us, words
                return None
        self._out = 0
        self._medians.append(middle)
        del self._medians[:-BLOCKS_MAX]
        return None

    def _while_open(self, opened: _Open, value: float | None, at_us: int) -> tuple[Fault, int, int, str] | None:
        opened.values += 1
        if opened.values > NEW_NORMAL_VALUES or (opened.values > BLOCK and at_us - opened.from_us > NEW_NORMAL_US):
            self.open = None
            self._start_over()
            return (
                opened.fault,
                opened.from_us,
                at_us,
                f"after {opened.values} events it is taken for what is normal now",
            )
        healthy, needed = self._is_healthy(opened, value), NOVEL_MIN if opened.fault == "unit" else HEALTHY
        if healthy is None:
            return None
        opened.healthy = opened.healthy + 1 if healthy else 0
        if opened.healthy < needed:
            return None
        self.open = None
        self._recent.clear()
        self._run = self._absent = self._out = 0
        self._block = []
        return opened.fault, opened.from_us, at_us, "it is as it was before"

    def _is_healthy(self, opened: _Open, value: float | None) -> bool | None:
        """Whether a value speaks for the end; None: it says nothing."""
        if value is None:
            return False
        if opened.fault == "stuck":
            before, self._run_value = self._run_value, value
            return value != before
        if opened.fault == "unit":
            if self._out >= OUT_BLOCKS:
                return min(self._medians) <= value <= max(self._medians)
            return None if value == 0.0 else self._counts is not None and value in self._counts
        return True

    def snapshot(self) -> dict[str, Any]:
        """State as plain values."""
        opened = self.open
        return {
            "open": None if opened is None else [opened.fault, opened.from_us, opened.values, opened.healthy],
            "counts": None if self._counts is None else list(self._counts.items()),
            "numbers": [self._values, self._learned, self._repeated, self._zeros],
            "recent": list(self._recent),
            "run": [self._run, self._run_value, self._run_us, self._longest_run],
            "absent": [self._absent, self._absent_us, self._longest_absent],
            "blocks": [self._block, self._block_us, self._medians, self._out, self._out_us],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Takes a snapshot back."""
        self.open = None if state["open"] is None else _Open(*state["open"])
        self._counts = None if state["counts"] is None else {value: count for value, count in state["counts"]}
        self._values, self._learned, self._repeated, self._zeros = state["numbers"]
        self._recent = deque(((value, at_us) for value, at_us in state["recent"]), maxlen=RECENT)
        self._run, self._run_value, self._run_us, self._longest_run = state["run"]
        self._absent, self._absent_us, self._longest_absent = state["absent"]
        block, self._block_us, medians, self._out, self._out_us = state["blocks"]
        self._block, self._medians = list(block), list(medians)


class SourceHistory:
    """When a source was heard: its gaps in use-case time."""

    def __init__(self) -> None:
        self.last_us, self.last_id = 0, ""
        self.from_us = 0  # of the silence that is told of; 0: none
        self._heard, self._first_us = 0, 0
        self._longest_us = 0
        self._gaps: deque[int] = deque(maxlen=2 * BLOCK)

    def heard(self, event_id: str, at_us: int) -> tuple[int, int] | None:
        """The source tells of something: from and to of the silence that ends with it, if one was told of."""
        ended = None
        if self.from_us:
            ended, self.from_us = (self.from_us, at_us), 0
        elif self._heard:
            gap_us = at_us - self.last_us
            self._longest_us = max(self._longest_us, gap_us)
            self._gaps.append(gap_us)
        self._first_us = self._first_us or at_us
        self.last_us, self.last_id = max(self.last_us, at_us), event_id
        self._heard += 1
        return ended

    def silent(self, clock_us: int) -> bool:
        """Whether a silence begins to be too long now."""
        if self.from_us or self._heard < HISTORY_VALUES or self.last_us - self._first_us < HISTORY_US:
            return False
        longest_us = max(GAP_TIMES * self._longest_us, GAP_EVENTS * median(self._gaps))
        if clock_us - self.last_us <= longest_us:
            return False
        self.from_us = self.last_us
        return True

    def snapshot(self) -> list[Any]:
        """State as plain values."""
        return [
            self.last_us,
            self.last_id,
            self.from_us,
            self._heard,
            self._first_us,
            self._longest_us,
            list(self._gaps),
        ]

    def restore(self, state: list[Any]) -> None:
        """Takes a snapshot back."""
        self.last_us, self.last_id, self.from_us, self._heard, self._first_us, self._longest_us, gaps = state
        self._gaps.extend(gaps)


class SourceWatch:
    """All sources of one partition of `events`."""

    def __init__(self, use_case: UseCase) -> None:
        subject = use_case.predict.on.entity
        watched: dict[str, set[str]] = {}
        self._own_sources: set[str] = set()
        for view in use_case.views:
            fields = watched.setdefault(view.event.name, set())
            fields.update(name for name in view.of if view.event.fields[name].is_numeric)
            if view.event.entity != subject:
                self._own_sources.add(view.event.name)
        self._watched: dict[str, tuple[str, ...]] = {name: tuple(sorted(fields)) for name, fields in watched.items()}
        self._fields: dict[tuple[str, str, str], FieldHistory] = {}
        self._sources: dict[tuple[str, str], SourceHistory] = {}
        self._newest_us = 0

    def took(self, event: Event) -> list[Finding]:
        """One accepted event, in order of `known_at_us`; what begins or ends with it."""
        event_type, known_at_us = event.type, event.known_at_us
        self._newest_us = max(self._newest_us, known_at_us)
        names = self._watched.get(event_type)
        if names is None:
            return []
        entity = event.entity
        key = entity if event_type in self._own_sources else ""
        source = self._sources.get((event_type, key))
        if source is None:
            if len(self._sources) >= SERIES_MAX:
                return []
            source = self._sources[event_type, key] = SourceHistory()
            for name in names:
                self._fields[event_type, name, key] = FieldHistory()
        ended = source.heard(event.id, known_at_us)
        found = [] if ended is None else [Finding("silent", event_type, "", key, *ended, "it is heard again")]
        for name in names:
            told = self._fields[event_type, name, key].add(_number(event, name), known_at_us)
            if told is not None:
                fault, from_us, to_us, words = told
                found.append(Finding(fault, event_type, name, key, from_us, to_us, words))
        return found

    def silences(self) -> list[Finding]:
        """The silences that have become too long by the newest event of any source: where nobody speaks, no source is at fault."""
        found = []
        for (event_type, key), source in self._sources.items():
            if source.silent(self._newest_us):
                words = "nothing came of it for longer than six times its longest silence"
                found.append(Finding("silent", event_type, "", key, source.last_us, 0, words, source.last_id))
        return found

    def snapshot(self) -> dict[str, Any]:
        """State as plain values."""
        return {
            "fields": [[*place, history.snapshot()] for place, history in self._fields.items()],
            "newest_us": self._newest_us,
            "sources": [[*place, history.snapshot()] for place, history in self._sources.items()],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Takes a snapshot back; what is no longer declared is dropped, and what is new of a known source begins now."""
        self._newest_us = state["newest_us"]
        for event_type, name, key, saved in state["fields"]:
            if name in self._watched.get(event_type, ()):
                self._fields[event_type, name, key] = FieldHistory()
                self._fields[event_type, name, key].restore(saved)
        for event_type, key, saved in state["sources"]:
            if event_type in self._watched:
                self._sources[event_type, key] = SourceHistory()
                self._sources[event_type, key].restore(saved)
                for name in self._watched[event_type]:
                    self._fields.setdefault((event_type, name, key), FieldHistory())


def _number(event: Event, name: str) -> float | None:
    """The value of a numeric field; None: absent, or of another kind."""
    if name not in event.fields:
        return None
    value = event.fields[name]
    kind = value.WhichOneof("kind")
    if kind == "number":
        return value.number
    return float(value.integer) if kind == "integer" else float(value.flag) if kind == "flag" else None
