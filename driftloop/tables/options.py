"""What a table's owner says about it; everything that is left unsaid is inferred."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

TaskChoice = Literal["classification", "regression"]


@dataclass(frozen=True)
class InferenceOptions:
    """Columns are named as in the table.

    label            the column to predict
    time             when each row's prediction is asked; without it rows are one a minute, in the file's order
    label_time       when each row's label became known; excludes `label_delay`
    label_delay      after how many rows a row's label becomes known; 1 (just before the next row) by default
    keys             columns that name who or what a row is about: what is known of each so far becomes a feature
    categorical      columns of numbers that are codes
    exclude          columns to leave out, such as those that are filled in after the fact
    task             classification or regression, where the label could be either
    positive         the class that "true" means, where there are two
    allow_repeated   identical rows are what really happened, not one row told twice
    name             the use case's name; the file's by default
    """

    label: str
    time: str | None = None
    label_time: str | None = None
    label_delay: int | None = None
    keys: Sequence[str] = ()
    categorical: Sequence[str] = ()
    exclude: Sequence[str] = ()
    task: TaskChoice | None = None
    positive: str | None = None
    allow_repeated: bool = False
    name: str | None = None
