"""`driftloop bundles`: which published models the artifact store holds, and removal of those that nobody will need again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import click

from driftloop.artifacts import ArtifactStore
from driftloop.artifacts.bundles import SIGNATURE_FILE
from driftloop.cli.history import first_by_id, read_topics
from driftloop.contracts import rfc3339
from driftloop.contracts.monitor.v1.monitor_pb2 import Release, RetrainRequest
from driftloop.contracts.trainer.v1.trainer_pb2 import OUTCOME_PUBLISHED, Model
from driftloop.usecase import DeclarationError
from driftloop.usecase.durations import duration_us


@dataclass(frozen=True)
class Bundle:
    """A published model; `why`: what it is kept for, empty: nobody needs it."""

    model_id: str
    url: str
    clock_us: int
    why: str


def needed(releases: Sequence[Release], requests: Sequence[RetrainRequest]) -> dict[str, str]:
    """Models that a release, a rollback or a return to an old concept may ask for, and for which of these.

    All releases and requests that are known, oldest first. The newest request names the former champions that may return; who
    lost its place since then is an arm of the newest release.
    """
    found: dict[str, str] = {}
    if requests:
        newest = requests[-1]
        found |= {archived.model_id: "former champion" for archived in newest.archive}
        found[newest.champion_id] = "former champion"
    for release in releases:
        if release.HasField("champion"):
            found.setdefault(release.champion.model_id, "former champion")
    if releases and releases[-1].HasField("champion"):
        now = releases[-1]
        found |= {arm.model_id: "released" for arm in (now.champion, *now.arms)}
    return found


def sorted_out(
    models: Sequence[Model],
    releases: Sequence[Release],
    requests: Sequence[RetrainRequest],
    keep: int,
    older_than_us: int,
) -> list[Bundle]:
    """Every published model, newest first, with what it is kept for.

    The newest `keep` stay, and what is not older than `older_than_us` on the use case's clock, and what no release has answered
    yet: trainer may have published it a moment ago.
    """
    wanted = needed(releases, requests)
    clock_us = max([release.clock_us for release in releases], default=0)
    pending = releases[-1].pending_retrain if releases else ""
    published = sorted((m for m in models if m.outcome == OUTCOME_PUBLISHED), key=lambda m: (-m.clock_us, m.id))
    found = []
    for place, model in enumerate(published):
        why = wanted.get(model.id, "")
        if not why and (not releases or model.request_id == pending):
            why = "not released yet"
        if not why and place < keep:
            why = f"one of the newest {keep}"
        if not why and model.clock_us > clock_us - older_than_us:
            why = "not old enough"
        found.append(Bundle(model.id, model.bundle_url, model.clock_us, why))
    return found


@click.group("bundles")
def bundles() -> None:
    """See which published models are kept, and remove those that nobody will need again."""


@bundles.command()
@click.argument("use_case", default="flights")
@click.option("--keep", default=50, show_default=True, type=click.IntRange(min=0), help="So many of the newest stay.")
@click.option("--older-than", default="30d", show_default=True, help="Younger ones stay, on the use case's clock.")
@click.option("--dry-run", is_flag=True, help="Say what would be removed, and remove nothing.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per bundle.")
@click.option("--artifacts", envvar="DRIFTLOOP_ARTIFACTS_URL", default="build/local/artifacts", show_default=True)
@click.option("--bootstrap-servers", envvar="KAFKA_BOOTSTRAP_SERVERS", default="127.0.0.1:7092", show_default=True)
def prune(
    use_case: str, keep: int, older_than: str, dry_run: bool, as_json: bool, artifacts: str, bootstrap_servers: str
) -> None:
    """Remove bundles that no release, rollback or returning concept may need."""
    try:
        older_than_us = duration_us(older_than)
    except DeclarationError as error:
        raise click.UsageError(str(error)) from error
    told = first_by_id(read_topics(bootstrap_servers, use_case, ["models", "releases", "retrain"])).values()
    of = {name: [m.payload for m in told if m.topic == name] for name in ("models", "releases", "retrain")}
    releases = sorted(of["releases"], key=lambda release: release.revision)
    store, removed = ArtifactStore(artifacts), 0
    for bundle in sorted_out(of["models"], releases, of["retrain"], keep, older_than_us):
        goes = not bundle.why and store.exists(bundle.url)
        if goes and not dry_run:
            store.delete(bundle.url)
            store.delete(f"{bundle.url.rpartition('/')[0]}/{SIGNATURE_FILE}")
        removed += goes
        row = {"model": bundle.model_id, "clock": rfc3339(bundle.clock_us), "removed": goes, "kept_because": bundle.why}
        if as_json:
            click.echo(json.dumps(row))
        elif goes:
            click.echo(f"{bundle.model_id} of {rfc3339(bundle.clock_us)}")
    if not as_json:
        click.echo(f"{removed} bundles {'would be ' * dry_run}removed")
