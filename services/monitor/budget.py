"""What a model that is wanted may cost: on which rows it is fitted and judged, how many all its fits may take, and whether that is paid.

All fits together cost at most `fit_budget` rows per labelled row, a change a quarter more; requests are bounded in number, too, and
are a cooldown apart.
"""

from __future__ import annotations

from typing import Any

from driftloop.contracts import UNSET_US
from driftloop.contracts.monitor.v1.monitor_pb2 import RETRAIN_REASON_DECAY, RETRAIN_REASON_DRIFT
from driftloop.usecase import Policy, duration_us
from services.monitor.wanted import Counts, Verdict, Wanted

RECENT_ROWS_MIN = 800  # that a candidate is adapted on: a quarter of them, which it is judged by, must say something
EVIDENCE_ROWS = 80  # that candidates are compared on, at the least
CHANGE_FIT_ROWS = 5  # times the rows since a change, or the fewest to adapt on, may be fitted where the budget is spent: it cannot wait
CHANGE_BUDGET = 1.25  # times what fits may cost, which changes may cost at the most: where alarms come one after another, they wait, too
FREE_ROWS = 4_000  # of fits, seconds of them: while a history is short, to look often is cheap


class Budget:
    """State: what all fits have cost in rows, when the requests that count were made, and when the newest of them."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._cooldown_us = duration_us(policy.cooldown)
        self._cost_rows = 0
        self._spent_us: list[int] = []
        self.asked_at_us = UNSET_US

    def asked(self, clock_us: int) -> None:
        """A request that counts was made."""
        self.asked_at_us = clock_us
        self._spent_us.append(clock_us)

    def paid(self, rows: int) -> None:
        """Fits have taken so many rows."""
        self._cost_rows += rows

    def left_rows(self, rows: int) -> int:
        """What fits may still cost, after so many mature labelled rows; negative where changes have cost more."""
        return self._allowed_rows(rows) - self._cost_rows

    def _allowed_rows(self, rows: int) -> int:
        return FREE_ROWS + int(self._policy.fit_budget * rows)

    def offer(self, wanted: Wanted, counts: Counts, interval_rows: float, drawn_rows: int) -> Verdict:
        """The rows that it would be fitted on, judged by and may cost, whether or not it is too dear.

        interval_rows: between two candidates; drawn_rows: what the next one of all rows takes, which is put by for it.
        """
        if wanted.is_of_all:
            return self._verdict(
                wanted, counts, recent_rows=2 * counts.rows, rows_max=drawn_rows
            )  # more than there are: all
        least, left = RECENT_ROWS_MIN * counts.pace, self.left_rows(counts.rows) - drawn_rows
        # Where the budget is nearly spent, fewer rows are looked at, not none.
        recent_rows = min(int(2 * interval_rows), left - 2 * EVIDENCE_ROWS * counts.pace)
        recent_rows = least if wanted.is_suspicion else max(least, recent_rows)
        recent_rows = min(counts.regime_rows, recent_rows)
        if wanted.reason in (RETRAIN_REASON_DRIFT, RETRAIN_REASON_DECAY):
            left = max(left, self._lent_rows(counts))
        elif wanted.is_suspicion:
            left = min(left, CHANGE_FIT_ROWS * recent_rows)
        return self._verdict(wanted, counts, recent_rows, rows_max=0 if wanted.urgent else left)

    def _lent_rows(self, counts: Counts) -> int:
        """What a change may cost though the budget is spent, as it cannot wait: some fits of few rows, up to a bound for all changes."""
        # An alarm may date a change thousands of rows back, and repeat itself: the bound holds all the same.
        fits_rows = CHANGE_FIT_ROWS * min(RECENT_ROWS_MIN * counts.pace, counts.regime_rows)
        return min(fits_rows, int(CHANGE_BUDGET * self._allowed_rows(counts.rows)) - self._cost_rows)

    def _verdict(self, wanted: Wanted, counts: Counts, recent_rows: int, rows_max: int) -> Verdict:
        block_rows = self._policy.block_labels * counts.pace
        return Verdict(wanted, "", recent_rows, EVIDENCE_ROWS * counts.pace, block_rows, rows_max)

    def refusal(self, offered: Verdict, clock_us: int) -> str:
        """Why an offer is not paid for now, in words; empty if it is."""
        policy = self._policy
        if clock_us - self.asked_at_us < self._cooldown_us and not offered.wanted.is_collapse:
            return f"the last request is less than {policy.cooldown} old"
        self._spent_us = [at_us for at_us in self._spent_us if at_us > clock_us - policy.budget_period_us]
        if len(self._spent_us) >= policy.budget_retrains:
            return f"the budget of {policy.budget} is spent"
        if self.is_too_dear(offered):
            return f"fits have cost {self._cost_rows} rows of the {policy.fit_budget:g} per labelled row that they may"
        return ""

    @staticmethod
    def is_too_dear(offered: Verdict) -> bool:
        """Whether what is left does not pay for one fit and its evidence. A model of all rows was put by for."""
        return not offered.wanted.is_of_all and offered.rows_max < offered.recent_rows + 2 * offered.evidence_rows

    def snapshot(self) -> list[Any]:
        """State as plain values."""
        return [self._cost_rows, list(self._spent_us), self.asked_at_us]

    def restore(self, state: list[Any]) -> None:
        """Takes a snapshot back."""
        self._cost_rows, spent_us, self.asked_at_us = state
        self._spent_us = list(spent_us)
