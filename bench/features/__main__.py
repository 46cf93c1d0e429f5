"""`make bench-features`: features beside quixstreams and Feast's own store; writes build/bench/features.json.

`--only PART…` runs some parts and keeps the figures of the others.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from statistics import median

from bench.features import backfill, freshness, memory, recovery
from bench.features.events import NAME, USE_CASES
from bench.features.join import PEER_PACKAGE, SIZES, Join
from bench.features.processes import ROOT, environment
from bench.features.streaming import Streaming
from bench.results import Result, write
from deploy.local import LocalKafka
from driftloop.usecase import load_use_case

FOLDER = ROOT / "build" / "bench" / "features"
CASES = {"1 window": ("1h",), "3 windows": ("15m", "1h", "6h")}
JOIN_CAP_S = 240.0


@contextmanager
def _broker() -> Iterator[str]:
    with LocalKafka(FOLDER / "kafka") as kafka:
        yield kafka.bootstrap_servers


def streaming(given: argparse.Namespace, case: str) -> list[Result]:
    """Ours and the peer in turn; ratios are medians of the ratios within a repetition."""
    over, pairs = CASES[case], []
    with _broker() as servers:
        bench = Streaming(servers, FOLDER, given.events)
        for repetition in range(given.repetitions):
            run = f"{len(over)}x{repetition}"
            ours, peer = bench.ours(run, over, "tumbling"), bench.peer(run, over, "tumbling")
            counted = [{k: (v.events, v.p90) for k, v in side.values.items()} for side in (ours, peer)]
            assert counted[0] == counted[1], "not the same work"
            pairs.append((ours, peer))
            print(
                f"{case}: {ours.rate:,.0f}/s {ours.cpu_us:.1f} µs, {peer.rate:,.0f}/s {peer.cpu_us:.1f} µs", flush=True
            )
    name = f"count, mean, p90 by key, {case}"
    rates = [median(each.rate for each in side) for side in zip(*pairs, strict=True)]
    cpu_us = [median(each.cpu_us for each in side) for side in zip(*pairs, strict=True)]
    faster, cheaper = median(a.rate / b.rate for a, b in pairs), median(b.cpu_us / a.cpu_us for a, b in pairs)
    return [
        Result(name, "events", rates[0], "1/s", "quixstreams", rates[1]),
        Result(name, "CPU per event", cpu_us[0], "µs", "quixstreams", cpu_us[1]),
        Result(name, "events of quixstreams'", faster, "x", target=3, at_most=False),
        Result(name, "quixstreams' CPU of ours", cheaper, "x"),
    ]


def fresh(given: argparse.Namespace) -> list[Result]:
    """Event sent → value readable by serving."""
    with _broker() as servers:
        runs = [freshness.percentiles(freshness.measure(servers, FOLDER, given.seconds))]
    case = f"event → value readable, {freshness.PER_S} events/s"
    return [
        Result(case, "p50", median(p50 for p50, _ in runs), "ms"),
        Result(case, "p99", median(p99 for _, p99 in runs), "ms", target=100),
    ]


def join(given: argparse.Namespace) -> list[Result]:
    """Our offline store and Feast's on DuckDB."""
    python, found = environment(FOLDER, PEER_PACKAGE), []
    for case, size in SIZES.items():
        bench = Join(FOLDER, size)
        ours: list[float] = []
        peers: list[float | None] = []
        for _ in range(given.repetitions):
            ours.append(bench.ours()[0])
            if case != "full" or not peers:
                peers.append(bench.peer(python, given.join_cap))
        name = f"join {size.rows:,} × {size.updates:,}, {size.keys:,} keys"
        capped = None in peers
        peer_s = given.join_cap if capped else median(each for each in peers if each is not None)
        baseline = f"Feast on DuckDB{', stopped after that' if capped else ''}"
        target = None if case == "small" else 50
        found += [
            Result(name, "duration", median(ours), "s", baseline, peer_s),
            Result(
                name,
                "times faster" + (" at least" if capped else ""),
                peer_s / median(ours),
                "x",
                target=target,
                at_most=False,
            ),
        ]
    return found


def recover(given: argparse.Namespace) -> list[Result]:
    """A restart with many keys, and what they take."""
    with _broker() as servers:
        found = recovery.measure(servers, FOLDER, given.keys)
    case = f"{given.keys:,} keys"
    return [
        Result(case, "restart to the last value", found.seconds, "s", target=20),
        Result(case, "memory per key", found.bytes_per_key, "bytes"),
    ]


def memories(given: argparse.Namespace) -> list[Result]:
    """Bytes of a key in aggregation's heart, by kind of view."""
    found = []
    for kind, view in memory.views(load_use_case(NAME, str(USE_CASES)).event_types["spent"]).items():
        for keys, events in ((2_000, 1), (10, 1_000), (1, 20_000)):
            # A decayed one weighs all of its events anew for every event.
            if events == 1 or ("window" in kind and (events == 1_000 or "decayed" not in kind)):
                taken = memory.bytes_per_key(view, keys, events)
                found.append(Result(f"{kind}, {events:,} events of a key", "memory per key", taken, "bytes"))
    return found


def backfills(given: argparse.Namespace) -> list[Result]:
    """Events a second of `driftloop features backfill`, in one process on one core; its start counts, so there are more of them."""
    rates = [backfill.measure(FOLDER, 5 * given.events) for _ in range(given.repetitions)]
    return [Result("backfill, 3 windows", "events", median(rates), "1/s", target=100_000, at_most=False)]


PARTS: dict[str, Callable[[argparse.Namespace], list[Result]]] = {
    "one-window": partial(streaming, case="1 window"),
    "three-windows": partial(streaming, case="3 windows"),
    "freshness": fresh,
    "join": join,
    "recovery": recover,
    "backfill": backfills,
    "memory": memories,
}


def main() -> None:
    """Measures, and writes the figures beside those of parts that were not asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=20.0, help="of the stretch whose freshness is measured")
    parser.add_argument("--join-cap", type=float, default=JOIN_CAP_S, help="seconds that the peer's join may take")
    given = parser.parse_args()
    os.makedirs(FOLDER, exist_ok=True)
    for part in given.only:
        for folder in FOLDER.iterdir():
            if folder.name not in ("peers", "results"):
                shutil.rmtree(folder)
        cores = os.sched_getaffinity(0)
        results = PARTS[part](given)
        os.sched_setaffinity(0, cores)
        (FOLDER / "results").mkdir(exist_ok=True)
        (FOLDER / "results" / f"{part}.json").write_text(json.dumps([vars(result) for result in results]))
    kept = [FOLDER / "results" / f"{part}.json" for part in PARTS]
    write("features", [Result(**each) for file in kept if file.exists() for each in json.loads(file.read_text())])


if __name__ == "__main__":
    main()
