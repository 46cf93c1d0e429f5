"""What a server says is wrong with an event or a request."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Violation:
    """`field` is a path ("fields.delay", "id"), `rule` short and stable ("type", "range", …), `description` for people."""

    field: str
    rule: str
    description: str
