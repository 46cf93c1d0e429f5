"""Says what was inferred of a table, one sentence for each inference, with how to correct it; infers nothing itself."""

from __future__ import annotations

import numpy as np

from driftloop.tables.columns import Column, option_value
from driftloop.tables.inferred import Inferred, Note
from driftloop.tables.leaks import leaks
from driftloop.tables.options import InferenceOptions
from driftloop.tables.reading import Table
from driftloop.tables.timing import duration, words


def notes_of(table: Table, inferred: Inferred, repeated: int) -> list[Note]:
    """Everything that was inferred, in the order in which a person asks: what, when, from what, how."""
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
