"""Which policy a backtest recommends, and how it says why."""

from __future__ import annotations

import numpy as np
import pytest

from simulation.backtest.recommendation import Recommendation, recommend

ROWS = 20_000
COSTS = {"static": 0.1, "drift": 0.4, "periodic-10%": 1.0, "driftloop": 1.9}


def recommended(**excess: float) -> Recommendation:
    """Of policies whose mean loss exceeds driftloop's by so much; single rows differ by a tenth."""
    rng = np.random.default_rng(0)
    best = rng.exponential(0.4, ROWS)
    losses = {"driftloop": best}
    for name, more in excess.items():
        losses[name.replace("periodic", "periodic-10%")] = best + rng.normal(more, 0.1, ROWS)
    return recommend(losses, {name: COSTS[name] for name in losses}, "log loss")


def test_the_best_is_taken_where_the_cheaper_ones_are_worse() -> None:
    found = recommended(static=0.03, drift=0.01, periodic=0.02)
    assert found.policy == "driftloop"
    assert found.because.startswith("Take driftloop: its log loss of 0.39")
    assert "is the lowest, and it trains on 1.90 times the stream's rows" in found.because
    for name in ("static (0.10 times)", "drift (0.40 times)", "periodic-10% (1.00 times)"):
        assert name in found.because


def test_a_cheaper_one_is_taken_where_the_difference_may_be_chance() -> None:
    found = recommended(static=0.03, periodic=0.0008)
    assert found.policy == "periodic-10%"
    assert "as good as the lowest" in found.because
    assert "it trains on less: 1.00 times the stream's rows, not 1.90" in found.because
    assert "What trains less predicts worse: static" in found.because


def test_what_costs_more_and_wins_nothing_is_said() -> None:
    found = recommended(drift=-0.05, periodic=0.01)
    assert found.policy == "drift"
    assert "What trains as much or more is not worth it: driftloop (1.90 times)" in found.because


def test_one_policy_alone_is_not_recommended_over_others() -> None:
    assert "is the only policy that was run" in recommended().because


@pytest.mark.parametrize("scale", [-1.0, 0.0])
def test_a_loss_without_a_ratio_is_told_as_it_is(scale: float) -> None:
    rows = np.full(200, scale)
    found = recommend({"static": rows + 0.5, "drift": rows}, {"static": 0.1, "drift": 0.4}, "loss")
    assert "static (0.10 times) is 0.5000 ± 0.0000 higher" in found.because
