"""Reads what the loop has written to its topics, whole, for people and reports, and the moments that they name; writes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import click

from driftloop.contracts import Message, Record, topics
from driftloop.messaging import Backlog, KafkaReader, KafkaSettings

READ_TIMEOUT_S = 60.0
BATCH_RECORDS = 5_000
_DOOR = "inbox"
_POLLED_MS = 10


def read_topics(
    bootstrap_servers: str, use_case: str, names: Sequence[str] = (), control: bool = False
) -> Iterator[Record]:
    """Every data record of the named topics, up to their present ends, malformed ones left out.

    By default of all that the loop writes: what producers left in `inbox` is on `events` once it is accepted.

    `control`: watermarks too.
    """
    wanted = list(names) or [topic for topic in topics() if topic != _DOOR]
    # The ends of empty topics are told behind polls for what may come: 22 partitions took six seconds of a person's time.
    settings = KafkaSettings().model_copy(update={"fetch_wait_ms_max": _POLLED_MS})
    reader = KafkaReader(
        bootstrap_servers, use_case, wanted, settings=settings, connect_timeout_s=settings.connect_timeout_s
    )
    try:
        backlog = Backlog(reader.offset_ranges())
        while backlog:
            records = reader.poll(READ_TIMEOUT_S, BATCH_RECORDS)
            if not records:
                raise TimeoutError(f"no records from {backlog} within {READ_TIMEOUT_S:.0f} s: is the broker up?")
            backlog.read(records)
            for record in records:
                if isinstance(record, Record) and (control or not record.message.is_watermark):
                    yield record
    finally:
        reader.close()


def first_by_id(records: Iterator[Record]) -> dict[str, Message[Any]]:
    """Messages by id; of repetitions, which carry the same id, the first."""
    found: dict[str, Message[Any]] = {}
    for record in records:
        found.setdefault(record.message.id, record.message)
    return found


def moments(from_text: str | None, to_text: str | None) -> tuple[int | None, int | None]:
    """Where a stretch begins and ends, in microseconds; UsageError where it is none."""
    from_us, to_us = _moment(from_text), _moment(to_text)
    if from_us is not None and to_us is not None and from_us >= to_us:
        raise click.UsageError("--from lies at or after --to")
    return from_us, to_us


def _moment(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise click.UsageError(f"{text!r} is no moment: write 2013-03-08T12:00") from error
    found = found if found.tzinfo else found.replace(tzinfo=UTC)
    return round(found.timestamp() * 1e6)
