"""What a heart, its sinks and its watcher look like to the shell that hosts them, and the bounds of hosting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from driftloop.contracts import Message, Record
from driftloop.messaging.errors import MessagingError
from driftloop.messaging.interfaces import TopicPartition


class AssignmentSplit(MessagingError):
    """Partitions that feed one heart went to different workers: stop; all topics of a heart need the same partition count."""


class RestoreRefused(MessagingError):
    """A checkpoint of another number of partitions: stop; a use case's spread is chosen once, or its checkpoints are removed."""


class Heart(Protocol):
    """Pure decisions on one partition group; folding a batch equals folding its records one at a time.

    `needs_checkpoint`, where a heart has it, says after a fold that its outputs may leave only once they are in a checkpoint.
    `begin_snapshot`, where a heart has it, is `snapshot` with its long lists as iterators, which are exhausted while folding
    goes on: their items are of the moment of the call. One at a time: a second call voids the iterators of the first.
    """

    @property
    def clock_us(self) -> int: ...
    def fold(self, records: list[Record]) -> list[Message[Any]]: ...
    def snapshot(self) -> dict[str, Any]: ...
    def restore(self, state: dict[str, Any]) -> None: ...


class Cut(Protocol):
    """What a sink has gathered up to one checkpoint; `state` goes into that checkpoint and comes back by `Sink.restore`."""

    @property
    def state(self) -> Any: ...

    def write(self) -> None:
        """Makes durable what the checkpoint is going to name. Blocks; runs in a thread before the checkpoint is saved."""

    def publish(self) -> None:
        """Lets readers see it. Blocks; runs in a thread after the checkpoint is saved, and again by `Sink.restore`."""


class Sink(Protocol):
    """A place beside the bus that outputs of a heart go to, exactly once: it counts only what a checkpoint names."""

    @property
    def name(self) -> str: ...

    def restore(self, group: int, heart: Heart, state: Any) -> None:
        """Takes the state of the newest checkpoint back (None: there was none), publishing what it names. Blocks."""

    def take(self, group: int, heart: Heart, outputs: Sequence[Message[Any]]) -> None:
        """Gathers what one fold gave. Must not block."""

    def cut(self, group: int, heart: Heart) -> Cut:
        """Closes what was gathered since the last cut. Must not block."""

    def release(self, group: int) -> None:
        """Forgets a group that goes to another worker: what was not cut is gathered again there. Must not block."""


class Watcher(Protocol):
    """Sees what the host does, for metrics; must be quick and must not raise."""

    def folded(
        self, group: int, heart: Heart, records: Sequence[Record], outputs: Sequence[Message[Any]], seconds: float
    ) -> None: ...
    def checkpointed(self, group: int, heart: Heart, seconds: float) -> None: ...
    def dead_lettered(self, rule: str) -> None: ...
    def waiting(self, lag: Mapping[TopicPartition, int], queued: int) -> None: ...


class HostSettings(BaseSettings):
    """Read from DRIFTLOOP_<NAME>."""

    model_config = SettingsConfigDict(env_prefix="DRIFTLOOP_", extra="ignore")

    checkpoint_records: int = Field(
        default=20_000, gt=0, description="records folded between two checkpoints: a restart repeats so many"
    )
    checkpoint_s: float = Field(
        default=5.0, gt=0, description="wall time between two checkpoints, if anything was folded"
    )
    checkpoint_load_max: float = Field(
        default=0.05,
        gt=0,
        le=1,
        description="share of time that packing state may take: large state is checkpointed less often",
    )
    fold_records_max: int = Field(
        default=1_000, gt=0, description="records per fold: some 30 ms, so that health and commits stay responsive"
    )
    send_timeout_s: float = Field(
        default=60.0, gt=0, description="how long a full queue to the broker is waited for, in all, per batch"
    )
    durable_timeout_s: float = Field(
        default=120.0, gt=0, description="one checkpoint, from its acknowledgements to its offsets"
    )
    traced_ids_max: int = Field(
        default=16_384,
        gt=0,
        description="ids of sampled messages whose trace what they cause later joins: 5 MB, a day of labels at 1 % of 18 events/s",
    )
