"""Computes statistics of many windows over a column at once; knows no keys, no clocks and no messages.

A window is a range `first` ≤ index < `last` of a column. Every result is a function of the values in the range alone: sums are
rounded once, whatever the order, so that folding events one at a time gives the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

MAX_ENTRIES_PER_KEY = 100_000  # about 10 MB; the oldest leave first, and are counted
QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
_SUM_BITS = 62  # of int64, without the sign
_EXACT = 1 << 53  # integers up to here are float64 without rounding
_UNIT = 1 << 1074  # every finite float64 is a multiple of 1/_UNIT


def exact_sum(values: Sequence[float]) -> float:
    """The sum of finite values, rounded once to the nearest float64; infinite where it is too large for one.

    >>> exact_sum([1e100, 1.0, -1e100])
    1.0
    """
    try:
        return math.fsum(values)
    except OverflowError:  # of an intermediate result, so whether it comes depends on the order
        total = sum(above * (_UNIT // below) for above, below in map(float.as_integer_ratio, values))
    try:
        return total / _UNIT
    except OverflowError:
        return math.inf if total > 0 else -math.inf


def statistics(stats: Sequence[str], count: int, total: float, ordered: Sequence[float]) -> list[float | None]:
    """Statistics of one window from its `exact_sum` and its values in ascending order; each only where it is needed.

    None where a statistic has no meaning: no values, or a sum too large for a float64. Quantiles are nearest-rank.
    """
    found: list[float | None] = []
    for stat in stats:
        if stat == "count":
            found.append(float(count))
        elif stat == "sum":
            found.append(total if math.isfinite(total) else None)
        elif not count:
            found.append(None)
        elif stat == "mean":
            found.append(total / count if math.isfinite(total) else None)
        elif stat == "min":
            found.append(ordered[0])
        elif stat == "max":
            found.append(ordered[-1])
        else:
            found.append(ordered[math.ceil(QUANTILES[stat] * count) - 1])
    return found


def exact_sums(values: Floats, first: Ints, last: Ints) -> Floats:
    """`exact_sum` of every range: (ranges,). Cost: a few passes over values and ranges, whatever the ranges' lengths.

    Values are cut into integers of a common unit, so few bits each that no prefix sum overflows (error-free vector
    transformation: Rump, Ogita and Oishi, "Accurate floating-point summation", 2008); most data need one or two such cuts.
    """
    bits = _SUM_BITS - len(values).bit_length()
    exponent = math.frexp(float(np.abs(values).max(initial=0.0)))[1] - bits
    rest = values
    parts: list[tuple[Ints, int]] = []
    while not parts or rest.any():
        whole = np.trunc(np.ldexp(rest, -exponent))
        rest = rest - np.ldexp(whole, exponent)
        prefix = np.concatenate(([0], np.cumsum(whole.astype(np.int64))))
        parts.append((prefix[last] - prefix[first], exponent))
        exponent -= bits
    if len(parts) == 1 and (np.abs(parts[0][0]) <= _EXACT).all():
        return np.ldexp(parts[0][0].astype(np.float64), parts[0][1])
    terms = []
    with np.errstate(over="ignore"):
        for total, exponent in parts:
            near = total.astype(np.float64)
            far = (total - near.astype(np.int64)).astype(np.float64)
            terms += [np.ldexp(near, exponent), np.ldexp(far, exponent)]
    if not all(np.isfinite(term).all() for term in terms):
        return np.array([exact_sum(values[a:b].tolist()) for a, b in zip(first, last, strict=True)])
    return np.array([math.fsum(row) for row in zip(*(term.tolist() for term in terms), strict=True)])


def order_statistics(values: Floats, first: Ints, last: Ints, rank: Ints) -> Floats:
    """The value at `rank` (from 0, below last − first) of every range in sorted order: (ranges,).

    By a wavelet matrix (Claude, Navarro and Ordóñez, "The wavelet matrix", 2015), level by level over all ranges: cost and
    memory do not depend on the ranges' lengths.
    """
    levels, codes = np.unique(values, return_inverse=True)
    found = np.zeros(len(first), dtype=np.int64)
    for level in reversed(range(max(len(levels) - 1, 0).bit_length())):
        ones = (codes >> level & 1).astype(bool)
        zeros_before = np.concatenate(([0], np.cumsum(~ones)))
        from_zero, to_zero = zeros_before[first], zeros_before[last]
        inside = to_zero - from_zero
        above = rank >= inside
        zeros = zeros_before[-1]
        first = np.where(above, zeros + first - from_zero, from_zero)
        last = np.where(above, zeros + last - to_zero, to_zero)
        rank = np.where(above, rank - inside, rank)
        found |= above.astype(np.int64) << level
        codes = np.concatenate((codes[~ones], codes[ones]))
    return levels[found]


def window_stats(stats: Sequence[str], values: Floats, first: Ints, last: Ints) -> Floats:
    """`statistics` of every range, (ranges, stats); NaN where one has no meaning."""
    count = last - first
    held = np.flatnonzero(count)
    found = np.full((len(first), len(stats)), np.nan)
    sums = exact_sums(values, first, last) if {"sum", "mean"} & set(stats) else None
    if sums is not None:
        sums[np.isinf(sums)] = np.nan
    ranked = {stat: _ranks(stat, count[held]) for stat in stats if stat not in ("count", "sum", "mean")}
    if ranked and len(held):
        every = len(ranked)
        ordered = order_statistics(
            values, np.tile(first[held], every), np.tile(last[held], every), np.concatenate(list(ranked.values()))
        )
        for stat, column in zip(ranked, np.split(ordered, every), strict=True):
            found[held, stats.index(stat)] = column
    for place, stat in enumerate(stats):
        if stat == "count":
            found[:, place] = count
        elif stat == "sum" and sums is not None:
            found[:, place] = sums
        elif stat == "mean" and sums is not None:
            found[held, place] = sums[held] / count[held]
    return found


def _ranks(stat: str, count: Ints) -> Ints:
    if stat == "min":
        return np.zeros_like(count)
    if stat == "max":
        return count - 1
    return np.ceil(QUANTILES[stat] * count).astype(np.int64) - 1
