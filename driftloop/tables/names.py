"""Makes names that a declaration can use of whatever a table's header says."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping

NAME_CHARACTERS_MAX = 60  # a violation's path at ingest's door cuts longer ones
OTHERWISE_A_NUMBER = "column_"


def identifier(text: str, fallback: str) -> str:
    """An ASCII identifier like `text`; `fallback` where nothing of it can be kept."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    name = re.sub(r"\W+", "_", plain).strip("_")[:NAME_CHARACTERS_MAX]
    if not name:
        return fallback
    return f"{OTHERWISE_A_NUMBER}{name}"[:NAME_CHARACTERS_MAX] if name[0].isdigit() else name


def field_names(columns: Iterable[str], reserved: Iterable[str] = ()) -> Mapping[str, str]:
    """A field name of its own for every column, none of them reserved; a column that is an identifier keeps its name."""
    columns = list(columns)
    found: dict[str, str] = {}
    taken = set(reserved)
    kept = [column for column in columns if identifier(column, "") == column and column not in taken]
    found.update((column, column) for column in kept)
    taken.update(kept)
    for place, column in enumerate(columns, start=1):
        if column in found:
            continue
        name = base = identifier(column, f"column_{place}")
        number = 2
        while name in taken:
            name, number = f"{base}_{number}", number + 1
        found[column] = name
        taken.add(name)
    return found


def use_case_name(text: str) -> str:
    """A use case's name like `text`: lower case, letters, digits and underscores."""
    return identifier(text, "table").lower()
