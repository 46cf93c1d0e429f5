"""Which core belongs to whom, and what a process has cost."""

from __future__ import annotations

import os

import psutil

SERVER_CORES = (0,)
"""The server under test, or the bare producer, has one core to itself."""


def client_cores() -> tuple[int, ...]:
    """Everything else: the client, the broker and what the machine does besides."""
    others = tuple(core for core in sorted(os.sched_getaffinity(0)) if core not in SERVER_CORES)
    return others or SERVER_CORES


class Meter:
    """CPU seconds of a process, threads and processes of its own included."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)

    def cpu_s(self) -> float:
        """So far."""
        of_all = [each.cpu_times() for each in (self._process, *self._process.children(recursive=True))]
        return float(sum(times.user + times.system for times in of_all))
