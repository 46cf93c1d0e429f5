"""Tells rows that a file tells twice from different cases that look alike; no I/O."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from driftloop.tables.errors import UnfitRows
from driftloop.tables.options import InferenceOptions
from driftloop.tables.reading import Table

Groups = npt.NDArray[np.int64]

REPEATED_SHARE_MAX = 0.005  # of the rows may be exact repetitions; what one slip of a tool repeats is more
DISAGREEING_SHARE = 0.05  # of rows with equal inputs, from which on repetitions are the world's and not the file's


def count_repeated(table: Table, options: InferenceOptions) -> int:
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


def _groups(table: Table, names: Sequence[str]) -> Groups:
    """A number for each row, the same for rows that are equal in all the named columns, shape (rows,)."""
    code = np.zeros(table.rows, dtype=np.int64)
    for name in names:
        column = table.arrow.column(name).combine_chunks()
        values = pc.dictionary_encode(column, null_encoding="encode").indices.to_numpy().astype(np.int64)
        _, code = np.unique(code * (int(values.max()) + 1) + values, return_inverse=True)
    return code


def _first_repeated(groups: Groups) -> int:
    _, firsts = np.unique(groups, return_index=True)
    again = np.ones(len(groups), dtype=bool)
    again[firsts] = False
    return int(np.flatnonzero(again)[0])
