"""What every bus offers, on Kafka and in memory: one producer, one reader; a single test suite holds both to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from driftloop.contracts import Encoded, Message, Record
from driftloop.messaging.dead_letters import Malformed

OnAck = Callable[[Exception | None], None]
"""Called once per message: with None when the broker has it, with DeliveryFailed when it never will."""

TopicPartition = tuple[str, int]
"""A topic's short name and a partition."""

Offsets = Mapping[TopicPartition, int]
"""The offset of the next record of each partition."""


class Producer(Protocol):
    """Sends messages, in order per partition, at least once."""

    @property
    def queued(self) -> int:
        """Messages that are not acknowledged yet."""

    def send(self, message: Message[Any], on_ack: OnAck | None = None) -> None:
        """Queues a message, returns at once. QueueFull: nothing was queued. DeliveryFailed: an earlier message was lost.

        A failure of a message with `on_ack` is told there and nowhere else; one without fails `drained` and every later call.
        """

    def send_encoded(self, topic: str, records: Sequence[Encoded], on_ack: OnAck) -> int:
        """Queues records that are encoded already, in order; returns how many found room. QueueFull: none did.

        Their keys decide their partitions. `on_ack` is called once for all that were queued: with None when the broker has
        every one of them, else with the first DeliveryFailed.
        """

    async def drained(self) -> None:
        """Returns when everything sent before the call is acknowledged; DeliveryFailed if it never will be."""

    def close(self, timeout_s: float) -> None:
        """Sends what is queued and ends; DeliveryFailed if that takes longer than `timeout_s`."""


class Reader(Protocol):
    """Reads topics in order per partition. One thread at a time."""

    def poll(self, timeout_s: float, max_records: int) -> list[Record | Malformed]:
        """Up to `max_records`; waits up to `timeout_s` for the first, never for more. ReadFailed: stop."""

    def commit(self, offsets: Offsets) -> None:
        """Remembers for the group the next offset of each partition; returns when the broker has it."""

    def seek(self, offsets: Offsets) -> None:
        """Goes on at these offsets."""

    def offset_ranges(self) -> dict[TopicPartition, tuple[int, int]]:
        """Of every partition the first offset that is still there, and that behind the newest; equal where nothing is. Blocks.

        To read up to here, wait for partitions that hold something only: retention empties them, and their ends stay.
        """

    def close(self) -> None:
        """Ends; a group's other members take over."""
