"""Decides when a new model is asked for: merges every trigger into one request at a time, within a budget; asks nobody.

Triggers: no model yet (bootstrap), drift of the error, decay (no better than knowing only the labels before), new rows,
schedule, and people. Drift of inputs or predictions alone asks for nothing: it says that the world looks different, not that the
model is worse; it is logged and is evidence when the error follows.

New rows are tried at an interval that follows what they brought: a candidate that was worth promoting, though it was fitted on
recent rows only, halves it (the world moves), one that was not makes it longer, up to a share of the regime; one that won by
resting on all rows makes it half of the regime (the world stands still, and only many more rows will tell more). What fits may
cost in all, in rows, is bounded by `fit_budget`.

An alarm only supposes that a new regime has begun. It is proven by a model that was worth promoting since. Where the error falls
back without one, or two candidates in a row were not worth it, the rows from before are as good as they were: the former regime
goes on, with all its rows.
"""

from __future__ import annotations

from collections import deque
from dataclasses import asdict, astuple, dataclass, replace
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
)
from driftloop.usecase import LOSS_UNITS, Policy, Task, duration_us
from services.monitor.arms import GAIN_MIN
from services.monitor.drift import COLLAPSE
from services.monitor.floor import Decay
from services.monitor.series import Alarm
from services.monitor.wanted import Challenger, Verdict, Wanted
from services.monitor.world import World

SNAPSHOT_VERSION = 1
SHORTER, LONGER = 0.6, 1.6  # of the interval, after a candidate that was worth it, and after one that was not
INTERVAL_SHARE_MAX = 0.6  # of the rows of the regime
MUCH = 0.2  # of production's loss: who gains as much shows that the interval was far too long
ATTAINED = 1.5  # times the least lasting error: what a promotion leaves above it, a next candidate may win
LASTING_ROWS = 1_000  # of one champion, whose mean error is no chance
# Share of production's loss that a promotion must bring while the regime is as long as at the last one, and how it falls as the
# regime grows: on a stable stream ever more rows bring ever smaller gains, and a change of the champion is an event.
PROMOTED_GAIN, YOUNG_GAIN = 0.03, 0.05
YOUNG_SHARE = 0.5  # of the rows of a young regime, between two candidates at the least
RECENT_ROWS_MIN = 800  # that a candidate is adapted on: a quarter of them, which it is judged by, must say something
TRIAL_INTERVALS = 2  # after which a challenger that is still on trial is no reason to wait
EVIDENCE_ROWS = 80  # that candidates are compared on, at the least
CHANGE_FIT_ROWS = 5  # times the rows since a change, or the fewest to adapt on, may be fitted where the budget is spent: it cannot wait
CHANGE_BUDGET = 1.25  # times what fits may cost, which changes may cost at the most: where alarms come one after another, they wait, too
SUSPICION_LONGER = 2.0  # of the rows between two suspicions that are followed, after one in vain: where hard rows come in bursts, all are
PASSED_ROWS = 1_000  # after an alarm, times the pace, before an error that is back where it was proves a burst
UNPROVEN_TRIES = (
    2  # candidates without worth after which an alarm is taken for a burst: the first has few rows to learn from
)
COLLAPSED_ROWS = 120  # rows since a collapse that are enough to look: three blocks
FREE_ROWS = 4_000  # of fits, seconds of them: while a history is short, to look often is cheap
KEPT_ROWS = 200_000  # prediction times kept to count the rows since a change
NO_CHALLENGER = Challenger()
_LABELS_ALONE = {
    "binary": "the label's own rate",
    "multiclass": "the classes' own frequencies",
    "regression": "the labels' own mean",
}


@dataclass
class _Supposed:
    """A change that an alarm supposes: what was before it, the error half way up, and what has come of it."""

    since_us: int
    interval_rows: float
    halfway: float
    at_rows: int
    failures: int = 0


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
        self._tried_at_rows = 0
        self._interval_rows = float(policy.recent_rows)
        self._cost_rows = 0
        self._promoted_rows = 0  # of the regime, when the champion was last another
        self._supposed: _Supposed | None = None
        self._suspicion_rows = float(policy.recent_rows)  # until the first promotion
        self._suspected_at_rows = 0
        self._tries_suspicion = False  # whether the newest request followed one
        self._tries_all = False  # whether the newest request is for a candidate of all rows
        self._world = World()
        self.error = 0.0  # production's mean loss over its newest blocks
        self._attained = 0.0  # the least that it has been with one champion for long; 0: none has been
        self._answers_since_rows = 0  # rows when the champion was last another
        self.pace = 1  # blocks per independent piece of evidence: every count of rows is multiplied by it
        self.burst_pace = 1  # the same, as far as bursts of hard rows are the reason
        self.fault = ""  # of data, that is not over, in words: what is predicted meanwhile teaches nothing
        self.has_model = False
        self.open_request = ""
        self.asked_at_us = UNSET_US

    def labelled(self, predicted_for_us: int) -> None:
        """One more mature labelled row."""
        self._rows += 1
        self._rows_at.append(predicted_for_us)
        self.regime_rows += predicted_for_us >= self._regime_since_us
        self._world.labelled(predicted_for_us)

    def alarmed(self, alarm: Alarm, alarm_id: str) -> None:
        """A series changed. Only the error asks for a model."""
        if alarm.kind == SERIES_KIND_ERROR:
            halfway = (alarm.before + alarm.after) / 2
            if self._supposed is None:
                self._supposed = _Supposed(self._regime_since_us, self._interval_rows, halfway, self._rows)
            else:
                self._supposed.halfway, self._supposed.at_rows = halfway, self._rows
            self._regime_begins(alarm.since_us)
            unit = LOSS_UNITS[self._task]
            because = f"the error rose from {alarm.before:.3f} to {alarm.after:.3f} {unit} over {alarm.rows_since} mature labels"
            self._interval_rows = self._least_rows
            wanted = Wanted(RETRAIN_REASON_DRIFT, because, (alarm_id,), alarm.since_us)
            self._want(replace(wanted, is_collapse=alarm.detector == COLLAPSE))

    @property
    def supposes_change(self) -> bool:
        """Whether an alarm has dated a change that no better model has answered yet, and that was not taken back."""
        return self._supposed is not None

    def _regime_begins(self, since_us: int) -> None:
        self._regime_since_us = since_us
        self.regime_rows = sum(at_us >= since_us for at_us in self._rows_at) if since_us else self._rows

    def _reconsider(self) -> None:
        """Takes a supposed change back if nothing speaks for it any more."""
        supposed = self._supposed
        if supposed is None or self.open_request:
            return
        passed = self._rows - supposed.at_rows >= self._rows_of(PASSED_ROWS) and self.error < supposed.halfway
        if passed or supposed.failures >= UNPROVEN_TRIES:
            self._regime_begins(supposed.since_us)
            self._interval_rows, self._supposed = supposed.interval_rows, None
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

    def answered(self, request_id: str, published: bool, cost_rows: int, on_trial: bool = False) -> bool:
        """Trainer answered the open request, at a cost in rows of all fits; False if it is not the open one."""
        if request_id != self.open_request:
            return False
        self.open_request = ""
        self._cost_rows += cost_rows
        if published and not self.has_model:
            self.has_model, self._promoted_rows = True, self.regime_rows
            self._world.tried()
            self._interval_rows = YOUNG_SHARE * self._rows
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
        self._supposed, self._suspicion_rows, self._promoted_rows = None, self._least_rows, self.regime_rows
        is_far_off = 0.0 < ATTAINED * self._attained < left
        self._learned(of_all_rows, is_much=gained >= MUCH or is_far_off)
        self._answers_since_rows = self._rows

    def waits(self, of_all_rows: bool) -> None:
        """A challenger is surely better, by too little for a promotion; it shows no change."""
        if self._supposed is not None:
            self._supposed.failures += 1
        self._learned(of_all_rows, is_much=False)

    @property
    def least_gain(self) -> float:
        """Share of production's loss that a promotion must bring: the less, the longer the regime has become since the last one."""
        return max(self._policy.gain, min(PROMOTED_GAIN, YOUNG_GAIN * self._promoted_rows / max(self.regime_rows, 1)))

    def error_measured(self, error: float) -> None:
        """Production's mean loss over its newest blocks."""
        self.error = error
        if error > 0.0 and self.has_model and self._rows - self._answers_since_rows >= LASTING_ROWS:
            self._attained = min(self._attained or error, error)

    def _learned(self, of_all_rows: bool, is_much: bool) -> None:
        if is_much and self.pace == 1:
            self._interval_rows = self._least_rows
        elif of_all_rows:
            self._interval_rows = max(self._interval_rows, self.regime_rows / 2)
        else:
            self._interval_rows = max(self._least_rows, self._interval_rows * SHORTER)

    def failed(self) -> None:
        """A candidate was not worth its fit."""
        if self._tries_all:  # says nothing of how soon the newest rows are worth a look
            return
        if self._supposed is not None:
            self._supposed.failures += 1
        if self._tries_suspicion:
            self._suspicion_rows = min(self._suspicion_rows * SUSPICION_LONGER, INTERVAL_SHARE_MAX * self.regime_rows)
            return
        longest = min(self._interval_rows * LONGER, INTERVAL_SHARE_MAX * self.regime_rows)
        self._interval_rows = max(self._least_rows, longest)

    def rolled_back(self) -> None:
        """The former champion is better again: not that candidates are worth little, but that the world moves."""
        self._interval_rows = max(self._least_rows, self._interval_rows * SHORTER)

    def warned(self, recent: tuple[str, ...]) -> None:
        """The error looks suspicious: the newest rows are looked at, if a candidate is not due soon anyway.

        Suspicions that came to nothing are followed ever more seldom, and never put off what is due.
        """
        least, tried = self._least_rows, max(self._tried_at_rows, self._suspected_at_rows)
        if (
            self.has_model
            and self._interval_rows > 2 * least
            and self._rows - tried >= max(least, self._suspicion_rows)
        ):
            wanted = self._new_rows("the error looks suspicious, though it is no alarm", recent)
            self._want(replace(wanted, is_suspicion=True))

    def _rows_of(self, rows: int) -> float:
        return float(rows * self.pace)

    @property
    def _least_rows(self) -> float:
        """Rows between two candidates at the least: where the regime is young, half as many rows again teach much."""
        return min(self._rows_of(self._policy.recent_rows), YOUNG_SHARE * self.regime_rows)

    def lost_model(self) -> None:
        """There is no model that could answer, as before the first: one is asked for as soon as there are more rows."""
        self.has_model = False

    def decide(self, clock_us: int, recent: tuple[str, ...], challenger: Challenger = NO_CHALLENGER) -> Verdict | None:
        """The verdict at a clock, or None where there is nothing to say. `recent`: ids of the newest scores, as causes.

        A challenger that has not been on trial for long is not replaced for the sake of more rows or a schedule; one that is
        proven is not at all: the next candidate starts from it. After an alarm, one that answers nobody is no reason to wait.
        """
        self._reconsider()
        on_trial = challenger.is_on_trial and (challenger.answers or not self.supposes_change)
        wanted = self._wanted or (None if challenger.is_proven else self._due(clock_us, recent, on_trial))
        if wanted is None or self.open_request:
            return None
        offered = self._offered(wanted)
        hold = "" if wanted.urgent or not self.has_model else self._held_back(wanted, clock_us, offered)
        if not hold:
            self._tries_all = wanted.is_of_all
            return offered
        if self._too_dear(offered) and wanted.reason in (RETRAIN_REASON_NEW_DATA, RETRAIN_REASON_FOLLOW_UP):
            self._suspected_at_rows = self._rows
            self._wanted, self._tried_at_rows = None, self._tried_at_rows if wanted.is_suspicion else self._rows
        if hold == self._excused:
            return None
        self._excused = hold
        return Verdict(wanted, hold)

    def _due(self, clock_us: int, recent: tuple[str, ...], on_trial: bool) -> Wanted | None:
        policy, since = self._policy, self._rows - self._tried_at_rows
        if not self.has_model:
            if self._rows < max(policy.bootstrap_rows, int(self._tried_at_rows * 1.2)):
                return None
            return Wanted(
                RETRAIN_REASON_BOOTSTRAP, f"{self._rows} mature labelled rows and no model yet", recent, urgent=True
            )
        if 0.0 < self.error < GAIN_MIN and not self._schedule_us:  # nothing is left to gain
            return None
        if self._world.is_due(self.burst_pace, self._left_rows):
            return replace(self._of_rows_since(self._world.since_us, self._world.because, recent), is_of_all=True)
        if on_trial and since < TRIAL_INTERVALS * self._interval_rows:
            return None
        if self._schedule_us and clock_us - self.asked_at_us >= self._schedule_us:
            return Wanted(RETRAIN_REASON_SCHEDULE, f"{policy.schedule} have passed", recent, self._regime_since_us)
        if since >= max(self._interval_rows, self._least_rows):
            return self._new_rows(f"{since} mature labelled rows since the last candidate", recent)
        return None

    def _new_rows(self, because: str, recent: tuple[str, ...]) -> Wanted:
        # A change that is only supposed must not hide the rows from before it: candidates of all of them are tried, too.
        since_us = self._regime_since_us if self._supposed is None else self._supposed.since_us
        return self._of_rows_since(since_us, because, recent)

    @staticmethod
    def _of_rows_since(since_us: int, because: str, recent: tuple[str, ...]) -> Wanted:
        return Wanted(RETRAIN_REASON_FOLLOW_UP if since_us else RETRAIN_REASON_NEW_DATA, because, recent, since_us)

    def _offered(self, wanted: Wanted) -> Verdict:
        least = RECENT_ROWS_MIN * self.pace
        left = self._left_rows
        if wanted.is_of_all:
            # More than there are: all of them.
            return replace(self._verdict(wanted, 2 * self._rows), rows_max=self._world.drawn_rows(self.burst_pace))
        left -= self._world.drawn_rows(self.burst_pace)  # put by for the next candidate of all rows
        # Where the budget is nearly spent, fewer rows are looked at, not none.
        recent_rows = min(int(2 * self._interval_rows), left - 2 * EVIDENCE_ROWS * self.pace)
        recent_rows = least if wanted.is_suspicion else max(least, recent_rows)
        recent_rows = min(self.regime_rows, recent_rows)
        if wanted.reason in (RETRAIN_REASON_DRIFT, RETRAIN_REASON_DECAY):
            # An alarm may date a change thousands of rows back, and repeat itself: the bound holds all the same.
            lent = min(
                CHANGE_FIT_ROWS * min(least, self.regime_rows),
                int(CHANGE_BUDGET * self._allowed_rows) - self._cost_rows,
            )
            left = max(left, lent)
        elif wanted.is_suspicion:
            left = min(left, CHANGE_FIT_ROWS * recent_rows)
        return replace(self._verdict(wanted, recent_rows), rows_max=0 if wanted.urgent else left)

    def _verdict(self, wanted: Wanted, recent_rows: int) -> Verdict:
        block_rows = self._policy.block_labels * self.pace
        return Verdict(wanted, "", recent_rows, EVIDENCE_ROWS * self.pace, block_rows)

    @property
    def _allowed_rows(self) -> int:
        """Rows that all fits may have cost by now."""
        return FREE_ROWS + int(self._policy.fit_budget * self._rows)

    @property
    def _left_rows(self) -> int:
        return self._allowed_rows - self._cost_rows

    def _held_back(self, wanted: Wanted, clock_us: int, offered: Verdict) -> str:
        if self.fault:
            return f"a fault of data is no change of the world: {self.fault}"
        least = COLLAPSED_ROWS if wanted.is_collapse else int(self._rows_of(self._policy.change_rows))
        if wanted.since_us and self.regime_rows < least:
            return f"fewer than {least} mature rows since the change"
        if wanted.reason == RETRAIN_REASON_DECAY and self._rows - self._tried_at_rows < self._rows_of(
            self._policy.recent_rows
        ):
            return "the last candidate was fitted on nearly the same rows"
        if clock_us - self.asked_at_us < self._cooldown_us and not wanted.is_collapse:
            return f"the last request is less than {self._policy.cooldown} old"
        self._spent_us = [at_us for at_us in self._spent_us if at_us > clock_us - self._policy.budget_period_us]
        if len(self._spent_us) >= self._policy.budget_retrains:
            return f"the budget of {self._policy.budget} is spent"
        if self._too_dear(offered):
            return f"fits have cost {self._cost_rows} rows of the {self._policy.fit_budget:g} per labelled row that they may"
        return ""

    @staticmethod
    def _too_dear(offered: Verdict) -> bool:
        return not offered.wanted.is_of_all and offered.rows_max < offered.recent_rows + 2 * offered.evidence_rows

    def asked(self, request_id: str, clock_us: int) -> None:
        """The request was written: it is open until trainer answers."""
        self.open_request = request_id
        self._tries_suspicion = self._wanted is not None and self._wanted.is_suspicion
        if self._tries_suspicion:  # a cheap look, which an alarm that follows need not wait for
            self._suspected_at_rows = self._rows
        else:
            self.asked_at_us = clock_us
            self._spent_us.append(clock_us)
            if self._tries_all:
                self._world.tried()
            else:
                self._tried_at_rows = self._rows
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
            else [int(wanted.reason), wanted.because, list(wanted.causes), *astuple(wanted)[3:]],
            "excused": self._excused,
            "regime": [self._regime_since_us, self.regime_rows],
            "tries": [self._tried_at_rows, self._interval_rows, self._cost_rows, self.pace],
            "supposed": None if self._supposed is None else list(asdict(self._supposed).values()),
            "promoted_rows": self._promoted_rows,
            "error": self.error,
            "attained": [self._attained, self._answers_since_rows],
            "suspicion": [self._suspicion_rows, self._suspected_at_rows, self._tries_suspicion],
            "world": [self._tries_all, *self._world.as_list()],
            "has_model": self.has_model,
            "open_request": self.open_request,
            "asked_at_us": self.asked_at_us,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Takes a snapshot back."""
        self._rows_at = deque(state["rows_at"], maxlen=KEPT_ROWS)
        self._rows, self._spent_us, self._excused = state["rows"], list(state["spent_us"]), state["excused"]
        if state["wanted"] is not None:
            reason, because, causes, *others = state["wanted"]
            self._wanted = Wanted(reason, because, tuple(causes), *others)
        self._regime_since_us, self.regime_rows = state["regime"]
        self._tried_at_rows, self._interval_rows, self._cost_rows, self.pace = state["tries"]
        supposed = state.get("supposed")  # absent from checkpoints of when every alarm was believed
        self._supposed, self.error = None if supposed is None else _Supposed(*supposed), state.get("error", 0.0)
        # Absent from checkpoints of before it was known what had been attained.
        self._attained, self._answers_since_rows = state.get("attained", [0.0, state["rows"]])
        self._promoted_rows = state.get("promoted_rows", 0)  # absent from checkpoints of when no promotion waited
        if "suspicion" in state:
            self._suspicion_rows, self._suspected_at_rows, self._tries_suspicion = state["suspicion"]
        # Absent from checkpoints of before candidates of all rows were tried: the next one is as long after this one.
        self._tries_all, *world = state.get("world", [False, 0, state["rows"], state["rows"]])
        self._world = World(*world)
        self.has_model, self.open_request, self.asked_at_us = (
            state["has_model"],
            state["open_request"],
            state["asked_at_us"],
        )
