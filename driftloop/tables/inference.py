"""Infers from a table and a few options everything that a use case needs; no I/O."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Sequence
from pathlib import Path

from driftloop.tables.columns import Column, columns_of, dated, slices_of
from driftloop.tables.errors import UnfitLabel, UnfitRows, UnfitTimes, UnknownColumn
from driftloop.tables.inferred import ASKED_AT, LABEL_KNOWN_AT, Inferred
from driftloop.tables.labels import label_of
from driftloop.tables.names import field_names, use_case_name
from driftloop.tables.notes import notes_of
from driftloop.tables.options import InferenceOptions
from driftloop.tables.reading import Mask, Table
from driftloop.tables.repetitions import count_repeated
from driftloop.tables.timing import STEPS_US, Clock, Durations, clock_of, duration, durations_of, read_times

ROWS_MIN = 500  # a tenth of them trains the first model, and a fifth of those judges it
KEY_WINDOWS_LABELS = (10, 100)  # labels of a usual key that its windows hold: recent, and enough for a rate
KEY_SPAN_SHARE = 4  # no window is longer than this fraction of the table's span: all would have it the same


def infer(table: Table, options: InferenceOptions) -> Inferred:
    """What a table says about itself and its owner about it, as a use case.

    Raises a TableError, whose sentence says what is wrong and what to do.
    """
    _check_options(table, options)
    if table.rows < ROWS_MIN:
        raise UnfitRows(
            f"{table.source} has {table.rows:,} rows, at least {ROWS_MIN} are needed: fewer can neither train a model nor "
            "show a change"
        )
    label = label_of(table, options)
    labelled = ~table.missing(options.label)
    if label.labelled < ROWS_MIN:
        raise UnfitLabel(
            f"{label.labelled:,} of {table.rows:,} rows have a label in {options.label!r}, at least {ROWS_MIN} are needed"
        )
    clock = clock_of(table, options.time, options.label_time, options.label_delay or 1, labelled)
    _check_known(options, clock, labelled)
    fields = field_names(table.names, reserved=(LABEL_KNOWN_AT, *(() if options.time else (ASKED_AT,))))
    columns = columns_of(table, options, fields)
    repeated = count_repeated(table, options)
    time_field = ASKED_AT if options.time is None else fields[options.time]
    time_transforms = _time_transforms(table, options, time_field)
    if not time_transforms and not any(column.is_input or column.role == "key" for column in columns):
        raise UnfitRows(
            f"{table.source} has no column to predict from: "
            + "; ".join(f"{column.name!r} is left out, {column.because}" for column in columns)
        )
    durations = durations_of(clock, label.labelled)
    inferred = Inferred(
        name=options.name or use_case_name(Path(table.source).name.partition(".")[0]),
        source=table.source,
        options=options,
        label=label,
        label_field=fields[options.label],
        columns=columns,
        time_field=time_field,
        time_transforms=time_transforms,
        clock=clock,
        durations=durations,
        windows=_windows(clock, columns, durations),
        slices=slices_of(table, columns),
        unlabelled=table.rows - label.labelled,
        notes=(),
    )
    return dataclasses.replace(inferred, notes=tuple(notes_of(table, inferred, repeated)))


# what can be wrong ----------------------------------------------------------------------------------------------------


def _check_options(table: Table, options: InferenceOptions) -> None:
    named: list[tuple[str, str | None]] = [
        ("--label", options.label),
        ("--time", options.time),
        ("--label-time", options.label_time),
        *(("--key", name) for name in options.keys),
        *(("--categorical", name) for name in options.categorical),
        *(("--exclude", name) for name in options.exclude),
    ]
    for option, name in named:
        if name is not None and name not in table.names:
            raise UnknownColumn(_unknown(table, option, name))
    if options.label_time is not None and options.label_delay is not None:
        raise UnfitTimes("--label-time and --label-delay both say when labels are known: give one of them")
    if options.label_delay is not None and not 1 <= options.label_delay < table.rows:
        raise UnfitTimes(f"--label-delay {options.label_delay}: give between 1 and {table.rows - 1:,} rows")
    roles = [(option, name) for option, name in named[:3] if name is not None]
    if len({name for _, name in roles}) != len(roles):
        raise UnknownColumn(
            f"{' and '.join(option for option, _ in roles)} name one column for two things: give one for each"
        )
    taken = dict((name, option) for option, name in roles)
    for option, name in named[3:]:
        if name in taken:
            raise UnknownColumn(f"{option} {name}: that column is {taken[name]} already; leave it out of one of them")


def _unknown(table: Table, option: str, name: str) -> str:
    near = difflib.get_close_matches(name, table.names, n=1)
    close = f" (did you mean {near[0]!r}?)" if near else ""
    shown = ", ".join(map(repr, table.names[:30])) + (" …" if len(table.names) > 30 else "")
    return f"{option} {name}: {table.source} has no such column{close}; it has {shown}"


def _check_known(options: InferenceOptions, clock: Clock, labelled: Mask) -> None:
    known = labelled & (clock.known_at_us >= 0)
    if int(known.sum()) < ROWS_MIN:
        raise UnfitTimes(
            f"{int(known.sum()):,} labelled rows have a label time in {options.label_time!r}, at least {ROWS_MIN} are "
            "needed: fill it in, or give --label-delay instead"
        )


# what follows ---------------------------------------------------------------------------------------------------------


def _time_transforms(table: Table, options: InferenceOptions, field: str) -> tuple[str, ...]:
    if options.time is None:
        return ()
    at_us, absent = read_times(table, options.time)
    return dated(options.time, field, at_us, absent, 0).transforms


def _windows(clock: Clock, columns: Sequence[Column], durations: Durations) -> dict[str, tuple[str, ...]]:
    longest_us = max(clock.span_us // KEY_SPAN_SHARE, 2 * durations.step_us)
    found = {}
    for column in columns:
        if column.role == "key":
            apart_us = clock.gap_us * column.values
            lengths_us = [min(max(durations.step_us, labels * apart_us), longest_us) for labels in KEY_WINDOWS_LABELS]
            found[column.field] = tuple(dict.fromkeys(duration(_nice(length_us)) for length_us in lengths_us))
    return found


def _nice(us: float) -> int:
    """The nearest length that people use, at least as long."""
    return next((step for step in STEPS_US if step >= us), int(us))
