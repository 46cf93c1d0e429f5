"""The small real tables that River and scikit-learn bring along; those of scikit-learn have no order of time and are shuffled."""

from __future__ import annotations

from typing import Any

import numpy as np
from river import datasets
from sklearn import datasets as sklearn_datasets

from bench.policy.generated import made_of
from bench.policy.streams import Drift, Made, Stream


def _river(name: str) -> Made:
    drawn = []
    for x, y in getattr(datasets, name)():
        row = {str(key).replace("-", "_"): value for key, value in x.items() if not hasattr(value, "year")}
        drawn.append((row, sum(y.values()) if isinstance(y, dict) else y))
    return made_of(drawn)


def _shuffled(loaded: Any, seed: int) -> Made:
    order = np.random.default_rng((seed, 31)).permutation(len(loaded.target))
    columns = {f"x_{place}": loaded.data[order, place] for place in range(loaded.data.shape[1])}
    return Made(columns | {"label": np.array(loaded.target)[order]})


def _table(name: str, dataset: str, drift: Drift = "unknown", **options: Any) -> Stream:
    return Stream(name, drift, lambda seed, rows: _river(dataset), fixed=True, options=options)


PACKAGED: list[Stream] = [
    _table("bananas", "Bananas"),
    _table("phishing", "Phishing"),
    _table("image-segments", "ImageSegments"),
    _table("solar-flare", "SolarFlare", task="regression"),
    _table("trump-approval", "TrumpApproval", task="regression"),
    _table("chick-weights", "ChickWeights", task="regression"),
    Stream(
        "breast-cancer",
        "none",
        lambda seed, rows: _shuffled(sklearn_datasets.load_breast_cancer(), seed),
        fixed=True,
    ),
    Stream(
        "digits",
        "none",
        lambda seed, rows: _shuffled(sklearn_datasets.load_digits(), seed),
        fixed=True,
        options={"task": "classification"},
    ),
]
