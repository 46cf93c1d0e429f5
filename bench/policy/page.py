"""The benchmark's page: streams by policies, ranks and promises, in one file that needs no other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment

from bench.policy.checks import METRICS, Table, ranks, relative
from bench.results import Result
from simulation.backtest.policies import LOOP
from simulation.backtest.report import write_atomically

SHADE_MOST = 0.2  # relative difference to static that is as green or red as it gets
EVENTS = ("drift", "promotion", "rollback", "incident")
PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<title>The default policy beside simple ones</title><style>
body{font:15px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif;max-width:1200px;margin:2rem auto;padding:0 1.2rem;color:#1f2328}
table{border-collapse:collapse;font-size:13px;margin:.6rem 0}td,th{border-bottom:1px solid #d9dee3;padding:.28rem .55rem;text-align:left;vertical-align:top}
thead th{background:#f6f8fa;position:sticky;top:0}.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
.soft{color:#59636e}.yes{color:#1e8449}.no{color:#c4161c;font-weight:600}.loop{border-left:2px solid #c4161c;border-right:2px solid #c4161c}
details{margin:.3rem 0}</style>
<h1>The default policy beside simple ones</h1>
<p class=soft>{{ streams|length }} streams; each policy starts with the same model and answers the same rows. Means over {{ seeds }} seed(s).</p>
<h2>Promises</h2><table><thead><tr><th>what<th>measure<th class=n>value<th class=n>target<th>met<th>beside</tr></thead>
{% for r in promises %}<tr><td>{{ r.case }}<td>{{ r.metric }}<td class=n>{{ "–" if r.value is none else "%.4g"|format(r.value) }}<td class=n>{{ "" if r.target is none else "%.4g"|format(r.target) }}
<td class="{{ "yes" if r.met else "no" }}">{{ {True: "yes", False: "no", None: ""}[r.met] }}<td>{{ r.baseline or "" }}{% if r.baseline_value %} {{ "%.3f"|format(r.baseline_value) }}{% endif %}</tr>{% endfor %}</table>
<h2>Mean ranks</h2><table><thead><tr><th>policy{% for m in metrics %}<th class=n>{{ m }}{% endfor %}</tr></thead>
{% for p in policies %}<tr><td>{{ p }}{% for m in metrics %}<td class=n>{{ "%.2f"|format(ranks[m][p]) if p in ranks[m] else "" }}{% endfor %}</tr>{% endfor %}</table>
{% for title, cells in views %}<h2>{{ title }}</h2><table><thead><tr><th>stream{% for p in policies %}<th class=n>{{ p }}{% endfor %}</tr></thead>
{% for s in streams %}<tr><td>{{ s }}{% for p in policies %}<td class="n{{ " loop" if p == loop }}" style="background:{{ cells[s][p][1] }}">{{ cells[s][p][0] }}{% endfor %}</tr>{% endfor %}</table>{% endfor %}
<h2>What the default policy did</h2>
{% for one in told %}<details><summary>{{ one.stream }}, seed {{ one.seed }}: {{ one.promotions }} promotions, cost {{ "%.2f"|format(one.cost_x) }}x</summary><table>
{% for row, kind, why in one.timeline %}<tr><td class=n>{{ row }}<td>{{ kind }}<td>{{ why }}</tr>{% endfor %}</table></details>{% endfor %}
</html>
"""


def write_page(
    path: Path, table: Table, policies: Sequence[str], promises: Sequence[Result], results: Sequence[Mapping[str, Any]]
) -> None:
    """Writes the page of all streams that have every policy's result."""
    streams = sorted(table)
    losses = {s: {p: _loss_cell(table, s, p) for p in policies} for s in streams}
    accuracies = {s: {p: _metric_cell(table, s, p, ("accuracy", "r2")) for p in policies} for s in streams}
    areas = {s: {p: _metric_cell(table, s, p, ("roc_auc",)) for p in policies} for s in streams}
    costs = {
        s: {p: (f"{table[s][p].cost_x:.2f}x, {table[s][p].promotions:.1f}", "none") for p in policies} for s in streams
    }
    told = [dict(one) for one in results if one["policy"] == LOOP and one["seed"] == min(r["seed"] for r in results)]
    for one in told:
        one["timeline"] = [event for event in one["timeline"] if event[1] not in ("input_drift", "recalibrated")]
    page = Environment(autoescape=True).from_string(PAGE)
    write_atomically(
        path,
        page.render(
            streams=streams,
            policies=policies,
            seeds=max((found[LOOP].seeds for found in table.values()), default=0),
            promises=[result.as_dict() for result in promises],
            metrics=METRICS,
            ranks={metric: ranks(table, policies, metric) for metric in METRICS},
            views=[
                ("Loss, and by how much it is below (−) or above static's", losses),
                ("Accuracy, or R² of numbers", accuracies),
                ("Area under the ROC curve", areas),
                ("Cost (rows of all fits over rows) and promotions", costs),
            ],
            loop=LOOP,
            told=told,
        ),
    )


def _loss_cell(table: Table, stream: str, policy: str) -> tuple[str, str]:
    loss, static = table[stream][policy].loss, table[stream]["static"].loss
    share = relative(loss, static)
    shade = min(1.0, abs(share) / SHADE_MOST)
    colour = f"rgba({'30,132,73' if share < 0 else '196,22,28'},{0.45 * shade:.2f})"
    return f"{loss:.4f} {share:+.1%}", colour


def _metric_cell(table: Table, stream: str, policy: str, names: Sequence[str]) -> tuple[str, str]:
    metrics = table[stream][policy].metrics
    value = next((metrics[name] for name in names if name in metrics), None)
    return ("" if value is None else f"{value:.4f}"), "none"
