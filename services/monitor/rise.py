"""Says soon when the mean of a series of blocks has risen, and how many rows one independent piece of evidence takes; pure.

The newest L block means are compared with all before them, for a ladder of lengths L at every block. The deviation of a mean
of L blocks is taken from the series itself, as the largest of what single blocks and means of 2, 4, 8 … neighbours suggest
(overlapping batch means; Meketon & Schmeiser, 1984), so that bursts of hard rows, which raise the error of every model, do not
count as independent blocks. The false-alarm budget is divided over lengths and blocks by a union bound.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

LENGTHS = (6, 8, 12, 16, 24, 32, 48, 64, 96, 128)  # blocks; fewer are one bad moment
REFERENCE_BLOCKS_MIN = 15
WARNING_REFERENCE_BLOCKS_MIN = 10
PAIRED_BLOCKS_MIN = 2  # that say by how much two models' errors differ: what a promotion needs of production's own
BLOCKS_MAX = 500  # older ones say little about what is usual now
WINSOR_DEVIATIONS = 3.0  # one extreme block must not make an alarm of its own
BATCHES_MIN = 8  # neighbours are joined as long as there are so many joined means
WARNING_LABELS = 3_000  # labels per warning on a stable stream: a warning only has a candidate tried
SEGMENT_BLOCKS, SEGMENTS_MAX = 64, 12  # what the pace is measured on
PACE_MAX = 8
CORRELATION_MAX = 0.25  # of neighbouring blocks that still count as independent
MINORITY_SHARE = 0.12  # rows of the less frequent labels among a block; rarer ones need larger blocks
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Rise:
    """The newest `blocks` blocks lie above those before them."""

    blocks: int
    before: float
    after: float


class RiseDetector:
    """Block means of one champion's error. `alpha`: chance of a false alarm per block on a stable series."""

    def __init__(self, alpha: float, warning_alpha: float) -> None:
        self._alpha, self._warning_alpha = alpha, warning_alpha
        self._means: list[float] = []

    def __len__(self) -> int:
        return len(self._means)

    def restart(self, newest: int = 0) -> None:
        """Forgets all but the newest blocks."""
        self._means = self._means[len(self._means) - newest :] if newest else []

    def shifted_to(self, means: list[float]) -> list[float]:
        """The champion's blocks before the newest ones, as another model would have had them whose blocks `means` are of the same rows.

        As many as it lacks to be watched at once: a change soon after a promotion would have no reference. Its level is the other
        model's, by the difference on the rows that both have answered; none, where these or the champion's blocks are too few.
        """
        lacking, paired = REFERENCE_BLOCKS_MIN - len(means), self._means[-len(means) :] if means else []
        if lacking <= 0 or not PAIRED_BLOCKS_MIN <= len(paired) == len(means):
            return []
        shift = math.fsum(means) / len(means) - math.fsum(paired) / len(paired)
        return [max(0.0, mean + shift) for mean in self._means[: -len(means)][-lacking:]]

    def restart_with(self, means: list[float]) -> None:
        """Begins anew with what another model's blocks were, which answers from now on."""
        self._means = list(means)

    def add(self, mean: float) -> tuple[Rise | None, bool]:
        """Takes in one block's mean: an alarm, or whether the series is suspicious (a warning)."""
        self._means.append(mean)
        del self._means[:-BLOCKS_MAX]
        values = np.array(self._means)
        return (
            self._risen(values, self._alpha, REFERENCE_BLOCKS_MIN),
            self._risen(values, self._warning_alpha, WARNING_REFERENCE_BLOCKS_MIN) is not None,
        )

    def _risen(self, values: Floats, alpha: float, reference_min: int) -> Rise | None:
        lengths = [length for length in LENGTHS if len(values) - length >= max(reference_min, length)]
        for length in lengths:
            reference, newest = values[:-length], values[-length:]
            usual = float(reference.mean())
            single = float(reference.std(ddof=1)) + 1e-9
            held = float(np.minimum(newest, usual + WINSOR_DEVIATIONS * single).mean())
            if held <= usual:
                continue
            deviation, joined = _deviation_of_means(reference - usual, single, length)
            error = deviation * math.sqrt(1.0 + length / len(reference))
            freedom = max(3.0, len(reference) / joined - 1.0)
            if (held - usual) / error > student_quantile(1.0 - alpha / len(lengths), freedom):
                return Rise(length, usual, float(newest.mean()))
        return None

    def snapshot(self) -> list[float]:
        """State as plain values."""
        return self._means

    def restore(self, state: list[float]) -> None:
        """Takes a snapshot back."""
        self._means = list(state)


def _deviation_of_means(centred: Floats, single: float, length: int) -> tuple[float, int]:
    """Deviation of a mean of `length` blocks, and how many neighbours were joined to see it."""
    count = len(centred)
    sums = np.concatenate([[0.0], np.cumsum(centred)])
    deviation, joined, size = single / math.sqrt(length), 1, 2
    while size <= min(length, 64) and count / size >= BATCHES_MIN:
        means = (sums[size:] - sums[:-size]) / size
        overlapping = math.sqrt(float((means**2).mean()) * count / (count - size + 1))
        deviation, joined, size = max(deviation, overlapping * math.sqrt(size / length)), size, size * 2
    return deviation, joined


def student_quantile(probability: float, freedom: float) -> float:
    """Quantile of Student's t by its expansion about the normal one (Abramowitz & Stegun, 26.7.5)."""
    z = NormalDist().inv_cdf(probability)
    return (
        z
        + (z**3 + z) / (4 * freedom)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * freedom**3)
    )


def rarity_pace(minority: float) -> int:
    """Blocks that hold enough labels of the rarer kinds, 1 to PACE_MAX; `minority`: share of labels not of the most frequent kind."""
    return min(PACE_MAX, math.ceil(MINORITY_SHARE / max(minority, 1e-3)))


class Pace:
    """How many blocks make one independent piece of evidence: more where hard rows come in bursts, or labels of a kind are rare.

    Measured as the correlation of neighbouring block means within reigns of one champion and one regime, about a straight line
    (a slow rise is drift, not a burst).
    """

    def __init__(self) -> None:
        self._segments: deque[list[float]] = deque([[]], maxlen=SEGMENTS_MAX)

    def add(self, mean: float) -> None:
        """Takes in one block's mean."""
        if len(self._segments[-1]) >= SEGMENT_BLOCKS:
            self._segments.append([])
        self._segments[-1].append(mean)

    def change(self, newest: int = 0) -> None:
        """Another champion or regime, since the newest blocks."""
        last = self._segments[-1]
        kept = last[len(last) - min(newest, len(last)) :] if newest else []
        if newest:
            del last[len(last) - len(kept) :]
        self._segments.append(kept)

    def joined(self) -> int:
        """Blocks per piece of evidence, 1 to PACE_MAX, by their correlation."""
        joined = 1
        while joined < PACE_MAX and self._correlated(joined):
            joined *= 2
        return joined

    def _correlated(self, joined: int) -> bool:
        lagged = total = 0.0
        count = 0
        for segment in self._segments:
            size = len(segment) // joined
            if size < 4:
                continue
            values = np.array(segment[: size * joined]).reshape(size, joined).mean(axis=1)
            line = np.arange(size) - (size - 1) / 2
            values -= values.mean()
            values -= line * float(line @ values) / float(line @ line)
            lagged += float(values[1:] @ values[:-1]) + float(values @ values) / size
            total += float(values @ values)
            count += size
        return count >= 16 and lagged / max(total, 1e-12) >= max(CORRELATION_MAX, 2.0 / math.sqrt(count))

    def snapshot(self) -> list[list[float]]:
        """State as plain values."""
        return [list(segment) for segment in self._segments]

    def restore(self, state: list[list[float]]) -> None:
        """Takes a snapshot back."""
        self._segments = deque([list(segment) for segment in state], maxlen=SEGMENTS_MAX)
