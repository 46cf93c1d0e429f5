"""Decides what each column of a table becomes: a number, a category, a key, times, or nothing, and why; no I/O."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow.compute as pc

from driftloop.tables.errors import TableError, UnfitRows
from driftloop.tables.options import InferenceOptions
from driftloop.tables.reading import Mask, Table, Times
from driftloop.tables.timing import read_times, useful_hours, useful_weekdays

Role = Literal["number", "flag", "category", "key", "date", "left out"]

CATEGORIES_MAX = 1_000  # distinct texts of a category: more are names or free text, of which new ones keep coming
KEY_CATEGORIES_MAX = 200  # distinct keys that are a category, too: beyond, rows per key are too few to learn one by one
DISTINCT_SHARE_MAX = 0.5  # of the rows with a text; more is an id or free text
FEW = 50  # distinct texts up to which the share does not matter
CODED_MAX = 10  # whole numbers with no more values than this may be codes: said, not assumed
TEXT_CHARACTERS_MAX = 256  # what a text field holds at ingest's door
SLICE_VALUES_MAX = 20
SLICE_ROWS_SHARE = 0.01
SLICES_MAX = 3
ID_NAME = re.compile(r"(^|_)(id|ids|uuid|guid|rowid|index|unnamed(_\d+)?)$")


@dataclass(frozen=True)
class Column:
    """What one column becomes. `field`: its name in the declaration; `unsure` with how to correct it if it is wrong.

    is_input: whether it comes with the request as a feature (a key with very many values does not). transforms: "hour"
    and "weekday" of a date. values: how many different ones there are.
    """

    name: str
    field: str
    role: Role
    optional: bool
    values: int
    is_input: bool = True
    transforms: tuple[str, ...] = ()
    because: str = ""
    unsure: str = ""

    @property
    def is_text(self) -> bool:
        """Whether it is a text in the declaration."""
        return self.role in ("category", "key")


def columns_of(table: Table, options: InferenceOptions, fields: Mapping[str, str]) -> tuple[Column, ...]:
    """What every column but label and times becomes, in the table's order.

    Raises UnfitRows for infinite numbers, and for columns without any value: more often an export that went wrong than a wish.
    """
    roles = {options.label, options.time, options.label_time}
    names = [name for name in table.names if name not in roles]
    empty = [name for name in names if table.kind(name) == "empty" and name not in options.exclude]
    if empty:
        raise UnfitRows(
            f"{', '.join(map(repr, empty))} {'has' if len(empty) == 1 else 'have'} no value in any row: fill in what is "
            f"missing, or say --exclude {option_value(','.join(empty))} to go on without"
        )
    return tuple(_column(table, name, options, fields[name]) for name in names)


def slices_of(table: Table, columns: tuple[Column, ...]) -> tuple[str, ...]:
    """Fields of the categories by which quality is watched: few values, each with rows enough to judge."""
    found = []
    for column in columns:
        if column.role != "category" and not (column.role == "key" and column.is_input):
            continue
        if not 2 <= column.values <= SLICE_VALUES_MAX:
            continue
        present = pc.drop_null(table.arrow.column(column.name))
        counts = pc.value_counts(present).field("counts").to_numpy(zero_copy_only=False)
        if counts.min() >= SLICE_ROWS_SHARE * table.rows:
            found.append(column.field)
    return tuple(found[:SLICES_MAX])


def _column(table: Table, name: str, options: InferenceOptions, field: str) -> Column:
    missing = table.missing(name)
    optional = bool(missing.any())
    distinct = table.distinct(name) if table.kind(name) != "other" else 0

    def out(because: str, unsure: str = "") -> Column:
        return Column(name, field, "left out", optional, distinct, False, (), because, unsure)

    kind = table.kind(name)
    if name in options.exclude:
        return out("--exclude says so")
    if kind == "other":
        held = table.arrow.schema.field(name).type
        return out(f"it holds {held}", "write what is needed of it as numbers, texts or times")
    if name in options.keys:
        because = f"{distinct:,} values" + ("" if distinct <= KEY_CATEGORIES_MAX else ", too many to learn each")
        return Column(name, field, "key", optional, distinct, distinct <= KEY_CATEGORIES_MAX, (), because)
    if name in options.categorical:
        return Column(
            name, field, "category", optional, distinct, True, (), f"{distinct:,} values, as --categorical says"
        )
    if distinct == 1 and not optional:
        return out("it is the same in every row")
    if kind == "flag":
        return Column(name, field, "flag", optional, distinct)
    if kind == "time":
        return _date(table, name, field, missing, distinct)
    return (
        _text(table, name, field, missing, distinct)
        if kind == "text"
        else _number(table, name, field, optional, distinct)
    )


def _date(table: Table, name: str, field: str, missing: Mask, distinct: int) -> Column:
    at_us, absent = read_times(table, name)
    return dated(name, field, at_us, absent, distinct)


def dated(name: str, field: str, at_us: Times, absent: Mask, distinct: int) -> Column:
    """What a column of times becomes: its hour and weekday, where they differ between rows."""
    transforms = tuple(
        which for which, useful in (("hour", useful_hours), ("weekday", useful_weekdays)) if useful(at_us, absent)
    )
    if not transforms:
        because = "its times differ neither by hour nor by day of the week often enough"
        return Column(name, field, "left out", bool(absent.any()), distinct, False, (), because)
    return Column(name, field, "date", bool(absent.any()), distinct, True, transforms, " and ".join(transforms))


def _text(table: Table, name: str, field: str, missing: Mask, distinct: int) -> Column:
    optional, present = bool(missing.any()), int((~missing).sum())

    def out(because: str, unsure: str = "") -> Column:
        return Column(name, field, "left out", optional, distinct, False, (), because, unsure)

    longest = int(pc.max(pc.utf8_length(table.arrow.column(name))).as_py())
    if longest > TEXT_CHARACTERS_MAX:
        return out(f"it has texts of up to {longest:,} characters")
    if distinct > CATEGORIES_MAX or (distinct > FEW and distinct > DISTINCT_SHARE_MAX * present):
        try:
            at_us, absent = read_times(table, name)
        except TableError:
            return out(
                f"{distinct:,} different texts in {present:,} rows: an id or free text{_almost_numbers(table, name)}",
                f"--key {option_value(name)} for what is known of each of them so far, or --categorical {option_value(name)}",
            )
        return dated(name, field, at_us, absent, distinct)
    numbers = _almost_numbers(table, name) if distinct > CODED_MAX else ""
    unsure = f"it is taken for {distinct:,} texts{numbers}; correct the table if it is a number" if numbers else ""
    return Column(name, field, "category", optional, distinct, True, (), f"{distinct:,} different texts", unsure)


def _almost_numbers(table: Table, name: str) -> str:
    """What keeps a column of numbers from being one, as an aside."""
    texts = [text for text in table.texts(name).tolist() if text is not None]
    wrong = [text for text in texts if not _is_number(text)]
    if wrong and all(_is_number(text.replace(",", ".")) for text in wrong):
        return f" (they are numbers with a comma, as {wrong[0]!r}: write them with a point)"
    if wrong and len(wrong) <= 0.1 * len(texts):
        return f" (all but {len(wrong):,} of them are numbers, the first that is none is {wrong[0]!r}: empty it)"
    return ""


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _number(table: Table, name: str, field: str, optional: bool, distinct: int) -> Column:
    def out(because: str, unsure: str = "") -> Column:
        return Column(name, field, "left out", optional, distinct, False, (), because, unsure)

    numbers = table.numbers(name)
    infinite = np.flatnonzero(np.isinf(numbers))
    if len(infinite):
        raise UnfitRows(
            f"column {name!r} is infinite in {len(infinite):,} rows, the first is row {infinite[0] + 1}: leave an unknown "
            f"number empty, or say --exclude {option_value(name)}"
        )
    present = numbers[~np.isnan(numbers)]
    integral = bool(np.all(present == np.floor(present)))
    if integral and distinct > FEW and ID_NAME.search(_snake(name)):
        return out(
            "its name says that it is an id",
            f"--key {option_value(name)} for what is known of each of them so far, or --categorical {option_value(name)}",
        )
    if distinct > 100 and np.all(np.diff(present) >= 0):
        return out(
            "it never falls from one row to the next, as a counter or a clock: what was learned of its past values says "
            "nothing of the next ones",
            f"--time {option_value(name)} if it tells when the row's prediction is asked",
        )
    unsure = ""
    if integral and 2 < distinct <= CODED_MAX:
        unsure = f"it has only {distinct} whole numbers; --categorical {option_value(name)} if they are codes"
    return Column(name, field, "number", optional, distinct, True, (), "", unsure)


def option_value(name: str) -> str:
    """A column's name as a person types it after an option."""
    return shlex.quote(name)


def _snake(name: str) -> str:
    """customerId and "Customer ID" as customer_id."""
    return re.sub(r"[\W_]+", "_", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)).strip("_").lower()
