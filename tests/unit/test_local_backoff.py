"""How long a dead process waits before it is started again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from deploy.local.backoff import Backoff


def test_the_delay_doubles_up_to_its_bound() -> None:
    backoff = Backoff(initial_s=0.5, max_s=3.0, reset_after_s=60.0)
    assert [backoff.delay_s(ready_for_s=0.0) for _ in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]


def test_a_run_that_was_ready_long_enough_starts_again_from_the_short_delay() -> None:
    backoff = Backoff(initial_s=0.5, max_s=30.0, reset_after_s=60.0)
    backoff.delay_s(ready_for_s=0.0)
    backoff.delay_s(ready_for_s=59.9)
    assert backoff.delay_s(ready_for_s=60.0) == 0.5
    assert backoff.delay_s(ready_for_s=0.0) == 1.0


@given(st.lists(st.floats(min_value=0, max_value=1e6), max_size=50))
def test_the_delay_never_leaves_its_bounds(runs_s: list[float]) -> None:
    backoff = Backoff(initial_s=0.5, max_s=30.0, reset_after_s=60.0)
    assert all(0.5 <= backoff.delay_s(ready_for_s) <= 30.0 for ready_for_s in runs_s)
