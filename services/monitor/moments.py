"""Count, mean and spread of values, taken in one by one (Welford, 1962)."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(slots=True)
class Moments:
    """Count, mean and summed squared deviations."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def add(self, value: float) -> None:
        """One more value."""
        self.count += 1
        delta = value - self.mean
        self.mean += delta / self.count
        self.squares += delta * (value - self.mean)

    def less(self, part: Moments) -> Moments:
        """Those of the values that are not of the part (Chan, Golub & LeVeque, 1979)."""
        count = self.count - part.count
        if count <= 0:
            return Moments()
        mean = (self.count * self.mean - part.count * part.mean) / count
        between = (mean - part.mean) ** 2 * count * part.count / self.count
        return Moments(count, mean, max(0.0, self.squares - part.squares - between))

    @property
    def error(self) -> float:
        """Standard error of the mean; infinite below two values."""
        return math.inf if self.count < 2 else math.sqrt(self.squares / (self.count - 1) / self.count)

    def as_list(self) -> list[float]:
        """As plain values."""
        return [self.count, self.mean, self.squares]
