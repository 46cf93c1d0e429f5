"""Waits for a condition up to a bound: the one place where local deployment and its tests pass time."""

from __future__ import annotations

import time
from collections.abc import Callable


def wait_until(condition: Callable[[], bool], timeout_s: float, every_s: float = 0.05) -> bool:
    """Whether `condition()` became true within `timeout_s`; it is asked at once and then every `every_s`."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        left_s = deadline_s - time.monotonic()
        if left_s <= 0:
            return False
        time.sleep(min(every_s, left_s))
    return True
