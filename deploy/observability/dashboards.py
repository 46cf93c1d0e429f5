"""Grafana's dashboards, made from the lines below: `python -m deploy.observability.dashboards` writes them, `--check` compares.

A panel names its queries; what a metric means is taken from where it is declared, so that the page explains itself.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from driftloop.telemetry import METRICS

FOLDER = Path(__file__).parent / "dashboards"
_WIDTH, _PANEL_HEIGHT, _ROW = 24, 8, 3  # Grafana's grid; three panels beside each other
_RATE = "[$__rate_interval]"


@dataclass(frozen=True)
class Panel:
    """A graph (or, `kind` "stat", a number). `queries`: pairs of PromQL and legend. `unit` is one of Grafana's."""

    title: str
    queries: tuple[tuple[str, str], ...]
    unit: str = "short"
    kind: str = "timeseries"


def rate(metric: str, by: str = "", where: str = "") -> tuple[str, str]:
    """Per second, summed over everything but `by`."""
    grouped = f" by ({by})" if by else ""
    return f"sum{grouped} (rate({metric}{{{where}}}{_RATE}))", f"{{{{{by}}}}}" if by else "all"


def quantiles(metric: str, by: str = "") -> tuple[tuple[str, str], ...]:
    """Median and 99th percentile of a histogram."""
    label = f"{by}, le" if by else "le"
    legend = f"{{{{{by}}}}} " if by else ""
    return tuple(
        (f"histogram_quantile({q}, sum by ({label}) (rate({metric}_bucket{_RATE})))", f"{legend}p{round(q * 100)}")
        for q in (0.5, 0.99)
    )


def newest(metric: str, by: str, where: str = "") -> tuple[str, str]:
    """The value of now, the greatest of what `by` does not tell apart."""
    return f"max by ({by}) ({metric}{{{where}}})", f"{{{{{by.replace(', ', '}} {{')}}}}}"


def of_service(service: str) -> tuple[Panel, ...]:
    """What every service's page begins with."""
    job = f'job="driftloop-{service}"'
    return (
        Panel("Processor", (rate("driftloop_process_cpu_seconds_total", where=job),), "percentunit"),
        Panel("Memory", (newest("driftloop_process_memory_bytes", "job", job),), "bytes"),
        Panel(
            "Threads and open files",
            (
                (f"max(driftloop_process_threads{{{job}}})", "threads"),
                (f"max(driftloop_process_open_files{{{job}}})", "files"),
            ),
        ),
    )


DASHBOARDS: dict[str, tuple[str, tuple[Panel, ...]]] = {
    "loop": (
        "The loop at a glance",
        (
            Panel("Services telling", (("count(count by (job) (driftloop_started_at_seconds))", "of 5"),), kind="stat"),
            Panel("Release revision", ((("max(driftloop_monitor_release_revision)", "revision")),), kind="stat"),
            Panel("Retrain open", (("max(driftloop_monitor_retrain_open)", "open"),), kind="stat"),
            Panel("Events accepted", (rate("driftloop_ingest_events_accepted_total", "event_type"),), "ops"),
            Panel("Answers, by arm", (rate("driftloop_serving_predictions_total", "arm"),), "ops"),
            Panel("Calls not answered", (rate("driftloop_serving_calls_refused_total", "code"),), "ops"),
            Panel("Loss on mature labels", (newest("driftloop_monitor_log_loss", "role"),)),
            Panel("Decisions, also those not to act", (rate("driftloop_monitor_decisions_total", "kind"),), "ops"),
            Panel("Alarms", (rate("driftloop_monitor_alarms_total", "kind"),), "ops"),
            Panel("Models, by outcome", (rate("driftloop_trainer_models_total", "outcome"),), "ops"),
            Panel("Clock of each stage", (newest("driftloop_clock_seconds * 1000", "stage"),), "dateTimeAsIso"),
            Panel("Records waiting", (("sum by (job) (driftloop_lag_records)", "{{job}}"),)),
            Panel("Dead letters", (rate("driftloop_dead_letters_total", "rule"),), "ops"),
            Panel("Started", (newest("driftloop_started_at_seconds * 1000", "job"),), "dateTimeFromNow"),
            Panel("Findings for a person", (rate("driftloop_monitor_incidents_total"),), "ops"),
        ),
    ),
    "ingest": (
        "Ingest",
        (
            Panel("Accepted", (rate("driftloop_ingest_events_accepted_total", "event_type"),), "ops"),
            Panel("Rejected, by rule", (rate("driftloop_ingest_events_rejected_total", "rule"),), "ops"),
            Panel("Duplicates", (rate("driftloop_ingest_events_duplicate_total", "event_type"),), "ops"),
            Panel("Calls", (rate("driftloop_ingest_call_seconds_count", "method"),), "ops"),
            Panel("Duration of calls", quantiles("driftloop_ingest_call_seconds", "method"), "s"),
            Panel("Calls refused for lack of room", (rate("driftloop_ingest_calls_refused_total", "bound"),), "ops"),
            Panel("Events on their way to the broker", (newest("driftloop_ingest_events_in_flight", "job"),)),
            Panel("Expectations unmet", (rate("driftloop_ingest_expectations_unmet_total", "rule"),), "ops"),
            Panel("Incidents told of", (rate("driftloop_ingest_incidents_total", "rule"),), "ops"),
            Panel("Ids remembered", (newest("driftloop_ingest_window_ids", "job"),)),
            *of_service("ingest"),
        ),
    ),
    "features": (
        "Features: freshness and lateness",
        (
            Panel(
                "Records folded", (rate("driftloop_records_folded_total", "stage", 'job="driftloop-features"'),), "ops"
            ),
            Panel("Duration of a fold", quantiles("driftloop_fold_seconds", "stage"), "s"),
            Panel("Updates, by trigger", (rate("driftloop_features_updates_total", "trigger"),), "ops"),
            Panel("Behind the lateness bound", (rate("driftloop_features_late_events_total", "view"),), "ops"),
            Panel("Out of a full window", (rate("driftloop_features_overflowed_events_total"),), "ops"),
            Panel("How late events come", (newest("driftloop_event_delay_seconds", "stage"),), "s"),
            Panel("Updates not in the online store", (newest("driftloop_features_online_behind_rows", "partition"),)),
            Panel("Rows written online", (rate("driftloop_features_online_rows_total"),), "ops"),
            Panel("Writing a batch online", quantiles("driftloop_features_online_write_seconds"), "s"),
            Panel("Rows of the offline log", (rate("driftloop_features_offline_rows_total", "table"),), "ops"),
            Panel("Checkpoints", quantiles("driftloop_checkpoint_seconds", "stage"), "s"),
            Panel("Age of values read", quantiles("driftloop_serving_feature_age_seconds", "view"), "s"),
            Panel("Served values compared", (rate("driftloop_features_parity_values_total"),), "ops"),
            Panel("Served values that differ", (rate("driftloop_features_parity_mismatches_total", "cause"),), "ops"),
            *of_service("features"),
        ),
    ),
    "serving": (
        "Serving, by arm",
        (
            Panel("Answers", (rate("driftloop_serving_predictions_total", "arm"),), "ops"),
            Panel("Calls not answered", (rate("driftloop_serving_calls_refused_total", "code"),), "ops"),
            Panel("Events that ask", (rate("driftloop_serving_asking_events_total", "outcome"),), "ops"),
            Panel("Duration of calls", quantiles("driftloop_serving_predict_seconds", "method"), "s"),
            Panel("Inputs without a value", (rate("driftloop_serving_inputs_defaulted_total", "view"),), "ops"),
            Panel("Where values came from", (rate("driftloop_serving_view_reads_total", "outcome"),), "ops"),
            Panel("Age of values read", quantiles("driftloop_serving_feature_age_seconds", "view"), "s"),
            Panel("Answers not with the broker yet", (newest("driftloop_serving_spool_records", "job"),)),
            Panel("Spool on disk", (newest("driftloop_serving_spool_bytes", "job"),), "bytes"),
            Panel("Release revision", (newest("driftloop_serving_release_revision", "instance"),)),
            Panel("Swapping models", quantiles("driftloop_serving_swap_seconds"), "s"),
            Panel("Bundles loaded and refused", (rate("driftloop_serving_bundles_total", "outcome"),), "ops"),
            Panel("Findings of guardrails", (rate("driftloop_serving_guardrails_total", "guardrail"),), "ops"),
            Panel("Entities in the view", (newest("driftloop_serving_view_rows", "job"),)),
            *of_service("serving"),
        ),
    ),
    "models": (
        "Models: quality, drift, calibration",
        (
            Panel("Log loss on mature labels", (newest("driftloop_monitor_log_loss", "role"),)),
            Panel("Absolute error (regression)", (newest("driftloop_monitor_absolute_error", "role"),)),
            Panel("Labels matured, by state", (rate("driftloop_monitor_scores_total", "state"),), "ops"),
            Panel("Alarms, by kind of series", (rate("driftloop_monitor_alarms_total", "kind"),), "ops"),
            Panel("Retrains, by reason", (rate("driftloop_monitor_retrains_total", "reason"),), "ops"),
            Panel("Decisions", (rate("driftloop_monitor_decisions_total", "kind"),), "ops"),
            Panel("Recalibrations of answers", (rate("driftloop_monitor_recalibrations_total"),), "ops"),
            Panel(
                "Gates failed (calibration among them)", (rate("driftloop_trainer_gates_failed_total", "gate"),), "ops"
            ),
            Panel("Entities without a label", (("sum(driftloop_monitor_pending_entities)", "pending"),)),
            *of_service("monitor"),
        ),
    ),
    "trainer": (
        "Trainer: duration, cost, device",
        (
            Panel("Requests, by reason", (rate("driftloop_trainer_requests_total", "reason"),), "ops"),
            Panel("Answers, by outcome", (rate("driftloop_trainer_models_total", "outcome"),), "ops"),
            Panel("Requests open", (newest("driftloop_trainer_requests_open", "job"),)),
            Panel("Duration of stages", quantiles("driftloop_trainer_stage_seconds", "stage"), "s"),
            Panel("Cost: rows times epochs", (rate("driftloop_trainer_row_epochs_total"),), "ops"),
            Panel("Rows of the newest training set", (newest("driftloop_trainer_dataset_rows", "job"),)),
            Panel("Device at work", (newest("driftloop_trainer_device_utilisation_ratio", "device"),), "percentunit"),
            Panel("Device memory", (newest("driftloop_trainer_device_memory_bytes", "device"),), "bytes"),
            Panel("Told to MLflow and OpenLineage", (rate("driftloop_trainer_recordings_total", "outcome"),), "ops"),
            *of_service("trainer"),
        ),
    ),
    "kafka": (
        "Kafka: lag and deliveries",
        (
            Panel("Records waiting, by topic", (("sum by (topic) (driftloop_lag_records)", "{{topic}}"),)),
            Panel("Records waiting, by partition", (newest("driftloop_lag_records", "topic, partition"),)),
            Panel("Messages acknowledged", (rate("driftloop_messages_produced_total", "topic"),), "ops"),
            Panel("Messages refused for good", (rate("driftloop_delivery_failures_total", "topic"),), "ops"),
            Panel("Messages waiting for the broker", (newest("driftloop_producer_queue_messages", "job"),)),
            Panel("Duplicates dropped", (rate("driftloop_duplicates_total", "stage"),), "ops"),
            Panel("Watermarks written", (rate("driftloop_ingest_watermarks_total"),), "ops"),
            Panel("Dead letters", (rate("driftloop_dead_letters_total", "rule"),), "ops"),
            Panel("Checkpoints", (rate("driftloop_checkpoints_total", "stage"),), "ops"),
        ),
    ),
}


def queried(expression: str) -> set[str]:
    """The metrics that an expression of PromQL asks for."""
    return set(re.findall(r"\bdriftloop_[a-z0-9_]+\b", expression))


_BY_SERIES = {name: metric for metric in METRICS.values() for name in metric.series_names}


def _panel(number: int, panel: Panel) -> dict[str, Any]:
    names = sorted({name for expression, _ in panel.queries for name in queried(expression)})
    meanings = dict.fromkeys(_BY_SERIES[name].meaning for name in names)
    width = _WIDTH // _ROW
    return {
        "id": number + 1,
        "type": panel.kind,
        "title": panel.title,
        "description": "\n\n".join(meanings),
        "datasource": {"type": "prometheus", "uid": "prometheus"},
        "gridPos": {
            "x": width * (number % _ROW),
            "y": _PANEL_HEIGHT * (number // _ROW),
            "w": width,
            "h": _PANEL_HEIGHT,
        },
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + place), "expr": expression, "legendFormat": legend}
            for place, (expression, legend) in enumerate(panel.queries)
        ],
    }


def dashboard(name: str) -> dict[str, Any]:
    """A dashboard as Grafana's file provider reads it. KeyError where a query asks for a metric that is not declared."""
    title, panels = DASHBOARDS[name]
    return {
        "uid": f"driftloop-{name}",
        "title": title,
        "tags": ["driftloop"],
        "schemaVersion": 39,
        "version": 1,
        "editable": False,
        "refresh": "15s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "links": [{"type": "dashboards", "tags": ["driftloop"], "title": "driftloop", "asDropdown": True}],
        "panels": [_panel(number, panel) for number, panel in enumerate(panels)],
    }


def files() -> dict[Path, str]:
    """The text of every dashboard's file."""
    return {FOLDER / f"{name}.json": json.dumps(dashboard(name), indent=1) + "\n" for name in DASHBOARDS}


def main() -> int:
    """The exit status: 1 if `--check` finds a file that is not what the code says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    if parser.parse_args().check:
        wrong = [path.name for path, text in files().items() if not path.is_file() or path.read_text() != text]
        if wrong:
            print(
                f"not what deploy/observability/dashboards.py says: {', '.join(wrong)}; run make dashboards",
                file=sys.stderr,
            )
        return 1 if wrong else 0
    for path, text in files().items():
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
