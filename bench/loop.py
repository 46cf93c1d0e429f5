"""`make bench-loop`: the loop's own speeds from a demo run, the first baseline that later changes are held against."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench.results import Result, write


def results(summary: dict[str, Any], measured: dict[str, Any]) -> list[Result]:
    """The figures of one demo run."""
    found = [
        Result("demo", "duration", summary["seconds"], "s", target=360),
        Result("demo", "peak memory", measured["peak_memory_gib"], "GiB", target=6),
        Result("demo", "ready", measured["ready_s"], "s"),
        Result("ingest", "events", measured["ingest_events_per_s"], "1/s"),
        Result("drift → last release", "wall time", measured["drift_to_last_release_s"], "s"),
        Result("predict", "failed calls", summary["predictions"]["failed"], "", target=0),
        Result("drift", "labels to detect", summary["drift"]["labels_to_detect"], "labels", target=3_000),
        Result(
            "quality", "recovered share", summary["quality"].get("recovered_share"), "", target=2 / 3, at_most=False
        ),
    ]
    names = {
        "event_to_feature": "event → fresh feature",
        "predict": "predict",
        "clock_to_score": "clock → score",
        "clock_to_judged": "clock → judged",
        "step": "step of a replay",
    }
    for key, case in names.items():
        for quantile in ("p50_ms", "p99_ms"):
            found.append(Result(case, quantile.removesuffix("_ms"), measured[key].get(quantile), "ms"))
    return found


def main() -> None:
    """Reads build/demo and writes build/bench/loop.json."""
    folder = Path("build/demo")
    summary, measured = (json.loads((folder / f"{name}.json").read_text()) for name in ("summary", "measurements"))
    write("loop", results(summary, measured))


if __name__ == "__main__":
    main()
