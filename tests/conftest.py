"""Long tests: the same as one of `make test` with many more cases, run by `make soak` alone."""

from __future__ import annotations

import pytest

SOAK = "soak"


def pytest_configure(config: pytest.Config) -> None:
    """Declares the mark of the long tests; unless marks are asked for, they are not run."""
    config.addinivalue_line("markers", f"{SOAK}: as a test of `make test`, for many minutes")
    if not config.option.markexpr:
        config.option.markexpr = f"not {SOAK}"
