"""Dashboards, alert rules and runbooks as data: what they ask for is declared, and whoever is alerted finds what to do."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.observability.dashboards import FOLDER, files, queried
from driftloop.telemetry import METRICS

ROOT = Path(__file__).resolve().parents[2]
OBSERVABILITY = ROOT / "deploy" / "observability"
SERIES = {name for metric in METRICS.values() for name in metric.series_names}
DASHBOARDS = {path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}
RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((OBSERVABILITY / "rules" / "driftloop.rules.yaml").read_text())["groups"]
    for rule in group["rules"]
]
BREACHES = yaml.safe_load((OBSERVABILITY / "rules" / "driftloop.tests.yaml").read_text())["tests"]


def expressions(dashboard: dict[str, Any]) -> list[str]:
    return [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]


def test_the_dashboards_are_what_their_code_says() -> None:
    assert {path: path.read_text() for path in files()} == files()
    assert set(DASHBOARDS) == {"loop", "ingest", "features", "serving", "models", "trainer", "kafka"}


@pytest.mark.parametrize("name", sorted(DASHBOARDS))
def test_a_dashboard_asks_only_for_metrics_that_are_declared_and_explains_them(name: str) -> None:
    for panel in DASHBOARDS[name]["panels"]:
        asked = {metric for target in panel["targets"] for metric in queried(target["expr"])}
        assert asked, panel["title"]
        assert asked <= SERIES, panel["title"]
        assert panel["description"], panel["title"]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_asks_for_declared_metrics_and_its_runbook_says_what_to_look_at_and_do(rule: dict[str, Any]) -> None:
    assert queried(rule["expr"]) <= SERIES
    assert rule["labels"]["severity"] in {"page", "ticket"}
    runbook = (ROOT / rule["annotations"]["runbook_url"]).read_text()
    assert runbook.startswith(f"# {rule['alert']}\n")
    assert rule["expr"] in runbook
    for part in ("\n## Look\n\n- ", "\n## Do\n\n- "):
        assert part in runbook


def test_every_alert_has_a_breach_in_which_promtool_lets_it_fire_and_every_runbook_an_alert() -> None:
    alerts = {rule["alert"] for rule in RULES}
    assert {breach["name"] for breach in BREACHES} == alerts
    written = {path.name for path in (ROOT / "docs" / "runbooks").glob("*.md")} - {"README.md"}
    assert {Path(rule["annotations"]["runbook_url"]).name for rule in RULES} == written


def test_every_declared_metric_is_on_a_dashboard_or_behind_an_alert() -> None:
    asked = {metric for dashboard in DASHBOARDS.values() for e in expressions(dashboard) for metric in queried(e)}
    asked |= {metric for rule in RULES for metric in queried(rule["expr"])}
    unseen = [m.otel_name for m in METRICS.values() if not asked & set(m.series_names)]
    assert not unseen, "give each a panel in deploy/observability/dashboards.py, then make dashboards"


def test_every_declared_metric_is_recorded_by_the_code_of_its_service() -> None:
    def code(folder: str) -> str:
        return "\n".join(path.read_text() for path in (ROOT / folder).rglob("*.py") if path.name != "metrics.py")

    library, services = (
        code("driftloop"),
        {path.name: code(f"services/{path.name}") for path in (ROOT / "services").iterdir()},
    )
    for metric in METRICS.values():
        text = library + ("\n".join(services.values()) if metric.service == "shared" else services[metric.service])
        assert re.search(rf'"{metric.name}"', text), metric.otel_name
