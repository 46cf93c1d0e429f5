"""`driftloop demo`: the whole loop on recorded events, from an empty folder to a summary and a report, ending by itself."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table

from driftloop.cli.local import local_settings
from driftloop.cli.replay import Played, Replay, load_stretch, replay_progress, steps_of, stretch_options
from driftloop.cli.running import RunningLoop, require_empty
from driftloop.client import ClientError
from driftloop.contracts.serving.v1.serving_pb2 import Vector
from driftloop.usecase import DAY_US, ReplayStep, UseCase, UseCaseError, load_replay, replay_steps

if TYPE_CHECKING:
    from deploy.local import LocalLoop
    from driftloop.cli.summary import JudgedRows

WARM_UP_US = 2 * DAY_US  # longer than any window and than the announcement of an entity
GIB = 1 << 30


@click.command()
@click.argument("name")
@click.option("--start", help="First day of the stretch, as 2013-03-01.")
@click.option("--days", type=click.IntRange(2, 366), help="Length of the stretch.")
@click.option("--rows", type=click.IntRange(min=1), help="The first so many rows of a table.")
@click.option(
    "--inject",
    help="Change to inject; 'none' leaves the stream as it was. By default 'concept', where the replay can inject.",
)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=Path("build/demo"), show_default=True)
@click.option(
    "--running",
    is_flag=True,
    help="Start nothing: use the loop at INGEST_ADDRESS, SERVING_ADDRESS, KAFKA_BOOTSTRAP_SERVERS, DRIFTLOOP_ARTIFACTS_URL.",
)
def demo(
    name: str, start: str | None, days: int | None, rows: int | None, inject: str | None, out: Path, running: bool
) -> None:
    """Run the whole loop on recorded events of use case NAME and show what it did."""
    started = time.monotonic()
    console = Console()
    try:
        source = load_replay(name, os.environ.get("DRIFTLOOP_USECASES", ""))
        if inject is None and "inject" in stretch_options(source):
            inject = "concept"
        change = None if inject == "none" else inject
        use_case, stretch = load_stretch(name, start=start, days=days, rows=rows, inject=change)
    except UseCaseError as error:
        raise click.UsageError(str(error)) from error
    loop: LocalLoop | RunningLoop = RunningLoop() if running else _local_loop(name, out, console)
    from driftloop.cli.history import first_by_id, read_topics
    from driftloop.cli.measurements import measure
    from driftloop.cli.report import write_report
    from driftloop.cli.summary import QUALITY_ROWS, by_topic, judged_rows, quality, summarise

    out.mkdir(parents=True, exist_ok=True)
    lasts = (stretch.end_us - stretch.start_us) / DAY_US
    console.print(
        f"[bold]{name}[/]: {stretch.rows} entities over {lasts:.1f} days, change injected: {inject or 'none'}"
    )
    try:
        with _said(loop):
            if running:
                require_empty(loop.bootstrap_servers, name)
            ready_s = time.monotonic() - started
            played = _play(use_case, stretch, loop.addresses["ingest"], loop.addresses["serving"], console)
            messages = first_by_id(read_topics(loop.bootstrap_servers, name))
            measurements = measure(loop.bootstrap_servers, name, played)
            measurements |= {"ready_s": ready_s, "peak_memory_gib": loop.peak_memory_bytes / GIB}
            measurements["restarts"] = {service: loop.restarts(service) for service in loop.addresses}
    except (ClientError, TimeoutError) as error:
        where = (
            "docker compose logs shows the services' logs"
            if running
            else f"the services' logs are in {out / 'local' / 'logs'}"
        )
        raise click.ClickException(f"the replay stopped: {error}; {where}") from error
    summary = summarise(played, messages, stretch.injected_at_us, use_case.predict.on.name)
    topics = by_topic(messages)
    judged = judged_rows(topics, use_case.predict.task)
    static = _first_model(loop.artifacts_url, topics)
    if static is not None:
        newest = judged.last(QUALITY_ROWS)

        def clean(entities: Sequence[str]) -> tuple[dict[str, Vector], dict[str, float]]:
            if stretch.injected_at_us is None:
                return as_judged(newest)
            return clean_rows(name, use_case, entities, [int(at_us) for at_us in newest.at_us])

        summary["quality"] = quality(newest, static, clean)
    summary["seconds"] = round(time.monotonic() - started, 1)
    (out / "summary.json").write_text(json.dumps(summary, indent=1))
    (out / "measurements.json").write_text(json.dumps(measurements | {"seconds": summary["seconds"]}, indent=1))
    write_report(out / "report.html", use_case, summary, topics, judged, static)
    show(summary, measurements, console)
    console.print(f"report: {out / 'report.html'}    summary: {out / 'summary.json'}")
    is_drift = stretch.injected_at_us is not None and change not in getattr(source, "FAULTS", ())
    open_links = missing_links(summary, injected=is_drift)
    if open_links or played.failures:
        raise click.ClickException("the loop did not close: " + "; ".join([*open_links, *played.failures[:3]]))


def _local_loop(name: str, out: Path, console: Console) -> LocalLoop:
    settings = local_settings()
    from deploy.local import LocalLoop

    return LocalLoop(
        name,
        out / "local",
        base_port="free",
        clock_mode="replay",
        fresh=True,
        reporter=lambda line: console.print(f"  {line}"),
        settings=settings,
    )


@contextmanager
def _said(loop: LocalLoop | RunningLoop) -> Iterator[None]:
    """Runs the loop, and says in its sentence why one of our own cannot start."""
    if isinstance(loop, RunningLoop):
        yield
        return
    from deploy.local import LocalError

    try:
        with loop:
            yield
    except LocalError as error:
        raise click.ClickException(str(error)) from error


def _play(use_case: UseCase, stretch: Any, ingest: str, serving: str, console: Console) -> Played:
    player = Replay(use_case, ingest, serving)
    try:
        with replay_progress(use_case, stretch, console) as after_step:
            return player.run(steps_of(use_case, stretch), after_step)
    finally:
        player.close()


def _first_model(artifacts_url: str, topics: dict[str, list[Any]]) -> Any:
    """The predict function of the first model that answered, from its bundle; None if there never was one."""
    from driftloop.artifacts import ArtifactStore
    from driftloop.artifacts.bundles import fetch_bundle, load_bundle
    from driftloop.artifacts.signing import load_verify_key

    for message in sorted(topics.get("releases", []), key=lambda m: m.payload.revision):
        if message.payload.HasField("champion"):
            arm = message.payload.champion
            store = ArtifactStore(artifacts_url)
            folder = Path(tempfile.mkdtemp(prefix="driftloop-bundle-"))
            try:
                file = fetch_bundle(store, arm.bundle_url, arm.bundle_digest, load_verify_key(store), folder, GIB)
                return load_bundle(file, folder / "bentos", arm.model_id).predict
            finally:
                shutil.rmtree(folder, ignore_errors=True)
    return None


def as_judged(rows: JudgedRows) -> tuple[dict[str, Vector], dict[str, float]]:
    """Vectors and labels as they were, by entity: a stream without injection is its own comparison."""
    values = zip(rows.entities, rows.numbers, rows.texts, rows.labels, strict=True)
    found = [(entity, Vector(numbers=numbers, texts=texts), float(label)) for entity, numbers, texts, label in values]
    return {entity: vector for entity, vector, _ in found}, {entity: label for entity, _, label in found}


def clean_rows(
    name: str, use_case: UseCase, entities: Sequence[str], at_us: Sequence[int]
) -> tuple[dict[str, Vector], dict[str, float]]:
    """Vectors and labels of entities on the stream without injection, computed as the features heart would."""
    from datetime import UTC, datetime

    from simulation.vectors import vectors

    first = datetime.fromtimestamp((min(at_us) - WARM_UP_US) / 1e6, UTC).date()
    last = datetime.fromtimestamp(max(at_us) / 1e6, UTC).date()
    stretch = load_replay(name, os.environ.get("DRIFTLOOP_USECASES", "")).stretch(
        start=first.isoformat(), days=(last - first).days + 2
    )
    wanted, label = set(entities), use_case.label
    labels: dict[str, float] = {}

    def steps() -> Iterator[ReplayStep]:
        for step in replay_steps(stretch, use_case.step_us):
            for event in step.events:
                if event.type == label.on.name and event.entity in wanted:
                    labels[event.entity] = use_case.label_of(event.fields)
            yield step

    found = vectors(use_case, steps())
    clean = {
        entity: Vector(numbers=numbers, texts=texts)
        for entity, numbers, texts in zip(found.entities, found.numbers, found.texts, strict=True)
        if entity in wanted
    }
    return clean, labels


def missing_links(summary: dict[str, Any], injected: bool) -> list[str]:
    """What a closed loop would have and this one has not, in words."""
    found = []
    events = summary["events"]
    if events["sent"] != events["accepted"] + events["duplicate"] + events["rejected"]:
        found.append("not every event is accounted for")
    if summary["predictions"]["failed"]:
        found.append(f"{summary['predictions']['failed']} predict calls failed")
    if not any(model["promoted"] for model in summary["models"]):
        found.append("no model was released")
    if injected:
        if summary["drift"]["detected_at"] is None:
            found.append("the injected change was not found")
        if not any(
            model["promoted"] and model["reason"] in ("drift", "decay", "follow_up") for model in summary["models"]
        ):
            found.append("no model that the drift asked for was promoted")
        if not summary["trace"]:
            found.append("no chain of causes leads from an event to a release")
    return found


def show(summary: dict[str, Any], measurements: dict[str, Any], console: Console) -> None:
    """The summary for a person."""
    table = Table(title="What the loop did", show_header=False, title_justify="left")
    for name in ("events", "predictions", "labels"):
        table.add_row(name, "  ".join(f"{value} {key.replace('_', ' ')}" for key, value in summary[name].items()))
    found = summary["drift"]
    if found["injected_at"] is None:
        drift = f"none injected  {found['alarms_before']} alarms of the error  {found['input_alarms']} of the inputs"
    else:
        drift = f"injected {found['injected_at']}  detected {found['detected_at']}  after {found['labels_to_detect']} labels"
    table.add_row("drift", drift)
    for model in summary["models"]:
        state = "promoted" if model["promoted"] else "not promoted" if model["published"] else "refused"
        table.add_row(
            f"model {model['id'][:8]}", f"{model['at'][:16]}  {model['reason']}  {model['trained_rows']} rows  {state}"
        )
    for release in summary["releases"]:
        table.add_row(
            f"release {release['at'][:16]}", f"{release['model'][:8]} {release['stage']}: {release['because']}"
        )
    quality = summary.get("quality", {})
    compared = ["loop", "static", *([] if found["injected_at"] is None else ["static_without_injection"])]
    if quality.get("rows"):
        for metric in quality["metrics"]:
            values = "  ".join(f"{key.replace('_', ' ')} {quality[metric][key]:.3f}" for key in compared)
            table.add_row(f"{metric} on the last {quality['rows']}", values)
        if quality["recovered_share"] is not None:
            table.add_row(
                "recovered", f"{quality['recovered_share']:.0%} of what the change cost the never-retrained model"
            )
    peak_gib = measurements["peak_memory_gib"]
    table.add_row("took", f"{summary['seconds']:.0f} s" + (f", peak memory {peak_gib:.1f} GiB" if peak_gib else ""))
    console.print(table)
