"""`driftloop bundles`: which published models the artifact store holds, and removal of those that nobody will need again."""

from __future__ import annotations

import json

import click

from driftloop.artifacts import ArtifactStore
from driftloop.artifacts.archive import ARCHIVE_TOPICS, remove, sorted_out
from driftloop.cli.broker import bootstrap_servers_option
from driftloop.cli.history import first_by_id, read_topics
from driftloop.contracts import rfc3339
from driftloop.usecase import DeclarationError
from driftloop.usecase.durations import duration_us


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
@bootstrap_servers_option
def prune(
    use_case: str, keep: int, older_than: str, dry_run: bool, as_json: bool, artifacts: str, bootstrap_servers: str
) -> None:
    """Remove bundles that no release, rollback or returning concept may need."""
    try:
        older_than_us = duration_us(older_than)
    except DeclarationError as error:
        raise click.UsageError(str(error)) from error
    told = first_by_id(read_topics(bootstrap_servers, use_case, ARCHIVE_TOPICS)).values()
    of = {name: [m.payload for m in told if m.topic == name] for name in ARCHIVE_TOPICS}
    releases = sorted(of["releases"], key=lambda release: release.revision)
    store, removed = ArtifactStore(artifacts), 0
    for bundle in sorted_out(of["models"], releases, of["retrain"], keep, older_than_us):
        goes = not bundle.why and store.exists(bundle.url)
        if goes and not dry_run:
            remove(store, bundle)
        removed += goes
        row = {"model": bundle.model_id, "clock": rfc3339(bundle.clock_us), "removed": goes, "kept_because": bundle.why}
        if as_json:
            click.echo(json.dumps(row))
        elif goes:
            click.echo(f"{bundle.model_id} of {rfc3339(bundle.clock_us)}")
    if not as_json:
        click.echo(f"{removed} bundles {'would be ' * dry_run}removed")
