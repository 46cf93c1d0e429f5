"""Infers from a table and a few options everything that a use case needs, and says each inference in a sentence; no I/O."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from driftloop.tables.columns import Column, columns_of, dated, option_value, slices_of
from driftloop.tables.errors import TableError, UnfitLabel, UnfitRows, UnfitTimes, UnknownColumn
from driftloop.tables.labels import LabelColumn, label_of
from driftloop.tables.leaks import leaks
from driftloop.tables.names import field_names, use_case_name
from driftloop.tables.options import InferenceOptions
from driftloop.tables.reading import Mask, Table
from driftloop.tables.timing import (
    STEPS_US,
    Clock,
    Durations,
    clock_of,
    duration,
    durations_of,
    read_times,
    words,
)

ROWS_MIN = 500  # a tenth of them trains the first model, and a fifth of those judges it
REPEATED_SHARE_MAX = 0.005  # of the rows may be exact repetitions; what one slip of a tool repeats is more
DISAGREEING_SHARE = 0.05  # of rows with equal inputs, from which on repetitions are the world's and not the file's
ASKED_AT = "asked_at"
LABEL_KNOWN_AT = "label_known_at"
KEY_WINDOWS_LABELS = (10, 100)  # labels of a usual key that its windows hold: recent, and enough for a rate
KEY_SPAN_SHARE = 4  # no window is longer than this fraction of the table's span: all would have it the same


@dataclass(frozen=True)
class Note:
    """One inference for a person: what it is about, what was inferred and why, and how to correct it ("" if not)."""

    about: str
    text: str
    correction: str = ""

    def __str__(self) -> str:
        return f"{self.about}: {self.text}" + (f" (otherwise: {self.correction})" if self.correction else "")


@dataclass(frozen=True)
class Inferred:
    """All that was inferred.

    time_field: the declaration's field of the time at which a row is asked; time_transforms: which of "hour" and "weekday"
    of it are features. windows: for each key's field the durations over which its labels are summed up, ascending.
    """

    name: str
    source: str
    options: InferenceOptions
    label: LabelColumn
    label_field: str
    columns: tuple[Column, ...]
    time_field: str
    time_transforms: tuple[str, ...]
    clock: Clock
    durations: Durations
    windows: Mapping[str, tuple[str, ...]]
    slices: tuple[str, ...]
    unlabelled: int
    notes: tuple[Note, ...]

    @property
    def fields(self) -> tuple[Column, ...]:
        """The columns that the declaration has fields for."""
        return tuple(column for column in self.columns if column.role != "left out")

    @property
    def keys(self) -> tuple[Column, ...]:
        """The columns that are keys."""
        return tuple(column for column in self.columns if column.role == "key")

    def sentences(self) -> list[str]:
        """Every inference as one line, with how to correct it."""
        return [str(note) for note in self.notes]


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
    repeated = _check_repeated(table, options, columns)
    time_field = ASKED_AT if options.time is None else fields[options.time]
    time_transforms = _time_transforms(table, options, time_field)
    if not any(column.is_input for column in columns) and not time_transforms:
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
    return Inferred(**{**vars(inferred), "notes": tuple(_notes(table, inferred, repeated))})


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


def _check_repeated(table: Table, options: InferenceOptions, columns: Sequence[Column]) -> int:
    """How many rows are exact repetitions of an earlier one; UnfitRows if that looks like rows told twice.

    Rows that differ in nothing are told twice, unless so few combinations of values are possible that chance repeats
    them, or rows with equal inputs often differ in their label: then equal rows are different cases that look alike.
    """
    names = [name for name in table.names if table.kind(name) not in ("empty", "other")]
    whole = _groups(table, names)
    repeated = table.rows - len(np.unique(whole))
    if options.allow_repeated or repeated <= REPEATED_SHARE_MAX * table.rows:
        return repeated
    inputs = [name for name in names if name != options.label]
    if sum(np.log(max(1, table.distinct(name))) for name in inputs) < np.log(10 * table.rows):
        return repeated
    alike = _groups(table, inputs)
    _, place, sizes = np.unique(alike, return_inverse=True, return_counts=True)
    several = sizes[place] > 1
    kinds = len(np.unique(whole[several])) - len(np.unique(alike[several]))
    if kinds > DISAGREEING_SHARE * int(several.sum()):
        return repeated
    first = _first_repeated(whole)
    raise UnfitRows(
        f"{repeated:,} of {table.rows:,} rows repeat an earlier row in every column, the first is row {first + 1}: a model "
        "would be judged on rows that it was trained on; remove them, or say --allow-repeated if all of them happened"
    )


def _groups(table: Table, names: Sequence[str]) -> np.ndarray:
    """A number for each row, the same for rows that are equal in all the named columns, shape (rows,)."""
    code = np.zeros(table.rows, dtype=np.int64)
    for name in names:
        column = table.arrow.column(name).combine_chunks()
        values = pc.dictionary_encode(column, null_encoding="encode").indices.to_numpy().astype(np.int64)
        _, code = np.unique(code * (int(values.max()) + 1) + values, return_inverse=True)
    return code


def _first_repeated(groups: np.ndarray) -> int:
    _, firsts = np.unique(groups, return_index=True)
    again = np.ones(len(groups), dtype=bool)
    again[firsts] = False
    return int(np.flatnonzero(again)[0])


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


def _notes(table: Table, inferred: Inferred, repeated: int) -> list[Note]:
    return [
        *_label_notes(inferred),
        *_time_notes(table, inferred),
        *_column_notes(inferred),
        *_leak_notes(table, inferred),
        *_repeated_notes(repeated, inferred.options),
        *_policy_notes(inferred),
    ]


def _label_notes(inferred: Inferred) -> list[Note]:
    label = inferred.label
    found = [Note(f"label {label.column!r}", f"{label.task}, {label.because}", label.correction)]
    if label.task == "binary":
        found.append(
            Note("positives", f"{label.share:.1%} of {label.labelled:,} labelled rows are {label.classes[1]!r}")
        )
    if inferred.unlabelled:
        found.append(
            Note(
                "rows without a label", f"{inferred.unlabelled:,}: predicted, never judged", "fill the label column in"
            )
        )
    return found


def _time_notes(table: Table, inferred: Inferred) -> list[Note]:
    clock, options = inferred.clock, inferred.options
    found = []
    if options.time is None:
        found.append(
            Note(
                "time",
                f"none is named: rows are taken in the file's order, one a minute from {words(int(clock.at_us[0]))[:10]} on",
                "--time COLUMN",
            )
        )
    else:
        span = f"{words(int(clock.at_us[0]))} to {words(int(clock.at_us[-1]))} UTC"
        how = "; rows of one time are spread evenly up to the next" if clock.spread else ""
        found.append(Note(f"time {options.time!r}", f"{span}{how}", "give times with their zone"))
    if options.label_time is not None:
        without = int((~table.missing(options.label) & (clock.known_at_us < 0)).sum())
        found.append(
            Note(
                f"label time {options.label_time!r}",
                f"half of the labels come within {duration(float(np.median(clock.delays_us)))}, the last after "
                f"{duration(float(clock.delays_us.max()))}"
                + (f"; {without:,} labelled rows have none and count as never labelled" if without else ""),
            )
        )
    else:
        delay = options.label_delay or 1
        rows = "just before the next row" if delay == 1 else f"just before the {delay:,}th row after it"
        found.append(Note("label time", f"a label is known {rows}", "--label-time COLUMN or --label-delay ROWS"))
    return found


def _column_notes(inferred: Inferred) -> list[Note]:
    groups = (
        ("numbers", "number", "--categorical COL for codes, --exclude COL for what is known only after the fact"),
        ("true or false", "flag", "--exclude COL"),
        ("categories", "category", "--exclude COL"),
        ("keys", "key", "--exclude COL"),
        ("times", "date", "--exclude COL"),
    )
    found = []
    for about, role, correction in groups:
        members = [column for column in inferred.columns if column.role == role]
        if members:
            found.append(Note(about, ", ".join(map(_described, members)), correction))
    for column in inferred.columns:
        if column.role == "left out":
            found.append(Note(f"left out {column.name!r}", column.because, column.unsure))
        elif column.unsure:
            found.append(Note(f"column {column.name!r}", *column.unsure.split("; ", 1)))
    return found


def _described(column: Column) -> str:
    said = [
        column.because if column.role in ("category", "key", "date") else "",
        "" if column.name == column.field else f"named {column.field}",
        "may be missing" if column.optional else "",
    ]
    aside = ", ".join(filter(None, said))
    return f"{column.name} ({aside})" if aside else column.name


def _leak_notes(table: Table, inferred: Inferred) -> list[Note]:
    return [
        Note(
            f"beware of {column.name!r}",
            f"{how}; if it is filled in only when the label is known, the model learns what nobody knows when it is asked",
            f"--exclude {option_value(column.name)}",
        )
        for column, how in leaks(table, inferred.label, inferred.columns)
    ]


def _repeated_notes(repeated: int, options: InferenceOptions) -> list[Note]:
    if not repeated:
        return []
    why = "--allow-repeated says so" if options.allow_repeated else "few enough, or equal inputs differ in their label"
    return [Note("repeated rows", f"{repeated:,} rows repeat an earlier one in every column and are kept: {why}")]


def _policy_notes(inferred: Inferred) -> list[Note]:
    durations, gap_us = inferred.durations, inferred.clock.gap_us
    found = []
    if inferred.windows:
        known = [
            f"of each {column.name} over {' and '.join(inferred.windows[column.field])}" for column in inferred.keys
        ]
        found.append(Note("labels known so far", ", ".join(known), "the windows in the declaration"))
    if inferred.slices:
        found.append(Note("slices", f"quality is watched by {', '.join(inferred.slices)}", "slices in the declaration"))
    found.append(
        Note(
            "policy",
            f"a row about every {_short(gap_us)}: steps of {duration(durations.step_us)}, cohorts of {durations.cohort}, "
            f"at most {durations.budget}, {durations.cooldown} apart, labels mature after {durations.matures_after}, first "
            f"model after {durations.bootstrap_rows:,} labels",
            "policy in the declaration",
        )
    )
    return found


def _short(us: int) -> str:
    return duration(us) if us >= 1_000_000 else f"{us / 1_000:g} ms"


__all__ = ["ASKED_AT", "LABEL_KNOWN_AT", "Inferred", "Note", "TableError", "infer"]
