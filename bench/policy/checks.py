"""What the results say: relative losses, ranks, and whether the default policy keeps its promises; runs nothing."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.results import Result
from simulation.backtest.policies import DEFAULT_POLICIES, LOOP

METRICS = ("log_loss", "accuracy", "roc_auc")
LEAST_LOSS = 0.01  # nats: where less is lost, a share of it says nothing, and differences are taken of this
QUIET_ROWS = 50_000


@dataclass(frozen=True)
class Mean:
    """A policy on a stream, its seeds taken together."""

    loss: float
    metrics: Mapping[str, float]
    cost_x: float
    promotions: float
    rejected: float
    drifts: float
    input_drifts: float
    rows: float
    seconds: float
    seeds: int


Table = dict[str, dict[str, Mean]]
"""Means by stream and policy."""


def table_of(results: Sequence[Mapping[str, Any]], policies: Sequence[str]) -> Table:
    """Means over the seeds for which every one of a stream's policies has a result."""
    by_stream: dict[str, dict[int, dict[str, Mapping[str, Any]]]] = defaultdict(lambda: defaultdict(dict))
    for result in results:
        by_stream[result["stream"]][result["seed"]][result["policy"]] = result
    table: Table = {}
    for stream, by_seed in by_stream.items():
        whole = [found for found in by_seed.values() if all(policy in found for policy in policies)]
        if whole:
            table[stream] = {policy: _mean([found[policy] for found in whole]) for policy in policies}
    return table


def _mean(found: Sequence[Mapping[str, Any]]) -> Mean:
    def mean(name: str) -> float:
        return float(np.mean([one[name] for one in found]))

    names = set.intersection(*(set(one["metrics"]) for one in found))
    metrics = {name: float(np.mean([one["metrics"][name] for one in found])) for name in names}
    return Mean(
        loss=mean("loss"),
        metrics=metrics,
        cost_x=mean("cost_x"),
        promotions=mean("promotions"),
        rejected=mean("rejected"),
        drifts=mean("drifts"),
        input_drifts=mean("input_drifts"),
        rows=mean("scored_rows"),
        seconds=mean("seconds"),
        seeds=len(found),
    )


def relative(loss: float, to: float) -> float:
    """By which share a loss exceeds another."""
    return (loss - to) / max(to, LEAST_LOSS)


def ranks(table: Table, policies: Sequence[str], metric: str) -> dict[str, float]:
    """Mean rank of each policy over the streams that have the metric, 1 is best; equal ones share their ranks."""
    rows = []
    for by_policy in table.values():
        values = [_value(by_policy[policy], metric) for policy in policies]
        if not any(map(math.isnan, values)):
            ordered = np.array(values) * (1.0 if metric == "log_loss" else -1.0)
            rows.append([(ordered < value).sum() + ((ordered == value).sum() + 1) / 2 for value in ordered])
    return {} if not rows else dict(zip(policies, np.mean(rows, axis=0).tolist(), strict=True))


def _value(mean: Mean, metric: str) -> float:
    return mean.loss if metric == "log_loss" else mean.metrics.get(metric, math.nan)


def nearest_periodic(by_policy: Mapping[str, Mean]) -> str | None:
    """The periodic policy whose cost is nearest to the default policy's."""
    periodic = [policy for policy in by_policy if policy.startswith("periodic")]
    if not periodic:
        return None
    return min(periodic, key=lambda policy: abs(by_policy[policy].cost_x - by_policy[LOOP].cost_x))


def verdicts(table: Table) -> list[Result]:
    """The default policy beside the simple ones."""
    if not table:
        return []
    worst = max(table, key=lambda name: relative(table[name][LOOP].loss, table[name]["static"].loss))
    found = [
        Result(
            f"worst against static: {worst}",
            "loss, relative",
            relative(table[worst][LOOP].loss, table[worst]["static"].loss),
            "share",
            target=0.01,
        )
    ]
    others = [(name, nearest_periodic(by_policy)) for name, by_policy in table.items()]
    against = {name: relative(table[name][LOOP].loss, table[name][other].loss) for name, other in others if other}
    if against:
        name = max(against, key=lambda one: against[one])
        found.append(
            Result(f"worst against the nearest period: {name}", "loss, relative", against[name], "share", target=0.01)
        )
    policies = [policy for policy in DEFAULT_POLICIES if all(policy in by_policy for by_policy in table.values())]
    for metric in METRICS:
        mean_ranks = ranks(table, policies, metric)
        if mean_ranks:
            best = min((rank, policy) for policy, rank in mean_ranks.items() if policy != LOOP)
            found.append(
                Result(
                    f"mean rank of {len(mean_ranks)} policies",
                    metric,
                    mean_ranks[LOOP],
                    "",
                    baseline=f"best other: {best[1]}",
                    baseline_value=best[0],
                    target=best[0],
                )
            )
    return found


def quiet(stable: Table) -> list[Result]:
    """How much the default policy does where nothing changes; on streams of `QUIET_ROWS`, for a short one of a young model is no rate."""
    if not stable:
        return []
    means = {name: by_policy[LOOP] for name, by_policy in stable.items()}

    def per(count: Callable[[Mean], float], found: Sequence[Mean]) -> float:
        return sum(count(one) * one.seeds for one in found) / sum(one.rows * one.seeds for one in found) * QUIET_ROWS

    loudest = max(means, key=lambda name: per(lambda one: one.promotions, [means[name]]))
    what, unit = f"{len(means)} stable streams", f"per {QUIET_ROWS:,} rows"
    found = [
        (what, "promotions", per(lambda one: one.promotions, [*means.values()]), 2),
        (f"loudest stable stream: {loudest}", "promotions", per(lambda one: one.promotions, [means[loudest]]), 2),
        (what, "alarms of all series", per(lambda one: one.drifts + one.input_drifts, [*means.values()]), 1),
    ]
    return [Result(case, f"{metric} {unit}", value, "", target=target) for case, metric, value, target in found]


def against_trees(table: Table) -> list[Result]:
    """torch beside boosted trees inside the same policy and without retraining, mean of relative losses."""
    found = []
    for ours, theirs in ((LOOP, "boosted"), ("static", "boosted-static")):
        shares = [relative(by[ours].loss, by[theirs].loss) for by in table.values() if theirs in by and ours in by]
        if shares:
            found.append(
                Result(
                    f"torch beside boosted trees, {ours}, {len(shares)} tables",
                    "loss, mean of relative",
                    float(np.mean(shares)),
                    "share",
                    target=0.01,
                )
            )
    return found


def flights(by_policy: Mapping[str, Mean]) -> list[Result]:
    """The year of flights, an hour before departure."""
    ours = by_policy[LOOP]
    return [
        Result("flights, a year", "PR-AUC", ours.metrics["pr_auc"], "", target=0.5, at_most=False),
        Result("flights, a year", "cost", ours.cost_x, "x", target=2),
        Result("flights, a year", "promotions", ours.promotions, "", target=20),
    ]
