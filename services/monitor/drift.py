"""Watches errors, predictions and inputs for change under one budget of false alarms; decides nothing about models.

Each series is seen as block means by River's ADWIN (Bifet & Gavaldà, 2007: at every check a false alarm has probability at
most delta); the error, which is what retraining can mend, by a faster detector too (`rise`), that starts anew with every
champion, while ADWIN's series goes on: a promotion that hid a change would hide it for good. The budget is a union bound: with one false alarm allowed per `alarm_labels` labels over all series, a series
that has the share w of the budget and is checked once per b labels gets delta = w · b / alarm_labels.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from driftloop.contracts.monitor.v1.monitor_pb2 import (
    SERIES_KIND_ERROR,
    SERIES_KIND_INPUT,
    SERIES_KIND_PREDICTION,
)
from driftloop.usecase import Answer, UseCase, max_loss, row_loss
from services.monitor.floor import Decay, ErrorFloor
from services.monitor.rise import BLOCKS_MAX, WARNING_LABELS, Pace, RiseDetector, rarity_pace
from services.monitor.series import INPUT_BLOCK_ROWS, Alarm, BlockSeries, RankedSeries

SNAPSHOT_VERSION = 1
ADWIN_SHARE, RISE_SHARE, PREDICTION_SHARE, INPUT_SHARE = 0.25, 0.25, 0.1, 0.4  # of the budget
PACE_BLOCKS = 25  # between two measurements of the pace
COLLAPSE = "floor"  # the detector of an error that is suddenly far above what knows only the labels


class RisingError:
    """The champion's error in blocks of `block_rows` under `RiseDetector`, and the pace of its evidence.

    `alpha`: chance of a false alarm per label.
    """

    def __init__(self, block_rows: int, alpha: float) -> None:
        self._block_rows, self._alpha = block_rows, alpha
        self._detector = RiseDetector(block_rows * alpha, block_rows / WARNING_LABELS)
        self._pace = Pace()
        self._starts_us: deque[int] = deque(maxlen=BLOCKS_MAX)
        self._open = [0.0, 0, 0]  # sum, rows, start
        self._newest: deque[float] = deque(maxlen=PACE_BLOCKS)
        self._other = _OtherArm()
        self._closed = 0
        self.pace = self.burst_pace = 1
        self.warned = False

    def add(self, loss: float, at_us: int, minority: float, other: float | None = None) -> Alarm | None:
        """Takes in one row's loss; `minority` as in `Pace.blocks`, `other` the loss of the model beside the champion, if any."""
        total, rows, start_us = self._open
        self._open = [total + loss, rows + 1, start_us if rows else at_us]
        self._other.add(other)
        if rows + 1 < self._block_rows:
            return None
        self._other.close(int(rows) + 1)
        mean = self._open[0] / self._open[1]
        self._starts_us.append(int(self._open[2]))
        self._open = [0.0, 0, 0]
        self._newest.append(mean)
        self._pace.add(mean)
        self._closed += 1
        if self._closed % PACE_BLOCKS == 0:
            self.burst_pace = self._pace.joined()
            self.pace = max(self.burst_pace, rarity_pace(minority))
        rise, warned = self._detector.add(mean)
        self.warned |= warned
        if rise is None:
            return None
        since_us = self._starts_us[-rise.blocks]
        self._start_over(rise.blocks)
        return Alarm(
            series="error",
            kind=SERIES_KIND_ERROR,
            detector="rise",
            since_us=since_us,
            before=rise.before,
            after=rise.after,
            rows_since=rise.blocks * self._block_rows,
            alpha=self._alpha * self._block_rows,
        )

    def regime_changed(self, since_us: int) -> None:
        """Another detector has found a change: the blocks before it are no reference any more."""
        self._start_over(sum(start_us >= since_us for start_us in list(self._starts_us)[-len(self._detector) :]))

    def other_changed(self) -> None:
        """Another model, or none, is beside the champion from now on."""
        self._other = _OtherArm()

    def champion_changed(self, was_beside: bool = False) -> None:
        """Errors of another model follow; of one that `was_beside` the champion, those until now are their reference."""
        means = self._other.means if was_beside else []
        borrowed = self._detector.shifted_to(means)
        self._start_over(0)
        self._detector.restart_with([*borrowed, *means])
        self._newest.clear()
        self._newest.extend(means)
        self._open = [0.0, 0, 0]
        self.other_changed()

    def _start_over(self, newest: int) -> None:
        self._detector.restart(newest)
        self._pace.change(newest)
        self.warned = False

    @property
    def recent_error(self) -> float:
        """See `DriftWatch.recent_error`."""
        return math.fsum(self._newest) / len(self._newest) if self._newest else 0.0

    def snapshot(self) -> dict[str, Any]:
        """State as plain values."""
        return {
            "detector": self._detector.snapshot(),
            "segments": self._pace.snapshot(),
            "starts_us": list(self._starts_us),
            "open": self._open,
            "newest": list(self._newest),
            "other": [self._other.sum, self._other.rows, self._other.means],
            "closed": self._closed,
            "pace": self.pace,
            "burst_pace": self.burst_pace,
            "warned": self.warned,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Takes a snapshot back."""
        self._detector.restore(state["detector"])
        self._pace.restore(state["segments"])
        self._starts_us.extend(state["starts_us"])
        self._open, self._closed, self.pace, self.warned = (
            list(state["open"]),
            state["closed"],
            state["pace"],
            state["warned"],
        )
        self.burst_pace = state.get("burst_pace", self.pace)  # absent from checkpoints of when there was one pace
        self._newest.extend(state["newest"])
        self._other = _OtherArm(*state.get("other", ()))  # absent from checkpoints of before it was watched


@dataclass(slots=True)
class _OtherArm:
    """Block means of the model beside the champion, of the same rows; rows that it did not score break them off."""

    sum: float = 0.0
    rows: int = 0
    means: list[float] = field(default_factory=list)

    def add(self, loss: float | None) -> None:
        if loss is not None:
            self.sum += loss
            self.rows += 1

    def close(self, rows: int) -> None:
        if self.rows == rows:
            self.means.append(self.sum / rows)
            del self.means[:-BLOCKS_MAX]
        self.sum, self.rows = 0.0, 0


class DriftWatch:
    """All series of a use case under its one false-alarm budget.

    `scale`: regression only, the variance of the label that errors are counted in; set with the first model, and never again,
    for a series of errors in changing units would be found to change.
    """

    def __init__(self, use_case: UseCase) -> None:
        policy, names = use_case.policy, use_case.numeric_inputs
        task, classes = use_case.predict.task, len(use_case.predict.classes)
        self.scale = 1.0
        self._task = task
        per_label = 1.0 / policy.alarm_labels
        self.error = BlockSeries(
            "error",
            SERIES_KIND_ERROR,
            ADWIN_SHARE * policy.block_labels * per_label,
            policy.block_labels,
            only_rise=True,
            value_range=max_loss(task, classes),
        )
        self._rise = RisingError(policy.block_labels, RISE_SHARE * per_label)
        self._floor = ErrorFloor(policy.block_labels, task, classes)
        self._prediction = RankedSeries(
            "prediction", SERIES_KIND_PREDICTION, PREDICTION_SHARE * INPUT_BLOCK_ROWS * per_label
        )
        share = INPUT_SHARE / max(1, len(names))
        self._inputs = [
            RankedSeries(f"input/{name}", SERIES_KIND_INPUT, share * INPUT_BLOCK_ROWS * per_label) for name in names
        ]

    def loss(self, answer: Answer, label: float) -> float:
        """What an answer cost, by which errors are watched and models compared."""
        return row_loss(self._task, answer, label, self.scale)

    def predicted(self, score: float, numbers: list[float], at_us: int) -> list[Alarm]:
        """Takes in one prediction of the champion and its numeric inputs (NaN: missing).

        Score: the probability that the label is true, that of the most likely class, or the value. numbers: empty if they are
        those of another declaration.
        """
        alarms = [self._prediction.add(score, at_us)]
        if numbers:
            alarms += [series.add(value, at_us) for series, value in zip(self._inputs, numbers, strict=True)]
        return [alarm for alarm in alarms if alarm is not None]

    def labelled(self, answer: Answer, label: float, predicted_for_us: int, other: float | None = None) -> list[Alarm]:
        """Takes in one mature label and what the champion had said; at most one alarm, for both detectors see one change.

        other: the loss on it of the model beside the champion.
        """
        loss = self.loss(answer, label)
        self._floor.add(loss, label, self.scale, predicted_for_us)
        alarm, slow = (
            self._rise.add(loss, predicted_for_us, self._floor.minority, other),
            self.error.add(loss, predicted_for_us),
        )
        if alarm is not None:
            self.error.reset()
        elif slow is not None:
            self._rise.regime_changed(slow.since_us)
            alarm = slow
        else:
            alarm = self._collapsed()
        return [] if alarm is None else [alarm]

    def _collapsed(self) -> Alarm | None:
        # Where hard rows come in bursts, every burst looks like one.
        found = self._floor.collapse() if self.pace == 1 else None
        if found is None:
            return None
        self._floor.collapsed()
        self._rise.regime_changed(found.since_us)
        self.error.reset()
        return Alarm(
            "error",
            SERIES_KIND_ERROR,
            COLLAPSE,
            found.since_us,
            found.before,
            found.after,
            found.rows,
            self.error.alpha,
        )

    @property
    def pace(self) -> int:
        """Blocks that make one independent piece of evidence."""
        return self._rise.pace

    @property
    def burst_pace(self) -> int:
        """The same, as far as bursts of hard rows are the reason: labels that were rare before a change need not be rare since."""
        return self._rise.burst_pace

    @property
    def recent_error(self) -> float:
        """Production's mean loss over its newest blocks, at most PACE_BLOCKS of them; 0 before there is one."""
        return self._rise.recent_error

    def take_warning(self) -> bool:
        """Whether the error has looked suspicious since the last call: no alarm yet, but worth a candidate."""
        warned, self._rise.warned = self._rise.warned, False
        return warned

    def other_changed(self) -> None:
        """Another model, or none, is beside the champion from now on."""
        self._rise.other_changed()

    def champion_changed(self, was_beside: bool = False) -> None:
        """Another model answers from now on: the floor and the fast detector see its errors only. ADWIN's series goes on.

        was_beside: it is the one whose losses came as `other` until now.
        """
        self._floor.start_over()
        self._rise.champion_changed(was_beside)

    def decay(self) -> Decay | None:
        """Whether production does worse, beyond chance, than predicting from the labels alone; None while it does not."""
        return self._floor.decay()

    def snapshot(self) -> dict[str, Any]:
        """State as plain values."""
        return {
            "version": SNAPSHOT_VERSION,
            "error": self.error.snapshot(),
            "rise": self._rise.snapshot(),
            "floor": self._floor.snapshot(),
            "prediction": self._prediction.snapshot(),
            "inputs": {series.name: series.snapshot() for series in self._inputs},
            "scale": self.scale,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Takes a snapshot back."""
        self.scale = state.get("scale", 1.0)  # absent from checkpoints of when there was no regression
        self.error.restore(state["error"])
        self._rise.restore(state["rise"])
        self._floor.restore(state["floor"])
        self._prediction.restore(state["prediction"])
        saved = state["inputs"]
        if isinstance(saved, list):  # of before they had names; of another declaration if there are more or fewer
            saved = (
                dict(zip([s.name for s in self._inputs], saved, strict=True)) if len(saved) == len(self._inputs) else {}
            )
        for series in self._inputs:  # what was not watched before begins anew
            if series.name in saved:
                series.restore(saved[series.name])
