"""Keeps which stretches of time are affected by faults of data: what was predicted there teaches nothing and is judged by nobody.

A fault affects predictions from its first event on until the last feature that it went into has forgotten it. State is bounded: the
newest WINDOWS_MAX stretches are kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from driftloop.contracts.monitor.v1.monitor_pb2 import Affected, Incident
from driftloop.usecase import UseCase

WINDOWS_MAX = 256  # stretches, 200 bytes each: a request carries those that lie in the rows that are kept
OPEN_END_US = 253_402_300_799_999_999


@dataclass(slots=True)
class _Window:
    from_us: int
    to_us: int  # 0: the fault is open
    told_us: int
    because: str


class Faults:
    """Stretches by rule, type, field and source of the incident that tells of them."""

    def __init__(self, use_case: UseCase) -> None:
        self._forgotten_after_us: dict[str, int] = {}
        for view in use_case.views:
            longest_us = max(view.held_us, self._forgotten_after_us.get(view.event.name, 0))
            self._forgotten_after_us[view.event.name] = longest_us
        self._windows: dict[tuple[str, ...], _Window] = {}

    def told(self, incident: Incident, clock_us: int) -> bool:
        """Takes an incident that stops training, at its beginning or end; False if it says nothing new."""
        source = incident.entity or incident.event_source
        place = (incident.rule, incident.event_type, incident.field, source, str(incident.from_us))
        known = self._windows.get(place)
        if known is not None and (known.to_us or not incident.to_us):
            return False
        to_us = incident.to_us + self._forgotten_after_us.get(incident.event_type, 0) if incident.to_us else 0
        if known is not None:
            known.to_us = to_us
            return True
        self._windows[place] = _Window(incident.from_us, to_us, clock_us, incident.what)
        if len(self._windows) > WINDOWS_MAX:
            del self._windows[min(self._windows, key=lambda one: (self._windows[one].to_us or OPEN_END_US, one))]
        return True

    @property
    def open(self) -> str:
        """The oldest fault that is not over, in words; empty: none."""
        found = [window for window in self._windows.values() if not window.to_us]
        return min(found, key=lambda window: window.from_us).because if found else ""

    def covers(self, predicted_for_us: int) -> bool:
        """Whether what was predicted at a time may rest on data at fault."""
        return any(
            window.from_us <= predicted_for_us and (not window.to_us or predicted_for_us < window.to_us)
            for window in self._windows.values()
        )

    def taints(self, trained_at_us: int) -> str:
        """The fault, in words, that had begun and was not yet told of when a model was asked for; empty: none."""
        for window in self._windows.values():
            if window.from_us < trained_at_us < window.told_us:
                return window.because
        return ""

    def affected(self) -> list[Affected]:
        """All stretches, for a request; those of open faults have no end."""
        return [
            Affected(from_us=window.from_us, to_us=window.to_us or OPEN_END_US, because=window.because)
            for window in sorted(self._windows.values(), key=lambda window: (window.from_us, window.because))
        ]

    def snapshot(self) -> list[Any]:
        """State as plain values."""
        return [
            [list(place), window.from_us, window.to_us, window.told_us, window.because]
            for place, window in self._windows.items()
        ]

    def restore(self, state: list[Any]) -> None:
        """Takes a snapshot back."""
        self._windows = {tuple(place): _Window(*values) for place, *values in state}
