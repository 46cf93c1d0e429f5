"""Decides how long to wait before a dead process is started again; holds no clock."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Backoff:
    """Doubles from `initial_s` up to `max_s`; a run that was ready for `reset_after_s` counts as cured."""

    initial_s: float
    max_s: float
    reset_after_s: float
    _next_s: float = field(init=False)

    def __post_init__(self) -> None:
        self._next_s = self.initial_s

    def delay_s(self, ready_for_s: float) -> float:
        """Seconds to wait after a run that was ready for `ready_for_s` (0 when it never got ready)."""
        if ready_for_s >= self.reset_after_s:
            self._next_s = self.initial_s
        delay_s = self._next_s
        self._next_s = min(self._next_s * 2, self.max_s)
        return delay_s
