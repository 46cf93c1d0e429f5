"""`driftloop trace`: the chain of causes of anything that has an id, walked both ways through the logged messages."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import click

from driftloop.cli.broker import bootstrap_servers_option
from driftloop.cli.history import first_by_id, read_topics
from driftloop.contracts import Message, rfc3339

# From what happened to who answers. `keyed` only repartitions: features name the events themselves as causes.
STAGES = (
    "events",
    "features",
    "predictions",
    "scores",
    "drift",
    "decisions",
    "retrain",
    "models",
    "releases",
    "incidents",
    "commands",
)
MAX_LINES = 200
OTLP_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


@dataclass(frozen=True)
class Link:
    """One message of a chain: how many causes away it is from what was asked for (below 0: a cause, above: a consequence)."""

    distance: int
    message: Message[Any]


class Chain:
    """Messages by id, and the way between them."""

    def __init__(self, messages: Mapping[str, Message[Any]]) -> None:
        self._messages = messages
        self._consequences: dict[str, list[str]] = defaultdict(list)
        for message in messages.values():
            for cause in message.causes:
                self._consequences[cause].append(message.id)

    def around(self, message_id: str) -> list[Link]:
        """Every cause and every consequence of a message, nearest first; KeyError if the id is unknown."""
        links = [Link(0, self._messages[message_id])]
        for sign in (-1, 1):
            seen, frontier, distance = {message_id}, [message_id], 0
            while frontier:
                distance += 1
                following = []
                for at in frontier:
                    near = self._messages[at].causes if sign < 0 else self._consequences.get(at, ())
                    for other in near:
                        if other in self._messages and other not in seen:
                            seen.add(other)
                            following.append(other)
                            links.append(Link(sign * distance, self._messages[other]))
                frontier = following
        return links

    def path_back(self, message_id: str, stages: tuple[str, ...]) -> list[Message[Any]]:
        """One path of causes from a message back through topics in the given order; empty if there is none."""
        message = self._messages.get(message_id)
        if message is None or not stages or message.topic != stages[0]:
            return []
        if len(stages) == 1:
            return [message]
        for cause in message.causes:
            rest = self.path_back(cause, stages[1:])
            if rest:
                return [message, *rest]
        return []

    def event_to_release(self, release_id: str) -> list[Message[Any]]:
        """One full chain: event → features → prediction → score → drift → retrain → model → decision → release, oldest first."""
        back = ("releases", "decisions", "models", "retrain", "drift", "scores", "predictions", "features", "events")
        return self.path_back(release_id, back)[::-1]


def load_chain(bootstrap_servers: str, use_case: str) -> Chain:
    """The chain of everything that is on the topics."""
    return Chain(first_by_id(read_topics(bootstrap_servers, use_case, STAGES)))


def describe(message: Message[Any]) -> str:
    """A message in a few words."""
    payload = message.payload
    words = {
        "events": lambda: f"{payload.type} of {payload.entity}",
        "features": lambda: f"{payload.key} changed",
        "predictions": lambda: f"{payload.entity}: {payload.score:.3f} by {payload.model_id[:12]} ({payload.arm})",
        "scores": lambda: payload.incident.what or f"{payload.entity}: label {payload.label:g}",
        "drift": lambda: f"{payload.series}: {payload.before:.3f} → {payload.after:.3f}",
        "decisions": lambda: payload.because,
        "retrain": lambda: payload.because,
        "models": lambda: f"{payload.trained_rows} rows: {payload.because}",
        "releases": lambda: f"revision {payload.revision}: {payload.because}",
        "incidents": lambda: payload.what,
        "commands": lambda: f"{payload.who}: {payload.why}",
    }
    return words[message.topic]()


@click.command()
@click.argument("message_id")
@click.option("--use-case", default="flights", show_default=True)
@bootstrap_servers_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
@click.option("--otlp", is_flag=True, help="Export the chain as linked spans to OTEL_EXPORTER_OTLP_ENDPOINT.")
def trace(message_id: str, use_case: str, bootstrap_servers: str, as_json: bool, otlp: bool) -> None:
    """Print the causes and consequences of a prediction, event, model or release by its id."""
    if otlp and not any(os.environ.get(name) for name in OTLP_ENDPOINTS):
        raise click.UsageError("--otlp needs OTEL_EXPORTER_OTLP_ENDPOINT, such as http://127.0.0.1:4317")
    try:
        links = load_chain(bootstrap_servers, use_case).around(message_id)
    except KeyError:
        raise click.ClickException(f"no message of {use_case} has the id {message_id}") from None
    links.sort(key=lambda link: (STAGES.index(link.message.topic), link.message.known_at_us, link.message.id))
    for link in links if as_json else links[:MAX_LINES]:
        message = link.message
        if as_json:
            row = {
                "distance": link.distance,
                "topic": message.topic,
                "id": message.id,
                "time": rfc3339(message.time_us),
            }
            row |= {"known_at": rfc3339(message.known_at_us), "causes": list(message.causes), "what": describe(message)}
            click.echo(json.dumps(row))
        else:
            mark = "●" if link.distance == 0 else "←" if link.distance < 0 else "→"
            click.echo(
                f"{mark} {message.topic:<11} {rfc3339(message.known_at_us)[:19]}  {message.id:<34} {describe(message)}"
            )
    if not as_json and len(links) > MAX_LINES:
        click.echo(f"… and {len(links) - MAX_LINES} more; --json prints all of them")
    if otlp:
        from driftloop.telemetry.chains import ExportFailed, export_chain

        try:
            click.echo(f"exported {export_chain([link.message for link in links])} spans", err=as_json)
        except ExportFailed as error:
            raise click.ClickException(str(error)) from error
