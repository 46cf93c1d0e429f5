"""Says what the values of a view were at any clock, from whole columns of its events; keeps no state and sends nothing.

The very values that `Aggregation` emits, without an update for every event: what backtests and backfills need.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from driftloop.usecase import SECOND_US, Since, Window
from driftloop.usecase.features import HALF_LIVES
from services.features.sketches import sketched_stats
from services.features.windows import MAX_ENTRIES_PER_KEY, Floats, Ints, decayed_stats, window_stats

_GATHERED_MAX = 4_000_000  # entries copied at once for reads that see no range: some 100 MB


@dataclass(frozen=True)
class ViewEvents:
    """Events of one view in the order in which they were folded, (events,) each; late ones left out.

    `entities`: numbers of feature entities. `folds`: the number of the fold that took the event, never falling.
    """

    entities: Ints
    folds: Ints
    at_us: Ints


@dataclass(frozen=True)
class Reads:
    """What is asked, (reads,) each: an entity, the first fold that is not seen yet, and the clock reached by then."""

    entities: Ints
    folds: Ints
    clocks_us: Ints


@dataclass(frozen=True)
class _Seen:
    """Events by (entity, event time), and where each read's entity begins, how many it sees and the place after the newest."""

    order: Ints
    entities: Ints
    begin: Ints
    count: Ints
    end: Ints


def _seen(events: ViewEvents, reads: Reads, ids: Sequence[str] | None = None) -> _Seen:
    arrived = np.argsort(events.entities, kind="stable")
    in_order = not len(arrived) or bool((events.at_us[1:] >= events.at_us[:-1]).all())
    order = arrived.copy() if in_order else np.lexsort((events.at_us, events.entities))
    if ids is not None:
        _break_ties(order, events, ids)
    entities = events.entities[order]
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    newest = np.concatenate(([0], np.maximum.accumulate(place[arrived]) + 1))
    folds_end = int(max(events.folds.max(initial=0), reads.folds.max(initial=0))) + 1
    by_fold = events.entities[arrived] * folds_end + events.folds[arrived]
    begin = np.searchsorted(entities, reads.entities)
    until = np.searchsorted(by_fold, reads.entities * folds_end + reads.folds)
    count = until - begin
    return _Seen(order, entities, begin, count, np.where(count > 0, newest[until], begin))


def _break_ties(order: Ints, events: ViewEvents, ids: Sequence[str]) -> None:
    """Puts events of one entity and time in the order of their ids."""
    entities, at_us = events.entities[order], events.at_us[order]
    tied = (entities[1:] == entities[:-1]) & (at_us[1:] == at_us[:-1])
    edges = np.flatnonzero(np.diff(np.concatenate(([False], tied, [False])).astype(np.int8)))
    for first, last in edges.reshape(-1, 2).tolist():
        order[first : last + 1] = sorted(order[first : last + 1].tolist(), key=lambda row: ids[row])


def newest_times(events: ViewEvents, reads: Reads) -> Ints:
    """The newest event time that each read sees, (reads,); a read sees at least one event."""
    seen = _seen(events, reads)
    return events.at_us[seen.order[seen.end - 1]]


def latest_events(events: ViewEvents, ids: Sequence[str], age_us: int, reads: Reads) -> Ints:
    """The row of the newest event by (event time, id) that each read sees, (reads,); −1 where there is none younger than an age."""
    seen = _seen(events, reads, ids)
    if not len(seen.order):
        return np.full(len(reads.entities), -1)
    row = seen.order[seen.end - 1]
    fresh = (seen.count > 0) & (events.at_us[row] > reads.clocks_us - age_us)
    return np.where(fresh, row, -1)


def since_values(view: Since, events: ViewEvents, ids: Sequence[str], reads: Reads) -> Floats:
    """The view's feature for every read, (reads,); NaN where missing."""
    newest = latest_events(events, ids, view.ages_us[-1], reads)
    ages_us = np.maximum(reads.clocks_us - events.at_us[newest], 0) if len(events.at_us) else reads.clocks_us
    return np.where(newest >= 0, ages_us // view.every_us * view.every_us / SECOND_US, np.nan)


def window_values(view: Window, events: ViewEvents, values: npt.NDArray[Any], reads: Reads) -> Floats:
    """The view's features for every read, (reads, features) in declared order; NaN where missing.

    `values`: (events,) float64, or object (str) where the view counts different texts.
    """
    seen = _seen(events, reads)
    if values.dtype == object and view.sketch is None:
        values = np.unique(values.astype(str), return_inverse=True)[1].astype(np.float64)
    values, folds, at_us = values[seen.order], events.folds[seen.order], events.at_us[seen.order]
    # Numbered times keep entity and time in one integer.
    times, numbers = np.unique(at_us, return_inverse=True)
    by_time = seen.entities * (len(times) + 1) + numbers
    # A read that came while an older event was still to come sees no range; weights differ from read to read.
    is_decayed = view.kind == "decayed"
    stats_of, entries_max = partial(window_stats, view.stats), MAX_ENTRIES_PER_KEY
    if view.sketch is not None:
        stats_of, entries_max = partial(sketched_stats, view.sketch, view.stats), len(values)
    copied = np.arange(len(seen.end)) if is_decayed else np.flatnonzero(seen.end - seen.begin > seen.count)
    found = np.empty((len(reads.entities), len(view.features)))
    firsts = []
    for age_us in view.ages_us:
        gone = np.searchsorted(times, view.edge_us(reads.clocks_us, age_us), side="right")
        firsts.append(np.searchsorted(by_time, reads.entities * (len(times) + 1) + gone).clip(max=seen.end))
    if not is_decayed:  # all windows at once: what a column is prepared for costs as much as what is then read of it
        kept = [first.clip(min=seen.end - entries_max) for first in firsts]
        of_all = stats_of(values, np.concatenate(kept), np.tile(seen.end, len(kept)))
        found[:] = np.concatenate(np.split(of_all, len(kept)), axis=1)
    for age_us, first, columns in zip(view.ages_us, firsts, _columns(view), strict=True):
        for piece in _pieces(copied, (seen.end - first)[copied]):
            sizes = seen.end[piece] - first[piece]
            starts = np.cumsum(sizes) - sizes
            rows = np.repeat(first[piece] - starts, sizes) + np.arange(sizes.sum())
            known = folds[rows] < np.repeat(reads.folds[piece], sizes)
            before = np.concatenate(([0], np.cumsum(known)))
            known &= np.repeat(before[starts + sizes], sizes) - before[:-1] <= entries_max
            before = np.concatenate(([0], np.cumsum(known)))
            begin, end = before[starts], before[starts + sizes]
            rows = rows[known]
            if is_decayed:
                half_life_us = age_us // HALF_LIVES
                found[piece, columns] = decayed_stats(view.stats, half_life_us, at_us[rows], values[rows], begin, end)
            else:
                found[piece, columns] = stats_of(values[rows], begin, end)
    return found


def _columns(view: Window) -> list[slice]:
    width = len(view.stats)
    return [slice(first, last) for first, last in pairwise(range(0, len(view.features) + 1, width))]


def _pieces(rows: Ints, sizes: Ints) -> list[Ints]:
    """The rows in pieces whose sizes add up to about a bound."""
    if not len(rows):
        return []
    return np.split(rows, np.flatnonzero(np.diff(np.cumsum(sizes) // _GATHERED_MAX)) + 1)
