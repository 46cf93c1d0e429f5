"""`driftloop incidents`: what a person should look at, newest last, and which of it is not over."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import click

from driftloop.cli.broker import bootstrap_servers_option
from driftloop.cli.history import first_by_id, read_topics
from driftloop.contracts import Message, rfc3339

TOPIC = "incidents"


def listed(messages: Iterable[Message[Any]]) -> list[dict[str, Any]]:
    """One row for each incident that began, with its end where a later message told of it; in order of time."""
    rows: dict[tuple[str, ...], dict[str, Any]] = {}
    for message in sorted(messages, key=lambda one: (one.payload.clock_us, one.id)):
        found = message.payload
        place: tuple[str, ...] = (message.id,)
        if found.from_us:
            where = (found.rule, found.event_type, found.field, found.entity, found.event_source, str(found.from_us))
            place = (found.source, *where)
        row = rows.setdefault(place, {"id": message.id, "told_at": rfc3339(found.clock_us), "what": found.what})
        row |= {"source": found.source, "stops_training": found.stops_training}
        row |= {
            name: getattr(found, name) for name in ("rule", "event_type", "field", "entity") if getattr(found, name)
        }
        if found.from_us:
            row["from"] = rfc3339(found.from_us)
            row["to"] = rfc3339(found.to_us) if found.to_us else row.get("to")
    return list(rows.values())


@click.command()
@click.option("--use-case", default="flights", show_default=True)
@bootstrap_servers_option
@click.option("--open", "only_open", is_flag=True, help="Only those of a stretch of time that are not over.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
def incidents(use_case: str, bootstrap_servers: str, only_open: bool, as_json: bool) -> None:
    """What a person should look at and no model can mend: faults of data, refused bundles, unmet expectations."""
    for row in listed(first_by_id(read_topics(bootstrap_servers, use_case, [TOPIC])).values()):
        is_open = "from" in row and row["to"] is None
        if only_open and not is_open:
            continue
        state = "open since" if is_open else "over, from" if "from" in row else "at"
        times = " to ".join(filter(None, (row.get("from"), row.get("to")))) or row["told_at"]
        click.echo(json.dumps(row) if as_json else f"{state} {times}  {row['source']}  {row['what']}  {row['id']}")
