"""`driftloop schema`: whether a use case's schema may follow the one in use, what has changed, and who breaks."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import click

from driftloop.artifacts import ArtifactStore
from driftloop.artifacts.schemas import SchemaHistory
from driftloop.contracts.evolution import Change, compare
from driftloop.contracts.schemas import schema_of
from driftloop.usecase import UnknownUseCase, UseCase, UseCaseError, load_use_case

_ARTIFACTS = "build/local/artifacts"


def _options(command: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option("--artifacts", envvar="DRIFTLOOP_ARTIFACTS_URL", default=_ARTIFACTS, show_default=True),
        click.option("--use-case", default="flights", show_default=True),
    ):
        command = option(command)
    return command


def _declared(name: str) -> UseCase:
    try:
        return load_use_case(name, os.environ.get("DRIFTLOOP_USECASES", ""))
    except UnknownUseCase as error:
        raise click.UsageError(str(error)) from error
    except UseCaseError as error:
        raise click.ClickException(str(error)) from error


def _history(artifacts: str, use_case: str) -> SchemaHistory:
    url = artifacts if "://" in artifacts else str(Path(artifacts).absolute())
    return SchemaHistory(ArtifactStore(url), use_case)


def _plain(changes: Iterable[Change]) -> list[dict[str, Any]]:
    return [{"place": c.place, "what": c.what, "breaks": list(c.breaks)} for c in changes]


@click.group()
def schema() -> None:
    """See what a change of a use case's schema would break, before it does."""


@schema.command()
@_options
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def check(use_case: str, artifacts: str, as_json: bool) -> None:
    """Whether the declared schema may follow the one in use; exit code 1 if not."""
    declared = _declared(use_case)
    verdict = _history(artifacts, use_case).judged(declared)
    if as_json:
        version = declared.schema_version
        told = {"version": version, "changes": _plain(verdict.changes), "refused": list(verdict.refused)}
        click.echo(json.dumps(told))
    else:
        for change in verdict.changes:
            click.echo(f"{'breaks ' if change.breaks else 'allowed'}  {change}")
        for why in verdict.refused[sum(bool(change.breaks) for change in verdict.changes) :]:
            click.echo(why)
        if not verdict.refused:
            news = "may be used" if verdict.is_new else "is in use"
            click.echo(f"version {declared.schema_version} of {use_case} {news}")
    sys.exit(1 if verdict.refused else 0)


@schema.command()
@_options
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def history(use_case: str, artifacts: str, as_json: bool) -> None:
    """The versions that were in use, with what each of them changed."""
    versions = _history(artifacts, use_case).stored()
    changes = [compare(former, version) for former, version in pairwise(versions)]
    told = list(zip(versions, [(), *changes], strict=False))
    if as_json:
        rows = [{"version": v.version, "digest": v.digest, "changes": _plain(changed)} for v, changed in told]
        click.echo(json.dumps({"use_case": use_case, "versions": rows}))
        return
    if not versions:
        click.echo(f"no schema of {use_case} is stored in {artifacts}: ingest stores the first one when it starts")
    for version, changed in told:
        click.echo(f"version {version.version} ({version.digest})")
        for change in changed:
            click.echo(f"  {change}")


@schema.command()
@_options
@click.option("--why", required=True, help="For whoever looks at it later.")
def accept(use_case: str, artifacts: str, why: str) -> None:
    """Store the declared schema as the one in use although it breaks something: all producers and readers change with it."""
    declared = _declared(use_case)
    kept = _history(artifacts, use_case)
    versions = kept.stored()
    if versions and declared.schema_version <= versions[-1].version:
        raise click.UsageError(f"version {versions[-1].version} is in use: declare a higher schema_version")
    broken = kept.judged(declared).refused
    new = schema_of(declared)
    new.accepted_because = why
    kept.put(new)
    click.echo(f"version {new.version} of {use_case} is in use, although: {'; '.join(broken) or 'nothing breaks'}")
