"""Finds columns that tell the label almost alone: often they were filled in when the label was known; no I/O."""

from __future__ import annotations

import numpy as np
import pandas as pd

from driftloop.tables.columns import Column
from driftloop.tables.labels import LabelColumn, label_flags
from driftloop.tables.reading import Mask, Numbers, Table

SAMPLE_ROWS = 20_000  # evenly over the table: a leak shows in far fewer
LEAKED = 0.995  # of the order, the rows or the correlation that one column explains: no honest column does


def leaks(table: Table, label: LabelColumn, columns: tuple[Column, ...]) -> list[tuple[Column, str]]:
    """Columns that give the label away, and how."""
    stride = max(1, table.rows // SAMPLE_ROWS)
    labelled = ~table.missing(label.column)
    labelled[np.arange(table.rows) % stride != 0] = False
    found = []
    for column in columns:
        if column.role in ("number", "flag"):
            how = _number_leak(table, label, column.name, labelled)
        elif column.role == "category":
            how = _category_leak(table, label, column.name, labelled)
        else:
            how = ""
        if how:
            found.append((column, how))
    return found


def _number_leak(table: Table, label: LabelColumn, name: str, labelled: Mask) -> str:
    numbers = table.numbers(name)
    rows = labelled & ~np.isnan(numbers)
    if int(rows.sum()) < 0.5 * int(labelled.sum()):
        return ""
    if label.task == "binary":
        order = _order_explained(numbers[rows], label_flags(table, label)[0][rows])
        return f"its size alone orders {order:.1%} of the pairs of rows as the label does" if order >= LEAKED else ""
    if label.task == "regression":
        targets = table.numbers(label.column)[rows]
        if np.ptp(numbers[rows]) == 0.0 or np.ptp(targets) == 0.0:
            return ""
        correlation = abs(float(np.corrcoef(numbers[rows], targets)[0, 1]))
        return f"its correlation with the label is {correlation:.4f}" if correlation >= LEAKED else ""
    return ""


def _order_explained(numbers: Numbers, flags: Numbers) -> float:
    """The area under the ROC curve of a number, in whichever direction it is larger (Mann and Whitney, 1947)."""
    true, false = float(flags.sum()), float(len(flags) - flags.sum())
    if not true or not false:
        return 0.0
    ranks = pd.Series(numbers).rank().to_numpy()
    area = (float(ranks[flags == 1.0].sum()) - true * (true + 1) / 2) / (true * false)
    return max(area, 1.0 - area)


def _category_leak(table: Table, label: LabelColumn, name: str, labelled: Mask) -> str:
    if label.task == "regression":
        return ""
    told = pd.crosstab(table.texts(name)[labelled], table.texts(label.column)[labelled]).to_numpy()
    rows = int(told.sum())
    # Every value that is seen once explains its row: only rows beyond the first of each value say something.
    if rows < 0.5 * int(labelled.sum()) or len(told) > 0.1 * rows or told.sum(axis=0).max() > LEAKED * rows:
        return ""
    explained = float(told.max(axis=1).sum()) / rows
    return f"its value alone tells the label of {explained:.1%} of the rows" if explained >= LEAKED else ""
