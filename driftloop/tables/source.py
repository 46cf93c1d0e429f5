"""Writes the declaration of an inferred use case as the Python that its owner will read and correct."""

from __future__ import annotations

import json
import keyword
from collections.abc import Iterable, Mapping

from driftloop.tables.columns import Column
from driftloop.tables.declaration import (
    ASKED,
    CLOSED,
    ENTITY,
    LABELLED,
    asked_fields,
    labelled_fields,
    policy_arguments,
    request_features,
    use_case_of,
)
from driftloop.tables.inferred import LABEL_KNOWN_AT, Inferred
from driftloop.tables.names import identifier
from driftloop.usecase import (
    DAY_US,
    HOUR_US,
    MINUTE_US,
    SECOND_US,
    Field,
    Latest,
    RequestTransform,
    UseCase,
    View,
    Window,
)

INDENT = " " * 4
LINE_CHARACTERS_MAX = 120
DEMO_ROWS = 5_000  # some minutes
UNITS = ((DAY_US, "DAY_US"), (HOUR_US, "HOUR_US"), (MINUTE_US, "MINUTE_US"), (SECOND_US, "SECOND_US"))
POLICY_REASONS: Mapping[str, str] = {
    "budget": "about 10 per 1,000 rows",
    "cooldown": "about 100 rows",
    "cohort": "about 40 rows",
    "bootstrap_rows": "labels before the first model is asked for",
    "lateness": "no less than two steps",
}
REPLAY = '''"""Replays data.parquet, the table that this use case was made from, as usecase.py declares it."""

from pathlib import Path

from driftloop.tables import RowsStretch, folder_stretch


def stretch(rows: int | None = None) -> RowsStretch:
    """All rows of the table, or the first so many."""
    return folder_stretch(Path(__file__).parent, rows)
'''


def declaration_source(inferred: Inferred) -> str:
    """The text of `usecase.py`; it declares what `use_case_of` gives."""
    use_case = use_case_of(inferred)
    body = [
        *_classes(inferred),
        *_announcing(inferred),
        *_telling(inferred),
        *(
            [f"{CLOSED} = Event({_text(CLOSED)}, entity={_text(ENTITY)})  # no label will come"]
            if inferred.unlabelled
            else []
        ),
        "",
        *_use_case(inferred, use_case),
    ]
    text = "\n".join(body) + "\n"
    wanted = (
        "Event",
        "Field",
        "Label",
        "Latest",
        "Policy",
        "Prediction",
        "PredictionTime",
        "Request",
        "UseCase",
        "Window",
    )
    units = [name for _, name in UNITS if f"step_us={_step(use_case.step_us)},".endswith(f"{name},")]
    imports = [*units, *(name for name in (*wanted, "hour_of", "weekday_of") if f"{name}(" in text)]
    return "\n".join([*_opening(inferred), "", *_import(imports), "", text])


def demo_command(inferred: Inferred) -> str:
    """What to type to see the use case run: with all rows, or as many as a person waits for."""
    return f"driftloop demo {inferred.name}" + (f" --rows {DEMO_ROWS}" if len(inferred.clock.at_us) > DEMO_ROWS else "")


def readme(inferred: Inferred, data_bytes: int) -> str:
    """The text of `README.md`: what is in the folder, what was inferred, and how to run, correct and keep it."""
    name, rows = inferred.name, len(inferred.clock.at_us)
    lines = [
        f"# {name}",
        "",
        f"{_question(inferred)} Asked for each row of `{_line(inferred.source)}`.",
        "",
        "| File | What |",
        "|---|---|",
        "| `usecase.py` | the declaration: fields, features, label, policy; read it and correct it |",
        f"| `data.parquet` | the table, {rows:,} rows, {_size(data_bytes)}: columns named as fields, with "
        f"`{inferred.time_field}` and `{LABEL_KNOWN_AT}` as they are replayed |",
        "| `replay.py` | replays the table as the declaration says |",
        "",
        "The folder needs no other file of its making: put it in any folder that is on `DRIFTLOOP_USECASES`.",
        "",
        "```sh",
        f"{demo_command(inferred)}   # {'its' if rows <= DEMO_ROWS else f'the first {DEMO_ROWS:,}'} rows through the whole loop",
        f"driftloop backtest usecases/{name} --out build/backtest",
        "```",
        "",
        "## What was inferred",
        "",
        "| | | otherwise |",
        "|---|---|---|",
        *(f"| {_cell(note.about)} | {_cell(note.text)} | {_cell(note.correction)} |" for note in inferred.notes),
        "",
        "## To correct it",
        "",
        f"Edit `usecase.py`. A field is any column of `data.parquet`, those that were left out too: add it to `{ASKED}` and to",
        "`Request(…)`, or take it out of both. A number that is a code becomes a category with `Field(str)`. A column that",
        "is known only after the fact must not be a field: the model would learn what nobody knows when it is asked. What does",
        "not fit the table is refused with the field's name when the replay starts.",
        "",
        "## From here to your own events",
        "",
        f'Set `clock="live"`, run `driftloop up --use-case {name}`, and send `{ASKED}` when a prediction is needed and `{LABELLED}`',
        "when its truth is known, both for the same entity.",
    ]
    return "\n".join(lines) + "\n"


# the parts of the declaration -----------------------------------------------------------------------------------------


def _opening(inferred: Inferred) -> list[str]:
    return [
        f'"""{_doc(_question(inferred))} Asked for each row of {_doc(inferred.source)}.',
        "",
        "`driftloop new` inferred this from the table. Read it and correct what is wrong; README.md says how.",
        '"""',
    ]


def _question(inferred: Inferred) -> str:
    label = inferred.label
    if label.task == "binary":
        return f"Is {_quoted(label.column)} {_quoted(label.classes[1])}?"
    if label.task == "multiclass":
        return f"Which of {len(label.classes)} classes is {_quoted(label.column)}?"
    return f"How large is {_quoted(label.column)}?"


def _import(names: list[str]) -> list[str]:
    one = f"from driftloop.usecase import {', '.join(names)}"
    if len(one) <= LINE_CHARACTERS_MAX:
        return [one]
    return ["from driftloop.usecase import (", *(f"{INDENT}{name}," for name in names), ")"]


def _classes(inferred: Inferred) -> list[str]:
    if inferred.label.task != "multiclass":
        return []
    return ["CLASSES = (", *(f"{INDENT}{_text(name)}," for name in inferred.label.classes), ")", ""]


def _announcing(inferred: Inferred) -> list[str]:
    fields = asked_fields(inferred)
    asked = f"when the row is asked{_named(inferred.options.time, inferred.time_field)}"
    entries = _entry(inferred.time_field, fields[inferred.time_field], asked)
    for column in inferred.columns:
        if column.role == "left out":
            otherwise = f" (or: {_line(column.unsure)})" if column.unsure else ""
            entries.append(f"{INDENT * 2}# {_text(column.field)} is left out: {_line(column.because)}{otherwise}")
        else:
            entries += _entry(column.field, fields[column.field], _comment(column))
    return _event(ASKED, entries)


def _telling(inferred: Inferred) -> list[str]:
    label = inferred.label
    comment = {
        "binary": f"true: {_quoted(label.classes[1])}, {label.share:.1%} of the labelled rows; "
        f"false: {_quoted(label.classes[0])}"
        if label.task == "binary"
        else "",
        "multiclass": f"the rarest class has {label.share:.1%} of the labelled rows",
        "regression": "what is predicted",
    }[label.task]
    entries = []
    for name, field in labelled_fields(inferred).items():
        said = comment + _named(label.column, name) if name == inferred.label_field else ""
        entries += _entry(name, field, said)
    return _event(LABELLED, entries)


def _event(name: str, entries: list[str]) -> list[str]:
    opening = [f"{name} = Event(", f"{INDENT}{_text(name)},", f"{INDENT}entity={_text(ENTITY)},", f"{INDENT}fields={{"]
    return [*opening, *entries, f"{INDENT}}},", ")"]


def _entry(name: str, field: Field, comment: str) -> list[str]:
    return _commented(f"{INDENT * 2}{_text(name)}: {_field(field)},", comment)


def _commented(line: str, comment: str) -> list[str]:
    """A line with a comment behind it, or above it where both are too long for one."""
    if not comment:
        return [line]
    one = f"{line}  # {comment}"
    return [one] if len(one) <= LINE_CHARACTERS_MAX else [f"{_indent(line)}# {comment}", line]


def _indent(line: str) -> str:
    return line[: len(line) - len(line.lstrip(" "))]


def _call(indent: str, name: str, arguments: list[str]) -> list[str]:
    """A call in one line, or with one argument in each where it is too long for one."""
    one = f"{indent}{name}({', '.join(arguments)}),"
    if len(one) <= LINE_CHARACTERS_MAX:
        return [one]
    return [f"{indent}{name}(", *(f"{indent}{INDENT}{argument}," for argument in arguments), f"{indent}),"]


def _use_case(inferred: Inferred, use_case: UseCase) -> list[str]:
    label = inferred.label_field
    never = [f"{INDENT * 2}never=[{CLOSED}],"] if inferred.unlabelled else []
    events = ", ".join([ASKED, LABELLED, *([CLOSED] if inferred.unlabelled else [])])
    task = {
        "binary": [],
        "multiclass": [f'{INDENT * 2}task="multiclass",', f"{INDENT * 2}classes=CLASSES,"],
        "regression": [f'{INDENT * 2}task="regression",'],
    }[inferred.label.task]
    features = [f"{INDENT * 3}{_feature(feature)}," for feature in request_features(inferred)]
    policy = policy_arguments(inferred)
    return [
        f"{_variable(inferred.name)} = UseCase(",
        f"{INDENT}name={_text(inferred.name)},",
        f"{INDENT}events=[{events}],",
        f"{INDENT}predict=Prediction(",
        f"{INDENT * 2}on={ASKED},",
        f"{INDENT * 2}at=PredictionTime({_text(inferred.time_field)}, before_us=0),  # as soon as the row is there",
        *task,
        f"{INDENT}),",
        f"{INDENT}features=[",
        *([f"{INDENT * 2}Request(", *features, f"{INDENT * 2}),"] if features else []),
        *(line for view in use_case.views for line in _view(view)),
        f"{INDENT}],",
        f"{INDENT}label=Label(",
        f"{INDENT * 2}on={LABELLED},",
        f"{INDENT * 2}value=lambda told: told[{_text(label)}],",
        *never,
        f"{INDENT * 2}matures_after={_text(inferred.durations.matures_after)},  # a later label is not waited for",
        f"{INDENT}),",
        f"{INDENT}slices=[{_texts(inferred.slices)}],",
        *([f"{INDENT}policy=Policy(", *map(_chosen, policy.items()), f"{INDENT}),"] if policy else []),
        f'{INDENT}clock="replay",  # "live" once your own events come in',
        f"{INDENT}step_us={_step(use_case.step_us)},  # about 10 rows",
        ")",
    ]


def _field(field: Field) -> str:
    arguments = [_text(field.type) if isinstance(field.type, str) else field.type.__name__]
    if field.optional:
        arguments.append("optional=True")
    if field.one_of:
        arguments.append("one_of=CLASSES")
    return f"Field({', '.join(arguments)})"


def _feature(feature: str | RequestTransform) -> str:
    if isinstance(feature, str):
        return _text(feature)
    return f"{feature.name.removesuffix('_' + feature.of)}({_text(feature.of)})"


def _view(view: View) -> list[str]:
    arguments = [LABELLED, f"by={_text(view.by[0])}", f"of={_text(view.of[0])}"]
    if isinstance(view, Window):
        arguments += [f"over=[{_texts(view.over)}]", f"stats=[{_texts(view.stats)}]"]
    if isinstance(view, Latest):
        arguments.append(f"max_age={_text(view.max_age)}")
    return _call(INDENT * 2, type(view).__name__, arguments)


def _chosen(argument: tuple[str, object]) -> str:
    name, value = argument
    written = _text(value) if isinstance(value, str) else f"{value:_}"
    return f"{INDENT * 2}{name}={written},  # {POLICY_REASONS[name]}"


def _variable(name: str) -> str:
    """The use case's name as that of a variable."""
    found = identifier(name if name[0].isalpha() else f"use_case_{name}", "use_case")
    return f"{found}_" if keyword.iskeyword(found) else found


def _comment(column: Column) -> str:
    unsure = f"UNSURE: {_line(column.unsure)}" if column.unsure else ""
    said = column.because if column.role in ("category", "key") else ""
    return "; ".join(filter(None, [(_line(said) + _named(column.name, column.field)).strip(), unsure]))


def _named(column: str | None, field: str) -> str:
    return "" if column is None or column == field else f" (column {_line(repr(column))})"


def _step(step_us: int) -> str:
    for unit_us, name in UNITS:
        if step_us % unit_us == 0:
            return name if step_us == unit_us else f"{step_us // unit_us} * {name}"
    return str(step_us)


def _text(text: str) -> str:
    """A text as a Python literal, in the quotes that a formatter would choose."""
    literal = json.dumps(text, ensure_ascii=False)
    if '"' not in text or "'" in text:
        return literal
    return "'" + literal[1:-1].replace('\\"', '"') + "'"


def _texts(texts: Iterable[str]) -> str:
    return ", ".join(_text(text) for text in texts)


def _line(text: str) -> str:
    """A text from a table as part of one line, where no end of a line of its own may end a comment."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _doc(text: str) -> str:
    return _line(text).replace("\\", "/").replace('"', "'")


def _quoted(text: str) -> str:
    return _line(repr(text))


def _cell(text: str) -> str:
    return _line(text).replace("|", "\\|")


def _size(data_bytes: int) -> str:
    return f"{data_bytes / 1e6:.1f} MB" if data_bytes >= 1e5 else f"{data_bytes / 1e3:.0f} kB"
