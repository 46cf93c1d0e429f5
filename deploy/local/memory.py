"""Remembers the most memory that a loop's processes held at once, by looking every second; a shorter peak is missed."""

from __future__ import annotations

import threading
from collections.abc import Callable


class PeakMemory:
    """Largest value in bytes that `sample_bytes()` gave."""

    def __init__(self, sample_bytes: Callable[[], int], every_s: float) -> None:
        self.peak_bytes = 0
        self._sample_bytes = sample_bytes
        self._every_s = every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="peak-memory", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            self.peak_bytes = max(self.peak_bytes, self._sample_bytes())
