"""`driftloop replay-window`: replays a recorded window of production's topics through the hearts, and says where they differ."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import click

from driftloop.cli.broker import bootstrap_servers_option
from driftloop.cli.checkout import import_from_checkout
from driftloop.cli.history import moments, read_topics
from driftloop.usecase import UseCaseError, load_use_case

SHOWN_MAX = 20
_FAR_US = 1 << 62


@click.command("replay-window")
@click.argument("name")
@click.option(
    "--from", "from_text", help="First moment that is compared, as 2013-03-08T12:00, UTC; the beginning if not given."
)
@click.option("--to", "to_text", help="Last moment that is compared; the end if not given.")
@click.option("--file", "file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="A saved window.")
@click.option(
    "--save", "save_to", type=click.Path(dir_okay=False, path_type=Path), help="Save the window here as well."
)
@bootstrap_servers_option
@click.option("--usecases", envvar="DRIFTLOOP_USECASES", default="", help="Folders that hold use cases.")
@click.option("--serving-replicas", type=click.IntRange(1), default=1, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def replay_window(
    name: str,
    from_text: str | None,
    to_text: str | None,
    file: Path | None,
    save_to: Path | None,
    bootstrap_servers: str,
    usecases: str,
    serving_replicas: int,
    as_json: bool,
) -> None:
    """Replay what use case NAME recorded between two moments through the same code: the same ids and decisions must follow.

    The topics are read from their beginning, because the state at the window's start rests on it. Exit code 1: something differs.
    """
    import_from_checkout("simulation", "A window is replayed")
    from simulation.window import TOPICS, WindowUnusable, load, replay, save, window_of

    begin_us, end_us = moments(from_text, to_text)
    from_us, to_us = begin_us or 0, _FAR_US if end_us is None else end_us
    try:
        use_case = load_use_case(name, usecases)
        if file is not None:
            window = load(file)
            window.from_us, window.to_us = max(from_us, window.from_us), min(to_us, window.to_us)
        else:
            records = read_topics(bootstrap_servers, name, TOPICS, control=True)
            window = window_of(name, records, from_us, to_us, serving_replicas)
        if save_to is not None:
            save(window, save_to)
        if window.use_case != name:
            raise WindowUnusable(f"the window is of use case {window.use_case}, not of {name}")
    except (UseCaseError, WindowUnusable) as error:
        raise click.UsageError(str(error)) from error
    found = replay(use_case, window, lambda heart: click.echo(f"folding {heart}", err=True))
    if as_json:
        differences = [asdict(difference) for difference in found.differences]
        click.echo(json.dumps({"same": dict(sorted(found.same.items())), "differences": differences}))
        sys.exit(1 if found.differences else 0)
    click.echo("the same: " + ", ".join(f"{count} {topic}" for topic, count in sorted(found.same.items())))
    if not found.differences:
        click.echo("nothing differs")
        return
    for difference in found.differences[:SHOWN_MAX]:
        click.echo(str(difference))
    if len(found.differences) > SHOWN_MAX:
        click.echo(f"… and {len(found.differences) - SHOWN_MAX} more")
    sys.exit(1)
