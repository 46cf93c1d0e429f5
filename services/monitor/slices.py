"""Whether a challenger harms a part of the rows though it gains on the whole; decides nothing about releases.

Gains are paired, row by row, for each value of each declared slice. All slices are looked at together, so each gets its share of
the allowed error; where hard rows come in bursts, errors are as much larger as evidence is slower. While a concept gives way to
another, a challenger loses a little on most rows and gains much on few: fifteen rows of a slice may have none of the few, and seem
to lose for sure. So the spread of all rows' gains counts beside the slice's own, the less the more rows the slice has.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from services.monitor.moments import Moments
from services.monitor.rise import student_quantile

SLICES_MAX = 256  # values of all slices together; more are too rare to be judged
SLICE_ROWS_MIN = 15  # independent ones, below which nothing is said of a slice: one burst is no harm
SHARE_MIN = 0.02  # of all paired rows, for the same
USUAL_ROWS = 30  # independent ones that the spread of all rows counts as, beside those of a slice: twice the fewest that are judged
# A slice with such a share of the rows is to be cleared before anything is promoted; while it has few rows, one that may have it, too.
MAJOR_SHARE, MAJOR_DEVIATIONS = 0.1, 2.0
# A slice is cleared when it is unlikely to lose twice what is harm, or a quarter of the deviation of all rows' gains where that is more
# (one that is turned upside down loses half of it), so many standard errors below: without them one in sixteen that are turned upside
# down looks harmless on 80 rows. Rows count one by one, for a slice that loses a little, as the price of a repaired concept, would
# otherwise wait for thousands of rows where hard ones come in bursts.
CLEARED_HARMS, CLEARED_SPREAD, CLEARED_ERRORS = 2.0, 0.25, 1.5


@dataclass(frozen=True)
class Harm:
    """The slice that does worst, by how much its loss exceeds production's per row, and the rows behind it."""

    name: str
    excess: float
    rows: int

    def in_words(self, unit: str) -> str:
        """What is wrong, for a decision."""
        return f"a slice is harmed: the newer model loses {self.excess:.4f} {unit} a row more on {self.rows} rows of {self.name}"


class SliceGains:
    """Paired gains (above 0: the challenger is better) by slice."""

    def __init__(self) -> None:
        self._all = Moments()
        self._found: dict[str, Moments] = {}

    def add(self, slices: Mapping[str, str], gain: float) -> None:
        """One more row; `slices`: its value of each declared slice."""
        self._all.add(gain)
        for name, value in slices.items():
            place = f"{name}={value}"
            found = self._found.get(place)
            if found is None:
                if len(self._found) >= SLICES_MAX:
                    continue
                found = self._found[place] = Moments()
            found.add(gain)

    def harmed(self, confidence: float, least: float, pace: int = 1) -> Harm | None:
        """The worst slice whose loss is higher with the confidence, and by at least `least` per row; None if there is none.

        pace: rows that say together what one independent row does.
        """
        judged = [(name, found) for name, found in self._found.items() if self._is_judged(found, pace)]
        if not judged:
            return None
        level = 1.0 - (1.0 - confidence) / len(judged)
        worst: Harm | None = None
        for name, found in judged:
            error, excess = self._error(found, pace), -found.mean
            deviate = student_quantile(level, found.count / pace + USUAL_ROWS - 1.0)
            if excess >= least and excess > deviate * error and (worst is None or excess > worst.excess):
                worst = Harm(name, excess, found.count)
        return worst

    def are_seen(self, rows: float) -> bool:
        """Whether every major slice has so many rows."""
        return all(found.count >= rows for found in self._major())

    def are_cleared(self, harm: float) -> bool:
        """Whether the rows of every major slice speak against its losing twice `harm` per row, or what is much of all gains' spread."""
        most = max(CLEARED_HARMS * harm, CLEARED_SPREAD * math.sqrt(self._usual_variance))
        return all(CLEARED_ERRORS * self._error(found, pace=1) - found.mean < most for found in self._major())

    def _major(self) -> list[Moments]:
        least = MAJOR_SHARE * self._all.count
        return [
            found for found in self._found.values() if found.count + MAJOR_DEVIATIONS * math.sqrt(found.count) >= least
        ]

    def _error(self, found: Moments, pace: int) -> float:
        """Standard error of a slice's mean gain, from its own spread and that of all rows (a scaled inverse chi-squared prior)."""
        usual_rows = USUAL_ROWS * pace
        variance = (found.squares + usual_rows * self._usual_variance) / (found.count - 1 + usual_rows)
        return math.sqrt(variance / found.count * pace)

    @property
    def _usual_variance(self) -> float:
        """Of the gains of all rows."""
        return self._all.squares / max(1, self._all.count - 1)

    def _is_judged(self, found: Moments, pace: int) -> bool:
        return found.count >= max(SLICE_ROWS_MIN * pace, SHARE_MIN * self._all.count)

    def snapshot(self) -> list[object]:
        """State as plain values."""
        return [self._all.as_list(), [[name, *found.as_list()] for name, found in self._found.items()]]

    def restore(self, state: Iterable[object]) -> None:
        """Takes a snapshot back; one of before the spread of all rows was kept, a mere count first, begins anew."""
        everything, found = state
        if isinstance(everything, list) and isinstance(found, list):
            self._all, self._found = Moments(*everything), {name: Moments(*values) for name, *values in found}
