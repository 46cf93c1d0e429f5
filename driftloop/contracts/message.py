"""The one envelope of every message on the bus; what it holds, never how it is sent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from google.protobuf.message import Message as Payload

from driftloop.contracts.time.v1.time_pb2 import Watermark

WATERMARK_KEY_PREFIX = "~watermark/"
MAX_CAUSES = 16
T = TypeVar("T", bound=Payload)


@dataclass(frozen=True, slots=True)
class OffsetRange:
    """Records of one partition, `first` to `last` inclusive: causes beyond the first sixteen."""

    topic: str
    partition: int
    first: int
    last: int


@dataclass(slots=True)
class Message(Generic[T]):
    """A message: CloudEvents attributes, use-case times in microseconds, causes and a protobuf payload.

    `topic` is the short name ("events"). `partition` None: the partition that murmur2 gives the key.
    `causes`: at most 16 ids of the messages that brought it about; the rest as `ranges`.
    """

    topic: str
    key: str
    payload: T
    id: str
    source: str
    time_us: int
    known_at_us: int
    causes: tuple[str, ...] = ()
    ranges: tuple[OffsetRange, ...] = ()
    partition: int | None = None
    traceparent: str = ""

    def __post_init__(self) -> None:
        if len(self.causes) > MAX_CAUSES:
            raise ValueError(
                f"message {self.id} has {len(self.causes)} causes: name {MAX_CAUSES} and give the rest as ranges"
            )

    @property
    def is_watermark(self) -> bool:
        """Whether this is a control record rather than data."""
        return self.key.startswith(WATERMARK_KEY_PREFIX)


@dataclass(slots=True)
class Record:
    """A message as read: where it stood. `appended_at_us` is the broker's time, 0 where there is none: no decision may use it."""

    topic: str
    partition: int
    offset: int
    message: Message[Any]
    appended_at_us: int = field(default=0, compare=False)


def watermark(
    topic: str,
    partition: int,
    writer: str,
    known_at_us: int,
    revision: int = 0,
    refused_models: Sequence[str] = (),
) -> Message[Watermark]:
    """The control record by which `writer` says that it is done up to `known_at_us` on this partition.

    A replica of serving also says which release it has applied, and which models of it it refused.
    """
    return Message(
        topic=topic,
        key=WATERMARK_KEY_PREFIX + writer,
        payload=Watermark(writer=writer, known_at_us=known_at_us, revision=revision, refused_models=refused_models),
        id=f"{writer}@{known_at_us}",
        source=f"driftloop/{writer}",
        time_us=known_at_us,
        known_at_us=known_at_us,
        partition=partition,
    )
