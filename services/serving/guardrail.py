"""Decides when a model has become too slow to answer; measures nothing itself."""

from __future__ import annotations

from collections import deque

ROWS_PER_BOUND = 64  # a call of more rows may take as many bounds as it has such portions
WINDOW_CALLS = 200
SLOW_SHARE = 0.25  # of the window: a machine that pauses now and then is not the model's fault


class LatencyGuardrail:
    """The newest calls of one model: it is too slow when a quarter of them took longer than the bound, in seconds."""

    def __init__(self, call_s_max: float) -> None:
        self._call_s_max = call_s_max
        self._slow: deque[bool] = deque(maxlen=WINDOW_CALLS)
        self._slow_calls = 0

    def took(self, seconds: float, rows: int) -> bool:
        """Takes one call in; whether the model is too slow now."""
        slow = seconds > self._call_s_max * (1 + (rows - 1) // ROWS_PER_BOUND)
        if len(self._slow) == WINDOW_CALLS:
            self._slow_calls -= self._slow[0]
        self._slow.append(slow)
        self._slow_calls += slow
        return slow and len(self._slow) == WINDOW_CALLS and self._slow_calls >= SLOW_SHARE * WINDOW_CALLS
