"""Wherever features dies, and however often, its aggregates and its log are exactly those of an undisturbed run."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from driftloop.usecase import load_use_case
from tests.features_lives import events_of, lived
from tests.tiny_usecase import write_use_case

NAME = "killpoints"
_cases = count()


@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("examples", [15, pytest.param(1_500, marks=pytest.mark.soak)])
def test_any_deaths_leave_the_values_and_the_log_of_an_undisturbed_run(tmp_path: Path, examples: int) -> None:
    write_use_case(tmp_path / "usecases", NAME)
    use_case = load_use_case(NAME, str(tmp_path / "usecases"))

    @settings(max_examples=examples, suppress_health_check=[HealthCheck.too_slow])
    @given(st.integers(0, 1_000), st.lists(st.integers(0, 250), min_size=1, max_size=5))
    def check(seed: int, deaths: list[int]) -> None:
        messages = events_of(use_case, seed, 60)
        case = tmp_path / str(next(_cases))
        undisturbed = lived(use_case, case / "undisturbed", messages, [], seed)
        assert undisturbed["newest"], "nothing was aggregated"
        assert lived(use_case, case / "killed", messages, deaths, seed) == undisturbed

    check()
