"""Streams of River's generators whose drift is known: which concept rules each row is drawn here, its rows are River's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from river.datasets import synth

from bench.policy.streams import Drift, Made, Stream

Rows = Iterator[tuple[dict[Any, Any], Any]]
Concepts = Callable[[int, int], Rows]
"""Rows of a concept (0 or 1) for a seed, without an end."""

CHANGE_SHARE = 0.5  # of the rows: where the concept changes
GRADUAL_SHARE = 0.2  # of the rows: over which it does, where it does so gradually
RECURRING_SHARES = (0.35, 0.55, 0.75)  # where it changes and changes back


def concepts_of(drift: Drift, rows: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Which of two concepts each row follows, (rows,) of 0 and 1."""
    place = np.arange(rows) / rows
    if drift == "abrupt":
        return (place >= CHANGE_SHARE).astype(np.int64)
    if drift == "recurring":
        return np.searchsorted(np.array(RECURRING_SHARES), place, side="right") % 2
    if drift == "gradual":
        chance = np.clip((place - CHANGE_SHARE) / GRADUAL_SHARE + 0.5, 0.0, 1.0)
        return (rng.random(rows) < chance).astype(np.int64)
    return np.zeros(rows, dtype=np.int64)


def mixed(drift: Drift, rows: int, seed: int, concept: Concepts) -> Made:
    """Rows that follow a concept each."""
    rng = np.random.default_rng((seed, 11))
    sources = [concept(0, seed), concept(1, seed)]
    drawn = [next(sources[which]) for which in concepts_of(drift, rows, rng)]
    return made_of(drawn)


def made_of(drawn: list[tuple[dict[Any, Any], Any]]) -> Made:
    """Rows as columns."""
    names = list(drawn[0][0])
    columns = {f"x_{name}": np.array([x[name] for x, _ in drawn]) for name in names}
    return Made(columns | {"label": np.array([y for _, y in drawn])})


def _sea(concept: int, seed: int) -> Rows:
    return iter(synth.SEA(variant=(0, 3)[concept], noise=0.1, seed=2 * seed + concept))


def _agrawal(concept: int, seed: int) -> Rows:
    return iter(synth.Agrawal(classification_function=(0, 4)[concept], perturbation=0.05, seed=2 * seed + concept))


def _stagger(concept: int, seed: int) -> Rows:
    return iter(synth.STAGGER(classification_function=(0, 1)[concept], seed=2 * seed + concept))


def _led(concept: int, seed: int) -> Rows:
    return iter(
        synth.LEDDrift(
            seed=2 * seed + concept, noise_percentage=0.1, irrelevant_features=True, n_drift_features=(0, 5)[concept]
        )
    )


def _rbf(concept: int, seed: int) -> Rows:
    return iter(
        synth.RandomRBF(seed_model=2 * seed + concept, seed_sample=seed, n_classes=2, n_features=8, n_centroids=20)
    )


def _pure(make: Callable[[int], Rows]) -> Callable[[int, int], Made]:
    def made(seed: int, rows: int) -> Made:
        source = make(seed)
        return made_of([next(source) for _ in range(rows)])

    return made


def _hyperplane(moving: float) -> Callable[[int, int], Made]:
    return _pure(
        lambda seed: iter(
            synth.Hyperplane(seed=seed, n_features=8, n_drift_features=4 if moving else 2, mag_change=moving)
        )
    )


def _rbf_moving(speed: float) -> Callable[[int, int], Made]:
    return _pure(
        lambda seed: iter(
            synth.RandomRBFDrift(
                seed_model=seed, seed_sample=seed, n_classes=2, n_features=8, n_centroids=20, change_speed=speed,
                n_drift_centroids=10,
            )
        )
    )  # fmt: skip


def _family(name: str, concept: Concepts, drifts: tuple[Drift, ...], **options: Any) -> list[Stream]:
    def maker(drift: Drift) -> Callable[[int, int], Made]:
        return lambda seed, rows: mixed(drift, rows, seed, concept)

    return [Stream(f"{name}-{drift}", drift, maker(drift), options=options) for drift in drifts]


GENERATED: list[Stream] = [
    *_family("sea", _sea, ("none", "abrupt", "gradual", "recurring")),
    *_family("agrawal", _agrawal, ("none", "abrupt", "gradual", "recurring"), categorical=("x_car", "x_zipcode")),
    *_family(
        "stagger", _stagger, ("none", "abrupt", "gradual", "recurring"), categorical=("x_size", "x_color", "x_shape")
    ),
    *_family("led", _led, ("none", "abrupt", "recurring"), task="classification"),
    *_family("rbf", _rbf, ("none", "abrupt", "gradual")),
    Stream("rbf-moving", "gradual", _rbf_moving(0.0005)),
    Stream("hyperplane-none", "none", _hyperplane(0.0)),
    Stream("hyperplane-turning", "gradual", _hyperplane(0.001)),
]
