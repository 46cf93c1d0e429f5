"""What a process uses: processor, memory, threads, files; looked up when metrics are exported, and never otherwise."""

from __future__ import annotations

import time
from collections.abc import Callable

import psutil

from driftloop.telemetry.metrics import Instruments


def observe_process(declared: Instruments) -> None:
    """Lets every export tell what this process uses."""
    own = psutil.Process()

    def told(name: str, value: Callable[[], float]) -> None:
        declared.observed(name, lambda: [(value(), {})])

    told("process_cpu_seconds", lambda: own.cpu_times().user + own.cpu_times().system)
    told("process_memory_bytes", lambda: own.memory_info().rss)
    told("process_threads", own.num_threads)
    told("process_open_files", own.num_fds)
    told("started_at_seconds", own.create_time)
    told("wall_clock_seconds", time.time)
