"""How many rows until the next candidate: the interval follows what the candidates before have brought; asks nobody.

A candidate that was worth promoting, though it was fitted on recent rows only, makes it shorter (the world moves), one that was not
makes it longer, up to a share of the regime; one that won by resting on all rows makes it half of the regime (the world stands
still, and only many more rows will tell more). Where much was lost until a promotion, or much still is, it is the shortest.
"""

from __future__ import annotations

from typing import Any

from driftloop.contracts import UNSET_US
from services.monitor.wanted import Counts

SHORTER, LONGER = 0.6, 1.6  # of the interval, after a candidate that was worth it, and after one that was not
INTERVAL_SHARE_MAX = 0.6  # of the rows of the regime
MUCH = 0.2  # of production's loss: who gains as much shows that the interval was far too long
ATTAINED = 1.5  # times the least lasting error: what a promotion leaves above it, a next candidate may win
LASTING_ROWS = 1_000  # of one champion, whose mean error is no chance
YOUNG_SHARE = 0.5  # of the rows of a young regime that the last candidate knew, until the next one at the least
# The most that the pace counts in it: where hard rows come in bursts, half as many again tell little.
YOUNG_PACE_MAX = 2
TRIAL_INTERVALS = 2  # after which a challenger that is still on trial is no reason to wait
SUSPICION_LONGER = 2.0  # of the rows between two suspicions that are followed, after one in vain: where hard rows come in bursts, all are


class Interval:
    """State: rows between two candidates and two suspicions, how many there were at the newest of each, and what was attained.

    recent_rows: between two candidates at the least, times the pace.
    """

    def __init__(self, recent_rows: int) -> None:
        self._recent_rows = recent_rows
        self.rows = float(recent_rows)  # between two candidates
        self.tried_at_rows = 0
        self._trial_since_us = UNSET_US
        self._trial_rows = 0  # mature ones of times since then: those that the newest challenger may have scored
        self._suspicion_rows = float(recent_rows)  # between two suspicions that are followed, until the first promotion
        self._suspected_at_rows = 0
        self._attained = 0.0  # the least that the error has been with one champion for long; 0: none has been
        self._answers_since_rows = 0  # rows when the champion was last another

    def least_rows(self, counts: Counts) -> float:
        """Rows between two candidates at the least: where the regime is young, half as many again as the last one knew teach much."""
        since = counts.rows - self.tried_at_rows
        known = counts.regime_rows - since
        if known >= since:
            again = YOUNG_SHARE * min(counts.pace, YOUNG_PACE_MAX) * known
        else:  # the regime began after the last candidate, or just before it: there is nothing to take half of but all
            again = YOUNG_SHARE * counts.regime_rows
        return min(float(self._recent_rows * counts.pace), again)

    def is_due(self, counts: Counts) -> bool:
        """Whether there are new rows enough for a candidate."""
        return counts.rows - self.tried_at_rows >= max(self.rows, self.least_rows(counts))

    def has_trial_time(self, counts: Counts) -> bool:
        """Whether a challenger that is on trial is a reason to wait yet: where labels are late, its trial begins as late."""
        return self._trial_rows < TRIAL_INTERVALS * max(self.rows, self.least_rows(counts))

    def follows_suspicion(self, counts: Counts) -> bool:
        """Whether a suspicion is worth a look: not if a candidate is due soon anyway, and ever more seldom after those in vain."""
        least, since = self.least_rows(counts), counts.rows - max(self.tried_at_rows, self._suspected_at_rows)
        return self.rows > 2 * least and since >= max(least, self._suspicion_rows)

    def labelled(self, predicted_for_us: int) -> None:
        """One more mature labelled row."""
        self._trial_rows += predicted_for_us >= self._trial_since_us

    def tried(self, rows: int) -> None:
        """A candidate was asked for, at so many rows."""
        self.tried_at_rows = rows

    def trial_begins(self, clock_us: int) -> None:
        """A challenger is there, whatever it was asked for."""
        self._trial_since_us, self._trial_rows = clock_us, 0

    def suspected(self, rows: int) -> None:
        """The newest rows were looked at, or would have cost too much to look at, at so many rows; it puts no candidate off."""
        self._suspected_at_rows = rows

    def first_published(self, rows: int) -> None:
        """The first model is there, at so many rows."""
        self.rows = YOUNG_SHARE * rows

    def shortened(self, counts: Counts) -> None:
        """The next candidate comes as soon as it may."""
        self.rows = self.least_rows(counts)

    def promoted(self, counts: Counts, of_all_rows: bool, gained: float, left: float) -> None:
        """A candidate gained a share of production's loss, whose own loss is what is `left`."""
        self._suspicion_rows = self.least_rows(counts)
        is_far_off = 0.0 < ATTAINED * self._attained < left
        self.proven(counts, of_all_rows, is_much=gained >= MUCH or is_far_off)
        self._answers_since_rows = counts.rows

    def proven(self, counts: Counts, of_all_rows: bool, is_much: bool = False) -> None:
        """A candidate was surely better; `of_all_rows`: it rests on the whole regime, not on recent rows."""
        if is_much and counts.pace == 1:
            self.shortened(counts)
        elif of_all_rows:
            self.rows = max(self.rows, counts.regime_rows / 2)
        else:
            self.moved(counts)

    def moved(self, counts: Counts) -> None:
        """The world moves: the next candidate comes sooner."""
        self.rows = max(self.least_rows(counts), self.rows * SHORTER)

    def failed(self, counts: Counts, was_suspicion: bool) -> None:
        """A candidate was not worth its fit; `was_suspicion`: it was a look at the newest rows only."""
        longest = INTERVAL_SHARE_MAX * counts.regime_rows
        if was_suspicion:
            self._suspicion_rows = min(self._suspicion_rows * SUSPICION_LONGER, longest)
        else:
            self.rows = max(self.least_rows(counts), min(self.rows * LONGER, longest))

    def error_measured(self, error: float, rows: int) -> None:
        """A champion's mean loss over its newest blocks: of one that lasts, it is what can be attained."""
        if error > 0.0 and rows - self._answers_since_rows >= LASTING_ROWS:
            self._attained = min(self._attained or error, error)

    def snapshot(self) -> dict[str, Any]:
        """State as plain values."""
        return {
            "candidates": [self.rows, self.tried_at_rows],
            "trial": [self._trial_since_us, self._trial_rows],
            "suspicions": [self._suspicion_rows, self._suspected_at_rows],
            "attained": [self._attained, self._answers_since_rows],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Takes a snapshot back."""
        self.rows, self.tried_at_rows = state["candidates"]
        # Absent from those of when rows of before a challenger was there counted into its trial.
        self._trial_since_us, self._trial_rows = state.get("trial", [UNSET_US, 0])
        self._suspicion_rows, self._suspected_at_rows = state["suspicions"]
        self._attained, self._answers_since_rows = state["attained"]
