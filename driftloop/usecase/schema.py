"""Events and their typed fields: what may come through the door; never how it is checked or sent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from driftloop.usecase.errors import DeclarationError

FieldKind = Literal["number", "integer", "text", "flag", "time"]
FieldValue = float | int | str | bool
Fields = Mapping[str, FieldValue]
_KINDS: dict[type | str, FieldKind] = {float: "number", int: "integer", str: "text", bool: "flag", "time": "time"}


@dataclass(frozen=True)
class Field:
    """One typed field: float, int, str, bool or "time" (microseconds since the epoch, UTC).

    `ge`/`le` bound numbers (inclusive), `one_of` lists the allowed texts, `max_length` bounds a text in characters,
    `unit` is documentation that the console and the drift evidence show.
    """

    type: type | str
    unit: str = ""
    optional: bool = False
    ge: float | None = None
    le: float | None = None
    one_of: tuple[str, ...] = ()
    max_length: int = 256

    def __post_init__(self) -> None:
        if self.type not in _KINDS:
            raise DeclarationError(f"a field's type is float, int, str, bool or 'time', not {self.type!r}")

    @property
    def kind(self) -> FieldKind:
        """The field's kind on the wire."""
        return _KINDS[self.type]

    @property
    def is_numeric(self) -> bool:
        """Whether a model sees it as a number (otherwise as a category)."""
        return self.kind in ("number", "integer", "flag")


@dataclass(frozen=True)
class Event:
    """One type of event: its name, the field that names its entity, and its fields.

    The entity is carried by the event itself (`entity`); naming it here lets features and labels refer to it.
    """

    name: str
    entity: str
    fields: Mapping[str, Field] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise DeclarationError(f"event name {self.name!r} is not an identifier (letters, digits, underscores)")
        for name in self.fields:
            if not name.isidentifier():
                raise DeclarationError(f"field name {name!r} of event {self.name} is not an identifier")

    def __hash__(self) -> int:
        return hash(self.name)
