"""Writes a backtest's page: one file that needs no other, for people who decide; decides nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment
from markupsafe import Markup

from driftloop.contracts import rfc3339
from simulation.backtest.figures import cost_against_quality, quality_over_time, rolling_rows
from simulation.backtest.outcome import Outcome
from simulation.backtest.policies import LOOP
from simulation.backtest.report import Findings, Slice, protocol, write_atomically

MODELS_SHOWN = 14  # of one policy, spread evenly over its life
INPUTS_SHOWN = 15  # those that matter most in any model
WORDS = {
    "first_model": "first model",
    "drift": "drift of the error",
    "input_drift": "drift of an input",
    "retrain": "retrain",
    "shadow": "challenger in the shadow",
    "canary": "canary",
    "promotion": "promotion",
    "rejected": "challenger rejected",
    "rollback": "rollback",
    "kept": "kept after probation",
    "waits": "promotion waits",
    "not_now": "not now",
    "failed": "training failed",
    "incident": "incident",
    "recalibrated": "answers recalibrated",
}
HEAD = """<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<title>Backtest of {{ source }}</title>
<style>
:root{--ink:#1f2328;--soft:#59636e;--line:#d9dee3;--wash:#f6f8fa;--accent:#c4161c}
body{font:15px/1.55 system-ui,-apple-system,"Segoe UI",sans-serif;max-width:1120px;margin:2rem auto 4rem;padding:0 1.2rem;color:var(--ink)}
h1{font-size:1.7rem;margin:0 0 .2rem}h2{font-size:1.2rem;margin:2.4rem 0 .6rem;border-bottom:1px solid var(--line);padding-bottom:.25rem}
p.lead{color:var(--soft);margin:.2rem 0 1.2rem}.take{border-left:4px solid var(--accent);background:var(--wash);padding:.8rem 1.1rem;margin:1rem 0}
table{border-collapse:collapse;width:100%;margin:.6rem 0;font-size:13.5px}td,th{border-bottom:1px solid var(--line);padding:.32rem .55rem;text-align:left;vertical-align:top}
thead th{background:var(--wash);position:sticky;top:0}.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
tr.taken td{font-weight:600}svg{width:100%;height:auto}.half{max-width:680px}.soft{color:var(--soft)}
.partial{background:#fff4e5;border-left:4px solid #f2a900;padding:.6rem 1rem}details{margin:.6rem 0}summary{cursor:pointer;font-weight:600}
.scroll{max-height:30rem;overflow:auto;border:1px solid var(--line)}.wide{overflow-x:auto}.wide td,.wide th{padding:.32rem .42rem}.wide th.n{white-space:normal;vertical-align:bottom}dt{font-weight:600;margin-top:.5rem}dd{margin:0 0 .2rem 0}
nav a{margin-right:1rem;color:var(--soft)}
</style>
<h1>Backtest of {{ source }}</h1>
"""
EMPTY_PAGE = (
    HEAD
    + """<p class="partial">This backtest was interrupted before any policy was finished, so there is nothing to compare yet.</p>
<p>It was to run: {{ policies|join(", ") }}. Let it run longer, or run fewer policies (--policy) or a shorter stretch.</p>
</html>
"""
)
PAGE = (
    HEAD
    + """<p class="lead">{{ "{:,}".format(rows) }} labelled rows from {{ first }} to {{ last }}; {{ "{:,}".format(scored) }} of them scored; task {{ task }}; seed {{ seed }}.</p>
<nav><a href="#policies">Policies</a><a href="#time">Over time</a><a href="#cost">Cost</a><a href="#slices">Slices</a><a href="#importance">Importance</a><a href="#decisions">Decisions</a><a href="#protocol">Protocol</a>{% if inferred %}<a href="#schema">Schema</a>{% endif %}</nav>
{% if interrupted %}<p class="partial">This backtest was interrupted. Not finished, and not in what follows: {{ interrupted|join(", ") }}.</p>{% endif %}
<div class="take">{{ recommendation.because }}</div>
<h2 id="policies">Policies</h2>
<div class="wide"><table><thead><tr><th>policy{% for name in metrics %}<th class=n>{{ name }}{% endfor %}<th class=n>cost_x<th class=n>row epochs<th class=n>retrains<th class=n>promotions<th class=n>rejected<th class=n>rollbacks<th class=n>seconds</tr></thead>
{% for p in policies %}<tr{% if p.name == recommendation.policy %} class=taken{% endif %}><td style="white-space:nowrap">{{ p.name }}{% for name in metrics %}<td class=n>{{ "%.4f"|format(p.metrics[name]) }}{% endfor %}<td class=n>{{ "%.2f"|format(p.cost) }}<td class=n>{{ "{:,}".format(p.row_epochs) }}<td class=n>{{ p.retrains }}<td class=n>{{ p.promotions }}<td class=n>{{ p.rejected }}<td class=n>{{ p.rollbacks }}<td class=n>{{ "%.1f"|format(p.seconds) }}</tr>
{% endfor %}</table></div>
{% for p in policies if p.unanswered %}<p class=soft>{{ p.name }} had no model for {{ "{:,}".format(p.unanswered) }} of the scored rows: the rate of the labels known by then was its answer.</p>{% endfor %}
<h2 id="time">Quality over time</h2>{{ over_time }}
<p class=soft>Mean {{ loss_name }} of the last {{ "{:,}".format(rolling) }} scored rows, by prediction time. Below it, what each policy did and when.</p>
<h2 id="cost">Cost against quality</h2><div class="half">{{ cost }}</div>
<p class=soft>Lower and further left is better. Bars: one standard error of the difference to the best policy on the same rows, by blocks of rows.</p>
<h2 id="slices">Slices</h2>
{% for name, found in slices %}<h3>{{ name }}</h3><div class="wide"><table><thead><tr><th>value<th class=n>rows{% for p in policies %}<th class=n>{{ p.name }}{% endfor %}</tr></thead>
{% for one in found %}<tr><td>{{ one.value or "(missing)" }}<td class=n>{{ "{:,}".format(one.rows) }}{% for p in policies %}<td class=n style="background:{{ shade(one, p.name) }}">{{ "%.4f"|format(one.losses[p.name]) }}{% endfor %}</tr>
{% endfor %}</table></div>{% else %}<p>There is no category with few enough values to be shown as slices.</p>{% endfor %}
{% if slices %}<p class=soft>Mean {{ loss_name }} per value; green: below the mean of the policies on that value, red: above it. The values with the most rows are shown.</p>{% endif %}
<h2 id="importance">Importance drift</h2>
<p>What the models of <b>{{ importance.policy }}</b> rest on: by how much the {{ loss_name }} of the newest rows before a model came to answer grows when an input's values are shuffled. Each column is a model, by the day from which it answered.</p>
<div class="wide"><table><thead><tr><th>input{% for when in importance.models %}<th class=n>{{ when }}{% endfor %}</tr></thead>
{% for name, values in importance.inputs %}<tr><td>{{ name }}{% for value in values %}<td class=n style="background:rgba(76,120,168,{{ "%.2f"|format(0.75 * [value, 0]|max / importance.most) }})">{{ "%+.3f"|format(value) }}{% endfor %}</tr>
{% endfor %}</table></div>
<h2 id="decisions">What the policies decided, and why</h2>
{% for p in policies %}<details{% if p.name == told %} open{% endif %}><summary>{{ p.name }}: {{ p.events|length }} events</summary><div class="scroll"><table><thead><tr><th>time<th class=n>row<th>event<th>because</tr></thead>
{% for e in p.events %}<tr><td style="white-space:nowrap">{{ e.time }}<td class=n>{{ "{:,}".format(e.row) }}<td style="white-space:nowrap">{{ e.kind }}<td>{{ e.why }}</tr>
{% endfor %}</table></div>{% if p.recalibrated %}<p class=soft>Late labels moved its answers {{ "{:,}".format(p.recalibrated) }} times between these, without a training: report.json has when and by how much.</p>{% endif %}{% if p.quiet %}<p class=soft>{{ p.quiet }} drifts of single inputs or of the predictions are left out here: they are evidence and ask for nothing by themselves; report.json has them.</p>{% endif %}</details>
{% endfor %}
<h2 id="protocol">Protocol</h2><dl>{% for name, words in protocol.items() %}<dt>{{ name|replace("_", " ") }}</dt><dd>{{ words }}.</dd>{% endfor %}</dl>
{% if inferred %}<h2 id="schema">Inferred schema</h2><p>What was not said was inferred from the table; each line says how to correct it.</p><ul>{% for line in inferred %}<li>{{ line }}</li>{% endfor %}</ul>{% endif %}
</html>
"""
)


def write_page(found: Findings, path: Path) -> None:
    """Writes report.html; needs at least one finished policy."""
    assert found.recommendation is not None
    history = found.prepared.history
    names = list(found.outcomes)
    told = LOOP if LOOP in found.outcomes else found.recommendation.policy
    page = Environment(autoescape=True).from_string(PAGE)
    text = page.render(
        source=found.source,
        rows=found.rows,
        scored=len(found.prepared.scored),
        task=history.use_case.predict.task,
        seed=found.prepared.seed,
        first=_day(int(history.at_us[0])),
        last=_day(int(history.at_us[-1])),
        interrupted=found.interrupted,
        recommendation=found.recommendation,
        metrics=list(found.metrics[names[0]]),
        policies=[_policy(found, found.outcomes[name]) for name in names],
        over_time=Markup(quality_over_time(found)),
        rolling=rolling_rows(found),
        cost=Markup(cost_against_quality(found)),
        loss_name=found.prepared.quality.loss_name,
        slices=_by_name(found.slices),
        shade=_shade,
        importance=_importance(found.outcomes[told]),
        told=told,
        protocol=protocol(found.prepared),
        inferred=found.inferred,
    )
    write_atomically(path, text)


def write_empty_page(source: str, policies: Sequence[str], path: Path) -> None:
    """Writes the report.html of a backtest that was interrupted before it had anything to compare."""
    page = Environment(autoescape=True).from_string(EMPTY_PAGE)
    write_atomically(path, page.render(source=source, policies=policies))


def _policy(found: Findings, outcome: Outcome) -> dict[str, Any]:
    shown = [event for event in outcome.events if event.kind not in ("input_drift", "recalibrated")]
    return {
        "name": outcome.policy,
        "metrics": found.metrics[outcome.policy],
        "cost": found.costs[outcome.policy],
        "row_epochs": outcome.row_epochs,
        "retrains": outcome.retrains,
        "promotions": outcome.count("promotion"),
        "rejected": outcome.count("rejected"),
        "rollbacks": outcome.count("rollback"),
        "seconds": outcome.seconds,
        "unanswered": found.unanswered[outcome.policy],
        "events": [
            {"time": _minute(event.at_us), "row": event.row, "kind": WORDS[event.kind], "why": event.why}
            for event in shown
        ],
        "quiet": outcome.count("input_drift"),
        "recalibrated": outcome.count("recalibrated"),
    }


def _importance(outcome: Outcome) -> dict[str, Any]:
    models = outcome.deployed
    if len(models) > MODELS_SHOWN:
        models = [models[round(place * (len(models) - 1) / (MODELS_SHOWN - 1))] for place in range(MODELS_SHOWN)]
    most = {name: max(model.importance[name] for model in models) for name in models[0].importance} if models else {}
    names = sorted(most, key=lambda name: -most[name])[:INPUTS_SHOWN]
    return {
        "policy": outcome.policy,
        "models": [_day(model.at_us) for model in models],
        "inputs": [(name, [model.importance[name] for model in models]) for name in names],
        "most": max([most[name] for name in names], default=0.0) or 1.0,
    }


def _by_name(slices: list[Slice]) -> list[tuple[str, list[Slice]]]:
    names = dict.fromkeys(one.name for one in slices)
    return [(name, [one for one in slices if one.name == name]) for name in names]


def _shade(one: Slice, policy: str) -> str:
    """Green below the mean of the policies on this slice, red above it; full colour at a tenth of the mean."""
    mean = sum(one.losses.values()) / len(one.losses)
    part = max(-1.0, min(1.0, 10.0 * (one.losses[policy] / mean - 1.0))) if mean > 0 else 0.0
    red, green, blue = (192, 57, 43) if part > 0 else (30, 132, 73)
    return f"rgba({red},{green},{blue},{0.35 * abs(part):.2f})"


def _day(time_us: int) -> str:
    return rfc3339(time_us)[:10]


def _minute(time_us: int) -> str:
    return rfc3339(time_us)[:16].replace("T", " ")
