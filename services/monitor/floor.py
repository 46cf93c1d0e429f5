"""Says when production does no better than what knows only the labels before, for a change detector gets used to a high error; pure."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Any

from driftloop.usecase import Answer, Task, row_loss

FLOOR_LABELS = 1_000  # labels that the floor's rate is taken from
FLOOR_BLOCKS = 25  # blocks over which production must beat the floor
COLLAPSE_BLOCKS, COLLAPSE_REFERENCE_BLOCKS = 3, 6
COLLAPSE_EXCESS = 1.5  # times the floor, that each of these blocks loses: who knows nothing would do far better
FLOOR_DEVIATIONS = 3.0  # standard errors: one chance in 700 if blocks were independent, and they nearly are


@dataclass(frozen=True)
class Decay:
    """Production's recent error and that of predicting from the labels alone, in loss per row."""

    error: float
    floor: float


@dataclass(frozen=True)
class Collapse:
    """Production has suddenly become far worse than knowing only the labels: since when, and its error before and after."""

    since_us: int
    before: float
    after: float
    rows: int


class LabelsAlone:
    """Answers without any input, from the newest FLOOR_LABELS labels: their rate, the classes' frequencies, or their mean.

    Rates and frequencies are smoothed by Laplace's rule of succession, so that what has not been seen keeps a chance.
    """

    def __init__(self, task: Task, classes: int) -> None:
        self._task = task
        self._kinds = max(2, classes)
        self._labels: deque[float] = deque(maxlen=FLOOR_LABELS)
        self._counts = [0] * self._kinds

    @property
    def known(self) -> int:
        """Labels that the answer rests on."""
        return len(self._labels)

    @property
    def minority(self) -> float:
        """Share of the labels that are not of the most frequent kind; one half for numbers, of which none is rare."""
        if self._task == "regression" or not self._labels:
            return 0.5
        return 1.0 - max(self._counts) / len(self._labels)

    def answer(self) -> Answer:
        """The answer to the next row, whatever it is."""
        if self._task == "regression":
            return math.fsum(self._labels) / len(self._labels)
        total = len(self._labels) + self._kinds
        if self._task == "binary":
            return (self._counts[1] + 1.0) / total
        return [(count + 1.0) / total for count in self._counts]

    def add(self, label: float) -> None:
        """One more label; the oldest leaves where there are enough."""
        if self._task != "regression":
            if len(self._labels) == FLOOR_LABELS:
                self._counts[int(self._labels[0])] -= 1
            self._counts[int(label)] += 1
        self._labels.append(label)

    def snapshot(self) -> list[float]:
        """State as plain values."""
        return list(self._labels)

    def restore(self, labels: list[float]) -> None:
        """Takes a snapshot back."""
        for label in labels:
            self.add(label)


class ErrorFloor:
    """Compares production's error with that of a predictor that knows nothing but the labels before each row.

    A change detector gets used to a steady high error; this floor does not. The comparison is over the newest
    FLOOR_BLOCKS blocks and needs a mean above FLOOR_DEVIATIONS standard errors.
    """

    def __init__(self, block_rows: int, task: Task = "binary", classes: int = 0) -> None:
        self._block_rows = block_rows
        self._task = task
        self._labels = LabelsAlone(task, classes)
        self._blocks: deque[tuple[float, float, int]] = deque(maxlen=FLOOR_BLOCKS)
        self._production: deque[tuple[float, float, int]] = deque(maxlen=FLOOR_BLOCKS)  # whoever the champion was
        self._open = [0.0, 0.0, 0.0]  # production's error, the floor's, rows
        self._start_us = 0

    def add(self, loss: float, label: float, scale: float = 1.0, at_us: int = 0) -> None:
        """Takes in one mature row: production's loss and the label; `scale` as in `row_loss`."""
        if self._labels.known >= FLOOR_LABELS:
            floor = row_loss(self._task, self._labels.answer(), label, scale)
            self._start_us = self._start_us if self._open[2] else at_us
            self._open = [self._open[0] + loss, self._open[1] + floor, self._open[2] + 1.0]
            if self._open[2] >= self._block_rows:
                block = (self._open[0] / self._open[2], self._open[1] / self._open[2], self._start_us)
                self._blocks.append(block)
                self._production.append(block)
                self._open = [0.0, 0.0, 0.0]
        self._labels.add(label)

    @property
    def minority(self) -> float:
        """See `LabelsAlone.minority`."""
        return self._labels.minority

    def start_over(self) -> None:
        """Another champion: keeps the labels, forgets its errors. A collapse is production's, whoever the champion was before."""
        self._blocks.clear()
        self._open = [0.0, 0.0, 0.0]

    def collapsed(self) -> None:
        """A collapse was told: the blocks until now are no reference any more."""
        self.start_over()
        self._production.clear()

    def decay(self) -> Decay | None:
        """The two errors if production's is the greater beyond chance."""
        if len(self._blocks) < FLOOR_BLOCKS:
            return None
        excess = [ours - floor for ours, floor, _ in self._blocks]
        mean = math.fsum(excess) / FLOOR_BLOCKS
        variance = math.fsum((value - mean) ** 2 for value in excess) / (FLOOR_BLOCKS - 1)
        if mean <= FLOOR_DEVIATIONS * math.sqrt(variance / FLOOR_BLOCKS):
            return None
        error, floor = (math.fsum(block[side] for block in self._blocks) / FLOOR_BLOCKS for side in (0, 1))
        return Decay(error, floor)

    def collapse(self) -> Collapse | None:
        """Whether the newest blocks, each of them, are far above the floor though production was below it until then."""
        blocks = list(self._production)
        earlier, newest = blocks[:-COLLAPSE_BLOCKS], blocks[-COLLAPSE_BLOCKS:]
        if len(earlier) < COLLAPSE_REFERENCE_BLOCKS or any(ours < COLLAPSE_EXCESS * floor for ours, floor, _ in newest):
            return None
        before, usual = (math.fsum(block[side] for block in earlier) / len(earlier) for side in (0, 1))
        if before >= usual:
            return None
        after = math.fsum(block[0] for block in newest) / COLLAPSE_BLOCKS
        if after < COLLAPSE_EXCESS * before:  # it is the floor that fell
            return None
        return Collapse(newest[0][2], before, after, COLLAPSE_BLOCKS * self._block_rows)

    def snapshot(self) -> list[Any]:
        """State as plain values."""
        blocks, production = ([list(block) for block in kept] for kept in (self._blocks, self._production))
        return [self._labels.snapshot(), blocks, self._open, self._start_us, production]

    def restore(self, state: list[Any]) -> None:
        """Takes a snapshot back."""
        labels, blocks, self._open, *later = state
        self._labels.restore(labels)
        # Checkpoints of before collapses were looked for have no times, later ones of a champion's own blocks only.
        self._blocks.extend((block[0], block[1], block[2] if len(block) > 2 else 0) for block in blocks)
        self._start_us = later[0] if later else 0
        if len(later) > 1:
            self._production.extend((block[0], block[1], block[2]) for block in later[1])
        else:
            self._production.extend(self._blocks)
