"""Registers the subcommands; each lives in the module of its name and imports what it needs when it runs."""

from __future__ import annotations

import importlib
from typing import Any

import click

COMMANDS = {
    "up": "driftloop.cli.local:up",
    "down": "driftloop.cli.local:down",
    "demo": "driftloop.cli.demo:demo",
    "replay": "driftloop.cli.replay:replay",
    "replay-window": "driftloop.cli.replay_window:replay_window",
    "new": "driftloop.cli.new:new",
    "backtest": "driftloop.cli.backtest:backtest",
    "features": "driftloop.cli.features:features",
    "trace": "driftloop.cli.trace:trace",
    "incidents": "driftloop.cli.incidents:incidents",
    "dead-letters": "driftloop.cli.dead_letters:dead_letters",
    "rollback": "driftloop.cli.orders:rollback",
    "approve": "driftloop.cli.orders:approve",
    "reject": "driftloop.cli.orders:reject",
    "pin": "driftloop.cli.orders:pin",
    "unpin": "driftloop.cli.orders:unpin",
    "pause": "driftloop.cli.orders:pause",
    "drain": "driftloop.cli.orders:drain",
    "resume": "driftloop.cli.orders:resume",
    "ab": "driftloop.cli.ab:ab",
    "bundles": "driftloop.cli.bundles:bundles",
    "schema": "driftloop.cli.schema:schema",
}
SUMMARIES = {
    "up": "Start Kafka and the five services here, until Ctrl-C.",
    "down": "Stop a running loop.",
    "demo": "Run the whole loop on recorded events and show what it did.",
    "replay": "Replay recorded events against a running loop.",
    "replay-window": "Replay recorded topics through the same code, and say where it differs.",
    "new": "Write a use case from a table, to read and correct.",
    "backtest": "Show what each retraining policy would have cost and won on recorded data.",
    "features": "Compute feature values anew, and compare what was served with what was known.",
    "trace": "Print the causes and consequences of anything that has an id.",
    "incidents": "List what a person should look at, such as faults of data.",
    "dead-letters": "Look at what was refused, and send events again once the reason is gone.",
    "rollback": "Return to the former champion at once.",
    "approve": "Approve the promotion that waits for a person.",
    "reject": "Take the challenger out of the comparison.",
    "pin": "Keep a champion in its place, whatever the evidence.",
    "unpin": "Let evidence decide again.",
    "pause": "Let the release stand still.",
    "drain": "Let the challenger answer nobody.",
    "resume": "End a pause or a drain.",
    "ab": "Let named arms answer beside the champion, and see how each does.",
    "bundles": "Remove published models that nobody will need again.",
    "schema": "See what a change of the schema would break, before it does.",
}


class LazyGroup(click.Group):
    """Imports a subcommand only when it is called: `driftloop --help` takes no seconds."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name].partition(":")
        command = getattr(importlib.import_module(module), name)
        assert isinstance(command, click.Command)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Says in one line what is wrong outside of a command: the broker is away, a topic, a file, an artifact or a declaration."""
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            from driftloop.artifacts import ArtifactError
            from driftloop.messaging import MessagingError
            from driftloop.usecase import UseCaseError

            if isinstance(error, ArtifactError | MessagingError | TimeoutError | UseCaseError):
                raise click.ClickException(str(error)) from error
            if isinstance(error, OSError) and error.filename is not None:  # a place that cannot be written or read
                raise click.ClickException(str(error)) from error
            if wrong := _wrong_settings(error):
                raise click.UsageError(wrong) from error
            raise

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(SUMMARIES.items()))


def _wrong_settings(error: Exception) -> str:
    """Which variables of the environment cannot be; empty where it is not about them."""
    from pydantic import ValidationError

    if not isinstance(error, ValidationError):
        return ""
    from driftloop.featurestore.shared import SharedStores
    from driftloop.messaging import KafkaSettings
    from driftloop.settings import complaints
    from driftloop.tables.settings import TableSettings
    from driftloop.telemetry import TelemetrySettings

    read = {kind.__name__: kind for kind in (KafkaSettings, SharedStores, TableSettings, TelemetrySettings)}
    return "; ".join(complaints(read[error.title], error)) if error.title in read else ""


@click.command(cls=LazyGroup)
@click.version_option(package_name="driftloop")
def main() -> None:
    """Machine learning on event streams that corrects itself."""


if __name__ == "__main__":
    main()
