"""Every metric of every service, declared once with its unit and what a change of it means; never what records them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from opentelemetry import metrics as otel
from opentelemetry.metrics import CallbackOptions, Counter, Histogram, MeterProvider, Observation

Kind = Literal["counter", "histogram", "gauge"]
SHARED = "shared"
"""The `service` of a metric that every service records; the resource attribute `service.name` tells them apart."""
SERVICES = ("ingest", "features", "serving", "monitor", "trainer")

# Seconds. A call takes about a millisecond, a checkpoint up to seconds: 0.5 ms to 10 s in steps of about two.
CALL_BUCKETS_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
# Seconds. Training stages take seconds to an hour.
STAGE_BUCKETS_S = (0.1, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 900, 3600)
# Seconds of use-case time: feature values are minutes to days old.
AGE_BUCKETS_S = (60, 300, 900, 3600, 3 * 3600, 12 * 3600, 86400, 7 * 86400)


class UndeclaredMetric(Exception):
    """A metric that `METRICS` does not declare, or declares as another kind: declare it there first."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. `name` is unique in its service; `unit` follows UCUM ("s", "By", "{event}"); `labels` are all it carries."""

    service: str
    name: str
    kind: Kind
    unit: str
    meaning: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()

    @property
    def otel_name(self) -> str:
        """The name given to OpenTelemetry."""
        return f"driftloop.{self.name}" if self.service == SHARED else f"driftloop.{self.service}.{self.name}"

    @property
    def prometheus_name(self) -> str:
        """The name that dashboards and alerts query (a histogram adds _bucket, _sum and _count)."""
        name = self.otel_name.replace(".", "_")
        return f"{name}_total" if self.kind == "counter" else name

    @property
    def series_names(self) -> tuple[str, ...]:
        """All names under which Prometheus holds it."""
        name = self.prometheus_name
        return (f"{name}_bucket", f"{name}_sum", f"{name}_count") if self.kind == "histogram" else (name,)


def _counter(service: str, name: str, unit: str, meaning: str, *labels: str) -> Metric:
    return Metric(service, name, "counter", unit, meaning, labels)


def _gauge(service: str, name: str, unit: str, meaning: str, *labels: str) -> Metric:
    return Metric(service, name, "gauge", unit, meaning, labels)


def _seconds(
    service: str, name: str, meaning: str, *labels: str, buckets: tuple[float, ...] = CALL_BUCKETS_S
) -> Metric:
    return Metric(service, name, "histogram", "s", meaning, labels, buckets)


_DECLARED = (
    # Of every service.
    _gauge(
        SHARED,
        "clock_seconds",
        "s",
        "Use-case clock, seconds since the epoch. Standing still: no input, or a stuck writer.",
        "stage",
    ),
    _gauge(
        SHARED,
        "lag_records",
        "{record}",
        "Records between the broker's end and what is applied. Rising: too slow.",
        "topic",
        "partition",
    ),
    _counter(
        SHARED, "records_folded", "{record}", "Records that a heart has folded. Flat while lag rises: stuck.", "stage"
    ),
    _seconds(SHARED, "fold_seconds", "Time to fold one batch, outputs not included.", "stage"),
    _counter(
        SHARED,
        "checkpoints",
        "{checkpoint}",
        "Durable checkpoints. None for minutes: a restart will repeat much.",
        "stage",
    ),
    _seconds(SHARED, "checkpoint_seconds", "From the start of a checkpoint to its offsets committed.", "stage"),
    _counter(SHARED, "dead_letters", "{record}", "Records refused and kept aside. Any rise deserves a look.", "rule"),
    _counter(SHARED, "messages_produced", "{message}", "Messages that the broker has acknowledged.", "topic"),
    _counter(
        SHARED,
        "delivery_failures",
        "{message}",
        "Messages that the broker refused for good; the service stops.",
        "topic",
    ),
    _gauge(
        SHARED,
        "producer_queue_messages",
        "{message}",
        "Messages not acknowledged yet. Near its bound: the broker is slow.",
    ),
    _counter(
        SHARED,
        "duplicates",
        "{record}",
        "Records dropped because they were seen before; a burst follows a restart.",
        "stage",
    ),
    _gauge(
        SHARED,
        "event_delay_seconds",
        "s",
        "known_at less event time of the newest record taken: how late events come. A jump: a producer is behind.",
        "stage",
    ),
    # Of every process; observed when metrics are exported.
    _counter(SHARED, "process_cpu_seconds", "s", "Processor time used. One per second: a core is full."),
    _gauge(SHARED, "process_memory_bytes", "By", "Resident memory. Near the container's limit: it will be killed."),
    _gauge(SHARED, "process_threads", "{thread}", "Threads of the process. Rising without end: a leak."),
    _gauge(SHARED, "process_open_files", "{file}", "Open files and sockets. Rising without end: a leak."),
    _gauge(
        SHARED, "started_at_seconds", "s", "When the process began, seconds since the epoch. Changes: it restarted."
    ),
    _gauge(
        SHARED,
        "wall_clock_seconds",
        "s",
        "The process's own clock when it told its metrics. Far from the collector's: a clock is wrong, or telemetry stands.",
    ),
    # ingest
    _counter("ingest", "events_accepted", "{event}", "Events written and acknowledged.", "event_type"),
    _counter(
        "ingest", "events_duplicate", "{event}", "Events that had come before with the same content.", "event_type"
    ),
    _counter(
        "ingest",
        "events_rejected",
        "{event}",
        "Events in dead letters, by the first rule broken. A jump: a producer changed.",
        "rule",
    ),
    _counter(
        "ingest",
        "calls_refused",
        "{call}",
        "Calls answered RESOURCE_EXHAUSTED. Rising: more capacity is needed.",
        "bound",
    ),
    _seconds(
        "ingest",
        "call_seconds",
        "From a call's arrival to its answer, the broker's acknowledgement included.",
        "method",
    ),
    _gauge("ingest", "events_in_flight", "{event}", "Events sent and not acknowledged yet."),
    _gauge("ingest", "window_ids", "{id}", "Event ids that the duplicate window remembers."),
    _counter("ingest", "watermarks", "{watermark}", "Watermarks written, over all partitions."),
    _counter(
        "ingest",
        "expectations_unmet",
        "{event}",
        "Accepted events that do not meet an expectation. A jump: a producer or the world changed.",
        "rule",
        "consequence",
    ),
    _counter("ingest", "incidents", "{incident}", "Incidents told of, by the expectation that is not met.", "rule"),
    # features
    _counter("features", "updates", "{update}", "Feature values emitted, by what triggered them.", "view", "trigger"),
    _counter("features", "late_events", "{event}", "Events behind the lateness bound, left out of aggregates.", "view"),
    _counter(
        "features", "overflowed_events", "{event}", "Events that left a window before their time: a key has too many."
    ),
    _seconds("features", "online_write_seconds", "One batch into the online store."),
    _counter("features", "online_rows", "{row}", "Rows written to the online store."),
    _gauge("features", "online_behind_rows", "{row}", "Updates emitted and not yet in the online store.", "partition"),
    _counter("features", "offline_rows", "{row}", "Rows in offline parts that a manifest names.", "table"),
    _counter(
        "features", "parity_values", "{value}", "Served values compared with the offline log by `features parity`."
    ),
    _counter(
        "features",
        "parity_mismatches",
        "{value}",
        "Served values that the offline log gives otherwise. Any that is unexplained is a fault.",
        "feature",
        "cause",
    ),
    # serving
    _counter("serving", "predictions", "{prediction}", "Answers, by the role of the model that gave them.", "arm"),
    _counter(
        "serving",
        "asking_events",
        "{event}",
        "Events that ask for a prediction: answered, repeated, too_old, no_model, request, no_usable_score.",
        "outcome",
    ),
    _seconds(
        "serving",
        "predict_seconds",
        "From a call's arrival to its answer, its spooling included; of one call in eight.",
        "method",
    ),
    _counter(
        "serving",
        "calls_refused",
        "{call}",
        "Calls not answered, by gRPC status code. FAILED_PRECONDITION: no model yet.",
        "code",
    ),
    _counter(
        "serving",
        "inputs_defaulted",
        "{input}",
        "Inputs for which no value was known. A jump: a feature has gone.",
        "view",
    ),
    Metric(
        "serving",
        "feature_age_seconds",
        "histogram",
        "s",
        "Use-case clock less known_at of values read; of one call in eight.",
        ("view",),
        AGE_BUCKETS_S,
    ),
    _counter(
        "serving", "bundles", "{bundle}", "Bundles loaded or refused, with the rule that refused them.", "outcome"
    ),
    _seconds("serving", "swap_seconds", "From a release read to its models answering.", buckets=STAGE_BUCKETS_S),
    _gauge(
        "serving",
        "release_revision",
        "{revision}",
        "Revision of the release answered by. Replicas differ: one is stuck.",
        "use_case",
    ),
    _gauge(
        "serving",
        "spool_records",
        "{record}",
        "Logged predictions not yet acknowledged by the broker. Rising: drain is stuck.",
        "use_case",
    ),
    _gauge("serving", "spool_bytes", "By", "Size of the prediction spool on disk.", "use_case"),
    _gauge("serving", "view_rows", "{row}", "Feature entities in the in-process view.", "use_case"),
    _counter(
        "serving",
        "view_reads",
        "{entity}",
        "Feature entities looked up: hit, fetched from the online store, unknown. Many fetched: the view is too small.",
        "outcome",
    ),
    _counter("serving", "guardrails", "{command}", "Commands that a guardrail sent to monitor.", "guardrail"),
    # monitor
    _counter("monitor", "scores", "{score}", "Matured entities, by state (matched, never, corrected).", "state"),
    _gauge(
        "monitor",
        "pending_entities",
        "{entity}",
        "Entities whose label has not matured. Rising without end: labels stopped.",
        "partition",
    ),
    _gauge(
        "monitor",
        "log_loss",
        "{nat}",
        "Log loss of the newest judged block of mature labels, of each model's own scores and of what was answered.",
        "role",
    ),
    _gauge(
        "monitor",
        "absolute_error",
        "{label}",
        "Regression, instead of log_loss: mean absolute error of that block, in the label's own unit.",
        "role",
    ),
    _counter("monitor", "alarms", "{alarm}", "Drift alarms, by kind of series.", "kind"),
    _counter("monitor", "decisions", "{decision}", "Decisions, by kind, also those not to act.", "kind"),
    _counter(
        "monitor", "recalibrations", "{release}", "Releases by which late labels moved answers, without a decision."
    ),
    _counter("monitor", "retrains", "{request}", "Retrain requests, by reason.", "reason"),
    _gauge("monitor", "release_revision", "{revision}", "Newest release revision."),
    _gauge("monitor", "retrain_open", "{request}", "1 while a retrain request waits for its answer."),
    _counter("monitor", "incidents", "{incident}", "Findings that need a person."),
    # trainer
    _counter("trainer", "requests", "{request}", "Retrain requests taken, by reason.", "reason"),
    _counter("trainer", "models", "{model}", "Answers to requests: published, or refused by a gate.", "outcome"),
    _counter("trainer", "gates_failed", "{gate}", "Gates that a challenger did not pass.", "gate"),
    _seconds("trainer", "stage_seconds", "Time of one stage of a training run.", "stage", buckets=STAGE_BUCKETS_S),
    _counter("trainer", "row_epochs", "{row}", "Rows times epochs over all fits: the cost of training."),
    _gauge("trainer", "dataset_rows", "{row}", "Rows of the newest training set."),
    _gauge(
        "trainer", "requests_open", "{request}", "Retrain requests read and not answered. More than one: it is behind."
    ),
    _gauge(
        "trainer",
        "device_utilisation_ratio",
        "1",
        "Share of the time since the last export that the training device worked; of the CPU: of one core.",
        "device",
    ),
    _gauge(
        "trainer", "device_memory_bytes", "By", "Memory in use on the training device; of the CPU: resident.", "device"
    ),
    _counter(
        "trainer",
        "recordings",
        "{recording}",
        "Answers told to MLflow or OpenLineage, or given up. Failed: nobody will find that run there.",
        "to",
        "outcome",
    ),
)


def _by_name(declared: tuple[Metric, ...]) -> Mapping[str, Metric]:
    found = {metric.otel_name: metric for metric in declared}
    if len(found) != len(declared):
        raise UndeclaredMetric("two metrics have the same name")
    return found


METRICS: Mapping[str, Metric] = _by_name(_DECLARED)
"""All metrics by their OpenTelemetry name."""


class Gauge:
    """The newest value of something that goes up and down."""

    def __init__(self, meter: otel.Meter, metric: Metric) -> None:
        self._gauge = meter.create_gauge(metric.otel_name, metric.unit, metric.meaning)

    def set(self, value: float, attributes: Mapping[str, str] | None = None) -> None:
        """Takes the value of now."""
        self._gauge.set(value, attributes)


class Instruments:
    """The metrics that one service may record, by their short names; UndeclaredMetric for any other."""

    def __init__(self, service: str, provider: MeterProvider | None = None) -> None:
        if service not in SERVICES:
            raise UndeclaredMetric(f"{service!r} is no service: {', '.join(SERVICES)}")
        self._service = service
        self._meter = (provider or otel.get_meter_provider()).get_meter("driftloop")

    def _metric(self, name: str, kind: Kind) -> Metric:
        metric = METRICS.get(f"driftloop.{self._service}.{name}") or METRICS.get(f"driftloop.{name}")
        if metric is None or metric.kind != kind:
            raise UndeclaredMetric(f"{self._service} declares no {kind} {name!r} in driftloop/telemetry/metrics.py")
        return metric

    def counter(self, name: str) -> Counter:
        """A declared counter: `.add(n, {label: value})`."""
        metric = self._metric(name, "counter")
        return self._meter.create_counter(metric.otel_name, metric.unit, metric.meaning)

    def histogram(self, name: str) -> Histogram:
        """A declared histogram: `.record(value, {label: value})`."""
        metric = self._metric(name, "histogram")
        return self._meter.create_histogram(
            metric.otel_name, metric.unit, metric.meaning, explicit_bucket_boundaries_advisory=list(metric.buckets)
        )

    def observed(self, name: str, observe: Callable[[], Iterable[tuple[float, Mapping[str, str]]]]) -> None:
        """A declared gauge or counter that is asked for its values (with their labels) at every export, on its thread."""
        metric = METRICS.get(f"driftloop.{self._service}.{name}") or METRICS.get(f"driftloop.{name}")
        kind: Kind = "counter" if metric is not None and metric.kind == "counter" else "gauge"
        metric = self._metric(name, kind)

        def callback(options: CallbackOptions) -> list[Observation]:
            return [Observation(value, dict(labels)) for value, labels in observe()]

        if kind == "counter":
            self._meter.create_observable_counter(metric.otel_name, [callback], metric.unit, metric.meaning)
        else:
            self._meter.create_observable_gauge(metric.otel_name, [callback], metric.unit, metric.meaning)

    def gauge(self, name: str) -> Gauge:
        """A declared gauge: `.set(value, {label: value})`."""
        return Gauge(self._meter, self._metric(name, "gauge"))


def instruments(service: str, provider: MeterProvider | None = None) -> Instruments:
    """The instruments of a service; what is recorded before `setup_telemetry`, or without a collector, costs and keeps nothing."""
    return Instruments(service, provider)
