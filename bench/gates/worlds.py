"""Streams of labels and of what models of a known quality say about them, drawn so that a model's true relative loss is exact."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
import numpy.typing as npt

from driftloop.usecase import MAX_LOSS

Floats = npt.NDArray[np.float64]
Kind = Literal["independent", "bursty", "rare"]
KINDS: tuple[Kind, ...] = ("independent", "bursty", "rare")
BURST_ROWS = 120  # about three hours of flights: what one spell of bad weather touches
CALIBRATION_ROWS = 400_000
CHAMPION_ERROR = 0.9  # deviation of its log odds: about 15 % more loss than the truth would cost
SHARED = 0.5  # of the variance of errors, common to all models: they learned of the same rows


@dataclass(frozen=True)
class World:
    """base: mean log odds. signal: deviation of the true log odds. burst: of their part that a whole burst shares.

    own_burst: share of a model's error variance that a whole burst shares, so that differences of losses come in bursts, too.
    """

    base: float
    signal: float
    burst: float = 0.0
    own_burst: float = 0.0


WORLDS: dict[Kind, World] = {
    "independent": World(-1.5, 1.2),
    "bursty": World(-1.8, 1.0, burst=1.0, own_burst=0.3),
    "rare": World(-4.6, 1.2),
}


@dataclass(frozen=True)
class Rows:
    """Log odds of the truth, labels, and the errors that all models share; each of shape (rows,)."""

    truth: Floats
    labels: Floats
    shared: Floats
    bursts: npt.NDArray[np.int64]


def rows(kind: Kind, count: int, rng: np.random.Generator) -> Rows:
    """A stretch of the stream."""
    world = WORLDS[kind]
    bursts = np.arange(count) // BURST_ROWS
    weather = rng.normal(0.0, world.burst, bursts[-1] + 1)[bursts] if world.burst else 0.0
    truth = rng.normal(world.base, world.signal, count) + weather
    labels = (rng.random(count) < _chance(truth)).astype(np.float64)
    return Rows(truth, labels, rng.normal(0.0, 1.0, count), bursts)


def losses(kind: Kind, found: Rows, relative: float, rng: np.random.Generator) -> Floats:
    """Losses of a model whose mean loss in the long run is (1 + relative) times the champion's, bounded as production's."""
    own = error(kind, relative)
    common = CHAMPION_ERROR * SHARED**0.5
    rest = max(0.0, own**2 - common**2) ** 0.5
    scale = min(own, common)
    in_bursts = WORLDS[kind].own_burst
    noise = rng.normal(0.0, (1.0 - in_bursts) ** 0.5, len(found.truth))
    if in_bursts:
        noise = noise + rng.normal(0.0, in_bursts**0.5, found.bursts[-1] + 1)[found.bursts]
    return _log_losses(found.truth + scale * found.shared + rest * noise, found.labels)


@cache
def error(kind: Kind, relative: float) -> float:
    """Deviation of a model's log odds that gives it (1 + relative) times the champion's expected loss."""
    rng = np.random.default_rng(0)
    truth = rows(kind, CALIBRATION_ROWS, rng).truth
    noise = rng.normal(0.0, 1.0, CALIBRATION_ROWS)

    def expected(deviation: float) -> float:
        said, chance = truth + deviation * noise, _chance(truth)
        ones = np.ones(CALIBRATION_ROWS)
        return float(np.mean(chance * _log_losses(said, ones) + (1.0 - chance) * _log_losses(said, 1.0 - ones)))

    wanted = (1.0 + relative) * expected(CHAMPION_ERROR)
    low, high = 0.0, 3.0
    if expected(low) > wanted:
        raise ValueError(f"{kind}: no model is {-relative:.0%} better than the champion")
    for _ in range(30):
        middle = (low + high) / 2.0
        low, high = (middle, high) if expected(middle) < wanted else (low, middle)
    return (low + high) / 2.0


def _chance(log_odds: Floats) -> Floats:
    return np.asarray(1.0 / (1.0 + np.exp(-log_odds)))


def _log_losses(log_odds: Floats, labels: Floats) -> Floats:
    return np.minimum(MAX_LOSS, np.logaddexp(0.0, np.where(labels > 0.5, -log_odds, log_odds)))
