"""`driftloop backtest`: retraining policies side by side on a recorded history, before anything is deployed; starts nothing."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from driftloop.cli.checkout import import_from_checkout
from driftloop.cli.table_options import table_options
from driftloop.usecase import UseCaseError

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from driftloop.tables import InferenceOptions
    from simulation.backtest.outcome import Outcome
    from simulation.backtest.report import Findings
    from simulation.backtest.run import Prepared
    from simulation.backtest.sources import Opened, Source

INTERRUPTED = 130  # what a shell calls a program that Ctrl-C ended
SHOWN_METRICS = ("log_loss", "pr_auc", "accuracy", "rmse", "mae", "r2")
WORDS = 40  # of what a policy is at: a bar is one line
TABLE_COLUMNS = 120  # in a file or a pipe, where no terminal says how wide it is


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
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts what runs in its background without it
    import_from_checkout("simulation", "A backtest is run")
    from simulation.backtest.policies import DEFAULT_POLICIES, UnknownPolicy, check_names
    from simulation.backtest.session import backtest as run_backtest

    names = list(DEFAULT_POLICIES) if policies is None else [name.strip() for name in policies.split(",")]
    stretch = {"start": start, "days": days, "inject": inject}
    try:
        check_names(names)
        source = _source(data, options, {key: value for key, value in stretch.items() if value is not None})
        with _bars() as bars:
            done = run_backtest(source, names, seed, jobs, out, _Bars(bars))
    except (UseCaseError, UnknownPolicy) as error:
        raise click.UsageError(str(error)) from error
    if as_json:
        click.echo((out / "report.json").read_text(), nl=False)
    elif done.found is not None:
        _show(done.found, out)
    if done.interrupted:
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


class _Bars:
    """Progress bars on a terminal; elsewhere a line per policy, on the error stream like the bars."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._reading: TaskID | None = None
        self._rows = 0
        self._policies: dict[str, TaskID] = {}

    def opened(self, opened: Opened) -> None:
        """What was inferred, with how to correct it."""
        for sentence in opened.inferred:
            self._bars.console.print(f"  {sentence}", highlight=False, markup=False, soft_wrap=True)

    def preparing(self, words: str, share: float) -> None:
        """The bar of what goes on first."""
        if self._reading is None:
            self._reading = self._bars.add_task(words, total=1.0)
        self._bars.update(self._reading, description=words, completed=share)

    def prepared(self, prepared: Prepared) -> None:
        """How many rows a policy's bar has."""
        self._rows = len(prepared.history)

    def progress(self, policy: str, row: int, words: str) -> None:
        """A policy's bar."""
        if policy not in self._policies:
            self._policies[policy] = self._bars.add_task(policy, total=self._rows)
        self._bars.update(self._policies[policy], completed=row, description=f"{policy} {words[:WORDS]}".strip())

    def finished(self, outcome: Outcome) -> None:
        """A full bar, or a line."""
        self.progress(outcome.policy, self._rows, "")
        if self._bars.disable:
            seconds, fits = outcome.seconds, len(outcome.fits)
            self._bars.console.print(f"{outcome.policy}: done in {seconds:.1f} s, {fits} fits", highlight=False)


def _bars() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, disable=not console.is_terminal)


def _show(found: Findings, out: Path) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    metrics = [name for name in SHOWN_METRICS if any(name in of for of in found.metrics.values())]
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("policy", no_wrap=True)
    for name in (*metrics, "cost_x", "retrains", "promoted", "rejected", "rollbacks", "seconds"):
        table.add_column(name, justify="right", no_wrap=True)
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
    if not console.is_terminal:
        console = Console(width=TABLE_COLUMNS)
    console.print(table)
    if found.recommendation is not None:
        console.print(found.recommendation.because, highlight=False)
    console.print(f"{out / 'report.html'} has the whole story, {out / 'report.json'} the figures.", highlight=False)
