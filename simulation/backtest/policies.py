"""The simple policies that the loop is compared with, and their names: never, by rows, on every alarm, on a worse error.

All train on the newest labels (one window for all of them) and deploy at once: no gate, no trial, no rollback.
"""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from river.drift import ADWIN

from simulation.backtest.outcome import Outcome
from simulation.backtest.production import Production, Setting, Told

LOOP = "driftloop"
DEFAULT_POLICIES = ("static", "periodic-5%", "periodic-10%", "periodic-25%", "drift", "decay", LOOP)
WINDOW_SHARE = 0.1  # of the stream's rows: what every simple policy trains on
ADWIN_DELTA = 0.002  # River's default: naive means untuned
DECAY_SHARE = (
    0.02  # of the stream's rows: how many labels "recent" are, and how many make the reference after a deployment
)
DECAY_ROWS_MIN = 100
DECAY_MARGIN = 0.1  # relative: a recent loss of more than 1.1 times the reference asks for a model
_PERIODIC = re.compile(r"periodic-(\d+(?:\.\d+)?)%")


class UnknownPolicy(ValueError):
    """There is no such policy: correct its name."""


def check_names(names: Sequence[str]) -> None:
    """UnknownPolicy for the first name that is none, or that is given twice."""
    for name in names:
        period_share(name)
        if name not in DEFAULT_POLICIES and period_share(name) is None:
            known = ", ".join([*DEFAULT_POLICIES[:2], "periodic-N%", *DEFAULT_POLICIES[4:]])
            raise UnknownPolicy(f"there is no policy {name!r}: choose among {known}")
        if names.count(name) > 1:
            raise UnknownPolicy(f"policy {name!r} is named twice")
    if not names:
        raise UnknownPolicy("no policy is named")


def period_share(name: str) -> float | None:
    """The share of the stream's rows after which a periodic policy retrains; None for any other policy."""
    match = _PERIODIC.fullmatch(name)
    if match is None:
        return None
    share = float(match[1]) / 100.0
    if not 0.01 <= share <= 0.9:
        raise UnknownPolicy(f"{name!r}: a period is from 1 % to 90 % of the rows")
    return share


class Watch(Protocol):
    """Looks at the errors of the model in production, label by label, and says when a new one is wanted."""

    def observe(self, error: float) -> str | None:
        """Takes the error of one row; why a model is wanted, or None."""
        ...

    def start_over(self) -> None:
        """Another model answers."""
        ...


class AlarmWatch:
    """A new model on every rise of the error that ADWIN reports (Bifet & Gavaldà, 2007), label by label."""

    def __init__(self) -> None:
        self.start_over()

    def start_over(self) -> None:
        """Another model answers: its errors are another series."""
        self._adwin = ADWIN(delta=ADWIN_DELTA)

    def observe(self, error: float) -> str | None:
        """Takes the error of one row, in [0, 1]."""
        before = self._adwin.estimation
        self._adwin.update(error)
        if self._adwin.drift_detected and self._adwin.estimation > before:
            return f"ADWIN: the mean error rose from {before:.3f} to {self._adwin.estimation:.3f}"
        return None


class DecayWatch:
    """A new model when the recent loss exceeds that of the first labels after the deployment by a margin."""

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self.start_over()

    def start_over(self) -> None:
        """Another model answers: the reference is taken anew."""
        self._reference = math.nan
        self._recent: deque[float] = deque()
        self._sum = 0.0

    def observe(self, error: float) -> str | None:
        """Takes the loss of one row."""
        self._recent.append(error)
        self._sum += error
        if len(self._recent) < self._rows:
            return None
        if math.isnan(self._reference):
            self._reference = self._sum / self._rows
            self._recent.clear()
            self._sum = 0.0
            return None
        if len(self._recent) > self._rows:
            self._sum -= self._recent.popleft()
        recent = self._sum / self._rows
        if recent > self._reference * (1.0 + DECAY_MARGIN):
            return f"the loss of the newest {self._rows} labels is {recent:.3f}; after the deployment it was {self._reference:.3f}"
        return None


def run_simple(policy: str, setting: Setting, told: Told) -> Outcome:
    """Runs one of the simple policies over the scored rows. UnknownPolicy for other names."""
    share = period_share(policy)
    quality = setting.quality
    if share is not None:
        production = Production(policy, setting, quality.losses, told)
        _run_periods(production, setting, share)
    elif policy == "static":
        production = Production(policy, setting, quality.losses, told)
    elif policy == "drift":
        production = Production(policy, setting, quality.misses, told)
        _run_watched(production, setting, AlarmWatch(), is_alarm=True)
    elif policy == "decay":
        production = Production(policy, setting, quality.losses, told)
        rows = max(DECAY_ROWS_MIN, round(len(setting.history.labelled) * DECAY_SHARE))
        _run_watched(production, setting, DecayWatch(rows), is_alarm=False)
    else:
        raise UnknownPolicy(policy)
    production.serve(len(setting.history))
    return production.outcome


def _run_periods(production: Production, setting: Setting, share: float) -> None:
    history, period = setting.history, share * len(setting.history.labelled)
    first = int(np.searchsorted(history.labelled, setting.first_row))
    count = 1
    while first + count * period < len(history.labelled):
        row = int(history.labelled[math.floor(first + count * period)])
        production.serve(row)
        production.learn(int(history.at_us[row]), f"{share:.0%} of the rows have passed")
        count += 1


def _run_watched(production: Production, setting: Setting, watch: Watch, is_alarm: bool) -> None:
    history = setting.history
    known_at_us = history.known_at_us[history.labelled]
    order = np.argsort(known_at_us, kind="stable")
    rows, times_us = history.labelled[order], known_at_us[order]
    ends = np.searchsorted(history.at_us, times_us)
    inside = rows >= setting.first_row
    for row, clock_us, end in zip(rows[inside].tolist(), times_us[inside].tolist(), ends[inside].tolist(), strict=True):
        production.serve(end)
        if row < production.deployed_row:  # an earlier model answered it
            continue
        why = watch.observe(float(production.errors[row]))
        if why is None or production.served >= len(history):
            continue
        if is_alarm:
            production.drifted(clock_us, why)
        production.learn(clock_us, why)
        watch.start_over()
