"""`driftloop dead-letters`: what was refused, why, and events sent again once the reason is gone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import click
import grpc
from google.protobuf.message import DecodeError

from driftloop.cli.history import first_by_id, read_topics
from driftloop.contracts import Message, rfc3339
from driftloop.contracts.event.v1.event_pb2 import Event
from driftloop.contracts.ingest.v1.ingest_pb2 import OUTCOME_DUPLICATE, IngestRequest
from driftloop.contracts.ingest.v1.ingest_pb2_grpc import IngestServiceStub

TOPIC = "dead-letters"
_CALL_S = 30.0


def _event(letter: Any) -> Event | None:
    """The event of a letter that ingest's door has refused and kept whole; None where there is none to send again."""
    if letter.refused_by != "ingest" or letter.topic:
        return None
    try:
        event = Event.FromString(letter.value)
    except DecodeError:
        return None
    return event if event.id else None


def _letters(
    servers: str, use_case: str, ids: Sequence[str], rule: str, event_type: str, refused_by: str
) -> Iterator[Message[Any]]:
    for message in first_by_id(read_topics(servers, use_case, [TOPIC])).values():
        letter = message.payload
        event = _event(letter)
        if (
            (not ids or message.id in ids or letter.event_id in ids)
            and (not rule or rule in letter.rule.split(","))
            and (not refused_by or letter.refused_by == refused_by)
            and (not event_type or (event is not None and event.type == event_type))
        ):
            yield message


def _filters(command: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option("--refused-by", default="", help="Only what this service refused."),
        click.option("--event-type", default="", help="Only events of this type."),
        click.option("--rule", default="", help="Only what broke this rule."),
        click.option(
            "--bootstrap-servers", envvar="KAFKA_BOOTSTRAP_SERVERS", default="127.0.0.1:7092", show_default=True
        ),
        click.option("--use-case", default="flights", show_default=True),
    ):
        command = option(command)
    return command


@click.group("dead-letters")
def dead_letters() -> None:
    """Look at what was refused, and send events again once the reason is gone."""


@dead_letters.command("list")
@_filters
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
def list_letters(
    use_case: str, bootstrap_servers: str, rule: str, event_type: str, refused_by: str, as_json: bool
) -> None:
    """One line for each dead letter, oldest first."""
    for message in _letters(bootstrap_servers, use_case, (), rule, event_type, refused_by):
        letter = message.payload
        row = {"id": message.id, "known_at": rfc3339(message.known_at_us), "refused_by": letter.refused_by}
        row |= {"rule": letter.rule, "event_id": letter.event_id, "reason": letter.reason}
        click.echo(json.dumps(row) if as_json else "  ".join(row.values()))


@dead_letters.command()
@_filters
@click.argument("letter_id")
def show(letter_id: str, use_case: str, bootstrap_servers: str, rule: str, event_type: str, refused_by: str) -> None:
    """Everything about one dead letter, by its id or its event's."""
    found = list(_letters(bootstrap_servers, use_case, [letter_id], rule, event_type, refused_by))
    if not found:
        raise click.ClickException(f"no dead letter of {use_case} has the id {letter_id}")
    for message in found:
        letter = message.payload
        event = _event(letter)
        where = f"{letter.topic}/{letter.partition}@{letter.offset}" if letter.topic else "the door"
        click.echo(f"{message.id}: refused by {letter.refused_by} at {where}, rule {letter.rule}: {letter.reason}")
        click.echo(str(event) if event is not None else f"{len(letter.value)} bytes: {letter.value[:200]!r}")


@dead_letters.command()
@_filters
@click.argument("letter_ids", nargs=-1)
@click.option("--ingest", "address", envvar="INGEST_ADDRESS", default="127.0.0.1:7001", show_default=True)
@click.option("--all", "everything", is_flag=True, help="Every letter that the filters let through.")
def redrive(
    letter_ids: tuple[str, ...],
    address: str,
    everything: bool,
    use_case: str,
    bootstrap_servers: str,
    rule: str,
    event_type: str,
    refused_by: str,
) -> None:
    """Send events that ingest refused again, with their own ids and times; what is refused again makes no new letter."""
    if not letter_ids and not everything:
        raise click.UsageError("name dead letters by id, or say --all (with filters)")
    counts = {"accepted": 0, "duplicate": 0, "refused again": 0, "not an event of ingest's door": 0}
    with grpc.insecure_channel(address) as channel:
        ingest = IngestServiceStub(channel)
        for message in _letters(bootstrap_servers, use_case, letter_ids, rule, event_type, refused_by):
            event = _event(message.payload)
            if event is None:
                counts["not an event of ingest's door"] += 1
                continue
            request = IngestRequest(event=event, redrive_of=message.id)
            try:
                answer = ingest.Ingest(request, timeout=_CALL_S, wait_for_ready=True)
            except grpc.RpcError as error:
                if error.code() not in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.ALREADY_EXISTS):
                    raise click.ClickException(f"{message.id}: {error.code().name}: {error.details()}") from error
                counts["refused again"] += 1
                click.echo(f"{message.id} refused again: {error.details()}")
                continue
            counts["duplicate" if answer.outcome == OUTCOME_DUPLICATE else "accepted"] += 1
    click.echo(", ".join(f"{count} {what}" for what, count in counts.items() if count) or "nothing to send")
