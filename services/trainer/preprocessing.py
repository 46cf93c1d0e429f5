"""How raw inputs and values become numbers that a network can learn: edges, vocabularies, a scale, fitted on rows; pure.

Numbers are encoded piecewise linearly between quantiles (Gorishniy et al., "On Embeddings for Numerical Features in Tabular
Deep Learning", 2022): for each bin the share of it that lies below the value. Nothing is extrapolated beyond the least and
the largest value seen, and a missing value is its own flag with no share of any bin. Beside the shares stands the standardised
value itself, bounded: what depends on a number along its whole range is learned from fewer rows so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from driftloop.usecase.losses import label_scale

STANDARDISED_MAX = 5.0  # deviations from the mean: farther out a value says nothing more
Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]
Texts = npt.NDArray[Any]


@dataclass(frozen=True)
class Preprocessing:
    """Fitted edges (ascending), means and deviations per numeric input; vocabularies (sorted) per text input, code 0 is "not listed".

    A deviation of 0: the input does not vary, and its standardised value is 0 whatever comes.
    """

    edges: tuple[tuple[float, ...], ...]
    means: tuple[float, ...]
    deviations: tuple[float, ...]
    vocabularies: tuple[tuple[str, ...], ...]

    @property
    def columns(self) -> npt.NDArray[np.int64]:
        """The numeric input of each bin, shape (bins,)."""
        return np.array([column for column, edges in enumerate(self.edges) for _ in edges[1:]], dtype=np.int64)

    @property
    def lows(self) -> Floats:
        """Lower edge of each bin, shape (bins,)."""
        return np.array([low for edges in self.edges for low in edges[:-1]], dtype=np.float64)

    @property
    def widths(self) -> Floats:
        """Width of each bin, shape (bins,), above 0."""
        return np.array([width for edges in self.edges for width in np.diff(edges)], dtype=np.float64)

    @property
    def farthest(self) -> Floats:
        """How far from the mean a value still counts, shape (numeric inputs,)."""
        return STANDARDISED_MAX * np.array(self.deviations, dtype=np.float64)

    @property
    def slopes(self) -> Floats:
        """What a distance from the mean is multiplied by, shape (numeric inputs,): one over the deviation, or 0."""
        return np.array([1.0 / deviation if deviation else 0.0 for deviation in self.deviations], dtype=np.float64)

    @property
    def width(self) -> int:
        """Columns of an encoded row: all bins, and a missing flag and a standardised value per numeric input."""
        return sum(len(edges) - 1 for edges in self.edges) + 2 * len(self.edges)

    @property
    def cardinalities(self) -> tuple[int, ...]:
        """Codes per text input, "not listed" included."""
        return tuple(len(words) + 1 for words in self.vocabularies)

    def encode(self, numbers: Floats) -> npt.NDArray[np.float32]:
        """Encoded numbers, shape (rows, width), from raw ones, shape (rows, numeric inputs); NaN is missing."""
        missing = np.isnan(numbers)
        columns = self.columns
        with np.errstate(invalid="ignore"):
            shares = np.clip((numbers[:, columns] - self.lows) / self.widths, 0.0, 1.0)
            from_mean = np.where(missing, 0.0, numbers - np.array(self.means))
        shares[missing[:, columns]] = 0.0
        standardised = np.clip(from_mean, -self.farthest, self.farthest) * self.slopes
        return np.concatenate([shares, missing, standardised], axis=1).astype(np.float32)

    def codes(self, texts: Texts) -> Codes:
        """Vocabulary codes, shape (rows, text inputs)."""
        coded = np.zeros(texts.shape, dtype=np.int64)
        for column, words in enumerate(self.vocabularies):
            code_of = {text: code for code, text in enumerate(words, start=1)}
            coded[:, column] = [code_of.get(text, 0) for text in texts[:, column]]
        return coded

    def to_spec(self) -> dict[str, Any]:
        """As plain values for the bundle's spec."""
        return {
            "edges": [list(edges) for edges in self.edges],
            "means": list(self.means),
            "deviations": list(self.deviations),
            "vocabularies": [list(words) for words in self.vocabularies],
        }

    @staticmethod
    def from_spec(spec: Mapping[str, Any]) -> Preprocessing:
        """Back from a bundle's spec."""
        return Preprocessing(
            tuple(tuple(float(edge) for edge in edges) for edges in spec["edges"]),
            tuple(map(float, spec["means"])),
            tuple(map(float, spec["deviations"])),
            tuple(tuple(words) for words in spec["vocabularies"]),
        )


@dataclass(frozen=True)
class Target:
    """What a regression is learned in: deviations from a centre, in units of the label. Other tasks learn labels as they are."""

    centre: float = 0.0
    deviation: float = 1.0

    def standardised(self, labels: Floats) -> Floats:
        """Labels in deviations from the centre."""
        return np.asarray((labels - self.centre) / self.deviation)

    def restored(self, standardised: Floats) -> Floats:
        """Back in units of the label."""
        return np.asarray(standardised * self.deviation + self.centre)


def fit_target(labels: Floats) -> Target:
    """The median and the deviation of labels without their extremes: a heavy tail must not flatten all others."""
    return Target(float(np.median(labels)), label_scale(labels.tolist()) ** 0.5)


def fit_preprocessing(numbers: Floats, texts: Texts, bins: int, category_rows_min: int) -> Preprocessing:
    """Quantile edges with at most `bins` bins per numeric input; texts seen in at least `category_rows_min` rows are listed."""
    moments = [_moments(numbers[:, column]) for column in range(numbers.shape[1])]
    return Preprocessing(
        tuple(_edges(numbers[:, column], bins) for column in range(numbers.shape[1])),
        tuple(mean for mean, _ in moments),
        tuple(deviation for _, deviation in moments),
        tuple(_vocabulary(texts[:, column], category_rows_min) for column in range(texts.shape[1])),
    )


def _moments(values: Floats) -> tuple[float, float]:
    """Mean and deviation of the values that are there; a deviation of 0 where they tell nothing apart.

    An input that stood still (a sensor that stuck) has taught nothing: were it standardised, its first new value would go
    through weights that no row has trained.
    """
    present = values[np.isfinite(values)]
    if not len(present) or present.min() == present.max():
        return (float(present[0]) if len(present) else 0.0), 0.0
    return float(present.mean()), float(present.std())


def _edges(values: Floats, bins: int) -> tuple[float, ...]:
    present = values[np.isfinite(values)]
    if not len(present):
        return (0.0,)
    return tuple(float(edge) for edge in np.unique(np.quantile(present, np.linspace(0.0, 1.0, bins + 1))))


def _vocabulary(texts: Sequence[str] | Texts, rows_min: int) -> tuple[str, ...]:
    words, rows = np.unique(np.asarray(texts, dtype=str), return_counts=True)
    return tuple(str(word) for word, count in zip(words, rows, strict=True) if count >= rows_min and word != "")
