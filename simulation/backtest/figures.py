"""The drawings of a backtest's page, as SVG text; computes nothing but means over rows."""

from __future__ import annotations

import io
from collections.abc import Sequence
from datetime import UTC, datetime

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num
from matplotlib.figure import Figure

from simulation.backtest.outcome import Kind
from simulation.backtest.policies import LOOP
from simulation.backtest.report import Findings

POINTS = 500  # of a line: more cannot be seen
ROLLING_SHARE, ROLLING_ROWS_MIN = 0.02, 200  # of the scored rows
PALETTE = ("#7f7f7f", "#4c78a8", "#72b7b2", "#9ecae9", "#f58518", "#b279a2", "#54a24b", "#eeca3b", "#9d755d", "#ff9da6")
LOOP_COLOUR = "#c4161c"
MARKS: dict[Kind, tuple[str, str, str]] = {
    "drift": ("D", "#f2a900", "drift of the error"),
    "retrain": ("o", "#4c78a8", "retrain"),
    "promotion": ("^", "#1e8449", "promotion"),
    "rejected": ("x", "#555555", "rejected"),
    "rollback": ("v", "#c0392b", "rollback"),
    "incident": ("s", "#7b2d8b", "incident"),
}


def colours(policies: Sequence[str]) -> dict[str, str]:
    """A colour per policy, the same on every drawing."""
    others = [policy for policy in policies if policy != LOOP]
    return {LOOP: LOOP_COLOUR} | {policy: PALETTE[place % len(PALETTE)] for place, policy in enumerate(others)}


def rolling_rows(found: Findings) -> int:
    """Over how many rows the losses are averaged for the drawing."""
    rows = len(found.prepared.scored)
    return min(rows, max(ROLLING_ROWS_MIN, round(rows * ROLLING_SHARE)))


def quality_over_time(found: Findings) -> str:
    """Rolling loss of every policy, and below it what each did when."""
    history, scored = found.prepared.history, found.prepared.scored
    width, colour_of = rolling_rows(found), colours(list(found.outcomes))
    lanes = len(found.outcomes)
    figure = Figure(figsize=(11.5, 4.6 + 0.34 * lanes), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[4.2, 0.2 + 0.34 * lanes])
    ends = np.unique(np.linspace(width - 1, len(scored) - 1, POINTS).astype(int))
    at = _dates(history.at_us[scored[ends]])
    for policy, losses in found.losses.items():
        sums = np.concatenate(([0.0], np.cumsum(losses)))
        line = (sums[ends + 1] - sums[ends + 1 - width]) / width
        is_loop = policy == LOOP
        upper.plot(
            at,
            line,
            color=colour_of[policy],
            linewidth=2.2 if is_loop else 1.2,
            label=policy,
            zorder=3 if is_loop else 2,
        )
    upper.set_ylabel(f"{found.prepared.quality.loss_name}, last {width:,} rows")
    upper.legend(ncols=min(4, lanes), fontsize=8, frameon=False, loc="best")
    _lanes(lower, found)
    for axes in (upper, lower):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    locator = AutoDateLocator()
    lower.xaxis.set_major_locator(locator)
    lower.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    return _svg(figure)


def _lanes(axes: Axes, found: Findings) -> None:
    names = list(found.outcomes)
    for lane, outcome in enumerate(found.outcomes.values()):
        for kind, (marker, colour, _) in MARKS.items():
            times = np.array([event.at_us for event in outcome.events if event.kind == kind], dtype=np.int64)
            if len(times):
                axes.scatter(
                    _dates(times), np.full(len(times), lane), marker=marker, s=26, color=colour, alpha=0.8, linewidths=1
                )
    for marker, colour, words in MARKS.values():
        axes.scatter([], [], marker=marker, s=26, color=colour, label=words)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.legend(
        ncols=len(MARKS),
        fontsize=8,
        frameon=False,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.32 / max(1, len(names)) - 0.12),
    )


def cost_against_quality(found: Findings) -> str:
    """Each policy as a point: what it cost and what its loss was, with one standard error of its distance to the best."""
    assert found.recommendation is not None
    colour_of = colours(list(found.outcomes))
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.add_subplot()
    for one in found.recommendation.compared:
        is_taken = one.policy == found.recommendation.policy
        axes.errorbar(one.cost_x, one.loss, yerr=one.error, color=colour_of[one.policy], capsize=2, linewidth=1)
        axes.scatter(one.cost_x, one.loss, s=90 if is_taken else 45, color=colour_of[one.policy], zorder=3)
        axes.annotate(one.policy, (one.cost_x, one.loss), (6, 6), textcoords="offset points", fontsize=8)
    axes.set_xlabel("cost: rows of all fits ÷ rows of the stream")
    axes.set_ylabel(found.prepared.quality.loss_name)
    axes.set_xlim(left=0)
    axes.margins(x=0.15, y=0.12)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    return _svg(figure)


def _dates(times_us: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    return np.asarray(date2num([datetime.fromtimestamp(time_us / 1e6, UTC) for time_us in times_us.tolist()]))


def _svg(figure: Figure) -> str:
    text = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "driftloop", "svg.fonttype": "none"}):
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    svg = text.getvalue()
    return svg[svg.index("<svg") :]
