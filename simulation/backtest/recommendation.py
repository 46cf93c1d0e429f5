"""Which policy to take, from losses on the same rows and from costs, and why; looks at nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from services.trainer.measures import mean_and_error

BLOCKS = 40  # of consecutive rows: neighbours share weather and fashion, so blocks are what varies independently


@dataclass(frozen=True)
class Compared:
    """A policy beside the best: its mean loss, by how much it exceeds the best one's, the standard error of that, its cost."""

    policy: str
    loss: float
    excess: float
    error: float
    cost_x: float


@dataclass(frozen=True)
class Recommendation:
    """The policy to take, in one paragraph why, and every policy beside the best one, best first."""

    policy: str
    because: str
    compared: tuple[Compared, ...]


def recommend(
    losses: Mapping[str, npt.NDArray[np.float64]], costs: Mapping[str, float], loss_name: str
) -> Recommendation:
    """The cheapest policy whose mean loss is within one standard error of the best one's.

    `losses`: by policy, one loss per scored row, rows in the same order of time. The error is that of the paired difference,
    by blocks of consecutive rows (the one-standard-error rule of Breiman et al., CART, 1984).
    """
    best = min(losses, key=lambda policy: (float(losses[policy].mean()), costs[policy]))
    rows = len(losses[best])
    blocks = np.arange(rows) * min(BLOCKS, rows) // rows
    compared = []
    for policy, found in losses.items():
        excess, error = mean_and_error(found - losses[best], blocks)
        compared.append(Compared(policy, float(found.mean()), excess, error if policy != best else 0.0, costs[policy]))
    compared.sort(key=lambda one: (one.excess, one.cost_x))
    near = [one for one in compared if one.excess <= one.error]
    chosen = min(near, key=lambda one: (one.cost_x, one.excess))
    return Recommendation(chosen.policy, _because(chosen, compared, loss_name), tuple(compared))


def _because(chosen: Compared, compared: list[Compared], loss_name: str) -> str:
    best = compared[0]
    if len(compared) == 1:
        return (
            f"{chosen.policy} is the only policy that was run: its {loss_name} is {chosen.loss:.4f} and it trained on "
            f"{_cost(chosen)}. Run others beside it to compare."
        )
    if chosen is best:
        found = f"Take {chosen.policy}: its {loss_name} of {chosen.loss:.4f} is the lowest, and it trains on {_cost(chosen)}."
    else:
        found = (
            f"Take {chosen.policy}: its {loss_name} of {chosen.loss:.4f} is as good as the lowest, {best.loss:.4f} of {best.policy}, "
            f"for all that these rows can tell ({_worse(chosen, best)}), and it trains on less: {_cost(chosen)}, "
            f"not {best.cost_x:.2f}."
        )
    others = [one for one in compared if one is not chosen and one is not best]
    cheaper = [one for one in others if one.cost_x < chosen.cost_x]
    dearer = [one for one in others if one.cost_x >= chosen.cost_x]
    if cheaper:
        told = "; ".join(f"{one.policy} ({one.cost_x:.2f} times) is {_worse(one, best)}" for one in cheaper)
        found += f" What trains less predicts worse: {told}."
    if dearer:
        told = "; ".join(f"{one.policy} ({one.cost_x:.2f} times) is {_worse(one, best)}" for one in dearer)
        found += f" What trains as much or more is not worth it: {told}."
    return found + (
        f" Percentages are of the lowest {loss_name}, ± one standard error of the difference on the same rows; "
        "a difference within its error may be chance."
    )


def _cost(one: Compared) -> str:
    return f"{one.cost_x:.2f} times the stream's rows"


def _worse(one: Compared, best: Compared) -> str:
    if best.loss <= 0.0:
        return f"{one.excess:.4f} ± {one.error:.4f} higher"
    return f"{one.excess / best.loss:.1%} ± {one.error / best.loss:.1%} higher"
