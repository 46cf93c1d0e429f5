"""Decides when a new model is asked for: merges every trigger into one request at a time, within a budget; asks nobody.

Triggers: no model yet (bootstrap), drift of the error, decay (no better than knowing only the labels before), new rows of
the regime that the newest model was trained on, schedule, and people. Drift of inputs or predictions alone asks for nothing:
it says that the world looks different, not that the model is worse; it is logged and is evidence when the error follows.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

from driftloop.contracts import UNSET_US
from driftloop.contracts.monitor.v1.monitor_pb2 import (
    RETRAIN_REASON_BOOTSTRAP,
    RETRAIN_REASON_DECAY,
    RETRAIN_REASON_DRIFT,
    RETRAIN_REASON_FOLLOW_UP,
    RETRAIN_REASON_MANUAL,
    RETRAIN_REASON_NEW_DATA,
    RETRAIN_REASON_SCHEDULE,
    SERIES_KIND_ERROR,
    RetrainReason,
)
from driftloop.usecase import LOSS_UNITS, Policy, Task, duration_us
from services.monitor.drift import Alarm, Decay

SNAPSHOT_VERSION = 1
MIN_REGIME_ROWS = 500  # a change is learned from no fewer rows of the new regime
KEPT_ROWS = 100_000  # prediction times kept to count the rows since a change
_LABELS_ALONE = {
    "binary": "the label's own rate",
    "multiclass": "the classes' own frequencies",
    "regression": "the labels' own mean",
}


@dataclass(frozen=True)
class Wanted:
    """A reason to retrain, with its evidence and the ids of the messages that are its causes."""

    reason: RetrainReason
    because: str
    causes: tuple[str, ...]
    since_us: int = 0
    urgent: bool = False  # not held back by budget or cooldown


@dataclass(frozen=True)
class Verdict:
    """What to do about the strongest trigger: retrain, or why not now."""

    wanted: Wanted
    not_now: str = ""


class RetrainPolicy:
    """State: what is wanted, what is open, what was spent, and how many rows the newest model has seen."""

    def __init__(self, policy: Policy, task: Task = "binary") -> None:
        self._policy = policy
        self._task = task
        self._cooldown_us = duration_us(policy.cooldown)
        self._schedule_us = duration_us(policy.schedule) if policy.schedule else 0
        self._rows_at: deque[int] = deque(maxlen=KEPT_ROWS)  # prediction times of labelled rows, in order of maturity
        self._rows = 0
        self._spent_us: list[int] = []
        self._wanted: Wanted | None = None
        self._excused = ""
        self._regime_since_us = 0
        self.regime_rows = 0  # mature labelled rows since the newest change that was found; all of them if none was
        self._fitted_rows = 0
        self.has_model = False
        self.open_request = ""
        self.asked_at_us = UNSET_US

    def labelled(self, predicted_for_us: int) -> None:
        """One more mature labelled row."""
        self._rows += 1
        self._rows_at.append(predicted_for_us)
        self.regime_rows += predicted_for_us >= self._regime_since_us

    def alarmed(self, alarm: Alarm, alarm_id: str) -> None:
        """A series changed. Only the error asks for a model."""
        if alarm.kind == SERIES_KIND_ERROR:
            self._regime_since_us = alarm.since_us
            self.regime_rows = sum(at_us >= alarm.since_us for at_us in self._rows_at)
            unit = LOSS_UNITS[self._task]
            because = f"the error rose from {alarm.before:.3f} to {alarm.after:.3f} {unit} over {alarm.rows_since} mature labels"
            self._want(Wanted(RETRAIN_REASON_DRIFT, because, (alarm_id,), alarm.since_us))

    def decayed(self, decay: Decay, causes: tuple[str, ...]) -> None:
        """The production model does no better than what knows only the labels before."""
        error = f"the recent error of {decay.error:.3f} {LOSS_UNITS[self._task]}"
        because = f"{error} is above {decay.floor:.3f}, which {_LABELS_ALONE[self._task]} would reach"
        self._want(Wanted(RETRAIN_REASON_DECAY, because, causes, self._regime_since_us))

    def commanded(self, who: str, why: str, command_id: str) -> None:
        """Somebody asks for a model."""
        self._want(Wanted(RETRAIN_REASON_MANUAL, f"{who}: {why}", (command_id,), self._regime_since_us, urgent=True))

    def _want(self, wanted: Wanted) -> None:
        if self._wanted is None or self._wanted.reason != wanted.reason or wanted.since_us != self._wanted.since_us:
            self._wanted, self._excused = wanted, ""

    def answered(self, request_id: str, published: bool) -> bool:
        """Trainer answered the open request; False if it is not the open one."""
        if request_id != self.open_request:
            return False
        self.open_request = ""
        self._fitted_rows = self.regime_rows
        self.has_model = self.has_model or published
        return True

    def decide(self, clock_us: int, recent: tuple[str, ...], on_trial: bool = False) -> Verdict | None:
        """The verdict at a clock, or None where there is nothing to say. `recent`: ids of the newest scores, as causes.

        While a challenger is `on_trial`, more rows or a schedule are no reason to start over with another one.
        """
        wanted = self._wanted or (None if on_trial else self._due(clock_us, recent))
        if wanted is None or self.open_request:
            return None
        hold = "" if wanted.urgent or not self.has_model else self._held_back(wanted, clock_us)
        if not hold:
            return Verdict(wanted)
        if hold == self._excused:
            return None
        self._excused = hold
        return Verdict(wanted, hold)

    def _due(self, clock_us: int, recent: tuple[str, ...]) -> Wanted | None:
        policy, rows = self._policy, self.regime_rows
        if not self.has_model:
            needed = max(policy.bootstrap_rows, int(self._fitted_rows * 1.2))
            if self._rows < needed:
                return None
            return Wanted(
                RETRAIN_REASON_BOOTSTRAP, f"{self._rows} mature labelled rows and no model yet", recent, urgent=True
            )
        if self._schedule_us and clock_us - self.asked_at_us >= self._schedule_us:
            return Wanted(RETRAIN_REASON_SCHEDULE, f"{policy.schedule} have passed", recent, self._regime_since_us)
        if rows >= policy.new_data * self._fitted_rows:
            reason = RETRAIN_REASON_FOLLOW_UP if self._regime_since_us else RETRAIN_REASON_NEW_DATA
            because = f"{rows} rows of the present regime, {rows / max(1, self._fitted_rows):.1f} times what the newest model has seen"
            return Wanted(reason, because, recent, self._regime_since_us)
        return None

    def _held_back(self, wanted: Wanted, clock_us: int) -> str:
        if wanted.since_us and self.regime_rows < MIN_REGIME_ROWS:
            return f"fewer than {MIN_REGIME_ROWS} mature rows since the change"
        if clock_us - self.asked_at_us < self._cooldown_us:
            return f"the last request is less than {self._policy.cooldown} old"
        self._spent_us = [at_us for at_us in self._spent_us if at_us > clock_us - self._policy.budget_period_us]
        if len(self._spent_us) >= self._policy.budget_retrains:
            return f"the budget of {self._policy.budget} is spent"
        return ""

    def asked(self, request_id: str, clock_us: int) -> None:
        """The request was written: it is open until trainer answers."""
        self.open_request, self.asked_at_us = request_id, clock_us
        self._spent_us.append(clock_us)
        self._wanted, self._excused = None, ""

    def snapshot(self) -> dict[str, Any]:
        """State as plain values."""
        wanted = self._wanted
        return {
            "version": SNAPSHOT_VERSION,
            "rows_at": list(self._rows_at),
            "rows": self._rows,
            "spent_us": self._spent_us,
            "wanted": None
            if wanted is None
            else [int(wanted.reason), wanted.because, list(wanted.causes), wanted.since_us, wanted.urgent],
            "excused": self._excused,
            "regime": [self._regime_since_us, self.regime_rows],
            "fitted_rows": self._fitted_rows,
            "has_model": self.has_model,
            "open_request": self.open_request,
            "asked_at_us": self.asked_at_us,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Takes a snapshot back."""
        self._rows_at = deque(state["rows_at"], maxlen=KEPT_ROWS)
        self._rows, self._spent_us, self._excused = state["rows"], list(state["spent_us"]), state["excused"]
        if state["wanted"] is not None:
            reason, because, causes, since_us, urgent = state["wanted"]
            self._wanted = Wanted(reason, because, tuple(causes), since_us, urgent)
        self._regime_since_us, self.regime_rows = state["regime"]
        self._fitted_rows = state["fitted_rows"]
        self.has_model, self.open_request, self.asked_at_us = (
            state["has_model"],
            state["open_request"],
            state["asked_at_us"],
        )
