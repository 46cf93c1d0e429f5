"""Parts of single events, for tests and of the shape that features' rekeying gives many of them."""

from __future__ import annotations

from collections.abc import Sequence

from driftloop.usecase import FieldValue
from services.features.packing import Parts


def part(
    view: str,
    key: str,
    offset: int,
    event_id: str,
    event_time_us: int,
    known_at_us: int,
    values: Sequence[FieldValue | None],
) -> Parts:
    """A view's part of one event."""
    texts = [value for value in values if isinstance(value, str)]
    return Parts(
        view,
        [0],
        [key],
        [offset],
        [event_id],
        [event_time_us],
        [known_at_us],
        [[value] for value in values],
        [""],
        [len(key) + len(event_id) + sum(map(len, texts))],
    )
