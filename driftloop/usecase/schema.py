"""Events and their typed fields, and what is expected of them: what may come through the door; never how it is checked or sent."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from driftloop.usecase.durations import duration_us
from driftloop.usecase.errors import DeclarationError

FieldKind = Literal["number", "integer", "text", "flag", "time"]
FieldValue = float | int | str | bool
Fields = Mapping[str, FieldValue]
Consequence = Literal["reject", "warn", "stop_training"]
"""What follows where an expectation is not met. reject: the event is refused. warn: it is accepted, and the finding is
counted and written to `incidents`. stop_training: the same, and no model is trained on the window in which it happened."""
_KINDS: dict[type | str, FieldKind] = {float: "number", int: "integer", str: "text", bool: "flag", "time": "time"}


@dataclass(frozen=True)
class Field:
    """One typed field: float, int, str, bool or "time" (microseconds since the epoch, UTC).

    `ge`/`le` bound numbers (inclusive), `one_of` lists the allowed texts, `pattern` is a regular expression that the whole
    text matches (no look-around and no back references, so that no text takes long), `max_length` bounds a text in characters.
    Texts of `one_of` keep the other two. `otherwise` says what follows where ge, le, one_of or pattern is not kept; a wrong type or
    length is always refused.
    `unit` is documentation that the console and the drift evidence show; `deprecated` says what to send instead.
    """

    type: type | str
    unit: str = ""
    optional: bool = False
    ge: float | None = None
    le: float | None = None
    one_of: tuple[str, ...] = ()
    max_length: int = 256
    pattern: str = ""
    otherwise: Consequence = "reject"
    deprecated: str = ""

    def __post_init__(self) -> None:
        if self.type not in _KINDS:
            raise DeclarationError(f"a field's type is float, int, str, bool or 'time', not {self.type!r}")
        _require_consequence(self.otherwise, get_args(Consequence))
        if self.kind != "text" and (self.one_of or self.pattern):
            raise DeclarationError("one_of and pattern are for str fields")
        if self.kind in ("text", "flag") and (self.ge is not None or self.le is not None):
            raise DeclarationError("ge and le are for float, int and 'time' fields")
        if self.ge is not None and self.le is not None and self.ge > self.le:
            raise DeclarationError(f"a field's ge {self.ge} is above its le {self.le}: nothing would be accepted")
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise DeclarationError(f"pattern {self.pattern!r} is no regular expression: {error}") from error
        for text in self.one_of:
            if len(text) > self.max_length:
                raise DeclarationError(f"one_of has {text!r}, which is longer than max_length {self.max_length}")
            if self.pattern and not re.fullmatch(self.pattern, text):
                raise DeclarationError(f"one_of has {text!r}, which does not match pattern {self.pattern!r}")

    @property
    def kind(self) -> FieldKind:
        """The field's kind on the wire."""
        return _KINDS[self.type]

    @property
    def is_numeric(self) -> bool:
        """Whether a model sees it as a number (otherwise as a category)."""
        return self.kind in ("number", "integer", "flag")


def _require_consequence(given: str, allowed: Sequence[str]) -> None:
    if given not in allowed:
        raise DeclarationError(f"otherwise is one of {', '.join(allowed)}, not {given!r}")


@dataclass(frozen=True)
class Expectation:
    """A rule over the fields of one event that its types cannot say, such as that an arrival lies after its departure.

    `holds` is given the event's fields (those present) and returns whether it holds; where it asks for an absent one
    (KeyError) the rule does not apply. It is a pure, quick function: it runs for every event. `window` is the stretch of
    use-case time by which findings are counted, and which `stop_training` keeps from training.
    """

    name: str
    holds: Callable[[Mapping[str, Any]], bool]
    otherwise: Consequence = "warn"
    window: str = "1h"

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise DeclarationError(
                f"expectation name {self.name!r} is not an identifier (letters, digits, underscores)"
            )
        _require_consequence(self.otherwise, get_args(Consequence))
        duration_us(self.window)

    @property
    def window_us(self) -> int:
        """The window in microseconds."""
        return duration_us(self.window)


@dataclass(frozen=True)
class Arrivals:
    """How often each source of an event is expected to tell of one, by the use-case clock.

    `quiet_at_most`: freshness, the longest time between two events of a source. `at_least`/`at_most`: volume, events of a
    source in each whole `per`. A source is known from its first event on.
    """

    quiet_at_most: str = ""
    per: str = "1h"
    at_least: int = 0
    at_most: int | None = None
    otherwise: Literal["warn", "stop_training"] = "warn"

    def __post_init__(self) -> None:
        _require_consequence(self.otherwise, ("warn", "stop_training"))
        if not self.quiet_at_most and not self.at_least and self.at_most is None:
            raise DeclarationError("Arrivals expect nothing: give quiet_at_most, at_least or at_most")
        if self.at_most is not None and self.at_most < self.at_least:
            raise DeclarationError(f"Arrivals at_most {self.at_most} is below at_least {self.at_least}")
        duration_us(self.per)
        if self.quiet_at_most:
            duration_us(self.quiet_at_most)

    @property
    def quiet_at_most_us(self) -> int | None:
        """The longest quiet in microseconds; None: any."""
        return duration_us(self.quiet_at_most) if self.quiet_at_most else None

    @property
    def per_us(self) -> int:
        """The stretch by which events are counted, in microseconds."""
        return duration_us(self.per)


@dataclass(frozen=True)
class Event:
    """One type of event: its name, the field that names its entity, its fields, and what is expected of it.

    The entity is carried by the event itself (`entity`); naming it here lets features and labels refer to it.
    """

    name: str
    entity: str
    fields: Mapping[str, Field] = field(default_factory=dict)
    expectations: Sequence[Expectation] = ()
    arrivals: Arrivals | None = None

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise DeclarationError(f"event name {self.name!r} is not an identifier (letters, digits, underscores)")
        for name in self.fields:
            if not name.isidentifier():
                raise DeclarationError(f"field name {name!r} of event {self.name} is not an identifier")
        names = [expectation.name for expectation in self.expectations]
        if len(set(names)) != len(names):
            raise DeclarationError(f"event {self.name} has two expectations of the same name")

    def __hash__(self) -> int:
        return hash(self.name)
