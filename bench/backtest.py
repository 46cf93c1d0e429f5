"""`make bench-backtest`: a year of flights through the default policy, and how fast the features of its history are made."""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

from bench.results import Result, write
from driftloop.usecase import ReplayStep, load_replay, load_use_case, replay_steps
from simulation.vectors import vectors

OUT = Path("build/bench/backtest")
REPETITIONS = 5
ROWS = 327_346  # flights of 2013 with an arrival
GIB_KB = 1 << 20  # ru_maxrss is in KiB


def whole_year() -> list[Result]:
    """`driftloop backtest flights` with the default policy alone, once: it takes minutes."""
    command = [sys.executable, "-m", "driftloop.cli", "backtest", "flights", "--policy", "driftloop", "--out", str(OUT)]
    started = time.perf_counter()
    subprocess.run(command, check=True)
    seconds = time.perf_counter() - started
    report = json.loads((OUT / "report.json").read_text())
    policy = report["policies"]["driftloop"]
    peak_gib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / GIB_KB
    return [
        Result("flights, default policy", "labelled rows", report["rows"], "rows", target=ROWS, at_most=False),
        Result("flights, default policy", "duration", seconds, "s", target=300),
        Result("flights, default policy", "peak memory", peak_gib, "GiB", target=4),
        Result("flights, default policy", "cost_x", policy["cost_x"], "rows fitted / rows"),
        Result("flights, default policy", "row epochs", policy["row_epochs"], ""),
        Result("flights, default policy", "PR-AUC", policy["metrics"]["pr_auc"], ""),
    ]


def aggregation() -> Result:
    """Events a second from the replay's source to every request's vector, in one process, the median of some runs."""
    use_case, rates = load_use_case("flights"), []
    for _ in range(REPETITIONS):
        stretch, events = load_replay("flights").history(), 0

        def count(step: ReplayStep) -> None:
            nonlocal events
            events += len(step.events)

        started = time.perf_counter()
        vectors(use_case, replay_steps(stretch, use_case.step_us), count)
        rates.append(events / (time.perf_counter() - started))
    return Result("aggregation", "events", statistics.median(rates), "1/s", target=100_000, at_most=False)


def main() -> None:
    """Measures and writes build/bench/backtest.json."""
    write("backtest", [*whole_year(), aggregation()])


if __name__ == "__main__":
    main()
