"""Watches errors, predictions and inputs for change under one budget of false alarms; decides nothing about models.

Each series is seen as block means by River's ADWIN (Bifet & Gavaldà, 2007: at every check a false alarm has probability at
most delta); the error, which is what retraining can mend, by a faster detector too (`rise`), that starts anew with every
champion, while ADWIN's series goes on: a promotion that hid a change would hide it for good. The budget is a union bound: with one false alarm allowed per `alarm_labels` labels over all series, a series
that has the share w of the budget and is checked once per b labels gets delta = w · b / alarm_labels.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import deque
from dataclasses import dataclass
from typing import Any

from river.drift import ADWIN

from driftloop.contracts.monitor.v1.monitor_pb2 import (
    SERIES_KIND_ERROR,
    SERIES_KIND_INPUT,
    SERIES_KIND_PREDICTION,
    SeriesKind,
)
from driftloop.usecase import DAY_US, Answer, UseCase, max_loss, row_loss
from services.monitor.floor import Decay, ErrorFloor
from services.monitor.rise import BLOCKS_MAX, WARNING_LABELS, Pace, RiseDetector

SNAPSHOT_VERSION = 1
ADWIN_SHARE, RISE_SHARE, PREDICTION_SHARE, INPUT_SHARE = 0.25, 0.25, 0.1, 0.4  # of the budget
PACE_BLOCKS = 25  # between two measurements of the pace
MAX_BLOCKS = 5_000  # since the last reset; older blocks say nothing about a change that is still unseen
REFERENCE_ROWS = 1_000  # rows that the ranks of an input are taken against
INPUT_BLOCK_ROWS = 100  # a day's block with fewer rows waits for the next day


@dataclass(frozen=True)
class Alarm:
    """A change of a series' mean, with what it rests on. Times in microseconds; `rows_since` since the estimated change."""

    series: str
    kind: SeriesKind
    detector: str
    since_us: int
    before: float
    after: float
    rows_since: int
    alpha: float


@dataclass(slots=True)
class _Block:
    mean: float
    rows: int
    start_us: int


def change_point(means: list[float]) -> int:
    """Index at which the mean most likely changed: the split in two that leaves the least squared error (1 ≤ index < n)."""
    total = math.fsum(means)
    best, best_gain, left = 1, -1.0, 0.0
    for index in range(1, len(means)):
        left += means[index - 1]
        right = total - left
        gain = left * left / index + right * right / (len(means) - index)
        if gain > best_gain:
            best, best_gain = index, gain
    return best


class BlockSeries:
    """One series as block means under ADWIN.

    A block closes at `block_rows` rows and, if `block_us` is set, not before that much time has passed in it: a block that
    spans a whole day does not take night for drift. `only_rise`: a fall of the mean starts the series anew without an alarm.
    ADWIN's bound supposes values in [0, 1] and single rows. Means of b rows, each within `value_range`, vary less than that:
    they are scaled by √b / value_range, as if a block held √b independent rows (rows of a block share weather and hour).
    """

    def __init__(
        self,
        name: str,
        kind: SeriesKind,
        alpha: float,
        block_rows: int,
        block_us: int = 0,
        only_rise: bool = False,
        value_range: float = 1.0,
    ) -> None:
        self.name, self.kind, self.alpha = name, kind, alpha
        self._block_rows, self._block_us, self._only_rise = block_rows, block_us, only_rise
        self._scale = math.sqrt(block_rows) / value_range
        self.skipped = 0
        self.reset()

    def reset(self) -> None:
        """Forgets all it has seen: after a change has been found."""
        self._adwin = ADWIN(delta=self.alpha, clock=1, grace_period=5, min_window_length=3)
        self._blocks: list[_Block] = []
        self._sum, self._rows, self._start_us = 0.0, 0, 0

    def add(self, value: float, at_us: int) -> Alarm | None:
        """Takes one value of a row at a time (microseconds); an alarm if the series changed. NaN is counted and left out."""
        if not math.isfinite(value):
            self.skipped += 1
            return None
        if self._rows == 0:
            self._start_us = at_us
        elif self._rows >= self._block_rows and at_us - self._start_us >= self._block_us:
            alarm = self._close()
            self._sum, self._rows, self._start_us = value, 1, at_us
            return alarm
        self._sum += value
        self._rows += 1
        if self._block_us == 0 and self._rows >= self._block_rows:
            alarm = self._close()
            self._sum, self._rows = 0.0, 0
            return alarm
        return None

    def _close(self) -> Alarm | None:
        block = _Block(self._sum / self._rows, self._rows, self._start_us)
        self._blocks.append(block)
        del self._blocks[:-MAX_BLOCKS]
        self._adwin.update(block.mean * self._scale)
        if not self._adwin.drift_detected:
            return None
        blocks = self._blocks
        split = change_point([b.mean for b in blocks])
        before, after = (math.fsum(b.mean for b in part) / len(part) for part in (blocks[:split], blocks[split:]))
        alarm = Alarm(
            series=self.name,
            kind=self.kind,
            detector="adwin",
            since_us=blocks[split].start_us,
            before=before,
            after=after,
            rows_since=sum(b.rows for b in blocks[split:]),
            alpha=self.alpha,
        )
        self.reset()
        for kept in blocks[split:]:
            self._blocks.append(kept)
            self._adwin.update(kept.mean * self._scale)
        return None if self._only_rise and after <= before else alarm

    @property
    def blocks(self) -> int:
        """Closed blocks since the last reset."""
        return len(self._blocks)

    def snapshot(self) -> dict[str, Any]:
        """State as plain values: the bounded inputs since the last reset, from which the detector is built again."""
        blocks = [[b.mean, b.rows, b.start_us] for b in self._blocks]
        return {"blocks": blocks, "open": [self._sum, self._rows, self._start_us], "skipped": self.skipped}

    def restore(self, state: dict[str, Any]) -> None:
        """Takes a snapshot back."""
        self.reset()
        for mean, rows, start_us in state["blocks"]:
            self._blocks.append(_Block(mean, rows, start_us))
            self._adwin.update(mean * self._scale)
        self._sum, self._rows, self._start_us = state["open"]
        self.skipped = state["skipped"]


class RankedSeries:
    """A series of any scale as ranks among its own first rows: uniform on [0, 1] for as long as nothing changes."""

    def __init__(self, name: str, kind: SeriesKind, alpha: float) -> None:
        self._reference: list[float] = []
        self._series = BlockSeries(name, kind, alpha, INPUT_BLOCK_ROWS, DAY_US)

    def add(self, value: float, at_us: int) -> Alarm | None:
        """As BlockSeries.add; the first REFERENCE_ROWS rows only make the reference."""
        if not math.isfinite(value):
            self._series.skipped += 1
            return None
        reference = self._reference
        if len(reference) < REFERENCE_ROWS:
            reference.append(value)
            if len(reference) == REFERENCE_ROWS:
                reference.sort()
            return None
        rank = (bisect_left(reference, value) + bisect_right(reference, value)) / (2 * REFERENCE_ROWS)
        return self._series.add(rank, at_us)

    def snapshot(self) -> dict[str, Any]:
        """State as plain values."""
        return {"reference": self._reference, "series": self._series.snapshot()}

    def restore(self, state: dict[str, Any]) -> None:
        """Takes a snapshot back."""
        self._reference = list(state["reference"])
        self._series.restore(state["series"])


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
        self._closed = 0
        self.pace = 1
        self.warned = False

    def add(self, loss: float, at_us: int, minority: float) -> Alarm | None:
        """Takes in one row's loss; `minority` as in `Pace.blocks`."""
        total, rows, start_us = self._open
        self._open = [total + loss, rows + 1, start_us if rows else at_us]
        if rows + 1 < self._block_rows:
            return None
        mean = self._open[0] / self._open[1]
        self._starts_us.append(int(self._open[2]))
        self._open = [0.0, 0, 0]
        self._newest.append(mean)
        self._pace.add(mean)
        self._closed += 1
        if self._closed % PACE_BLOCKS == 0:
            self.pace = self._pace.blocks(minority)
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

    def champion_changed(self) -> None:
        """Errors of another model follow."""
        self._start_over(0)
        self._open = [0.0, 0, 0]
        self._newest.clear()

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
            "closed": self._closed,
            "pace": self.pace,
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
        self._newest.extend(state["newest"])


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

        Score: the probability that the label is true, that of the most likely class, or the value.
        """
        alarms = [self._prediction.add(score, at_us)]
        alarms += [series.add(value, at_us) for series, value in zip(self._inputs, numbers, strict=False)]
        return [alarm for alarm in alarms if alarm is not None]

    def labelled(self, answer: Answer, label: float, predicted_for_us: int) -> list[Alarm]:
        """Takes in one mature label and what the champion had said; at most one alarm, for both detectors see one change."""
        loss = self.loss(answer, label)
        self._floor.add(loss, label, self.scale)
        alarm, slow = (
            self._rise.add(loss, predicted_for_us, self._floor.minority),
            self.error.add(loss, predicted_for_us),
        )
        if alarm is not None:
            self.error.reset()
        elif slow is not None:
            self._rise.regime_changed(slow.since_us)
            alarm = slow
        return [] if alarm is None else [alarm]

    @property
    def pace(self) -> int:
        """Blocks that make one independent piece of evidence."""
        return self._rise.pace

    @property
    def recent_error(self) -> float:
        """Production's mean loss over its newest blocks, at most PACE_BLOCKS of them; 0 before there is one."""
        return self._rise.recent_error

    def take_warning(self) -> bool:
        """Whether the error has looked suspicious since the last call: no alarm yet, but worth a candidate."""
        warned, self._rise.warned = self._rise.warned, False
        return warned

    def champion_changed(self) -> None:
        """Another model answers from now on: the floor and the fast detector see its errors only. ADWIN's series goes on."""
        self._floor.start_over()
        self._rise.champion_changed()

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
            "inputs": [series.snapshot() for series in self._inputs],
            "scale": self.scale,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Takes a snapshot back."""
        self.scale = state.get("scale", 1.0)  # absent from checkpoints of when there was no regression
        self.error.restore(state["error"])
        self._rise.restore(state["rise"])
        self._floor.restore(state["floor"])
        self._prediction.restore(state["prediction"])
        for series, saved in zip(self._inputs, state["inputs"], strict=True):
            series.restore(saved)
