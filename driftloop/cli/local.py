"""`driftloop up` and `driftloop down`: the loop on this machine, in the foreground, and its end from elsewhere."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Literal

import click

from driftloop.artifacts import ArtifactStore
from driftloop.artifacts.schemas import SchemaHistory
from driftloop.cli.checkout import import_from_checkout
from driftloop.settings import complaints
from driftloop.usecase import UnknownUseCase, UseCase, UseCaseError, load_use_case

if TYPE_CHECKING:
    from deploy.local.settings import LocalSettings

_STATE = click.option(
    "--state",
    "state_dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for data, artifacts and logs; build/local of the checkout by default.",
)


@click.command()
@click.option("--use-case", default="flights", show_default=True, help="Name of the use case.")
@click.option(
    "--clock-mode",
    type=click.Choice(["live", "replay"]),
    help="Who moves the clock; the use case's own choice by default.",
)
@_STATE
def up(use_case: str, clock_mode: Literal["live", "replay"] | None, state_dir: Path | None) -> None:
    """Start Kafka and the five services here and keep them running until Ctrl-C."""
    declared = _require_use_case(use_case)
    settings = local_settings()
    from deploy.local import LocalError, LocalLoop
    from deploy.local.loop import HTTP_DOORS

    # Whatever asks politely is treated as Ctrl-C, which a shell's background job would ignore otherwise; what does not ask
    # is the keeper's business.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    loop = LocalLoop(use_case, state_dir, clock_mode=clock_mode, reporter=_say, settings=settings)
    refused = SchemaHistory(ArtifactStore(loop.artifacts_url), use_case).judged(declared).refused
    if refused:  # ingest would say so too, in its log, three times
        listed = "".join(f"\n  {why}" for why in refused)
        raise click.ClickException(
            f"the schema of {use_case} may not follow the one in use (driftloop schema):{listed}"
        )
    try:
        with loop:
            for name, address in loop.addresses.items():
                http = f"  http://{loop.http_addresses[name]}" if name in HTTP_DOORS else ""
                _say(f"  {name:<9} {address}{http}")
            _say(f"  {'kafka':<9} {loop.bootstrap_servers}")
            _say(f"  {'artifacts':<9} {loop.artifacts_url}")
            _say(f"The loop runs; logs are in {loop.log_dir}. Stop it with Ctrl-C or driftloop down.")
            loop.wait()
    except LocalError as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        _say("Stopped.")


@click.command()
@_STATE
def down(state_dir: Path | None) -> None:
    """Stop the loop that `driftloop up` started, from another terminal."""
    settings = local_settings()
    from deploy.local import LocalError, stop_holder

    state_dir = (state_dir or settings.state_dir).absolute()
    try:
        stopped = stop_holder(state_dir, settings.down_timeout_s)
    except LocalError as error:
        raise click.ClickException(str(error)) from error
    click.echo("Stopped." if stopped else f"Nothing runs in {state_dir}.")


def _require_use_case(name: str) -> UseCase:
    try:
        return load_use_case(name, os.environ.get("DRIFTLOOP_USECASES", ""))
    except UnknownUseCase as error:
        raise click.UsageError(str(error)) from error
    except UseCaseError as error:
        raise click.ClickException(str(error)) from error


def local_settings() -> LocalSettings:
    """Settings from the environment, once it is sure that what starts the loop is here."""
    import_from_checkout("deploy/local", "The loop is started")
    from pydantic import ValidationError

    try:
        from deploy.local import LocalSettings

        return LocalSettings()
    except ImportError as error:
        raise click.ClickException(f"Starting the loop needs {error.name}: pip install 'driftloop[local]'.") from error
    except ValidationError as error:
        raise click.UsageError("; ".join(complaints(LocalSettings, error))) from error


def _say(line: str) -> None:
    with suppress(OSError):  # a terminal that was closed must not keep the loop from stopping in order
        click.echo(line)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
