"""`python -m simulation`: runs seeds of the whole loop with faults, and says how to replay one that breaks an invariant."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from simulation.faults import FaultsUnreadable
from simulation.seeds import DRAWN, faults_of, ran

LINE_EVERY = 20  # seeds: where no terminal shows a bar


def _all(seeds: Sequence[int], text: str, jobs: int) -> Iterator[tuple[int, str]]:
    if jobs == 1 or len(seeds) == 1:
        for seed in seeds:
            yield ran(seed, text)
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        try:
            for done in as_completed([pool.submit(ran, seed, text) for seed in seeds]):
                yield done.result()
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


@click.command()
@click.option("--seed", type=click.IntRange(0), help="One seed, told about in full.")
@click.option("--seeds", type=click.IntRange(1), default=20, show_default=True, help="So many seeds.")
@click.option("--first", type=click.IntRange(0), help="The first of them; chosen freshly if not given.")
@click.option(
    "--faults",
    default=DRAWN,
    show_default=True,
    help="drawn (each seed its own), most, none, or a list: crash=0.1,delay=0.01",
)
@click.option("--jobs", type=click.IntRange(1), default=lambda: os.cpu_count() or 1, help="Processes; one per core.")
def main(seed: int | None, seeds: int, first: int | None, faults: str, jobs: int) -> None:
    """Simulate the whole loop on a virtual clock with faults; exit code 1 if an invariant breaks."""
    try:
        faults_of(0, faults)
    except FaultsUnreadable as error:
        raise click.UsageError(str(error)) from error
    if seed is not None:
        _one(seed, faults)
        return
    start = random.SystemRandom().randrange(1_000_000) if first is None else first
    click.echo(f"seeds {start} to {start + seeds - 1}")
    broken = 0
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress:
        bar = progress.add_task("seeds", total=seeds)
        for done, (_, said) in enumerate(_all(range(start, start + seeds), faults, jobs), 1):
            progress.advance(bar)
            if not progress.console.is_terminal and done % LINE_EVERY == 0:
                click.echo(f"{done} of {seeds} seeds done, {broken} broken")
            if said:
                broken += 1
                progress.update(bar, description=f"seeds, {broken} broken")
                progress.console.print(said, markup=False, highlight=False)
    click.echo(f"{seeds - broken} of {seeds} seeds hold")
    sys.exit(1 if broken else 0)


def _one(seed: int, text: str) -> None:
    from simulation.simulate import command, simulate

    faults = faults_of(seed, text)
    outcome = simulate(seed, faults)
    click.echo(command(seed, faults))
    struck, died = (
        ", ".join(f"{name} {count}" for name, count in counts.items() if count) or "nothing"
        for counts in (outcome.struck, outcome.deaths)
    )
    click.echo(f"{outcome.seconds:.1f} s for {outcome.virtual_s:.0f} virtual ones; struck: {struck}; ended: {died}")
    if outcome.observed is not None:
        for message in outcome.observed.of("decisions"):
            click.echo(f"  {message.payload.clock_us} {message.payload.because}")
    for breach in outcome.breaches:
        click.echo(str(breach))
    sys.exit(0 if outcome.holds else 1)


if __name__ == "__main__":
    main()
