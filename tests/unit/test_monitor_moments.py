"""Count, mean and spread of values, and what was counted before as sums."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.monitor.comparison import CONTROL, Comparison
from services.monitor.moments import Moments

values = st.lists(st.floats(-20, 20), min_size=2, max_size=40)


def of(found: list[float]) -> Moments:
    moments = Moments()
    for value in found:
        moments.add(value)
    return moments


@given(values, values)
def test_moments_are_those_of_the_values_and_a_part_can_be_taken_away(part, rest):
    whole = of([*part, *rest])
    assert whole.mean == pytest.approx(np.mean([*part, *rest]), abs=1e-9)
    assert whole.error == pytest.approx(np.std([*part, *rest], ddof=1) / len([*part, *rest]) ** 0.5, abs=1e-9)
    left = whole.less(of(part))
    assert left.count == len(rest)
    assert left.mean == pytest.approx(np.mean(rest), abs=1e-7)
    assert left.squares == pytest.approx(np.var(rest) * len(rest), abs=1e-5)


def test_a_comparison_that_was_kept_as_sums_goes_on():
    losses, gains = [0.3, 0.5, 0.4], [0.1, -0.2]
    sums = [[len(found), sum(found), sum(value * value for value in found)] for found in (losses, gains)]
    comparison = Comparison()
    comparison.restore(
        {
            "champion": "a",
            "arms": [["b", "m", "u", "d", 0.5]],
            "figures": {CONTROL: [4, sums[0], [0, 0.0, 0.0]], "b": [3, *sums]},
        }
    )
    found = comparison.figures()
    assert found["b/loss"] == pytest.approx(0.4)
    assert found["b/loss_error"] == pytest.approx(of(losses).error)
    assert found["b/gain"] == pytest.approx(-0.05)
    again = Comparison()
    again.restore(comparison.snapshot())
    assert again.figures() == found
