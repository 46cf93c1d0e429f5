"""Paired evidence of two models on the same mature rows, with bounds that hold at all times at once; decides nothing.

The bound is an asymptotic confidence sequence (Waudby-Smith, Arbour, Sinha, Kennedy, Ramdas: "Time-uniform central limit theory and
asymptotic confidence sequences", 2021). What trainer held out comes first, and is struck out if production surely does not see it.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from statistics import NormalDist
from typing import Any

from services.monitor.moments import Moments

PLANNED_BLOCKS = 20  # at which the bound is tightest
# Of production's own, from which a gain must be seen there, too: held-out rows chose the candidate, and it was lucky on them.
CONFIRMING_BLOCKS = 2
NEWEST_BLOCKS = (
    24  # that say who is better now: where gains come in bursts, a longer memory answers by the weather of last week
)
BATCHES_MIN = 8  # joined blocks that the deviation of bursty differences is taken from, at the least
STRIKING_DEVIATIONS = 3.0  # standard errors by which production's gain must fall short of the held-out one to refute it


class Evidence:
    """Paired differences of loss, reference less candidate (above 0: the candidate is better), in block means."""

    def __init__(self, block_rows: int, pace: int = 1) -> None:
        self._block_rows, self._bursty = block_rows, pace > 1
        self._values: list[float] = []  # of a bursty stream only; as many as a trial has blocks
        self.rows, self._held_rows = 0, 0
        self._open_sum, self._open_rows = 0.0, 0
        self._all, self._own = Moments(), Moments()
        self._newest: deque[float] = deque(maxlen=max(BATCHES_MIN, NEWEST_BLOCKS // pace))

    def add(self, reference_loss: float, candidate_loss: float) -> None:
        """Takes one mature row in."""
        self.rows += 1
        self._open_sum += reference_loss - candidate_loss
        self._open_rows += 1
        if self._open_rows >= self._block_rows:
            gain = self._open_sum / self._open_rows
            self._add_block(gain)
            self._own.add(gain)
            self._open_sum, self._open_rows = 0.0, 0

    def start_with(self, gains: tuple[float, ...], rows: int) -> None:
        """Takes in the means of blocks that were held out, and how many rows they hold."""
        self.rows += rows
        self._held_rows = rows
        for gain in gains:
            self._add_block(gain)

    def _add_block(self, gain: float) -> None:
        self._all.add(gain)
        self._newest.append(gain)
        if self._bursty:
            self._values.append(gain)

    @property
    def is_heard(self) -> bool:
        """Whether production's own rows have had a say."""
        return self._own.count >= CONFIRMING_BLOCKS

    def is_confirmed(self, worth: float) -> bool:
        """Whether production's own rows show a gain of that much, too."""
        return self.is_heard and self._own.mean >= worth

    def strike_if_refuted(self) -> bool:
        """Forgets what was held out if production surely sees less of a gain; whether it did so now."""
        held = self._all.less(self._own)
        if not held.count or self._own.count < CONFIRMING_BLOCKS or held.count + self._own.count < 5:
            return False
        variance = (held.squares + self._own.squares) / (held.count + self._own.count - 2)
        error = math.sqrt(variance * (1.0 / held.count + 1.0 / self._own.count))
        if held.mean - self._own.mean <= STRIKING_DEVIATIONS * error:
            return False
        self.rows -= self._held_rows
        self._held_rows, self._all = 0, Moments(self._own.count, self._own.mean, self._own.squares)
        self._values = self._values[-self._own.count :]
        own = list(self._newest)[-self._own.count :]
        self._newest.clear()
        self._newest.extend(own)
        return True

    @property
    def mean(self) -> float:
        """Mean gain in loss per row over the closed blocks."""
        return self._all.mean

    @property
    def recent_mean(self) -> float:
        """Mean gain over the newest blocks."""
        return math.fsum(self._newest) / len(self._newest) if self._newest else 0.0

    def chance(self, prior: float) -> float:
        """Chance that the candidate is better on rows like the newest ones; one half before anything is known.

        A normal posterior of the mean gain over the newest blocks, held-out ones among them, after a normal prior about zero with
        the deviation `prior`. Good for one look: who acts on it at every block must be able to take back what it did.
        """
        blocks = len(self._newest)
        if blocks < 3:
            return 0.5
        mean = math.fsum(self._newest) / blocks
        squares = math.fsum((gain - mean) ** 2 for gain in self._newest)
        pairs = zip(self._newest, itertools.islice(self._newest, 1, None), strict=False)
        lagged = math.fsum((one - mean) * (other - mean) for one, other in pairs)
        error = math.sqrt(max(squares + 2.0 * lagged, squares) / (blocks - 1) / blocks) * (1.0 + 2.0 / blocks)
        if error == 0.0:
            return 0.5 if mean == 0.0 else float(mean > 0.0)
        return NormalDist().cdf(mean / error * prior / math.hypot(prior, error))

    def half_width(self, confidence: float) -> float:
        """Distance from the mean to the one-sided bound; infinite before there are three blocks.

        The bound is asymptotic: of few blocks the deviation is not known well, and is taken to be larger.
        """
        blocks, alpha = self._all.count, 1.0 - confidence
        if blocks < 3:
            return math.inf
        single = math.sqrt(self._all.squares / (blocks - 1))
        deviation = max(single, self._deviation_of_neighbours()) * (1.0 + 2.0 / blocks)
        spread = -2.0 * math.log(2.0 * alpha)
        rho_squared = (spread + math.log(max(spread, 1.0)) + 1.0) / PLANNED_BLOCKS
        grown = blocks * rho_squared + 1.0
        return deviation * math.sqrt(
            2.0 * grown / (blocks * blocks * rho_squared) * math.log1p(math.sqrt(grown) / (2.0 * alpha))
        )

    def _deviation_of_neighbours(self) -> float:
        """Deviation of one block as means of 2, 4, 8 … neighbours suggest it (overlapping batch means, as in `rise`).

        Where hard rows come in bursts, one model's advantage does, too: an hour of storms would count as many proofs.
        """
        deviation, size, count = 0.0, 2, len(self._values)
        while count / size >= BATCHES_MIN:
            sums = [0.0, *itertools.accumulate(value - self.mean for value in self._values)]
            means = [(after - before) / size for before, after in zip(sums, sums[size:], strict=False)]
            variance = math.fsum(mean * mean for mean in means) / len(means) * count / len(means)
            deviation, size = max(deviation, math.sqrt(variance * size)), size * 2
        return deviation

    def lower(self, confidence: float) -> float:
        """The gain is above this at all times with the confidence."""
        return self.mean - self.half_width(confidence)

    def upper(self, confidence: float) -> float:
        """The gain is below this at all times with the confidence."""
        return self.mean + self.half_width(confidence)

    def as_map(self, confidence: float) -> dict[str, float]:
        """What a decision shows of it."""
        bounds = {"gain_lower": self.lower(confidence), "gain_upper": self.upper(confidence)}
        return {"paired_rows": float(self.rows), "gain": self.mean} | {
            k: v for k, v in bounds.items() if math.isfinite(v)
        }

    def snapshot(self) -> dict[str, Any]:
        """State as plain values."""
        return {
            "rows": [self.rows, self._held_rows],
            "open": [self._open_sum, self._open_rows],
            "all": self._all.as_list(),
            "own": self._own.as_list(),
            "values": list(self._values),
            "newest": list(self._newest),
        }

    def restore(self, state: dict[str, Any] | list[Any]) -> None:
        """Takes a snapshot back; a list is of before held-out rows were told apart."""
        if isinstance(state, list):
            self.rows, self._open_sum, self._open_rows, *moments = state[:6]
            self._all, self._values = Moments(*moments), list(state[6:])
            return
        self.rows, self._held_rows = state["rows"]
        self._open_sum, self._open_rows = state["open"]
        self._all, self._own = Moments(*state["all"]), Moments(*state["own"])
        self._values = list(state["values"])
        self._newest.extend(state.get("newest", ()))  # absent from checkpoints of before they were kept
