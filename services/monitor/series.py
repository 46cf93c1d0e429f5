"""One monitored series as block means under ADWIN (Bifet & Gavaldà, 2007), and the alarm that a change of it raises; pure."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from typing import Any

from river.drift import ADWIN

from driftloop.contracts.monitor.v1.monitor_pb2 import SeriesKind
from driftloop.usecase import DAY_US

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
        self.name = name
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
