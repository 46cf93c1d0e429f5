"""Writes the report of a replay: quality over event time, with every drift, retrain and release marked on it."""

from __future__ import annotations

import io
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment
from matplotlib.dates import date2num
from matplotlib.figure import Figure

from driftloop.cli.summary import JudgedRows, Predict
from driftloop.contracts import Message
from driftloop.contracts.monitor.v1.monitor_pb2 import SERIES_KIND_ERROR, DecisionKind
from driftloop.usecase import LOSS_NAMES, LOSS_UNITS, UseCase

SMOOTH_ROWS = 500
COLOURS = {"injected": "#7b2d8b", "drift": "#c0392b", "retrain": "#e67e22", "release": "#1e8449"}
PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>driftloop: {{ s.use_case }}</title>
<style>body{font:15px/1.5 system-ui,sans-serif;max-width:1080px;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse;width:100%;margin:1rem 0}td,th{border-bottom:1px solid #ddd;padding:.3rem .6rem;text-align:left;vertical-align:top}
th{background:#f6f6f6}code{font-size:12px}svg{width:100%;height:auto}.n{text-align:right}</style>
<h1>{{ s.use_case }}: what the loop did</h1>
<p>{{ s.events.accepted }} events, {{ s.predictions.answered }} predictions, {{ s.labels.matched }} labels in {{ s.seconds }} s.
{% if s.quality and s.quality.rows %}On the last {{ s.quality.rows }} labelled rows the loop's {{ loss }} is {{ "%.3f"|format(s.quality[s.quality.metrics[0]].loop) }};
the first model, never retrained, has {{ "%.3f"|format(s.quality[s.quality.metrics[0]].static) }}.
{% if s.quality.recovered_share is not none %}The loop recovered <b>{{ "%.0f"|format(100 * s.quality.recovered_share) }} %</b> of what the change cost.{% endif %}{% endif %}</p>
{{ figure }}
<p>{{ loss|capitalize }}, in {{ unit }}, over the last {{ smooth }} labelled rows, by prediction time. Marks:
{% for name, colour in colours.items() %}<span style="color:{{ colour }}">┃ {{ name }}</span> {% endfor %}</p>
<h2>Decisions</h2><table><tr><th>use-case time<th>decision<th>because</tr>
{% for d in decisions %}<tr><td>{{ d.at }}<td>{{ d.kind }}<td>{{ d.because }}</tr>{% endfor %}</table>
<h2>Models</h2><table><tr><th>model<th>asked for by<th class=n>rows<th class=n>row epochs<th>came to answer<th>metrics</tr>
{% for m in s.models %}<tr><td><code>{{ m.id }}</code><td>{{ m.reason }}<td class=n>{{ m.trained_rows }}<td class=n>{{ m.row_epochs }}<td>{{ "yes" if m.promoted else "no" }}
<td>{% for k, v in m.metrics.items() %}{{ k }} {{ "%.4g"|format(v) }} {% endfor %}</tr>{% endfor %}</table>
<h2>Drift</h2><table><tr><th>alarm<th>series<th>since<th class=n>before<th class=n>after<th class=n>rows since</tr>
{% for d in drifts %}<tr><td>{{ d.at }}<td>{{ d.series }}<td>{{ d.since }}<td class=n>{{ "%.3f"|format(d.before) }}<td class=n>{{ "%.3f"|format(d.after) }}<td class=n>{{ d.rows }}</tr>{% endfor %}</table>
<h2>One chain of causes</h2><ol>{% for id in s.trace %}<li><code>{{ id }}</code></li>{% endfor %}</ol></html>"""


def _when(time_us: int) -> datetime:
    return datetime.fromtimestamp(time_us / 1e6, UTC).replace(tzinfo=None)


def _figure(
    rows: JudgedRows, static: Predict | None, topics: Mapping[str, list[Message[Any]]], injected: str | None
) -> str:
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    axes = figure.add_subplot()
    kernel = np.ones(SMOOTH_ROWS) / SMOOTH_ROWS
    if len(rows) > SMOOTH_ROWS:
        at = date2num([_when(int(t)) for t in rows.at_us[SMOOTH_ROWS - 1 :: 20]])
        lines = {"loop": rows.loop} | (
            {} if static is None else {"first model, never retrained": static(rows.numbers, rows.texts)}
        )
        for label, answers in lines.items():
            axes.plot(at, np.convolve(rows.losses(answers), kernel, "valid")[::20], label=label, linewidth=1.4)
    marks = [("drift", m.payload.clock_us) for m in topics.get("drift", []) if m.payload.kind == SERIES_KIND_ERROR]
    marks += [("retrain", m.payload.clock_us) for m in topics.get("retrain", [])]
    marks += [
        ("release", m.payload.clock_us)
        for m in topics.get("releases", [])
        if m.payload.decision_id and not m.payload.pending_retrain
    ]
    if injected is not None:
        marks.append(("injected", int(datetime.fromisoformat(injected).timestamp() * 1e6)))
    for kind, time_us in marks:
        axes.axvline(
            date2num(_when(time_us)), color=COLOURS[kind], linewidth=2.2 if kind == "injected" else 1.0, alpha=0.7
        )
    axes.xaxis_date()
    axes.set_ylabel(f"{LOSS_NAMES[rows.task]}, {LOSS_UNITS[rows.task]}")
    if axes.has_data() and axes.get_legend_handles_labels()[0]:
        axes.legend(loc="upper left")
    axes.grid(alpha=0.25)
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    svg = text.getvalue()
    return svg[svg.index("<svg") :]


def write_report(
    path: Path,
    use_case: UseCase,
    summary: dict[str, Any],
    topics: Mapping[str, list[Message[Any]]],
    rows: JudgedRows,
    static: Predict | None,
) -> None:
    """Writes one self-contained HTML page."""
    decisions = [
        {
            "at": _when(m.payload.clock_us).isoformat(" ", "minutes"),
            "kind": DecisionKind.Name(m.payload.kind).removeprefix("DECISION_KIND_").replace("_", " ").lower(),
            "because": m.payload.because,
        }
        for m in topics.get("decisions", [])
    ]
    drifts = [
        {
            "at": _when(m.payload.clock_us).isoformat(" ", "minutes"),
            "series": m.payload.series,
            "since": _when(m.payload.since_us).isoformat(" ", "minutes"),
            "before": m.payload.before,
            "after": m.payload.after,
            "rows": m.payload.labels_since,
        }
        for m in topics.get("drift", [])
    ]
    figure = _figure(rows, static, topics, summary["drift"]["injected_at"])
    page = Environment(autoescape=True).from_string(PAGE.replace("{{ figure }}", "{{ figure|safe }}"))
    path.write_text(
        page.render(
            s=summary,
            figure=figure,
            smooth=SMOOTH_ROWS,
            colours=COLOURS,
            decisions=decisions,
            drifts=drifts,
            loss=LOSS_NAMES[rows.task],
            unit=LOSS_UNITS[rows.task],
        )
    )
