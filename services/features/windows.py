"""Computes statistics of a window's values, one window at a time or many over a column; knows no keys, clocks or messages.

Every result is a function of the values in the window alone: sums are exact before they are rounded once, whatever the order,
so that one window, a running one and a column of them give the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import numpy as np
import numpy.typing as npt

from driftloop.usecase import FieldValue

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

MAX_ENTRIES_PER_KEY = 100_000  # about 15 MB; the oldest leave first, and are counted
QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
_UNIT_BITS = 1074  # every finite float64 is a multiple of 2 ** −1074
_UNIT = 1 << _UNIT_BITS
_SUM_BITS = 62  # of int64, without the sign
_EXACT = 1 << 53  # integers up to here are float64 without rounding
_SPLITTER = float((1 << 27) + 1)
_SQUARED_EXACTLY = (2.0**-400, 2.0**400)  # magnitudes whose squares are the sum of two float64
_DECAY_STEPS = 1_024  # of a half-life: ages are rounded down to one, and weights come from one table
_DECAY = [2.0 ** (-step / _DECAY_STEPS) for step in range(_DECAY_STEPS)]
_DECAY_COLUMN = np.array(_DECAY)


def needs_sum(stats: Collection[str]) -> bool:
    """Whether any of these is computed from the sum."""
    return not {"sum", "mean"}.isdisjoint(stats)


def needs_order(stats: Collection[str]) -> bool:
    """Whether any of these is computed from the values in ascending order."""
    return not {"min", "max", *QUANTILES}.isdisjoint(stats)


def needs_squares(stats: Collection[str]) -> bool:
    """Whether any of these is computed from the sum of squares."""
    return not {"variance", "std"}.isdisjoint(stats)


# one window -----------------------------------------------------------------------------------------------------------


def exact_sum(values: Sequence[float]) -> float:
    """The sum of finite values, rounded once to the nearest float64; infinite where it is too large for one.

    >>> exact_sum([1e100, 1.0, -1e100])
    1.0
    """
    try:
        return math.fsum(values)
    except OverflowError:  # of an intermediate result, so whether it comes depends on the order
        return from_units(sum(map(in_units, values)))


def in_units(value: float) -> int:
    """A finite value as a whole number of 2 ** −1074."""
    numerator, denominator = value.as_integer_ratio()
    return numerator << (_UNIT_BITS + 1 - denominator.bit_length())


def from_units(total: int) -> float:
    """The nearest float64 of a number of 2 ** −1074; infinite where it is too large for one."""
    try:
        return total / _UNIT
    except OverflowError:
        return math.inf if total > 0 else -math.inf


def variance_of(count: int, total: int, squares: int) -> float | None:
    """The variance of a sample from the sum of its values in 2 ** −1074 and of their squares in 2 ** −2148, rounded once.

    None for fewer than two values, and where it is too large for a float64.
    """
    if count < 2:
        return None
    try:
        return (count * squares - total * total) / (count * (count - 1) << 2 * _UNIT_BITS)
    except OverflowError:
        return None


def sample_variance(values: Sequence[float]) -> float | None:
    """The variance of a sample of finite values; see `variance_of`."""
    units = [in_units(value) for value in values]
    return variance_of(len(units), sum(units), sum([unit * unit for unit in units]))


def statistics(
    stats: Sequence[str],
    count: int,
    total: float = 0.0,
    ordered: Sequence[float] = (),
    variance: float | None = None,
    distinct: int = 0,
) -> list[FieldValue | None]:
    """Statistics of one window from its number of values, `exact_sum`, values in ascending order and so on, where needed.

    None where a statistic has no meaning: no values, or too large for a float64. Quantiles are nearest-rank.
    """
    found: list[FieldValue | None] = []
    for stat in stats:
        if stat == "count":
            found.append(float(count))
        elif stat == "sum":
            found.append(total if math.isfinite(total) else None)
        elif stat == "distinct":
            found.append(float(distinct))
        elif not count:
            found.append(None)
        elif stat == "mean":
            found.append(total / count if math.isfinite(total) else None)
        elif stat == "min":
            found.append(ordered[0])
        elif stat == "max":
            found.append(ordered[-1])
        elif stat == "variance":
            found.append(variance)
        elif stat == "std":
            found.append(None if variance is None else math.sqrt(variance))
        else:
            found.append(ordered[math.ceil(QUANTILES[stat] * count) - 1])
    return found


def decayed_statistics(
    stats: Sequence[str], half_life_us: int, times_us: Sequence[int], values: Sequence[float]
) -> list[FieldValue | None]:
    """Statistics of values that weigh 2 ** (−age / half-life), ages counted from the last of the times, which ascend.

    Ages are rounded down to 1/1024 of a half-life. None where there are no values, or a sum is too large for a float64.
    """
    weights = []
    for at_us in times_us:
        halvings, step = divmod((times_us[-1] - at_us) * _DECAY_STEPS // half_life_us, _DECAY_STEPS)
        weights.append(math.ldexp(_DECAY[step], -halvings))
    weight = math.fsum(weights)
    total = exact_sum([weight * value for weight, value in zip(weights, values, strict=True)])
    found: dict[str, float | None] = {"count": weight, "sum": total, "mean": total / weight if weight else None}
    return [None if value is None or not math.isfinite(value) else value for value in map(found.__getitem__, stats)]


# many windows ---------------------------------------------------------------------------------------------------------
# A window is a range `first` ≤ index < `last` of a column.


class _ExactSums:
    """Sums of ranges of a column, at a cost that does not depend on their lengths.

    Values are cut into integers of a common unit, so few bits each that no prefix sum overflows (error-free vector
    transformation: Rump, Ogita and Oishi, "Accurate floating-point summation", 2008); most data need one or two such cuts.
    """

    def __init__(self, values: Floats) -> None:
        bits = _SUM_BITS - len(values).bit_length()
        exponent = math.frexp(float(np.abs(values).max(initial=0.0)))[1] - bits
        rest = values
        self._parts: list[tuple[Ints, int]] = []
        while not self._parts or rest.any():
            whole = np.trunc(np.ldexp(rest, -exponent))
            rest = rest - np.ldexp(whole, exponent)
            self._parts.append((np.concatenate(([0], np.cumsum(whole.astype(np.int64)))), exponent))
            exponent -= bits

    def rounded(self, first: Ints, last: Ints) -> Floats:
        """`exact_sum` of every range."""
        parts = [(prefix[last] - prefix[first], exponent) for prefix, exponent in self._parts]
        if len(parts) == 1 and (np.abs(parts[0][0]) <= _EXACT).all():
            return np.ldexp(parts[0][0].astype(np.float64), parts[0][1])
        terms = []
        with np.errstate(over="ignore"):
            for total, exponent in parts:
                near = total.astype(np.float64)
                far = (total - near.astype(np.int64)).astype(np.float64)
                terms += [np.ldexp(near, exponent), np.ldexp(far, exponent)]
        if not all(np.isfinite(term).all() for term in terms):
            return np.array([from_units(total) for total in self.in_units(first, last)])
        return _rounded_once(terms)

    def in_units(self, first: Ints, last: Ints) -> list[int]:
        """The sum of every range as a whole number of 2 ** −1074."""
        totals = [0] * len(first)
        for prefix, exponent in self._parts:
            shift = exponent + _UNIT_BITS
            for place, part in enumerate((prefix[last] - prefix[first]).tolist()):
                # Below the unit there are zeros only.
                totals[place] += part << shift if shift >= 0 else part >> -shift
        return totals


def _rounded_once(terms: Sequence[Floats]) -> Floats:
    """The sum of every row of finite terms, rounded once to the nearest float64: (rows,).

    Terms are distilled without an error (TwoSum and VecSum: Ogita, Rump and Oishi, "Accurate sum and dot product", 2005); where
    what is left over might reach half way to the neighbouring float64, the row is summed by `exact_sum`.
    """
    rest = list(terms)
    with np.errstate(over="ignore", invalid="ignore"):  # what is no number in the end is no sure row
        for _ in range(2):
            for place in range(1, len(rest)):
                low, high = rest[place - 1], rest[place]
                total = low + high
                part = total - low
                rest[place], rest[place - 1] = total, (low - (total - part)) + (high - part)
        total = rest.pop()
        left = np.abs(rest[-1]) + 2.0 * sum(map(np.abs, rest[:-1]))  # twice: the additions here are rounded, too
        way = np.minimum(np.nextafter(total, np.inf) - total, total - np.nextafter(total, -np.inf)) / 2.0
        unsure = np.flatnonzero(~((left < way) | (left == 0.0)))
    total[unsure] = [exact_sum(row) for row in zip(*(term[unsure].tolist() for term in terms), strict=True)]
    return total


def exact_sums(values: Floats, first: Ints, last: Ints) -> Floats:
    """`exact_sum` of every range: (ranges,)."""
    return _ExactSums(values).rounded(first, last)


def sample_variances(values: Floats, first: Ints, last: Ints) -> Floats:
    """`sample_variance` of every range, (ranges,); NaN where there is none."""
    magnitudes = np.abs(values[values != 0])
    if len(magnitudes) and not _SQUARED_EXACTLY[0] < magnitudes.min() <= magnitudes.max() < _SQUARED_EXACTLY[1]:
        found = [sample_variance(values[a:b].tolist()) for a, b in zip(first, last, strict=True)]
    else:
        # The square and its rounding error (Dekker's product with Veltkamp's split).
        high = values * _SPLITTER
        high = high - (high - values)
        low = values - high
        squares = values * values
        errors = ((high * high - squares) + 2.0 * high * low) + low * low
        parts = [_ExactSums(column).in_units(first, last) for column in (values, squares, errors)]
        found = [
            variance_of(count, total, square + error << _UNIT_BITS)
            for count, total, square, error in zip((last - first).tolist(), *parts, strict=True)
        ]
    return np.array([math.nan if value is None else value for value in found], dtype=np.float64)


class _WaveletMatrix:
    """Ranks in ranges of a column of whole numbers, level by level over all ranges at once.

    Claude, Navarro and Ordóñez, "The wavelet matrix", 2015. Cost and memory do not depend on the ranges' lengths.
    """

    def __init__(self, codes: Ints, bits: int) -> None:
        self._codes = codes
        self._bits = bits

    def at_rank(self, first: Ints, last: Ints, rank: Ints) -> Ints:
        """The number at `rank` (from 0) of every range in ascending order."""
        codes, found = self._codes, np.zeros(len(first), dtype=np.int64)
        for level in reversed(range(self._bits)):
            codes, zeros_before, zeros = _descend(codes, level)
            from_zero, to_zero = zeros_before[first], zeros_before[last]
            inside = to_zero - from_zero
            above = rank >= inside
            first = np.where(above, zeros + first - from_zero, from_zero)
            last = np.where(above, zeros + last - to_zero, to_zero)
            rank = np.where(above, rank - inside, rank)
            found |= above.astype(np.int64) << level
        return found

    def below(self, first: Ints, last: Ints, bound: Ints) -> Ints:
        """How many numbers of every range are below a bound of no more bits."""
        codes, found = self._codes, np.zeros(len(first), dtype=np.int64)
        for level in reversed(range(self._bits)):
            codes, zeros_before, zeros = _descend(codes, level)
            from_zero, to_zero = zeros_before[first], zeros_before[last]
            above = (bound >> level & 1).astype(bool)
            found += np.where(above, to_zero - from_zero, 0)
            first = np.where(above, zeros + first - from_zero, from_zero)
            last = np.where(above, zeros + last - to_zero, to_zero)
        return found


def _descend(codes: Ints, level: int) -> tuple[Ints, Ints, int]:
    """The column for the next level, and how many zeros of this level's bit precede each place and are there in all."""
    ones = (codes >> level & 1).astype(bool)
    zeros_before = np.concatenate(([0], np.cumsum(~ones)))
    return np.concatenate((codes[~ones], codes[ones])), zeros_before, int(zeros_before[-1])


def order_statistics(values: Floats, first: Ints, last: Ints, rank: Ints) -> Floats:
    """The value at `rank` (from 0, below last − first) of every range in ascending order: (ranges,)."""
    levels, codes = np.unique(values, return_inverse=True)
    return levels[_WaveletMatrix(codes, max(len(levels) - 1, 0).bit_length()).at_rank(first, last, rank)]


def distinct_counts(values: Floats, first: Ints, last: Ints) -> Ints:
    """How many different values every range has: (ranges,). A value counts where its range has none of it before."""
    order = np.argsort(values, kind="stable")
    again = np.zeros(len(values), dtype=bool)
    again[1:] = values[order][1:] == values[order][:-1]
    # Place of the same value before, plus one; 0: there is none.
    before = np.zeros(len(values), dtype=np.int64)
    before[order[again]] = order[np.flatnonzero(again) - 1] + 1
    return _WaveletMatrix(before, (len(values) + 1).bit_length()).below(first, last, first + 1)


def window_stats(stats: Sequence[str], values: Floats, first: Ints, last: Ints) -> Floats:
    """`statistics` of every range, (ranges, stats); NaN where one has no meaning."""
    count = last - first
    held = np.flatnonzero(count)
    columns: dict[str, Floats] = {"count": count.astype(np.float64)}
    if needs_sum(stats):
        sums = exact_sums(values, first, last)
        sums[np.isinf(sums)] = np.nan
        columns["sum"] = sums
        columns["mean"] = np.divide(sums, count, out=np.full(len(sums), np.nan), where=count > 0)
    if needs_squares(stats):
        columns["variance"] = sample_variances(values, first, last)
        columns["std"] = np.sqrt(columns["variance"])
    if "distinct" in stats:
        columns["distinct"] = distinct_counts(values, first, last).astype(np.float64)
    ranked = [stat for stat in stats if stat not in columns]
    if ranked:
        ranks = np.concatenate([_ranks(stat, count[held]) for stat in ranked])
        ordered = order_statistics(values, np.tile(first[held], len(ranked)), np.tile(last[held], len(ranked)), ranks)
        for stat, found in zip(ranked, np.split(ordered, len(ranked)), strict=True):
            columns[stat] = np.full(len(first), np.nan)
            columns[stat][held] = found
    return np.stack([columns[stat] for stat in stats], axis=1)


def _ranks(stat: str, count: Ints) -> Ints:
    if stat == "min":
        return np.zeros_like(count)
    if stat == "max":
        return count - 1
    return np.ceil(QUANTILES[stat] * count).astype(np.int64) - 1


def decayed_stats(
    stats: Sequence[str], half_life_us: int, times_us: Ints, values: Floats, first: Ints, last: Ints
) -> Floats:
    """`decayed_statistics` of ranges that follow one another without a gap, (ranges, stats); NaN where there are none."""
    count = last - first
    newest_us = np.repeat(times_us[last - 1] if len(times_us) else last, count)
    halvings, step = np.divmod((newest_us - times_us) * _DECAY_STEPS // half_life_us, _DECAY_STEPS)
    weights = np.ldexp(_DECAY_COLUMN[step], -halvings)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        products = weights * values
        sums = {"count": exact_sums(weights, first, last), "sum": exact_sums(products, first, last)}
        sums["mean"] = sums["sum"] / sums["count"]
    found = np.stack([sums[stat] for stat in stats], axis=1)
    found[~np.isfinite(found)] = np.nan
    return found
