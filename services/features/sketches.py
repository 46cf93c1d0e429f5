"""Sums up a window's values in bounded memory, pane by pane; knows no keys, clocks or messages.

Quantiles come from DDSketch (Masson, Rim and Lee, "DDSketch: a fast and fully-mergeable quantile sketch with relative-error
guarantees", 2019), counts of different values from CPC (Lang, "Back to the future: an even more nearly optimal cardinality
estimation algorithm", 2017). Both toss no coin and, read as they are here, say the same whatever the order of values and merges:
a stream, a replay, a backfill and a restored snapshot agree to the bit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from datasketches import cpc_sketch, cpc_union
from ddsketch.ddsketch import BaseDDSketch
from ddsketch.mapping import LogarithmicMapping
from ddsketch.store import CollapsingLowestDenseStore

from driftloop.usecase import FieldValue, Sketch
from services.features.windows import (
    QUANTILES,
    Floats,
    Ints,
    from_units,
    in_units,
    needs_squares,
    needs_sum,
    statistics,
    variance_of,
    window_stats,
)

_MAGNITUDES = 1e9  # between the largest and the smallest that quantiles tell apart: it bounds their buckets
_CPC_ERROR = math.log(2)  # its standard error, times the square root of its size


class SketchPlan:
    """What is computed, and how exactly; one for all entities of a view."""

    def __init__(self, sketch: Sketch, stats: Sequence[str]) -> None:
        self.stats = tuple(stats)
        self.quantiles = {stat: QUANTILES[stat] for stat in stats if stat in QUANTILES}
        self.has_distinct = "distinct" in stats
        self.exact = [stat for stat in stats if stat not in self.quantiles and stat != "distinct"]
        self.has_squares = needs_squares(self.exact)
        self.has_sum = needs_sum(self.exact) or self.has_squares
        self.has_edges = not {"min", "max"}.isdisjoint(self.exact)
        self.mapping = LogarithmicMapping(sketch.quantile_error)
        self.bins_max = math.ceil(math.log(_MAGNITUDES) / math.log(self.mapping.gamma))
        self.log2_size = math.ceil(2 * math.log2(_CPC_ERROR / sketch.distinct_error))


class WindowSketch:
    """What the values of a pane, or of several, come to."""

    __slots__ = (
        "_count",
        "_different",
        "_edges",
        "_negative",
        "_plan",
        "_positive",
        "_quantiles",
        "_squares",
        "_total",
    )

    def __init__(self, plan: SketchPlan) -> None:
        self._plan = plan
        self._count = self._total = self._squares = 0
        self._edges = (math.inf, -math.inf)
        if plan.quantiles:
            self._positive = CollapsingLowestDenseStore(plan.bins_max)
            self._negative = CollapsingLowestDenseStore(plan.bins_max)
            self._quantiles = BaseDDSketch(plan.mapping, self._positive, self._negative, 0.0)
        if plan.has_distinct:
            self._different = cpc_sketch(plan.log2_size)

    def add(self, value: Any) -> None:
        """Takes a value in: a finite float, or a text where only different ones are counted."""
        plan = self._plan
        self._count += 1
        if plan.has_sum:
            units = in_units(value)
            self._total += units
            if plan.has_squares:
                self._squares += units * units
        if plan.has_edges:
            self._edges = (min(self._edges[0], value), max(self._edges[1], value))
        if plan.quantiles:
            self._quantiles.add(value)
        if plan.has_distinct:
            self._different.update(value)

    def merge(self, other: WindowSketch) -> None:
        """Takes in what another has taken in."""
        plan = self._plan
        self._count += other._count
        self._total += other._total
        self._squares += other._squares
        self._edges = (min(self._edges[0], other._edges[0]), max(self._edges[1], other._edges[1]))
        if plan.quantiles:
            self._quantiles.merge(other._quantiles)
        if plan.has_distinct:
            union = cpc_union(plan.log2_size)
            union.update(self._different)
            union.update(other._different)
            self._different = union.get_result()

    def statistics(self) -> list[FieldValue | None]:
        """The plan's statistics. A quantile's rank is ⌊q (n − 1)⌋, counted from 0."""
        plan, count = self._plan, self._count
        exact = statistics(
            plan.exact,
            count,
            from_units(self._total),
            self._edges,
            variance_of(count, self._total, self._squares) if plan.has_squares else None,
        )
        found = dict(zip(plan.exact, exact, strict=True))
        for stat, share in plan.quantiles.items():
            found[stat] = self._quantile(share) if count else None
        if plan.has_distinct:
            found["distinct"] = self._distinct()
        return [found[stat] for stat in plan.stats]

    def _quantile(self, share: float) -> float | None:
        try:
            value = float(self._quantiles.get_quantile_value(share))
        except OverflowError:  # the middle of the last bucket
            return None
        return value if math.isfinite(value) else None

    def _distinct(self) -> float:
        # The estimate of a union depends on what it holds; that of a sketch that was never merged on the order, too.
        union = cpc_union(self._plan.log2_size)
        union.update(self._different)
        return float(union.get_result().get_estimate())

    def snapshot(self) -> list[Any]:
        """State as plain values."""
        plan = self._plan
        bins = [_bins(store) for store in (self._negative, self._positive)] if plan.quantiles else []
        different = self._different.serialize() if plan.has_distinct else b""
        return [self._count, f"{self._total:x}", f"{self._squares:x}", list(self._edges), bins, different]

    def restore(self, state: Sequence[Any]) -> None:
        """Takes a snapshot back."""
        plan = self._plan
        self._count, total, squares, edges, bins, different = state
        self._total, self._squares, self._edges = int(total, 16), int(squares, 16), (edges[0], edges[1])
        if plan.quantiles:
            for store, held in zip((self._negative, self._positive), bins, strict=True):
                for key, weight in reversed(held):  # from the highest on, so that nothing collapses on the way
                    store.add(key, weight)
            zeros = self._count - self._negative.count - self._positive.count
            self._quantiles = BaseDDSketch(plan.mapping, self._positive, self._negative, zeros)
        if plan.has_distinct:
            self._different = cpc_sketch.deserialize(different)


def _bins(store: CollapsingLowestDenseStore) -> list[tuple[int, float]]:
    return [(key, weight) for key, weight in enumerate(store.bins, store.offset) if weight]


def sketched_stats(sketch: Sketch, stats: Sequence[str], values: npt.NDArray[Any], first: Ints, last: Ints) -> Floats:
    """`WindowSketch.statistics` of every range, (ranges, stats); NaN where one has no meaning.

    Ranges that begin alike are one sketch that grows.
    """
    found = np.empty((len(first), len(stats)))
    exact = SketchPlan(sketch, stats).exact
    if exact:
        numbers = values if values.dtype == np.float64 else np.zeros(len(values))
        found[:, [stats.index(stat) for stat in exact]] = window_stats(exact, numbers, first, last)
    plan = SketchPlan(sketch, [stat for stat in stats if stat not in exact])
    places = [stats.index(stat) for stat in plan.stats]
    order = np.lexsort((last, first)) if places else np.zeros(0, dtype=np.int64)
    edges = np.flatnonzero(np.diff(first[order], prepend=-1, append=-1))
    for begin, end in pairwise(edges.tolist()):
        rows = order[begin:end].tolist()
        grown, done = WindowSketch(plan), int(first[rows[0]])
        for row in rows:
            for value in values[done : last[row]].tolist():
                grown.add(value)
            done = max(done, int(last[row]))
            found[row, places] = [math.nan if value is None else value for value in grown.statistics()]
    return found
