"""What holds for all tests: long ones are run by `make soak` alone, and a busy machine's pauses fail no property."""

from __future__ import annotations

import pytest
from hypothesis import settings

SOAK = "soak"
settings.register_profile("driftloop", deadline=None)
settings.load_profile("driftloop")


def pytest_configure(config: pytest.Config) -> None:
    """Declares the mark of the long tests; unless marks are asked for, they are not run."""
    config.addinivalue_line("markers", f"{SOAK}: as a test of `make test`, for many minutes")
    if not config.option.markexpr:
        config.option.markexpr = f"not {SOAK}"
