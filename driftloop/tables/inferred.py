"""What was inferred of a table, and each inference as a sentence; infers nothing itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from driftloop.tables.columns import Column
from driftloop.tables.labels import LabelColumn
from driftloop.tables.options import InferenceOptions
from driftloop.tables.timing import Clock, Durations

ASKED_AT = "asked_at"
LABEL_KNOWN_AT = "label_known_at"


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
