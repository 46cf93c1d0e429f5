"""What a backtest found, as plain values and in the form of report.json; draws nothing."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from driftloop.contracts import rfc3339
from simulation.backtest.outcome import Outcome
from simulation.backtest.policies import (
    ADWIN_DELTA,
    DECAY_MARGIN,
    DECAY_ROWS_MIN,
    DECAY_SHARE,
    WINDOW_SHARE,
)
from simulation.backtest.quality import missing
from simulation.backtest.recommendation import Recommendation, recommend
from simulation.backtest.run import FIRST_SHARE, Prepared
from simulation.history import Floats

SLICE_VALUES_MAX = 12  # of one slice, those with the most rows
UNDECLARED_VALUES_MAX = 20  # a text input with more values is no slice unless it is declared as one


@dataclass(frozen=True)
class Slice:
    """The rows with one value of a text input, and each policy's mean loss on them."""

    name: str
    value: str
    rows: int
    losses: dict[str, float]


@dataclass(frozen=True)
class Findings:
    """Everything that a report shows. `losses`: by policy, of every scored row; `interrupted`: policies that were not finished."""

    source: str
    prepared: Prepared
    outcomes: dict[str, Outcome]
    losses: dict[str, Floats]
    metrics: dict[str, dict[str, float]]
    unanswered: dict[str, int]
    costs: dict[str, float]
    slices: list[Slice]
    recommendation: Recommendation | None
    inferred: tuple[str, ...]
    interrupted: tuple[str, ...]

    @property
    def rows(self) -> int:
        """Rows of the stream that have a label in the end: what cost_x counts in."""
        return len(self.prepared.history.labelled)


def findings(
    source: str,
    prepared: Prepared,
    outcomes: Sequence[Outcome],
    policies: Sequence[str],
    inferred: tuple[str, ...] = (),
) -> Findings:
    """The findings of finished policies, in the order of `policies`; those without an outcome were interrupted."""
    by_name = {outcome.policy: outcome for outcome in outcomes}
    finished = {policy: by_name[policy] for policy in policies if policy in by_name}
    history, quality, scored = prepared.history, prepared.quality, prepared.scored
    labels, rows = history.labels[scored], len(history.labelled)
    losses, metrics, unanswered = {}, {}, {}
    for policy, outcome in finished.items():
        answers = outcome.answers[scored]
        without = missing(answers)
        answers[without] = quality.known_rates(history, scored[without])
        losses[policy] = quality.losses(labels, answers)
        metrics[policy] = quality.metrics(labels, answers)
        unanswered[policy] = int(without.sum())
    costs = {policy: outcome.fitted_rows / rows for policy, outcome in finished.items()}
    return Findings(
        source=source,
        prepared=prepared,
        outcomes=finished,
        losses=losses,
        metrics=metrics,
        unanswered=unanswered,
        costs=costs,
        slices=_slices(prepared, losses),
        recommendation=recommend(losses, costs, quality.loss_name) if losses else None,
        inferred=inferred,
        interrupted=tuple(policy for policy in policies if policy not in by_name),
    )


def _slices(prepared: Prepared, losses: dict[str, Floats]) -> list[Slice]:
    history, scored = prepared.history, prepared.scored
    declared = [name for name in history.use_case.slices if name in history.use_case.text_inputs]
    found: list[Slice] = []
    for name in declared or history.use_case.text_inputs:
        column = history.texts[scored, history.use_case.text_inputs.index(name)]
        values, member, counts = np.unique(column.astype(str), return_inverse=True, return_counts=True)
        if not declared and not 2 <= len(values) <= UNDECLARED_VALUES_MAX:
            continue
        for place in np.argsort(-counts, kind="stable")[:SLICE_VALUES_MAX].tolist():
            means = {policy: float(lost[member == place].mean()) for policy, lost in losses.items()}
            found.append(Slice(name, str(values[place]), int(counts[place]), means))
    return found


def protocol(prepared: Prepared) -> dict[str, str]:
    """How the policies were compared, in words; the keys name the points."""
    history, fit = prepared.history, prepared.first.fit
    step_s = history.use_case.step_us / 1e6
    first = prepared.first.message
    return {
        "order": "rows in order of their prediction time; each is answered by the model that is in production at that moment",
        "labels": "a label is used only from the time on at which it became known, by whatever learns, judges or decides",
        "step": f"time goes in steps of {step_s:g} s: what becomes known within a step counts from its end on, for every policy",
        "first_model": f"every policy starts with the same model, asked for by the loop at {rfc3339(fit.clock_us)} on the {fit.rows} rows of "
        f"whole cohorts that had matured by the {FIRST_SHARE:.0%} point of the labelled rows"
        + (
            ""
            if fit.published
            else f"; the loop's own gates refused it ({first.because}), so driftloop begins without a model"
        ),
        "scored": f"the {len(prepared.scored)} labelled rows from there on, the same for every policy; where a policy has no model yet, "
        "the rate of the labels known so far is its answer",
        "simple_policies": f"periodic, drift and decay fit the same kind of model to the newest labels, {WINDOW_SHARE:.0%} of the stream "
        f"({prepared.window_rows} rows), and deploy it at once, without gates",
        "drift": f"retrains when River's ADWIN (delta {ADWIN_DELTA}) sees the error of single labels rise",
        "decay": f"retrains when the mean loss of the newest labels ({DECAY_SHARE:.0%} of the stream, at least {DECAY_ROWS_MIN}) exceeds that of as "
        f"many labels right after the deployment by {DECAY_MARGIN:.0%}",
        "driftloop": "the loop's own monitor, release and trainer hearts with the use case's policy: triggers, candidates, gates, shadow, "
        "canary, promotion, probation",
        "cost_x": f"rows of all fits, the first model, candidates and rejected models included, over the {len(history.labelled)} labelled "
        "rows of the stream; row_epochs: the same rows times their epochs",
    }


def as_json(found: Findings) -> dict[str, Any]:
    """The content of report.json."""
    history = found.prepared.history
    return {
        "source": found.source,
        "use_case": history.use_case.name,
        "rows": found.rows,
        "unlabelled_rows": len(history) - found.rows,
        "scored_rows": len(found.prepared.scored),
        "task": history.use_case.predict.task,
        "seed": found.prepared.seed,
        "interrupted": list(found.interrupted),
        "protocol": protocol(found.prepared),
        "inferred": list(found.inferred),
        "recommendation": None
        if found.recommendation is None
        else {"policy": found.recommendation.policy, "because": found.recommendation.because}
        | {"compared": [asdict(one) for one in found.recommendation.compared]},
        "policies": {policy: _policy(found, outcome) for policy, outcome in found.outcomes.items()},
        "slices": [asdict(one) for one in found.slices],
    }


def _policy(found: Findings, outcome: Outcome) -> dict[str, Any]:
    policy = outcome.policy
    return {
        "metrics": {name: value if math.isfinite(value) else None for name, value in found.metrics[policy].items()},
        "retrains": outcome.retrains,
        "promotions": outcome.count("promotion"),
        "rejected": outcome.count("rejected"),
        "rollbacks": outcome.count("rollback"),
        "trained_rows": outcome.fitted_rows,
        "cost_x": found.costs[policy],
        "row_epochs": outcome.row_epochs,
        "seconds": outcome.seconds,
        "unanswered": found.unanswered[policy],
        "timeline": [
            {"row": event.row, "time": rfc3339(event.at_us), "event": event.kind, "why": event.why}
            for event in outcome.events
        ],
        "models": [
            {"row": one.row, "time": rfc3339(one.at_us), "model": one.model_id, "importance": one.importance}
            for one in outcome.deployed
        ],
    }


def write_atomically(path: Path, text: str) -> None:
    """Writes a file that is whole at any moment: beside it first, then in its place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(text)
    beside.replace(path)


def write_interrupted(source: str, policies: Sequence[str], path: Path) -> None:
    """Writes the report.json of a backtest that was interrupted before it had anything to compare."""
    write_atomically(
        path, json.dumps({"source": source, "interrupted": list(policies), "policies": {}}, indent=1) + "\n"
    )


def write_json(found: Findings, path: Path) -> None:
    """Writes report.json."""
    write_atomically(path, json.dumps(as_json(found), indent=1, allow_nan=False) + "\n")
