"""A weighted mean of a few networks' outputs as one model: at which weight a new one joins the champion's; fits nothing.

Two models that learned of other rows, or differ by chance, err on other rows: the mean of their logits has no more loss than the
mean of their losses, and its loss differs from the champion's by half as much, so that production sees sooner which is better.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from driftloop.usecase import Task
from services.trainer.network import Network
from services.trainer.preprocessing import Preprocessing, Target

MEMBERS_MAX = 3  # each costs an answer its own pass
SHARES = (1.0, 0.75, 0.5, 0.25)  # of the new network; 1: it stands alone
EQUAL_SHARE = 0.5
ROWS_MIN = 40  # that neither has learned from: a block, below which nothing is known of a share
BLOCKS_MIN = 3  # that a standard error is taken from
_LEAST_CHANCE = 1e-7  # single precision's sigmoid is 1 from here on
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Member:
    """A network with what its inputs and outputs go through, and its weight in the mean."""

    network: Network
    preprocessing: Preprocessing
    target: Target
    weight: float = 1.0


def logits_of(task: Task, answers: Floats) -> Floats:
    """What is averaged: logits of probabilities, of several classes up to a constant a row; values as they are."""
    if task == "regression":
        return answers
    bounded = np.clip(answers, _LEAST_CHANCE, 1.0 - _LEAST_CHANCE)
    return np.asarray(np.log(bounded) - (np.log1p(-bounded) if task == "binary" else 0.0))


def answers_of(task: Task, logits: Floats) -> Floats:
    """Back from `logits_of`."""
    if task == "regression":
        return logits
    if task == "binary":
        return np.asarray(1.0 / (1.0 + np.exp(-logits)))
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


def heaviest(members: Sequence[Member], most: int) -> list[Member]:
    """At most so many members, the heaviest, the newer of equals, in their order; weights sum to 1."""
    places = sorted(range(len(members)), key=lambda place: (-members[place].weight, -place))[:most]
    kept = [members[place] for place in sorted(places)]
    total = sum(member.weight for member in kept)
    return [replace(member, weight=member.weight / total) for member in kept]


def joined(members: Sequence[Member], newest: Member, share: float) -> list[Member]:
    """The members with a new one, which has a share of the whole."""
    if share >= 1.0:
        return [replace(newest, weight=1.0)]
    return [
        *(replace(member, weight=(1.0 - share) * member.weight) for member in members),
        replace(newest, weight=share),
    ]


def share_of_newest(losses: Callable[[float], Floats], block_rows: int) -> float:
    """The share of the new network: of those that are not surely worse than the best, the one nearest to equal parts.

    losses: of each held-out row, in order of time, at a share. Not surely: by less than one standard error of paired means of
    blocks (Breiman, Friedman, Olshen, Stone, "Classification and Regression Trees", 1984). Few held-out rows that also ended the
    new network's fit must not choose among four shares by chance.
    """
    found = [losses(share) for share in SHARES]
    means = [float(np.mean(rows)) for rows in found]
    best = int(np.argmin(means))
    blocks = max(BLOCKS_MIN, len(found[best]) // block_rows)
    kept = []
    for place, rows in enumerate(found):
        excess = np.array([part.mean() for part in np.array_split(rows - found[best], blocks)])
        if means[place] - means[best] <= float(excess.std(ddof=1)) / blocks**0.5:
            kept.append(place)
    return SHARES[min(kept, key=lambda place: (abs(SHARES[place] - EQUAL_SHARE), means[place]))]
