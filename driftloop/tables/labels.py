"""Decides what a label column asks for: which task, which classes, which of two is "true"; no I/O."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc

from driftloop.tables.errors import UnfitLabel
from driftloop.tables.options import InferenceOptions
from driftloop.tables.reading import Mask, Numbers, Table
from driftloop.usecase import Task

CLASSES_MAX = 50  # each is an output of the network; more are rather a ranking or a search
COUNTED_CLASSES_MAX = 10  # whole numbers with more values than this are counted or measured, not classes
TRUE_WORDS = ("1", "true", "t", "yes", "y", "positive", "pos")
FALSE_WORDS = ("0", "-1", "false", "f", "no", "n", "negative", "neg")


@dataclass(frozen=True)
class LabelColumn:
    """What is to be predicted. `share`: of the labelled rows, those that are true (binary) or of the rarest class.

    classes: multiclass, all of them in order; binary, the texts that mean false and true; regression, empty.
    """

    column: str
    task: Task
    classes: tuple[str, ...]
    labelled: int
    share: float
    because: str
    correction: str


def label_of(table: Table, options: InferenceOptions) -> LabelColumn:
    """What the label column asks for. Raises UnfitLabel if it can be asked for nothing."""
    name = options.label
    kind = table.kind(name)
    if kind == "empty":
        raise UnfitLabel(f"label column {name!r} has no value in any row: give another --label, or fill it in")
    if kind in ("time", "other"):
        raise UnfitLabel(
            f"label column {name!r} holds {table.arrow.schema.field(name).type}: a label is a number or a class"
        )
    if kind == "number":
        _finite(table, name)
    labelled = int((~table.missing(name)).sum())
    distinct = table.distinct(name)
    if distinct == 1:
        only = next(text for text in table.texts(name) if text is not None)
        raise UnfitLabel(
            f"label column {name!r} is {only!r} in all {labelled:,} labelled rows: with one class there is nothing to "
            "predict; give rows of another class too, or another --label"
        )
    if options.task == "regression":
        if kind == "text":
            raise UnfitLabel(f"label column {name!r} holds texts: --task regression needs numbers")
        return _regression(table, name, labelled, "as --task says")
    if distinct == 2:
        return _binary(table, options, labelled)
    if options.positive is not None:
        raise UnfitLabel(f"--positive {options.positive}: label column {name!r} has {distinct} values, not two")
    if kind == "number" and options.task is None:
        integral = table.is_integral(name)
        if not integral or distinct > COUNTED_CLASSES_MAX:
            because = "whole numbers" if integral else "numbers"
            return _regression(table, name, labelled, f"it holds {distinct:,} different {because}")
    if kind == "number" and not table.is_integral(name):
        raise UnfitLabel(
            f"label column {name!r} holds {distinct:,} numbers that are not whole, which are no classes: say --task "
            "regression, or make classes of them"
        )
    return _multiclass(table, name, labelled, distinct)


def label_flags(table: Table, label: LabelColumn) -> tuple[Numbers, Mask]:
    """A binary label as 0.0 and 1.0, and where it is missing."""
    texts, missing = table.texts(label.column), table.missing(label.column)
    return np.where(texts == label.classes[1], 1.0, 0.0), missing


def _finite(table: Table, name: str) -> None:
    numbers = table.numbers(name)
    wrong = np.flatnonzero(np.isinf(numbers))
    if len(wrong):
        raise UnfitLabel(
            f"label column {name!r} is infinite in {len(wrong):,} rows, the first is row {wrong[0] + 1}: "
            "leave an unknown label empty"
        )


def _counts(table: Table, name: str) -> dict[str, int]:
    texts = [text for text in table.texts(name).tolist() if text is not None]
    words, counts = np.unique(np.array(texts, dtype=str), return_counts=True)
    return dict(zip(words.tolist(), counts.tolist(), strict=True))


def _binary(table: Table, options: InferenceOptions, labelled: int) -> LabelColumn:
    name = options.label
    counts = _counts(table, name)
    true, why = _true_class(counts, options.positive, table.kind(name) == "number", name)
    false = next(word for word in counts if word != true)
    return LabelColumn(
        column=name,
        task="binary",
        classes=(false, true),
        labelled=labelled,
        share=counts[true] / labelled,
        because=f"two values, {false!r} and {true!r}; {true!r} is what is predicted, because {why}",
        correction=f"--positive {false}",
    )


def _true_class(counts: dict[str, int], positive: str | None, numeric: bool, name: str) -> tuple[str, str]:
    if positive is not None:
        if positive not in counts:
            raise UnfitLabel(f"--positive {positive}: label column {name!r} has only {' and '.join(map(repr, counts))}")
        return positive, "--positive says so"
    words = {word.lower(): word for word in counts}
    if len(words) == 2 and set(words) & set(FALSE_WORDS) and set(words) & set(TRUE_WORDS):
        return next(word for low, word in words.items() if low in TRUE_WORDS), "it says so"
    if numeric:
        return max(counts, key=float), "it is the larger"
    return min(counts, key=lambda word: (counts[word], word)), "it is the rarer"


def _multiclass(table: Table, name: str, labelled: int, distinct: int) -> LabelColumn:
    if distinct > CLASSES_MAX:
        examples = [value.as_py() for value in pc.unique(table.arrow.column(name))[:3]]
        raise UnfitLabel(
            f"label column {name!r} has {distinct:,} classes, at most {CLASSES_MAX} can be told apart (the first are "
            f"{', '.join(map(repr, examples))}): join the rare ones, say --task regression if it is a number, or give "
            "another --label"
        )
    counts = _counts(table, name)
    numeric = table.kind(name) == "number"
    classes = tuple(sorted(counts, key=float if numeric else str))
    rarest = min(counts.values())
    return LabelColumn(
        column=name,
        task="multiclass",
        classes=classes,
        labelled=labelled,
        share=rarest / labelled,
        because=f"{distinct} {'whole numbers' if numeric else 'texts'}, the rarest in {rarest:,} rows",
        correction="--task regression" if numeric else "join classes in the table",
    )


def _regression(table: Table, name: str, labelled: int, because: str) -> LabelColumn:
    return LabelColumn(name, "regression", (), labelled, 0.0, because, "--task classification")
