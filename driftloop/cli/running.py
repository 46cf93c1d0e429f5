"""A loop that somebody else keeps running (Docker Compose, Kubernetes), for `driftloop demo`: where its doors are; starts nothing."""

from __future__ import annotations

import os
from types import TracebackType
from typing import Self

import click

from driftloop.cli.broker import VARIABLE, brokers_of_environment
from driftloop.cli.history import read_topics

DEFAULTS = {
    "INGEST_ADDRESS": "127.0.0.1:7001",
    "SERVING_ADDRESS": "127.0.0.1:7003",
    "DRIFTLOOP_ARTIFACTS_URL": "build/local/artifacts",
}


class RunningLoop:
    """The same view of a loop as `deploy.local.LocalLoop` gives, from the environment; leaving it stops nothing. UsageError: it names no broker."""

    peak_memory_bytes = 0  # unknown: its processes are on other machines or in other containers

    def __init__(self) -> None:
        found = {name: os.environ.get(name) or default for name, default in DEFAULTS.items()}
        try:
            self.bootstrap_servers = brokers_of_environment()
        except ValueError as error:
            raise click.UsageError(f"{VARIABLE}: {error}") from error
        self.addresses = {"ingest": found["INGEST_ADDRESS"], "serving": found["SERVING_ADDRESS"]}
        self.artifacts_url = found["DRIFTLOOP_ARTIFACTS_URL"]

    def restarts(self, service: str) -> int:
        """Not known here."""
        return 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trail: TracebackType | None
    ) -> None:
        """Nothing was started."""


def require_empty(bootstrap_servers: str, use_case: str) -> None:
    """ClickException if the loop has events already: a replay begins at its first event, and a clock never goes back."""
    for _ in read_topics(bootstrap_servers, use_case, ["events"]):
        raise click.ClickException(
            f"this loop already holds events of {use_case}, and its clock cannot go back to the first: remove its data "
            "(docker compose down --volumes) and start it again."
        )
