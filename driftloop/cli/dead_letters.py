"""`driftloop dead-letters`: what was refused, why, and events sent again once the reason is gone."""

from __future__ import annotations

import json
import os
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import click
import grpc
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError

from driftloop.cli.broker import bootstrap_servers_option
from driftloop.cli.history import first_by_id, read_topics
from driftloop.cli.replay import require_door
from driftloop.contracts import Message, rfc3339
from driftloop.contracts.cloudevents import CloudEventsReader
from driftloop.contracts.event.v1.event_pb2 import Event
from driftloop.contracts.ingest.v1.ingest_pb2 import OUTCOME_DUPLICATE, IngestRequest
from driftloop.contracts.ingest.v1.ingest_pb2_grpc import IngestServiceStub
from driftloop.usecase import UnknownUseCase, UseCase, load_use_case

TOPIC = "dead-letters"
_CALL_S = 30.0
_NO_EVENT = "not an event of ingest's door"
_AS_JSON = click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")


def _event(letter: Any, reader: CloudEventsReader) -> Event | None:
    """The event of a letter that one of ingest's doors has refused and kept whole; None where there is none to send again."""
    if letter.refused_by != "ingest":
        return None
    read = reader.record(letter.value, dict(letter.headers))
    if read.faults:
        return None
    try:
        event = Event.FromString(read.events[0])
    except DecodeError:
        return None
    return event if event.id else None


def _declared(use_case: str) -> UseCase:
    return load_use_case(use_case, os.environ.get("DRIFTLOOP_USECASES", ""))


def _reader(use_case: str) -> CloudEventsReader:
    try:
        return CloudEventsReader(_declared(use_case))
    except UnknownUseCase:  # its letters can be looked at all the same
        return CloudEventsReader(use_case)


def _letters(
    servers: str, use_case: str, ids: Sequence[str], rule: str, event_type: str, refused_by: str
) -> Iterator[tuple[Message[Any], Event | None]]:
    """Letters that the filters let through, each with its event if it has one, by the schema of now."""
    reader = _reader(use_case)
    for message in first_by_id(read_topics(servers, use_case, [TOPIC])).values():
        letter = message.payload
        event = _event(letter, reader)
        if (
            (not ids or message.id in ids or letter.event_id in ids)
            and (not rule or rule in letter.rule.split(","))
            and (not refused_by or letter.refused_by == refused_by)
            and (not event_type or (event is not None and event.type == event_type))
        ):
            yield message, event


def _row(message: Message[Any]) -> dict[str, Any]:
    """What a list says of a letter."""
    letter = message.payload
    row = {"id": message.id, "known_at": rfc3339(message.known_at_us), "refused_by": letter.refused_by}
    return row | {"rule": letter.rule, "event_id": letter.event_id, "reason": letter.reason}


def _whole(message: Message[Any], event: Event | None) -> dict[str, Any]:
    """All of a letter: where it was refused (null at a door), its bytes, and its event by the schema of now, if it has one."""
    letter = message.payload
    place = {"topic": letter.topic, "partition": letter.partition, "offset": letter.offset} if letter.topic else None
    kept = {name: b64encode(value).decode() for name, value in (("key", letter.key), ("value", letter.value))}
    headers = {name: b64encode(value).decode() for name, value in letter.headers.items()}
    read = MessageToDict(event, preserving_proto_field_name=True) if event is not None else None
    return _row(message) | {"place": place, "base64": kept | {"headers": headers}, "event": read}


def _filters(command: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option("--refused-by", default="", help="Only what this service refused."),
        click.option("--event-type", default="", help="Only events of this type."),
        click.option("--rule", default="", help="Only what broke this rule."),
        bootstrap_servers_option,
        click.option("--use-case", default="flights", show_default=True),
    ):
        command = option(command)
    return command


@click.group("dead-letters")
def dead_letters() -> None:
    """Look at what was refused, and send events again once the reason is gone."""


@dead_letters.command("list")
@_filters
@_AS_JSON
def list_letters(
    use_case: str, bootstrap_servers: str, rule: str, event_type: str, refused_by: str, as_json: bool
) -> None:
    """One line for each dead letter, oldest first."""
    for message, _ in _letters(bootstrap_servers, use_case, (), rule, event_type, refused_by):
        row = _row(message)
        click.echo(json.dumps(row) if as_json else "  ".join(row.values()))


@dead_letters.command()
@_filters
@click.argument("letter_id")
@_AS_JSON
def show(
    letter_id: str,
    use_case: str,
    bootstrap_servers: str,
    rule: str,
    event_type: str,
    refused_by: str,
    as_json: bool,
) -> None:
    """Everything about one dead letter, by its id or its event's."""
    found = list(_letters(bootstrap_servers, use_case, [letter_id], rule, event_type, refused_by))
    if not found:
        raise click.ClickException(f"no dead letter of {use_case} has the id {letter_id}")
    for message, event in found:
        if as_json:
            click.echo(json.dumps(_whole(message, event)))
            continue
        letter = message.payload
        where = f"{letter.topic}/{letter.partition}@{letter.offset}" if letter.topic else "the door"
        click.echo(f"{message.id}: refused by {letter.refused_by} at {where}, rule {letter.rule}: {letter.reason}")
        click.echo(str(event) if event is not None else f"{len(letter.value)} bytes: {letter.value[:200]!r}")


@dead_letters.command()
@_filters
@click.argument("letter_ids", nargs=-1)
@click.option("--ingest", "address", envvar="INGEST_ADDRESS", default="127.0.0.1:7001", show_default=True)
@click.option("--all", "everything", is_flag=True, help="Every letter that the filters let through.")
@_AS_JSON
def redrive(
    letter_ids: tuple[str, ...],
    address: str,
    everything: bool,
    use_case: str,
    bootstrap_servers: str,
    rule: str,
    event_type: str,
    refused_by: str,
    as_json: bool,
) -> None:
    """Send events that ingest refused again, with their own ids and times; what is refused again makes no new letter."""
    if bool(letter_ids) == everything:
        raise click.UsageError("name dead letters either by id, or --all (with filters)")
    try:
        _declared(use_case)
    # JSON tells no time from a text: read without its schema, fine events would be refused.
    except UnknownUseCase as error:
        raise click.UsageError(str(error)) from error
    letters = list(_letters(bootstrap_servers, use_case, letter_ids, rule, event_type, refused_by))
    found = {known for message, _ in letters for known in (message.id, message.payload.event_id)}
    if unknown := [letter_id for letter_id in letter_ids if letter_id not in found]:
        raise click.ClickException(f"no dead letter of {use_case} has the id {', '.join(unknown)}")
    if any(event is not None for _, event in letters):
        require_door("--ingest", address)
    counts = {"accepted": 0, "duplicate": 0, "refused again": 0, _NO_EVENT: 0}
    with grpc.insecure_channel(address) as channel:
        ingest = IngestServiceStub(channel)
        for message, event in letters:
            outcome, reason = (_NO_EVENT, "") if event is None else _sent_again(ingest, message.id, event)
            counts[outcome] += 1
            if as_json:
                row = {"id": message.id, "event_id": message.payload.event_id, "outcome": outcome, "reason": reason}
                click.echo(json.dumps(row))
            elif reason:
                click.echo(f"{message.id} {outcome}: {reason}")
    if not as_json:
        click.echo(", ".join(f"{count} {what}" for what, count in counts.items() if count) or "nothing to send")


def _sent_again(ingest: IngestServiceStub, letter_id: str, event: Event) -> tuple[str, str]:
    """What became of a letter's event, and why it was refused; ClickException where ingest says neither."""
    try:
        answer = ingest.Ingest(IngestRequest(event=event, redrive_of=letter_id), timeout=_CALL_S, wait_for_ready=True)
    except grpc.RpcError as error:
        if error.code() not in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.ALREADY_EXISTS):
            raise click.ClickException(f"{letter_id}: {error.code().name}: {error.details()}") from error
        return "refused again", error.details() or ""
    return ("duplicate" if answer.outcome == OUTCOME_DUPLICATE else "accepted"), ""
