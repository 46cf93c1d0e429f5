"""Streams of our own making that are awkward in a way that real ones are: labels late or biased, bursts, seasons, rare ones."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from bench.policy.generated import concepts_of
from bench.policy.streams import Correction, Made, Stream

FEATURES = 6
Floats = npt.NDArray[np.float64]


class _World:
    """Inputs and two concepts: logits that are smooth functions of them."""

    def __init__(self, seed: int, rows: int) -> None:
        self.rng = np.random.default_rng((seed, 23))
        self.rows = rows
        self.inputs = self.rng.normal(size=(rows, FEATURES))
        self.weights = self.rng.normal(size=(2, FEATURES))

    def logits(self, concept: npt.NDArray[np.int64]) -> Floats:
        """The logit of true for each row."""
        inputs, weights = self.inputs, self.weights[concept]
        return np.asarray(1.2 * (inputs * weights).sum(axis=1) + 1.0 * np.sin(2 * inputs[:, 0]) * inputs[:, 1])

    def labels(self, logits: Floats) -> npt.NDArray[np.int64]:
        """Labels drawn with these logits."""
        return (self.rng.random(len(logits)) < 1 / (1 + np.exp(-logits))).astype(np.int64)

    def made(self, labels: npt.NDArray, more: Mapping[str, npt.NDArray] | None = None) -> dict[str, npt.NDArray]:
        """The columns."""
        inputs = {f"x_{place}": self.inputs[:, place] for place in range(FEATURES)}
        return inputs | dict(more or {}) | {"label": labels}


def _late_biased(seed: int, rows: int) -> Made:
    """True labels come after 20 to 100 rows, false ones after 600: the newest labels that are known are nearly all true."""
    world = _World(seed, rows)
    labels = world.labels(world.logits(concepts_of("abrupt", rows, world.rng)))
    delays = np.where(labels == 1, world.rng.uniform(20, 100, rows), world.rng.uniform(500, 600, rows))
    return Made(world.made(labels), known_after_rows=delays)


def _bursts(rows: int, rng: np.random.Generator) -> Floats:
    """How hard the rows are, 0 to 1: hours of bad weather, a tenth of the time."""
    hard = np.zeros(rows)
    start = 0
    while start < rows:
        start += int(rng.exponential(900))
        length = int(rng.exponential(100)) + 20
        hard[start : start + length] = rng.uniform(0.4, 1.0)
        start += length
    return hard


def _bursty(seed: int, rows: int, changes: bool) -> Made:
    world = _World(seed, rows)
    hard = _bursts(rows, world.rng)
    concept = concepts_of("abrupt" if changes else "none", rows, world.rng)
    return Made(world.made(world.labels(world.logits(concept) * 1.5 * (1.0 - hard))))


def _seasons(seed: int, rows: int) -> Made:
    """Four seasons of two concepts that turn into each other smoothly, and a cycle of inputs within a day."""
    world = _World(seed, rows)
    phase = np.arange(rows) / rows
    share = 0.5 - 0.5 * np.cos(2 * np.pi * phase * 2)
    world.inputs[:, 2] += 1.5 * np.sin(2 * np.pi * np.arange(rows) / 300)
    zeros, ones = np.zeros(rows, dtype=np.int64), np.ones(rows, dtype=np.int64)
    logits = (1 - share) * world.logits(zeros) + share * world.logits(ones)
    return Made(world.made(world.labels(logits)))


def _new_categories(seed: int, rows: int) -> Made:
    """A shop among twelve, each with its own level and slope; from the middle on as many new ones take over."""
    world = _World(seed, rows)
    share = np.clip((np.arange(rows) / rows - 0.4) / 0.3, 0.0, 0.9)
    shop = world.rng.integers(0, 12, rows) + 12 * (world.rng.random(rows) < share)
    level, slope = world.rng.normal(0, 1.2, 24), world.rng.normal(0, 1.0, 24)
    logits = world.logits(np.zeros(rows, dtype=np.int64)) * 0.6 + level[shop] + slope[shop] * world.inputs[:, 0]
    return Made(world.made(world.labels(logits), {"shop": np.array([f"shop {n}" for n in shop])}))


def _rare(seed: int, rows: int) -> Made:
    """Some 3 % are true; what makes them so changes."""
    world = _World(seed, rows)
    logits = 1.3 * world.logits(concepts_of("abrupt", rows, world.rng))
    offset = float(np.quantile(logits, 0.985))
    return Made(world.made(world.labels(2.0 * (logits - offset))))


def _corrected(seed: int, rows: int) -> Made:
    """A tenth of the labels is told wrong at first and put right 400 rows later; the concept changes, too."""
    world = _World(seed, rows)
    labels = world.labels(world.logits(concepts_of("abrupt", rows, world.rng)))
    wrong = np.flatnonzero(world.rng.random(rows - 1_000) < 0.1)
    told = labels.copy()
    told[wrong] = 1 - told[wrong]
    return Made(world.made(told), known_after_rows=np.full(rows, 5.0), correction=Correction(wrong, 400))


def _noisier(seed: int, rows: int) -> Made:
    """Labels become noisier in the middle: the error rises, and no model can mend it."""
    world = _World(seed, rows)
    strength = np.where(np.arange(rows) < rows // 2, 2.0, 0.7)
    return Made(world.made(world.labels(world.logits(np.zeros(rows, dtype=np.int64)) * strength)))


def _walk(seed: int, rows: int) -> Made:
    """Weights that walk at random."""
    world = _World(seed, rows)
    steps = world.rng.normal(0, 1.5 / np.sqrt(rows / 4), (rows, FEATURES))
    weights = world.weights[0] + np.cumsum(steps, axis=0)
    return Made(world.made(world.labels(1.2 * (world.inputs * weights).sum(axis=1))))


def _numbers(seed: int, rows: int) -> Made:
    """A number to predict, with some far-off values, whose dependence on the inputs changes."""
    world = _World(seed, rows)
    noise = world.rng.standard_t(3, rows) * 0.7
    return Made(world.made(world.logits(concepts_of("abrupt", rows, world.rng)) + noise))


def _wandering(seed: int, rows: int) -> Made:
    """One concept of many folds, of which the inputs show a small part at a time: they stay about a place, drift, and jump."""
    rng = np.random.default_rng((seed, 29))
    jumps = rng.random(rows) < 1 / 1_500
    places = rng.normal(0, 2.0, (int(jumps.sum()) + 1, FEATURES))[np.cumsum(jumps)]
    steps = np.cumsum(rng.normal(0, 0.02, (rows, FEATURES)), axis=0)
    inputs = places + steps - np.linspace(0, 1, rows)[:, None] * steps[-1] + rng.normal(0, 0.7, (rows, FEATURES))
    folds = rng.normal(0, 0.7, (FEATURES, 24))
    hidden = np.sin(inputs @ folds + rng.uniform(0, 2 * np.pi, 24))
    logits = hidden @ rng.normal(0, 1.2, (24, 3))
    labels = np.argmax(logits + rng.gumbel(0, 0.5, (rows, 3)), axis=1)
    return Made({f"x_{place}": inputs[:, place] for place in range(FEATURES)} | {"label": labels})


def _sticky(seed: int, rows: int) -> Made:
    """Half-hourly prices: is this one above the mean of the last day? Labels stick, days and weeks repeat, levels shift."""
    rng = np.random.default_rng((seed, 37))
    time = np.arange(rows + 48)
    daily, weekly = 2 * np.pi * (time % 48) / 48, 2 * np.pi * (time % 336) / 336
    level = np.cumsum(rng.normal(0, 1, len(time)) * (rng.random(len(time)) < 1 / 800))
    shape = 1.0 + 0.5 * np.sin(2 * np.pi * time / max(rows, 1))
    demand = shape * np.sin(daily - 1.0) + 0.4 * np.sin(weekly) + rng.normal(0, 0.3, len(time))
    shock = np.zeros(len(time))
    for place in range(1, len(time)):
        shock[place] = 0.9 * shock[place - 1] + rng.normal(0, 0.35)
    price = level + (0.9 + 0.5 * np.sin(2 * np.pi * time / 9_000)) * demand + shock
    means = np.convolve(price, np.ones(48) / 48, mode="valid")[:rows]
    now = np.arange(48, rows + 48)
    columns = {
        "x_half_hour": (now % 48).astype(float),
        "x_weekday": ((now // 48) % 7).astype(float),
        "x_demand": demand[now],
        "x_price_before": price[now - 1],
        "x_price_yesterday": price[now - 48],
    }
    return Made(columns | {"label": (price[now] > means).astype(np.int64)})


AWKWARD: list[Stream] = [
    Stream("late-biased-labels", "abrupt", _late_biased),
    Stream("bursty-none", "none", lambda seed, rows: _bursty(seed, rows, changes=False)),
    Stream("bursty-abrupt", "abrupt", lambda seed, rows: _bursty(seed, rows, changes=True)),
    Stream("seasons", "recurring", _seasons),
    Stream("new-categories", "gradual", _new_categories),
    Stream("rare-positives", "abrupt", _rare),
    Stream("corrected-labels", "abrupt", _corrected),
    Stream("noisier-labels", "unknown", _noisier),
    Stream("random-walk", "gradual", _walk),
    Stream("wandering-inputs", "gradual", _wandering, options={"task": "classification"}),
    Stream("sticky-labels", "gradual", _sticky),
    Stream("regression-abrupt", "abrupt", _numbers, options={"task": "regression"}),
]
