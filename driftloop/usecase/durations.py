"""Durations as people write them ("15m", "24h", "7d"), in integer microseconds; never a clock."""

from __future__ import annotations

import re

from driftloop.usecase.errors import DeclarationError

SECOND_US = 1_000_000
MINUTE_US = 60 * SECOND_US
HOUR_US = 60 * MINUTE_US
DAY_US = 24 * HOUR_US
_UNITS = {"s": SECOND_US, "m": MINUTE_US, "h": HOUR_US, "d": DAY_US}


def duration_us(text: str) -> int:
    """Microseconds in a duration such as "90s", "15m", "24h" or "7d"; DeclarationError if it is not one."""
    match = re.fullmatch(r"(\d+)\s*([smhd])", text.strip())
    if match is None or int(match[1]) == 0:
        raise DeclarationError(
            f"{text!r} is not a duration: write a positive whole number and s, m, h or d, as in '15m'"
        )
    return int(match[1]) * _UNITS[match[2]]


def floor_us(at_us: int, step_us: int) -> int:
    """The newest multiple of `step_us` that is not after `at_us` (both in microseconds)."""
    return at_us - at_us % step_us
