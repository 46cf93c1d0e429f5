"""Statistics of a window by the book, in fractions: what the product's must equal bit for bit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction


def plain(stat: str, values: Sequence[float]) -> float | None:
    """One statistic of a window's values; None where it has no meaning."""
    exact, count = [Fraction(value) for value in values], len(values)
    if stat == "count":
        return float(count)
    if stat == "distinct":
        return float(len(set(values)))
    if stat == "sum":
        return _rounded(sum(exact))
    if not count:
        return None
    if stat == "mean":
        total = _rounded(sum(exact))
        return None if total is None else total / count
    if stat in ("variance", "std"):
        if count < 2:
            return None
        mean = sum(exact) / count
        variance = _rounded(sum((value - mean) ** 2 for value in exact) / (count - 1))
        return variance if variance is None or stat == "variance" else math.sqrt(variance)
    rank = {"min": 1, "max": count}.get(stat) or math.ceil(float(stat[1:]) / 100 * count)
    return sorted(values)[rank - 1]


def decayed(stat: str, half_life_us: int, events: Sequence[tuple[int, float]]) -> float | None:
    """One decayed statistic of (event time, value), the newest last, to nine digits."""
    weights = [0.5 ** (((events[-1][0] - at_us) * 1024 // half_life_us) / 1024) for at_us, _ in events]
    if stat == "count":
        return math.fsum(weights)
    total = math.fsum(weight * value for weight, (_, value) in zip(weights, events, strict=True))
    if stat == "sum":
        return total
    return total / math.fsum(weights) if events else None


def _rounded(value: Fraction | int) -> float | None:
    try:
        return float(value)
    except OverflowError:
        return None
