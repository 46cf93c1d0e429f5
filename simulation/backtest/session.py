"""One backtest from its source to its report: what is finished is on disk at any moment, however it ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from services.trainer.attempts import TrainingSettings
from simulation.backtest.outcome import Outcome
from simulation.backtest.page import write_empty_page, write_page
from simulation.backtest.policies import check_names
from simulation.backtest.report import Findings, findings, write_interrupted, write_json
from simulation.backtest.run import Prepared, prepare
from simulation.backtest.sources import Opened, Source
from simulation.backtest.workers import run_all


class Observer(Protocol):
    """Is told how far a backtest has come; a KeyboardInterrupt that it raises ends the backtest as Ctrl-C does."""

    def opened(self, opened: Opened) -> None:
        """The source is read."""
        ...

    def preparing(self, words: str, share: float) -> None:
        """Something goes on before the policies start; its done share, 0 to 1."""
        ...

    def prepared(self, prepared: Prepared) -> None:
        """The policies start."""
        ...

    def progress(self, policy: str, row: int, words: str) -> None:
        """A policy has answered the rows before `row` and is at something."""
        ...

    def finished(self, outcome: Outcome) -> None:
        """A policy is done, and in the report."""
        ...


@dataclass(frozen=True)
class Backtested:
    """What was found, None if it was interrupted before any policy was done."""

    found: Findings | None
    interrupted: bool


def backtest(
    source: Source,
    policies: Sequence[str],
    seed: int,
    jobs: int,
    out: Path,
    observer: Observer,
    training: TrainingSettings | None = None,
) -> Backtested:
    """Runs the policies and writes report.json and report.html to `out`. Ctrl-C ends it with what is finished.

    UnknownPolicy for a wrong name, UseCaseError for a history that does not bear a backtest: nothing is written then.
    """
    check_names(policies)
    found, outcomes, interrupted = None, [], False
    try:
        opened = source.open()
        observer.opened(opened)
        prepared = prepare(opened, seed, training or TrainingSettings(), observer.preparing)
        observer.prepared(prepared)
        for outcome in run_all(source, opened, prepared, policies, jobs, observer.progress):
            outcomes.append(outcome)
            found = findings(source.name, prepared, outcomes, policies, opened.inferred)
            write_json(found, out / "report.json")
            observer.finished(outcome)
    except KeyboardInterrupt:
        interrupted = True
    if found is None:
        write_interrupted(source.name, policies, out / "report.json")
        write_empty_page(source.name, policies, out / "report.html")
    else:
        write_page(found, out / "report.html")
    return Backtested(found, interrupted)
