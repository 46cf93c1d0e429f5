"""`make bench-gates`: what gates and releases refuse and promote over many seeds, into build/bench/gates.json."""

from __future__ import annotations

import argparse
import os
import statistics
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor

from bench.gates.fits import RIGHT, RIGHT_FIRST, WRONGS, Wrong, fate
from bench.gates.trials import LABELS, Trialled, trial
from bench.gates.worlds import KINDS, Kind
from bench.results import Result, write

TRIALS, FITS = 200, 200  # streams per case, and trained models per case
BETTER, WORSE = -0.05, 0.01
REFUSED, PROMOTED, HARMFUL = 0.99, 0.9, 0.01


def _trial(case: tuple[Kind, float, int]) -> Trialled:
    kind, relative, seed = case
    return trial(kind, relative, seed, every=relative > 0)


def trials(pool: ProcessPoolExecutor, seeds: int) -> Iterator[Result]:
    """Challengers of a known quality."""
    for kind in KINDS:
        better = list(pool.map(_trial, [(kind, BETTER, seed) for seed in range(seeds)], chunksize=4))
        promoted = sum(one.promoted > 0 for one in better) / seeds
        within = f"promoted within {LABELS} labels"
        yield Result(f"5 % better, {kind}", within, promoted, "share", target=PROMOTED, at_most=False)
        first = statistics.median(one.first_promotion for one in better)
        yield Result(f"5 % better, {kind}", "labels to promotion, median", first, "labels")
        worse = list(pool.map(_trial, [(kind, WORSE, seed) for seed in range(seeds)], chunksize=4))
        made, harmful = sum(one.made for one in worse), sum(one.promoted for one in worse)
        yield Result(f"1 % worse, {kind}", "challengers", made, "")
        yield Result(f"1 % worse, {kind}", "promoted", harmful / max(1, made), "share", target=HARMFUL)
        exposed = sum(one.harmed for one in worse) / (seeds * LABELS)
        yield Result(f"1 % worse, {kind}", "answers of a worse model", exposed, "share")
        print(f"{kind}: done", flush=True)


def _fate(case: tuple[Wrong, int]) -> tuple[bool, bool, float]:
    found = fate(*case)
    return found.published, found.promoted, found.exposed


def fits(pool: ProcessPoolExecutor, seeds: int, wrongs: Iterable[Wrong] = WRONGS) -> Iterator[Result]:
    """Really trained models, of spoilt rows and of good ones."""
    for wrong in (*wrongs, RIGHT, RIGHT_FIRST):
        found = list(pool.map(_fate, [(wrong, seed) for seed in range(seeds)], chunksize=2))
        by_trainer = sum(not published for published, _, _ in found) / seeds
        refused = sum(not promoted for _, promoted, _ in found) / seeds
        if wrong in (RIGHT, RIGHT_FIRST):
            yield Result(wrong.name, "promoted", 1.0 - refused, "share", target=PROMOTED, at_most=False)
        else:
            yield Result(wrong.name, "refused", refused, "share", target=REFUSED, at_most=False)
            yield Result(wrong.name, "refused by trainer", by_trainer, "share")
            exposed = sum(share for _, _, share in found) / seeds
            yield Result(wrong.name, "answers that it gave", exposed, "share")
        print(f"{wrong.name}: done", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and writes."""
    options = argparse.ArgumentParser(prog="python -m bench.gates", description=__doc__)
    options.add_argument("--trials", type=int, default=TRIALS, help="streams per case")
    options.add_argument("--fits", type=int, default=FITS, help="trained models per case")
    options.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    given = options.parse_args(arguments)
    with ProcessPoolExecutor(given.jobs) as pool:
        results = [*trials(pool, given.trials), *fits(pool, given.fits)]
    write("gates", results)


if __name__ == "__main__":
    main()
