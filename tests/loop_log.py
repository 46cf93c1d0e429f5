"""The offline log of a simulated loop, as the features service leaves it behind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from driftloop.artifacts import ArtifactStore
from driftloop.contracts import Message, Record
from driftloop.featurestore.log import EventLogWriter, FeatureLogWriter
from simulation.loop import SPREAD, Loop
from tests.featurestore_twin import updates_of

CUTS = 7


class _Stage:
    """A heart whose clock a log is cut at."""

    def __init__(self, clock_us: int, accepted: Sequence[Record] = (), updates: Sequence[Message] = ()) -> None:
        self.clock_us = clock_us
        self._accepted = list(accepted)
        self.updates = updates_of(updates)

    def take_accepted(self) -> list[Record]:
        """As Rekeying's."""
        taken, self._accepted = self._accepted, []
        return taken


def records(loop: Loop, topic: str, partition: int) -> list[Record]:
    """What a partition of the loop's bus holds."""
    return [record for record in loop.bus.read(topic, partition) if isinstance(record, Record)]


def write_log(loop: Loop, store: ArtifactStore, clock_us: int) -> None:
    """The offline log as the features service leaves it behind, in several cuts."""
    events, features = EventLogWriter(store, loop.use_case, SPREAD), FeatureLogWriter(store, loop.use_case, SPREAD)
    for partition in range(SPREAD):
        accepted = [record for record in records(loop, "events", partition) if not record.message.is_watermark]
        updates = [record.message for record in records(loop, "features", partition)]
        for writer, taken in ((events, accepted), (features, updates)):
            writer.restore(partition, _Stage(clock_us), None)
            for part in np.array_split(np.arange(len(taken)), CUTS):
                chosen: list[Any] = [taken[place] for place in part]
                if writer is events:
                    events.take(partition, _Stage(clock_us, chosen), [])
                else:
                    features.take(partition, _Stage(clock_us, updates=chosen), [])
                cut = writer.cut(partition, _Stage(clock_us))
                cut.write()
                cut.publish()
