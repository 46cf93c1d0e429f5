"""What a stream of the benchmark is, and all of them by name; a stream is opened as a backtest's source."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from driftloop.tables import InferenceOptions, Table, TableStretch, infer, use_case_of
from driftloop.usecase import MINUTE_US, ReplayEvent, ReplayRequest
from driftloop.usecase.replay import ReplayStretch
from simulation.backtest.sources import Opened

Drift = Literal["none", "abrupt", "gradual", "recurring", "unknown"]
Values = npt.NDArray[Any]
START_US = 1_700_000_000_000_000  # any time: rows are a minute apart


@dataclass(frozen=True)
class Correction:
    """Rows whose label is told a second time, so many rows after the first: the other of two classes."""

    rows: npt.NDArray[np.int64]
    after_rows: int


@dataclass(frozen=True)
class Made:
    """Columns in order of time, all of one length; `asked_at` and `known_at` (rows, fractions too) where labels are late."""

    columns: Mapping[str, Values]
    known_after_rows: npt.NDArray[np.float64] | None = None
    correction: Correction | None = None


@dataclass(frozen=True)
class Stream:
    """A stream by name. `make` takes a seed and a number of rows; `fixed`: a table, whose rows seeds do not change."""

    name: str
    drift: Drift
    make: Callable[[int, int], Made]
    fixed: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)

    def source(self, seed: int, rows: int) -> StreamSource:
        """The stream of a seed as a backtest's source."""
        return StreamSource(self, seed, rows)


@dataclass(frozen=True)
class StreamSource:
    """One seed's rows of a stream (a `simulation.backtest.sources.Source`)."""

    stream: Stream
    seed: int
    rows: int

    @property
    def name(self) -> str:
        """What a report calls it."""
        return f"{self.stream.name} (seed {self.seed})"

    def open(self) -> Opened:
        """Makes the rows and infers their schema."""
        made = self.stream.make(self.seed, self.rows)
        rows = len(made.columns["label"])
        columns = dict(made.columns)
        options = dict(self.stream.options)
        if made.known_after_rows is not None:
            asked_us = START_US + np.arange(rows) * MINUTE_US
            known_us = asked_us + np.maximum(1, (made.known_after_rows * MINUTE_US).astype(np.int64))
            columns |= {"asked_at": asked_us.astype("datetime64[us]"), "known_at": known_us.astype("datetime64[us]")}
            options |= {"time": "asked_at", "label_time": "known_at"}
        arrow = pa.table({name: pa.array(values) for name, values in columns.items()})
        table = Table(f"{self.stream.name}.csv", _zoned(arrow))
        inferred = infer(table, InferenceOptions(label="label", allow_repeated=True, **options))
        # The clock is of our making: its hours and weekdays tell nothing, and a weekday that a first model has not met misleads it.
        inferred = replace(inferred, time_transforms=())
        told = TableStretch(table, inferred)
        stretch: ReplayStretch = told
        if made.correction is not None:
            stretch = CorrectedStretch(told, made.correction, inferred.label_field)
        return Opened(use_case_of(inferred), stretch, tuple(inferred.sentences()))


def _zoned(table: pa.Table) -> pa.Table:
    for place, column in enumerate(table.schema):
        if pa.types.is_timestamp(column.type):
            table = table.set_column(place, column.name, table.column(place).cast(pa.timestamp("us", tz="UTC")))
    return table


class CorrectedStretch:
    """A stretch in which some labels are told again, turned over; the first telling stays wrong until then."""

    def __init__(self, base: TableStretch, correction: Correction, label_field: str) -> None:
        self._base, self._label_field = base, label_field
        self._again = {f"row-{row:08d}" for row in correction.rows.tolist()}
        self._after_us = correction.after_rows * MINUTE_US
        self.start_us, self.end_us = base.start_us, base.end_us
        self.injected_at_us: int | None = None
        self.rows = base.rows

    def requests(self) -> Iterator[ReplayRequest]:
        """As the base's."""
        return self._base.requests()

    def events(self) -> Iterator[ReplayEvent]:
        """The base's events with the second tellings among them, in order of (known_at, id)."""
        first, second = self._base.events(), self._second()
        return heapq.merge(first, second, key=lambda event: (event.known_at_us, event.id))

    def _second(self) -> Iterator[ReplayEvent]:
        for event in self._base.events():
            if event.entity in self._again and self._label_field in event.fields:
                at_us = event.known_at_us + self._after_us
                if at_us < self.end_us:
                    fields = {**event.fields, self._label_field: not event.fields[self._label_field]}
                    yield ReplayEvent(event.type, f"{event.id}:again", event.entity, at_us, at_us, fields)
