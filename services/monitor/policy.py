"""Decides when a new model is asked for: merges every trigger into one request at a time, within a budget; asks nobody.

Triggers: no model yet (bootstrap), drift of the error, decay (no better than knowing only the labels before), new rows,
schedule, and people. Drift of inputs or predictions alone asks for nothing: it says that the world looks different, not that the
model is worse; it is logged and is evidence when the error follows. New rows are tried at an interval (`interval`); what fits may
cost is bounded (`budget`).

An alarm only supposes that a new regime has begun. It is proven by a model that was worth promoting since. Where the error falls
back without one, or two candidates in a row were not worth it, the rows from before are as good as they were: the former regime
goes on, with all its rows.
"""

from __future__ import annotations

from collections import deque
from dataclasses import asdict, astuple, dataclass, replace
from enum import StrEnum
from typing import Any

from driftloop.contracts.monitor.v1.monitor_pb2 import (
    RETRAIN_REASON_BOOTSTRAP,
    RETRAIN_REASON_DECAY,
    RETRAIN_REASON_DRIFT,
    RETRAIN_REASON_FOLLOW_UP,
    RETRAIN_REASON_MANUAL,
    RETRAIN_REASON_NEW_DATA,
    RETRAIN_REASON_SCHEDULE,
    SERIES_KIND_ERROR,
)
from driftloop.usecase import LOSS_UNITS, Policy, Task, duration_us
from services.monitor.arms import GAIN_MIN
from services.monitor.budget import Budget
from services.monitor.drift import COLLAPSE
from services.monitor.floor import Decay
from services.monitor.interval import MUCH, Interval
from services.monitor.series import Alarm
from services.monitor.wanted import Challenger, Counts, Verdict, Wanted
from services.monitor.world import World

SNAPSHOT_VERSION = 1
# Share of production's loss that a promotion must bring while the regime is as long as at the last one, and how it falls as the
# regime grows: on a stable stream ever more rows bring ever smaller gains, and a change of the champion is an event.
PROMOTED_GAIN, YOUNG_GAIN = 0.03, 0.05
PASSED_ROWS = 1_000  # after an alarm, times the pace, before an error that is back where it was proves a burst
UNPROVEN_TRIES = (
    2  # candidates without worth after which an alarm is taken for a burst: the first has few rows to learn from
)
LEAST_ERROR = 1e-9  # that a rise is measured from
BURST_RISE = 1.5  # times the error before, that a burst of hard rows may well bring
COLLAPSED_ROWS = 120  # rows since a collapse that are enough to look: three blocks
KEPT_ROWS = 200_000  # prediction times kept to count the rows since a change
SCHEDULES_WAITED = 2  # after which a challenger that is still on trial is no reason to wait
NO_CHALLENGER = Challenger()
_LABELS_ALONE = {
    "binary": "the label's own rate",
    "multiclass": "the classes' own frequencies",
    "regression": "the labels' own mean",
}


class _Aim(StrEnum):
    """What the newest request is for."""

    CANDIDATE = "candidate"
    SUSPICION = "suspicion"  # a cheap look at the newest rows
    ALL_ROWS = "all rows"  # a draw from all rows: says nothing of how soon the newest are worth a look


def _aim_of(wanted: Wanted) -> _Aim:
    return _Aim.ALL_ROWS if wanted.is_of_all else _Aim.SUSPICION if wanted.is_suspicion else _Aim.CANDIDATE


@dataclass
class _Supposed:
    """A change that an alarm supposes: what was before it, the error half way up, and what has come of it.

    rise: by how many times the error has risen, by the newest alarm.
    """

    since_us: int
    interval_rows: float
    halfway: float
    at_rows: int
    failures: int = 0
    rise: float = 1.0


class RetrainPolicy:
    """State: what is wanted, what is open and what for, which rows are of the regime; the interval, the budget and the world."""

    def __init__(self, policy: Policy, task: Task = "binary") -> None:
        self._policy = policy
        self._task = task
        self._schedule_us = duration_us(policy.schedule) if policy.schedule else 0
        self._rows_at: deque[int] = deque(maxlen=KEPT_ROWS)  # prediction times of labelled rows, in order of maturity
        self._rows = 0
        self._wanted: Wanted | None = None
        self._excused = ""
        self._regime_since_us = 0
        self.regime_rows = 0  # mature labelled rows since the newest change that was found; all of them if none was
        self._budget = Budget(policy)
        self._interval = Interval(policy.recent_rows)
        self._promoted_rows = 0  # of the regime, when the champion was last another
        self._supposed: _Supposed | None = None
        self._aim = _Aim.CANDIDATE
        self._world = World()
        self.error = 0.0  # production's mean loss over its newest blocks
        self.pace = 1  # blocks per independent piece of evidence: every count of rows is multiplied by it
        self.burst_pace = 1  # the same, as far as bursts of hard rows are the reason
        self.fault = ""  # of data, that is not over, in words: what is predicted meanwhile teaches nothing
        self.has_model = False
        self.open_request = ""

    @property
    def _counts(self) -> Counts:
        return Counts(self._rows, self.regime_rows, self.pace)

    @property
    def _rows_since_tried(self) -> int:
        return self._rows - self._interval.tried_at_rows

    def labelled(self, predicted_for_us: int) -> None:
        """One more mature labelled row."""
        self._rows += 1
        self._rows_at.append(predicted_for_us)
        self.regime_rows += predicted_for_us >= self._regime_since_us
        self._world.labelled(predicted_for_us)
        self._interval.labelled(predicted_for_us)

    def alarmed(self, alarm: Alarm, alarm_id: str) -> None:
        """A series changed. Only the error asks for a model."""
        if alarm.kind == SERIES_KIND_ERROR:
            halfway = (alarm.before + alarm.after) / 2
            if self._supposed is None:
                self._supposed = _Supposed(self._regime_since_us, self._interval.rows, halfway, self._rows)
            else:
                self._supposed.halfway, self._supposed.at_rows = halfway, self._rows
            self._supposed.rise = alarm.after / max(alarm.before, LEAST_ERROR)
            self._regime_begins(alarm.since_us)
            unit = LOSS_UNITS[self._task]
            because = f"the error rose from {alarm.before:.3f} to {alarm.after:.3f} {unit} over {alarm.rows_since} mature labels"
            self._interval.shortened(self._counts)
            wanted = Wanted(RETRAIN_REASON_DRIFT, because, (alarm_id,), alarm.since_us)
            self._want(replace(wanted, is_collapse=alarm.detector == COLLAPSE))

    @property
    def supposes_change(self) -> bool:
        """Whether an alarm has dated a change that no better model has answered yet, and that was not taken back."""
        return self._supposed is not None

    def pace_of(self, pace: int, burst_pace: int) -> int:
        """Blocks per independent piece of evidence, of the measured ones: fewer where an alarm has shown that the world changed.

        Single blocks tell enough of it then, however rare labels of a kind were before; and no burst raises the error by many
        times, so that the more it has risen the fewer blocks are needed.
        """
        if self._supposed is None:
            return pace
        return max(1, int(burst_pace / max(1.0, self._supposed.rise / BURST_RISE)))

    def _regime_begins(self, since_us: int) -> None:
        self._regime_since_us = since_us
        self.regime_rows = sum(at_us >= since_us for at_us in self._rows_at) if since_us else self._rows

    def _reconsider(self) -> None:
        """Takes a supposed change back if nothing speaks for it any more."""
        supposed = self._supposed
        if supposed is None or self.open_request:
            return
        passed = self._rows - supposed.at_rows >= PASSED_ROWS * self.pace and self.error < supposed.halfway
        if passed or supposed.failures >= UNPROVEN_TRIES:
            self._regime_begins(supposed.since_us)
            self._interval.rows, self._supposed = supposed.interval_rows, None
            if self._wanted is not None and self._wanted.reason == RETRAIN_REASON_DRIFT:
                self._wanted, self._excused = None, ""

    def decayed(self, decay: Decay, causes: tuple[str, ...]) -> None:
        """The production model does no better than what knows only the labels before; a change that was found says more."""
        if self._wanted is not None and self._wanted.reason == RETRAIN_REASON_DRIFT:
            return
        error = f"the recent error of {decay.error:.3f} {LOSS_UNITS[self._task]}"
        because = f"{error} is above {decay.floor:.3f}, which {_LABELS_ALONE[self._task]} would reach"
        self._want(Wanted(RETRAIN_REASON_DECAY, because, causes, self._regime_since_us))

    def commanded(self, who: str, why: str, command_id: str) -> None:
        """Somebody asks for a model."""
        self._want(Wanted(RETRAIN_REASON_MANUAL, f"{who}: {why}", (command_id,), self._regime_since_us, urgent=True))

    def _want(self, wanted: Wanted) -> None:
        if self._wanted is None or self._wanted.reason != wanted.reason or wanted.since_us != self._wanted.since_us:
            self._wanted, self._excused = wanted, ""

    def answered(self, request_id: str, published: bool, cost_rows: int, clock_us: int, on_trial: bool = False) -> bool:
        """Trainer answered the open request, at a clock and a cost in rows of all fits; False if it is not the open one."""
        if request_id != self.open_request:
            return False
        self.open_request = ""
        self._budget.paid(cost_rows)
        if published:
            self._interval.trial_begins(clock_us)
        if published and not self.has_model:
            self.has_model, self._promoted_rows = True, self.regime_rows
            self._world.tried()
            self._interval.first_published(self._rows)
        elif not published and not on_trial:
            self.failed()
        return True

    def promoted(self, of_all_rows: bool, gained: float = 0.0, left: float = 0.0) -> None:
        """A challenger was worth its promotion; `of_all_rows`: it rests on the whole regime, not on recent rows.

        gained: share of production's loss; left: its own loss. Where the one is much, much was lost until then; where the other is
        far above what the loop has attained before, much still is: the next candidate comes as soon as it may.
        """
        if self._supposed is not None and gained >= MUCH:
            # No burst brings as much: the rows from before are of another world.
            self._world.begins(self._regime_since_us, self.regime_rows)
        self._supposed, self._promoted_rows = None, self.regime_rows
        self._interval.promoted(self._counts, of_all_rows, gained, left)

    def waits(self, of_all_rows: bool) -> None:
        """A challenger is surely better, by too little for a promotion; it shows no change."""
        if self._supposed is not None:
            self._supposed.failures += 1
        self._interval.proven(self._counts, of_all_rows)

    @property
    def least_gain(self) -> float:
        """Share of production's loss that a promotion must bring: the less, the longer the regime has become since the last one."""
        return max(self._policy.gain, min(PROMOTED_GAIN, YOUNG_GAIN * self._promoted_rows / max(self.regime_rows, 1)))

    def error_measured(self, error: float) -> None:
        """Production's mean loss over its newest blocks."""
        self.error = error
        if self.has_model:
            self._interval.error_measured(error, self._rows)

    def failed(self) -> None:
        """A candidate was not worth its fit."""
        if self._aim == _Aim.ALL_ROWS:
            return
        if self._supposed is not None:
            self._supposed.failures += 1
        self._interval.failed(self._counts, was_suspicion=self._aim == _Aim.SUSPICION)

    def rolled_back(self) -> None:
        """The former champion is better again: not that candidates are worth little, but that the world moves."""
        self._interval.moved(self._counts)

    def warned(self, recent: tuple[str, ...]) -> None:
        """The error looks suspicious: the newest rows are looked at, if a candidate is not due soon anyway.

        Suspicions that came to nothing are followed ever more seldom, and never put off what is due.
        """
        if self.has_model and self._interval.follows_suspicion(self._counts):
            wanted = self._new_rows("the error looks suspicious, though it is no alarm", recent)
            self._want(replace(wanted, is_suspicion=True))

    def lost_model(self) -> None:
        """There is no model that could answer, as before the first: one is asked for as soon as there are more rows."""
        self.has_model = False

    def decide(self, clock_us: int, recent: tuple[str, ...], challenger: Challenger = NO_CHALLENGER) -> Verdict | None:
        """The verdict at a clock, or None where there is nothing to say. `recent`: ids of the newest scores, as causes.

        A challenger that has not been on trial for long is not replaced for the sake of more rows, nor of a schedule that is not
        overdue; one that is proven is not at all: the next candidate starts from it. After an alarm, one that answers nobody is
        no reason to wait.
        """
        self._reconsider()
        on_trial = challenger.is_on_trial and (challenger.answers or not self.supposes_change)
        wanted = self._wanted or (None if challenger.is_proven else self._due(clock_us, recent, on_trial))
        if wanted is None or self.open_request:
            return None
        drawn_rows = self._world.drawn_rows(self.burst_pace)
        offered = self._budget.offer(wanted, self._counts, self._interval.rows, drawn_rows)
        hold = "" if wanted.urgent or not self.has_model else self._held_back(offered, clock_us)
        if not hold:
            self._aim = _aim_of(wanted)
            return offered
        # What is due stays due, and is asked for as soon as it can be paid; a suspicion is over by then.
        if wanted.is_suspicion and self._budget.is_too_dear(offered):
            self._wanted = None
            self._interval.suspected(self._rows)
        if hold == self._excused:
            return None
        self._excused = hold
        return Verdict(wanted, hold)

    def _due(self, clock_us: int, recent: tuple[str, ...], on_trial: bool) -> Wanted | None:
        policy = self._policy
        if not self.has_model:
            if self._rows < max(policy.bootstrap_rows, int(self._interval.tried_at_rows * 1.2)):
                return None
            return Wanted(
                RETRAIN_REASON_BOOTSTRAP, f"{self._rows} mature labelled rows and no model yet", recent, urgent=True
            )
        if 0.0 < self.error < GAIN_MIN and not self._schedule_us:  # nothing is left to gain
            return None
        if self._world.is_due(self.burst_pace, self._budget.left_rows(self._rows)):
            return replace(self._of_rows_since(self._world.since_us, self._world.because, recent), is_of_all=True)
        waited_us = clock_us - self._budget.asked_at_us
        # Where labels are later than the schedule, a trial must not put it off for ever.
        is_overdue = bool(self._schedule_us) and waited_us >= SCHEDULES_WAITED * self._schedule_us
        if on_trial and self._interval.has_trial_time(self._counts) and not is_overdue:
            return None
        if self._schedule_us and waited_us >= self._schedule_us:
            return Wanted(RETRAIN_REASON_SCHEDULE, f"{policy.schedule} have passed", recent, self._regime_since_us)
        if self._interval.is_due(self._counts):
            return self._new_rows(f"{self._rows_since_tried} mature labelled rows since the last candidate", recent)
        return None

    def _new_rows(self, because: str, recent: tuple[str, ...]) -> Wanted:
        # A change that is only supposed must not hide the rows from before it: candidates of all of them are tried, too.
        since_us = self._regime_since_us if self._supposed is None else self._supposed.since_us
        return self._of_rows_since(since_us, because, recent)

    @staticmethod
    def _of_rows_since(since_us: int, because: str, recent: tuple[str, ...]) -> Wanted:
        return Wanted(RETRAIN_REASON_FOLLOW_UP if since_us else RETRAIN_REASON_NEW_DATA, because, recent, since_us)

    def _held_back(self, offered: Verdict, clock_us: int) -> str:
        wanted = offered.wanted
        if self.fault:
            return f"a fault of data is no change of the world: {self.fault}"
        least = COLLAPSED_ROWS if wanted.is_collapse else self._policy.change_rows * self.pace
        if wanted.since_us and self.regime_rows < least:
            return f"fewer than {least} mature rows since the change"
        if wanted.reason == RETRAIN_REASON_DECAY and self._rows_since_tried < self._policy.recent_rows * self.pace:
            return "the last candidate was fitted on nearly the same rows"
        return self._budget.refusal(offered, clock_us)

    def asked(self, request_id: str, clock_us: int) -> None:
        """The request was written: it is open until trainer answers."""
        self.open_request = request_id
        if self._aim == _Aim.SUSPICION:  # cheap: an alarm that follows need not wait for it
            self._interval.suspected(self._rows)
        else:
            self._budget.asked(clock_us)
            if self._aim == _Aim.ALL_ROWS:
                self._world.tried()
            else:
                self._interval.tried(self._rows)
        self._wanted, self._excused = None, ""

    def snapshot(self) -> dict[str, Any]:
        """State as plain values."""
        wanted = self._wanted
        return {
            "version": SNAPSHOT_VERSION,
            "rows_at": list(self._rows_at),
            "rows": self._rows,
            "wanted": None
            if wanted is None
            else [int(wanted.reason), wanted.because, list(wanted.causes), *astuple(wanted)[3:]],
            "excused": self._excused,
            "regime": [self._regime_since_us, self.regime_rows],
            "supposed": None if self._supposed is None else list(asdict(self._supposed).values()),
            "promoted_rows": self._promoted_rows,
            "pace": self.pace,
            "error": self.error,
            "interval": self._interval.snapshot(),
            "budget": self._budget.snapshot(),
            "world": self._world.as_list(),
            "aim": str(self._aim),
            "has_model": self.has_model,
            "open_request": self.open_request,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Takes a snapshot back."""
        state = state if "budget" in state else self._in_rooms(state)
        self._rows_at = deque(state["rows_at"], maxlen=KEPT_ROWS)
        self._rows, self._excused = state["rows"], state["excused"]
        if state["wanted"] is not None:
            reason, because, causes, *others = state["wanted"]
            self._wanted = Wanted(reason, because, tuple(causes), *others)
        self._regime_since_us, self.regime_rows = state["regime"]
        self._supposed = None if state["supposed"] is None else _Supposed(*state["supposed"])
        self._promoted_rows, self.pace, self.error = state["promoted_rows"], state["pace"], state["error"]
        self._interval.restore(state["interval"])
        self._budget.restore(state["budget"])
        self._world, self._aim = World(*state["world"]), _Aim(state["aim"])
        self.has_model, self.open_request = state["has_model"], state["open_request"]

    def _in_rooms(self, state: dict[str, Any]) -> dict[str, Any]:
        """A checkpoint of when interval and budget were the policy's own, as it is written now."""
        tried_at_rows, interval_rows, cost_rows, pace = state["tries"]
        recent_rows, rows = float(self._policy.recent_rows), state["rows"]
        # Absent from checkpoints of before candidates of all rows were tried: the next one is as long after this one.
        tries_all, *world = state.get("world", [False, 0, rows, rows])
        *suspicions, tries_suspicion = state.get("suspicion", [recent_rows, 0, False])
        interval = {
            "candidates": [interval_rows, tried_at_rows],
            "suspicions": suspicions,
            "attained": state.get("attained", [0.0, rows]),  # absent from those of before it was known
        }
        return state | {
            "supposed": state.get("supposed"),  # absent from those of when every alarm was believed
            "promoted_rows": state.get("promoted_rows", 0),  # absent from those of when no promotion waited
            "pace": pace,
            "error": state.get("error", 0.0),
            "interval": interval,
            "budget": [cost_rows, state["spent_us"], state["asked_at_us"]],
            "world": world,
            "aim": _Aim.ALL_ROWS if tries_all else _Aim.SUSPICION if tries_suspicion else _Aim.CANDIDATE,
        }
