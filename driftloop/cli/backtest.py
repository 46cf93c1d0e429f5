"""`driftloop backtest`: retraining policies side by side on a recorded history, before anything is deployed; starts nothing."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from driftloop.cli.checkout import import_from_checkout
from driftloop.cli.table_options import table_options
from driftloop.usecase import UseCaseError

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from driftloop.tables import InferenceOptions
    from simulation.backtest.report import Findings
    from simulation.backtest.sources import Source

INTERRUPTED = 130  # what a shell calls a program that Ctrl-C ended
SHOWN_METRICS = ("log_loss", "pr_auc", "roc_auc", "accuracy", "rmse", "mae", "r2")
BAR_STEPS = 1_000


@click.command()
@click.argument("data")
@table_options
@click.option("--policy", "policies", metavar="NAME[,NAME]", help="Which policies; all of them by default.")
@click.option("--start", help="First day of a use case's stretch, as 2013-03-01.")
@click.option("--days", type=click.IntRange(1), help="Days of a use case's stretch.")
@click.option("--inject", help="A change that the use case's replay can inject, such as 'concept'.")
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Changes what chance decides in fits."
)
@click.option(
    "--jobs", type=click.IntRange(1), default=lambda: os.cpu_count() or 1, help="Policies run at a time; one per core."
)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Where the report goes.")
@click.option("--json", "as_json", is_flag=True, help="Print report.json instead of a table.")
def backtest(
    data: str,
    options: InferenceOptions | None,
    policies: str | None,
    start: str | None,
    days: int | None,
    inject: str | None,
    seed: int,
    jobs: int,
    out: Path,
    as_json: bool,
) -> None:
    """Show what each retraining policy would have cost and won on DATA.

    DATA is a table (CSV or Parquet; say --label), or a use case: NAME or usecases/NAME.
    """
    import_from_checkout("simulation", "A backtest is run")
    from simulation.backtest.policies import DEFAULT_POLICIES, UnknownPolicy, check_names

    names = list(DEFAULT_POLICIES) if policies is None else [name.strip() for name in policies.split(",")]
    stretch = {"start": start, "days": days, "inject": inject}
    try:
        check_names(names)
        source = _source(data, options, {key: value for key, value in stretch.items() if value is not None})
        finished = _run(source, names, seed, jobs, out)
    except (UseCaseError, UnknownPolicy) as error:
        raise click.UsageError(str(error)) from error
    if as_json:
        click.echo((out / "report.json").read_text(), nl=False)
    elif finished.found is not None:
        _show(finished.found, out)
    if finished.interrupted:
        click.echo(f"interrupted: what was finished is in {out}", err=True)
        sys.exit(INTERRUPTED)


def _source(data: str, options: InferenceOptions | None, stretch: dict[str, Any]) -> Source:
    from simulation.backtest.sources import TableSource, UseCaseSource, is_table

    if is_table(data):
        if options is None:
            raise click.UsageError(f"which column of {data} is to be predicted? Say --label COL")
        if stretch:
            raise click.UsageError(f"--{next(iter(stretch))} is about a use case's replay, and {data} is a table")
        return TableSource(Path(data), options)
    if options is not None:
        raise click.UsageError(
            f"{data} is a use case, which declares its label: --label and what goes with it are for tables"
        )
    place = Path(data)
    folders = os.environ.get("DRIFTLOOP_USECASES", "")
    if len(place.parts) > 1:
        folders = os.pathsep.join(filter(None, (str(place.parent), folders)))
    return UseCaseSource(place.name, folders, stretch)


@dataclass
class _Finished:
    found: Findings | None = None
    interrupted: bool = False


def _run(source: Source, names: list[str], seed: int, jobs: int, out: Path) -> _Finished:
    """Runs all policies; report.json is written anew after each, so that what is finished is never lost."""
    from services.trainer.training import TrainingSettings
    from simulation.backtest.page import write_page
    from simulation.backtest.report import findings, write_interrupted, write_json
    from simulation.backtest.run import prepare
    from simulation.backtest.workers import run_all

    finished, outcomes, prepared = _Finished(), [], None
    with _bars() as bars:
        try:
            opened = source.open()
            for sentence in opened.inferred:
                click.echo(f"  {sentence}", err=True)
            reading = bars.add_task("reading the history", total=BAR_STEPS)
            prepared = prepare(
                opened,
                seed,
                TrainingSettings(),
                lambda words, share: bars.update(reading, description=words, completed=share * BAR_STEPS),
            )
            rows = len(prepared.history)
            tasks: dict[str, TaskID] = {name: bars.add_task(name, total=rows) for name in names}

            def progress(policy: str, row: int, words: str) -> None:
                bars.update(tasks[policy], completed=row, description=f"{policy} {words[:40]}".strip())

            for outcome in run_all(source, opened, prepared, names, jobs, progress):
                bars.update(tasks[outcome.policy], completed=rows, description=outcome.policy)
                outcomes.append(outcome)
                finished.found = findings(source.name, prepared, outcomes, names, opened.inferred)
                write_json(finished.found, out / "report.json")
        except KeyboardInterrupt:
            finished.interrupted = True
    if finished.found is None:
        write_interrupted(source.name, names, out / "report.json")
    else:
        write_page(finished.found, out / "report.html")
    return finished


@contextmanager
def _bars() -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        yield progress


def _show(found: Findings, out: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    metrics = [name for name in SHOWN_METRICS if any(name in of for of in found.metrics.values())]
    table = Table("policy", *metrics, "cost_x", "retrains", "promoted", "rejected", "rolled back", "seconds")
    for policy, outcome in found.outcomes.items():
        taken = found.recommendation is not None and policy == found.recommendation.policy
        table.add_row(
            f"{policy} ←" if taken else policy,
            *(f"{found.metrics[policy][name]:.4f}" for name in metrics),
            f"{found.costs[policy]:.2f}",
            str(outcome.retrains),
            *(str(outcome.count(kind)) for kind in ("promotion", "rejected", "rollback")),
            f"{outcome.seconds:.1f}",
        )
    console = Console()
    console.print(table)
    if found.recommendation is not None:
        console.print(found.recommendation.because, highlight=False)
    console.print(f"{out / 'report.html'} has the whole story, {out / 'report.json'} the figures.", highlight=False)
