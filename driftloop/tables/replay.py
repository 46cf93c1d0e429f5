"""Replays a table as events and requests in use-case time: each row announced, asked and labelled; checks and sends nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from driftloop.tables.declaration import use_case_of
from driftloop.tables.errors import UnfitRows, UnfitTimes, UnknownColumn, UnreadableTable
from driftloop.tables.inferred import LABEL_KNOWN_AT, Inferred
from driftloop.tables.labels import label_flags
from driftloop.tables.reading import UTC_US, Table, Times, kind_of, numbers_of, read_table, texts_of
from driftloop.usecase import (
    Event,
    Field,
    Fields,
    ReplayEvent,
    ReplayRequest,
    UseCase,
    floor_us,
    load_use_case,
)

CHUNK_ROWS = 50_000  # made into Python values at once: 20 MB
ENTITY_DIGITS = 8  # so that ids order as rows do, up to a hundred million
DATA_FILE = "data.parquet"

Values = npt.NDArray[Any]
Codes = npt.NDArray[np.int64]


def prepared(table: Table, inferred: Inferred) -> pa.Table:
    """The table as its use case's replay reads it: columns named as fields, sorted by time, the label as it is told.

    It has every column of the table, also those that were left out, and `label_known_at`. Times are microseconds UTC.
    """
    label, columns = inferred.label, {}
    columns[inferred.time_field] = _time_column(inferred.clock.at_us)
    for column in inferred.columns:
        values = table.arrow.column(column.name)
        columns[column.field] = texts_of(values) if column.is_text else values
    if label.task == "binary":
        flags, missing = label_flags(table, label)
        columns[inferred.label_field] = pa.array(flags == 1.0, mask=missing)
    elif label.task == "multiclass":
        columns[inferred.label_field] = texts_of(table.arrow.column(label.column))
    else:
        columns[inferred.label_field] = pc.cast(table.arrow.column(label.column), pa.float64())
    columns[LABEL_KNOWN_AT] = _time_column(inferred.clock.known_at_us)
    return pa.table(columns)


class RowsStretch:
    """A stretch of prepared rows (a `driftloop.usecase.ReplayStretch`), as a use case declares its events.

    A row is announced and asked at its time. It is labelled at `label_known_at` if it has every field that the label's
    event must have; if not, and the use case declares an event after which no label comes, that is told instead.
    `start_us` ≤ every known_at and request < `end_us`; both lie on the use case's step. `rows`: how many there are.
    Raises a TableError where the rows cannot be told as the use case declares.
    """

    def __init__(self, rows: pa.Table, use_case: UseCase, first: int | None = None) -> None:
        if first is not None:
            rows = rows.slice(0, first)
        if not rows.num_rows:
            raise UnfitRows("there is no row to replay: ask for at least one")
        announcing, telling = use_case.predict.on, use_case.label.on
        closing = use_case.label.never[0] if use_case.label.never else None
        self._check_events(use_case)
        self._use_case = use_case
        self._columns = {
            name: _Values(rows, name, field) for event in (announcing, telling) for name, field in event.fields.items()
        }
        for name, field in announcing.fields.items():
            missing = int((~self._columns[name].present).sum())
            if missing and not field.optional:
                raise UnfitRows(
                    f"the declaration says that every row has {name!r}, {missing:,} rows have none: say optional=True"
                )
        at_us = self._columns[use_case.predict.at.field].values - use_case.predict.at.before_us
        if np.any(np.diff(at_us) < 0):
            raise UnfitTimes(f"the rows are not sorted by {use_case.predict.at.field!r}: sort them, oldest first")
        known_at_us, is_told = _known(rows)
        complete = np.ones(rows.num_rows, dtype=bool)
        for name, field in telling.fields.items():
            if not field.optional:
                complete &= self._columns[name].present
        self._at_us = at_us
        self._known_at_us = np.maximum(known_at_us, at_us + 1)
        self._labelled = is_told & complete
        self._closed = is_told & ~complete if closing is not None else np.zeros(rows.num_rows, dtype=bool)
        self._announcing, self._telling, self._closing = announcing, telling, closing
        told = self._known_at_us[self._labelled | self._closed]
        last_us = max(int(at_us[-1]), int(told.max()) if len(told) else 0)
        step_us = use_case.step_us
        self.start_us, self.end_us = floor_us(int(at_us[0]), step_us), floor_us(last_us, step_us) + step_us
        self.injected_at_us: int | None = None
        self.rows = rows.num_rows

    def events(self) -> Iterator[ReplayEvent]:
        """Every event in order of (known_at, id): a row's announcement, and its label or its end without one."""
        kinds: list[tuple[Event, Times, npt.NDArray[np.bool_]]] = [
            (self._announcing, self._at_us, np.ones(self.rows, dtype=bool)),
            (self._telling, self._known_at_us, self._labelled),
        ]
        if self._closing is not None:
            kinds.append((self._closing, self._known_at_us, self._closed))
        kinds.sort(key=lambda kind: kind[0].name)  # an id begins with its type: so codes order as ids do
        known, codes, rows = [], [], []
        for code, (_, at_us, where) in enumerate(kinds):
            chosen = np.flatnonzero(where)
            known.append(at_us[chosen])
            codes.append(np.full(len(chosen), code))
            rows.append(chosen)
        known_all, code_all, row_all = (np.concatenate(part) for part in (known, codes, rows))
        order = np.lexsort((row_all, code_all, known_all))
        for start in range(0, len(order), CHUNK_ROWS):
            chunk = order[start : start + CHUNK_ROWS]
            yield from self._chunk([kind[0] for kind in kinds], known_all[chunk], code_all[chunk], row_all[chunk])

    def requests(self) -> Iterator[ReplayRequest]:
        """One request per row, in order of (at, entity)."""
        wanted = list(self._use_case.request_fields)
        for start in range(0, self.rows, CHUNK_ROWS):
            rows = np.arange(start, min(start + CHUNK_ROWS, self.rows))
            for row, at_us, fields in zip(
                rows.tolist(), self._at_us[rows].tolist(), self._fields(wanted, rows), strict=True
            ):
                yield ReplayRequest(at_us, entity_of(row), fields)

    def _chunk(self, events: list[Event], known: Times, codes: Codes, rows: Codes) -> Iterator[ReplayEvent]:
        fields = [self._fields(list(event.fields), rows[codes == code]) for code, event in enumerate(events)]
        names = [event.name for event in events]
        for at_us, code, row in zip(known.tolist(), codes.tolist(), rows.tolist(), strict=True):
            entity, name = entity_of(row), names[code]
            yield ReplayEvent(name, f"{name}:{entity}", entity, at_us, at_us, next(fields[code]))

    def _fields(self, names: list[str], rows: Codes) -> Iterator[Fields]:
        """What each of some rows says of some fields; what is missing is left out."""
        columns = [self._columns[name] for name in names]
        values = [column.take(rows) for column in columns]
        if not columns:
            return iter([{} for _ in range(len(rows))])
        if all(column.present.all() for column in columns):
            return (dict(zip(names, row, strict=True)) for row in zip(*values, strict=True))
        return (
            {name: value for name, value in zip(names, row, strict=True) if value is not None}
            for row in zip(*values, strict=True)
        )

    def _check_events(self, use_case: UseCase) -> None:
        told = [use_case.predict.on.name, use_case.label.on.name, *(event.name for event in use_case.label.never[:1])]
        others = [event.name for event in use_case.events if event.name not in told]
        if others or len(set(told)) != len(told):
            raise UnknownColumn(
                f"{use_case.name} declares events that a table's rows do not tell ({', '.join(others) or told[0]}): write "
                "a replay.py that does, as usecases/flights has one"
            )


class TableStretch(RowsStretch):
    """A table's rows, all or the first so many, replayed as the use case that was inferred from it."""

    def __init__(self, table: Table, inferred: Inferred, rows: int | None = None) -> None:
        super().__init__(prepared(table, inferred), use_case_of(inferred), rows)


def folder_stretch(folder: Path, rows: int | None = None) -> RowsStretch:
    """The rows of `data.parquet` in a use case's folder, all or the first so many, told as its `usecase.py` declares.

    Raises a TableError if the two do not fit together.
    """
    if rows is not None and rows < 1:
        raise UnfitRows(f"rows={rows}: there is no row to replay; ask for at least one")
    use_case = load_use_case(folder.name, str(folder.parent))
    return RowsStretch(read_table(folder / DATA_FILE).arrow, use_case, rows)


def entity_of(row: int) -> str:
    """The entity that a row announces."""
    return f"row-{row:0{ENTITY_DIGITS}d}"


class _Values:
    """One column as values of its declared field, shape (rows,). `present`: where there is one; elsewhere any may stand."""

    def __init__(self, rows: pa.Table, name: str, field: Field) -> None:
        if name not in rows.column_names:
            raise UnknownColumn(
                f"the declaration has a field {name!r}, the table has no such column: it has {', '.join(rows.column_names)}"
            )
        column = rows.column(name)
        self.present = ~np.asarray(pc.is_null(column).to_numpy(zero_copy_only=False), dtype=bool)
        self.values = _READ[field.kind](name, column)

    def take(self, rows: Codes) -> list[Any]:
        """Python values of some rows, None where missing."""
        values, present = self.values[rows], self.present[rows]
        if present.all():
            return values.tolist()
        boxed = values.astype(object)
        boxed[~present] = None
        return boxed.tolist()


def _read_numbers(name: str, column: pa.ChunkedArray) -> Values:
    if kind_of(column.type) not in ("number", "flag"):
        raise UnknownColumn(f"the declaration says that {name!r} is a number; the table has {column.type} there")
    return numbers_of(column)


def _read_integers(name: str, column: pa.ChunkedArray) -> Values:
    numbers = _read_numbers(name, column)
    if np.any(numbers != np.floor(numbers), where=np.isfinite(numbers)):
        raise UnknownColumn(
            f"the declaration says that {name!r} is an int; the table has other numbers there: say float"
        )
    return np.where(np.isnan(numbers), 0.0, numbers).astype(np.int64)


def _read_texts(name: str, column: pa.ChunkedArray) -> Values:
    return np.asarray(texts_of(column).to_numpy(zero_copy_only=False), dtype=object)


def _read_flags(name: str, column: pa.ChunkedArray) -> Values:
    numbers = _read_numbers(name, column)
    if np.any((numbers != 0.0) & (numbers != 1.0), where=~np.isnan(numbers)):
        raise UnknownColumn(
            f"the declaration says that {name!r} is a bool; the table has other numbers there: say float"
        )
    return numbers == 1.0


def _read_times(name: str, column: pa.ChunkedArray) -> Values:
    if kind_of(column.type) != "time":
        raise UnknownColumn(f"the declaration says that {name!r} is a time; the table has {column.type} there")
    return np.asarray(pc.fill_null(pc.cast(column, pa.int64()), 0).to_numpy(zero_copy_only=False), dtype=np.int64)


_READ: dict[str, Callable[[str, pa.ChunkedArray], Values]] = {
    "number": _read_numbers,
    "integer": _read_integers,
    "text": _read_texts,
    "flag": _read_flags,
    "time": _read_times,
}


def _time_column(times_us: Times) -> pa.Array:
    return pa.array(times_us, mask=times_us < 0).cast(UTC_US)


def _known(rows: pa.Table) -> tuple[Times, npt.NDArray[np.bool_]]:
    if LABEL_KNOWN_AT not in rows.column_names:
        raise UnreadableTable(f"the table has no column {LABEL_KNOWN_AT!r}: write the folder again with driftloop new")
    known = _Values(rows, LABEL_KNOWN_AT, Field("time"))
    return known.values, known.present
