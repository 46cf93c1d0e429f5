"""Whether a challenger harms a part of the rows though it gains on the whole; decides nothing about releases.

Gains are paired, row by row, for each value of each declared slice. All slices are looked at together, so each gets its share of
the allowed error; where hard rows come in bursts, errors are as much larger as evidence is slower.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from services.monitor.rise import student_quantile

SLICES_MAX = 256  # values of all slices together; more are too rare to be judged
SLICE_ROWS_MIN = 15  # independent ones, below which nothing is said of a slice: one burst is no harm
SHARE_MIN = 0.02  # of all paired rows, for the same
MAJOR_SHARE = 0.1  # a slice with such a share of the rows is to be seen before anything is promoted


@dataclass(frozen=True)
class Harm:
    """The slice that does worst, by how much its loss exceeds production's per row, and the rows behind it."""

    name: str
    excess: float
    rows: int


class SliceGains:
    """Paired gains (above 0: the challenger is better) by slice."""

    def __init__(self) -> None:
        self._rows = 0
        self._found: dict[str, list[float]] = {}  # rows, mean, summed squared deviations (Welford, 1962)

    def add(self, slices: Mapping[str, str], gain: float) -> None:
        """One more row; `slices`: its value of each declared slice."""
        self._rows += 1
        for name, value in slices.items():
            place = f"{name}={value}"
            found = self._found.get(place)
            if found is None:
                if len(self._found) >= SLICES_MAX:
                    continue
                found = self._found[place] = [0, 0.0, 0.0]
            found[0] += 1
            delta = gain - found[1]
            found[1] += delta / found[0]
            found[2] += delta * (gain - found[1])

    def harmed(self, confidence: float, least: float, pace: int = 1) -> Harm | None:
        """The worst slice whose loss is higher with the confidence, and by at least `least` per row; None if there is none.

        pace: rows that say together what one independent row does.
        """
        judged = [(name, found) for name, found in self._found.items() if self._is_judged(found, pace)]
        if not judged:
            return None
        level = 1.0 - (1.0 - confidence) / len(judged)
        worst: Harm | None = None
        for name, (rows, mean, squares) in judged:
            error = math.sqrt(squares / (rows - 1) / rows * pace)
            deviate = student_quantile(level, rows / pace - 1.0)
            if -mean >= least and -mean > deviate * error and (worst is None or -mean > worst.excess):
                worst = Harm(name, -mean, int(rows))
        return worst

    def are_seen(self, rows: float) -> bool:
        """Whether every major slice has so many rows."""
        return all(found[0] >= rows for found in self._found.values() if found[0] >= MAJOR_SHARE * self._rows)

    def _is_judged(self, found: list[float], pace: int) -> bool:
        return found[0] >= max(SLICE_ROWS_MIN * pace, SHARE_MIN * self._rows)

    def snapshot(self) -> list[object]:
        """State as plain values."""
        return [self._rows, [[name, *found] for name, found in self._found.items()]]

    def restore(self, state: Iterable[object]) -> None:
        """Takes a snapshot back."""
        rows, found = state
        assert isinstance(rows, int)
        assert isinstance(found, list)
        self._rows, self._found = rows, {name: list(values) for name, *values in found}
