"""Runs (stream, seed, policy) one by one and keeps each result in a file of its own, so that a run can be continued."""

from __future__ import annotations

import hashlib
import json
import os
import time
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from bench.policy.awkward import AWKWARD
from bench.policy.boosting import train_boosted
from bench.policy.generated import GENERATED
from bench.policy.observed import OBSERVED
from bench.policy.packaged import PACKAGED
from bench.policy.streams import Stream
from services.trainer.attempts import TrainingSettings
from services.trainer.training import train
from simulation.backtest.outcome import Outcome
from simulation.backtest.policies import LOOP
from simulation.backtest.report import Findings, findings, write_atomically
from simulation.backtest.run import Prepared, prepare
from simulation.backtest.sources import Source, UseCaseSource
from simulation.backtest.workers import run_all

FOLDER = Path("build/bench/policy")
FLIGHTS = "flights"
BOOSTED = {"boosted": LOOP, "boosted-static": "static"}  # by name: the policy that runs with boosted trees
STREAMS: dict[str, Stream] = {stream.name: stream for stream in (*GENERATED, *AWKWARD, *PACKAGED, *OBSERVED)}
BLOCKS = 40  # of scored rows, whose mean losses are kept
BACKTEST = ("simulation/history.py", "simulation/backtest", "driftloop/tables", "driftloop/usecase")
LOOP_TOO = ("services/trainer", "services/monitor", "simulation/loop.py")
FITTED = (
    "sea-none",
    "led-none",
    "regression-abrupt",
)  # one of each task, whose first models stand for what fits come to
FITTED_ROWS = 3_000


@dataclass(frozen=True)
class Run:
    """What one process does at a time: some policies on one seed of a stream. `rows` 0: the stream's own number."""

    stream: str
    seed: int
    rows: int
    policies: tuple[str, ...]

    def path(self, policy: str) -> Path:
        """Where a policy's result is kept."""
        return FOLDER / "results" / f"{self.rows}" / self.stream / f"{self.seed}" / f"{policy}.json"

    def source(self) -> Source:
        """The history."""
        if self.stream == FLIGHTS:
            return UseCaseSource(FLIGHTS, os.environ.get("DRIFTLOOP_USECASES", ""))
        return STREAMS[self.stream].source(self.seed, self.rows)


def code_digest(policy: str) -> str:
    """Of what a policy's result depends on: a result of other code is made anew.

    Simple policies depend on trainer's code by what its fits come to only, so that theirs stay while the loop is worked on.
    """
    digest = hashlib.sha256()
    simple = BOOSTED.get(policy, policy) != LOOP
    if simple:
        digest.update(_fits(policy in BOOSTED).encode())
    for place in (*BACKTEST, *(() if simple else LOOP_TOO), "bench/policy/streams.py"):
        path = Path(place)
        for file in sorted(path.glob("*.py")) if path.is_dir() else [path]:
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


@cache
def _fits(boosted: bool) -> str:
    models = []
    for name in FITTED:
        opened = Run(name, 0, FITTED_ROWS, ()).source().open()
        learn = train_boosted if boosted else train
        models.append(
            prepare(opened, 0, TrainingSettings(), lambda words, share: None, learn).first.message.model_digest
        )
    return " ".join(models)


def missing(run: Run, accept_old: bool) -> Run:
    """The same run with the policies that have no result yet."""
    return Run(
        run.stream, run.seed, run.rows, tuple(p for p in run.policies if not _is_there(run.path(p), p, accept_old))
    )


def _is_there(path: Path, policy: str, accept_old: bool) -> bool:
    if not path.exists():
        return False
    return accept_old or json.loads(path.read_text())["code"] == code_digest(policy)


def carry_out(run: Run) -> list[str]:
    """Runs the policies of a run, writes each result as it is done, and returns a line for each."""
    lines = []
    for learn, policies in (
        (train, [policy for policy in run.policies if policy not in BOOSTED]),
        (train_boosted, [policy for policy in run.policies if policy in BOOSTED]),
    ):
        if not policies:
            continue
        source = run.source()
        opened = source.open()
        prepared = prepare(opened, run.seed, TrainingSettings(), lambda words, share: None, learn)
        for policy in policies:
            name = BOOSTED.get(policy, policy)
            for outcome in run_all(source, opened, prepared, [name], 1, lambda policy, row, words: None):
                found = findings(source.name, prepared, [outcome], [name])
                result = result_of(run, policy, found, prepared, outcome)
                write_atomically(run.path(policy), json.dumps(result, indent=1) + "\n")
                lines.append(_line(result))
    return lines


def result_of(run: Run, policy: str, found: Findings, prepared: Prepared, outcome: Outcome) -> dict[str, Any]:
    """What is kept of a run."""
    losses = found.losses[outcome.policy]
    return {
        "stream": run.stream,
        "seed": run.seed,
        "policy": policy,
        "code": code_digest(policy),
        "task": prepared.history.use_case.predict.task,
        "rows": found.rows,
        "scored_rows": len(prepared.scored),
        "loss": float(losses.mean()),
        "blocks": [float(part.mean()) for part in np.array_split(losses, BLOCKS)],
        "metrics": {name: float(value) for name, value in found.metrics[outcome.policy].items() if np.isfinite(value)},
        "unanswered": found.unanswered[outcome.policy],
        "cost_x": found.costs[outcome.policy],
        "row_epochs": outcome.row_epochs,
        "seconds": outcome.seconds,
        "retrains": outcome.retrains,
        "promotions": outcome.count("promotion"),
        "rejected": outcome.count("rejected"),
        "rollbacks": outcome.count("rollback"),
        "drifts": outcome.count("drift"),
        "input_drifts": outcome.count("input_drift"),
        "timeline": [[event.row, event.kind, event.why] for event in outcome.events],
    }


def _line(result: dict[str, Any]) -> str:
    return (
        f"{result['stream']:20} seed {result['seed']} {result['policy']:14} loss {result['loss']:.4f} cost {result['cost_x']:.2f} "
        f"promotions {result['promotions']:3} in {result['seconds']:.1f} s"
    )


def run_parts(runs: Sequence[Run], processes: int, minutes: float) -> Iterator[str]:
    """Carries out runs in so many processes, a line per result; none is begun after `minutes`, those begun are finished."""
    ends = time.monotonic() + 60 * minutes
    waiting = list(runs)
    context = get_context("spawn")  # a fork would copy the locks of torch's and ONNX Runtime's threads
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        at_work: dict[Future[list[str]], Run] = {}
        while waiting or at_work:
            while waiting and len(at_work) < processes and time.monotonic() < ends:
                run = waiting.pop(0)
                at_work[pool.submit(carry_out, run)] = run
            if not at_work:
                yield f"stopped after {minutes:g} minutes: {len(waiting)} parts are left, call again to continue"
                return
            done, _ = wait(at_work, return_when=FIRST_COMPLETED)
            for future in done:
                run = at_work.pop(future)
                error = future.exception()
                if error is not None:
                    traceback.print_exception(error)
                    raise RuntimeError(f"{run.stream} seed {run.seed} failed") from error
                yield from future.result()


def results(streams: Sequence[str], seeds: Sequence[int], rows: int, policies: Sequence[str]) -> list[dict[str, Any]]:
    """What is there so far."""
    found = []
    for stream in streams:
        for seed in seeds:
            run = Run(stream, seed, rows_of(stream, rows), tuple(policies))
            found += [json.loads(path.read_text()) for path in map(run.path, policies) if path.exists()]
    return found


def rows_of(stream: str, rows: int) -> int:
    """0 for what has its own number of rows."""
    return 0 if stream == FLIGHTS or STREAMS[stream].fixed else rows
