"""`make bench-policy`: runs what is missing, then writes build/bench/policy.json and the page beside its results."""

from __future__ import annotations

import fnmatch
import os
import statistics
import sys
from pathlib import Path

import click

from bench.policy.checks import QUIET_ROWS, against_trees, flights, quiet, table_of, verdicts
from bench.policy.detection import delays, false_alarms
from bench.policy.page import write_page
from bench.policy.runs import BOOSTED, FLIGHTS, FOLDER, STREAMS, Run, missing, results, rows_of, run_parts
from bench.results import Result, write
from simulation.backtest.policies import DEFAULT_POLICIES, LOOP, UnknownPolicy, check_names

DETECTION_SEEDS, STABLE_LABELS = 100, 200_000


@click.command()
@click.option(
    "--streams", default="*", show_default=True, help="Names or patterns, with commas; flights is a year of it."
)
@click.option("--seeds", default=2, show_default=True, type=click.IntRange(1), help="How many seeds of each stream.")
@click.option("--rows", default=20_000, show_default=True, type=click.IntRange(2_000), help="Rows of made streams.")
@click.option("--policies", default=",".join((*DEFAULT_POLICIES, *BOOSTED)), help="Which of them.")
@click.option("--processes", default=os.cpu_count() or 1, type=click.IntRange(1), help="At a time; one per core.")
@click.option("--minutes", default=1e6, help="Begin nothing after so many minutes; call again to continue.")
@click.option("--accept-old", is_flag=True, help="Keep results that other code has made.")
@click.option("--stable/--no-stable", default=True, help=f"Run stable streams of {QUIET_ROWS:,} rows, too.")
@click.option("--detection/--no-detection", default=True, help="Measure delays and false alarms of detection, too.")
def main(
    streams: str,
    seeds: int,
    rows: int,
    policies: str,
    processes: int,
    minutes: float,
    accept_old: bool,
    stable: bool,
    detection: bool,
) -> None:
    """The default policy beside simple ones, in parts that are kept."""
    names, chosen = policies.split(","), _chosen(streams)
    try:
        check_names([name for name in names if name not in BOOSTED])
    except UnknownPolicy as error:
        raise click.UsageError(str(error)) from error
    stable_ones = _stable_ones(chosen) if stable and LOOP in names else []
    runs = [
        Run(stream, seed, rows_of(stream, rows), tuple(_policies_of(stream, names)))
        for seed in range(seeds)
        for stream in chosen
    ]
    if rows != QUIET_ROWS:  # else they are among those
        runs += [Run(stream, seed, QUIET_ROWS, (LOOP,)) for seed in range(seeds) for stream in stable_ones]
    wanted = [missing(run, accept_old) for run in runs]
    parts = [run for run in wanted if run.policies]
    print(f"{len(parts)} of {len(wanted)} parts are to be run", file=sys.stderr)
    for line in run_parts(parts, processes, minutes):
        print(line, file=sys.stderr, flush=True)
    _report(chosen, seeds, rows, names, stable_ones, detection)


def _stable_ones(chosen: list[str]) -> list[str]:
    """Those in which nothing changes, however many rows they have: on a short one the young model only learns."""
    return [name for name in chosen if name != FLIGHTS and STREAMS[name].drift == "none" and not STREAMS[name].fixed]


def _chosen(patterns: str) -> list[str]:
    known = [*STREAMS, FLIGHTS]
    found = [name for name in known if any(fnmatch.fnmatch(name, pattern) for pattern in patterns.split(","))]
    if patterns == "*":
        found.remove(FLIGHTS)  # takes minutes: asked for by name
    if not found:
        raise click.UsageError(f"no stream is called {patterns}: there are {', '.join(known)}")
    return found


def _policies_of(stream: str, names: list[str]) -> list[str]:
    """Trees are compared on tables: on a year of flights they would take an hour."""
    return [name for name in names if stream != FLIGHTS or name not in BOOSTED]


def _report(
    chosen: list[str], seeds: int, rows: int, names: list[str], stable_ones: list[str], detection: bool
) -> None:
    found = results(chosen, range(seeds), rows, names)
    plain = [name for name in names if name not in BOOSTED]
    compared = {stream: means for stream, means in table_of(found, plain).items() if stream != FLIGHTS}
    promises: list[Result] = []
    if LOOP in plain and "static" in plain:
        promises += verdicts(compared)
    promises += quiet(table_of(results(stable_ones, range(seeds), QUIET_ROWS, [LOOP]), [LOOP]))
    promises += against_trees(table_of(found, names))
    year = table_of([one for one in found if one["stream"] == FLIGHTS and one["policy"] == LOOP], [LOOP])
    promises += flights(year[FLIGHTS]) if year else []
    promises += _detection() if detection else []
    for stream, by_policy in compared.items():
        promises += [Result(stream, f"loss, {name}", mean.loss, "") for name, mean in by_policy.items()]
    path = write("policy", promises)
    page = Path(FOLDER / "index.html")
    if LOOP in plain and "static" in plain:
        write_page(page, compared, plain, [one for one in promises if one.target is not None], found)
    print(f"{path} and {page}")


def _detection() -> list[Result]:
    found = delays(DETECTION_SEEDS)
    delay = statistics.median(DETECTION_SEEDS * 100 if one is None else one for one in found)
    case = f"error rate .2 to .4, {DETECTION_SEEDS} seeds"
    return [
        Result(case, "labels until found, median", delay, "labels", target=300),
        Result(case, "never found", sum(one is None for one in found) / DETECTION_SEEDS, "share"),
        Result(
            "drawn stable labels",
            "alarms per 50,000",
            false_alarms(STABLE_LABELS) / (STABLE_LABELS / 50_000),
            "",
            target=1,
        ),
    ]


if __name__ == "__main__":
    main()
