"""What trainer trains on is what serving would have shown: the join of the offline log against the vectors of a replay."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from driftloop.artifacts import ArtifactStore
from driftloop.contracts import Message, Record
from driftloop.featurestore.log import EventLogWriter, FeatureLogWriter
from driftloop.usecase import UseCase, load_replay, load_use_case, replay_steps
from services.trainer.assembly import event_types, examples, training_set
from services.trainer.gateways import OfflineData
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


@pytest.fixture(scope="module")
def replayed() -> tuple[UseCase, Loop, int]:
    """Two days of flights through the hearts of features, with the vector of every request."""
    flights = load_use_case("flights")
    stretch = load_replay("flights").stretch("2013-03-01", 2)
    loop = Loop(flights, None, vectors_only=True)
    loop.run(replay_steps(stretch, flights.step_us))
    return flights, loop, stretch.end_us


def test_training_rows_are_the_vectors_that_serving_would_have_shown(
    replayed: tuple[UseCase, Loop, int], tmp_path: Path
) -> None:
    flights, loop, end_us = replayed
    store = ArtifactStore(tmp_path / "artifacts")
    write_log(loop, store, end_us)
    data = OfflineData(flights, store, store.url, tmp_path / "feast", 1.0, 2, threading.Event())
    events = data.events(data.await_clock(end_us), event_types(flights), end_us)
    found = examples(flights, events, end_us)
    rows = training_set(flights, found, data.values(found))

    assert len(rows) > 1_500
    assert set(rows.entities) <= set(loop.recorded.vectors)
    for place, entity in enumerate(rows.entities):
        vector = loop.recorded.vectors[entity]
        assert rows.at_us[place] == loop.recorded.at_us[entity]
        np.testing.assert_array_equal(rows.numbers[place], np.array(vector.numbers))
        assert list(rows.texts[place]) == list(vector.texts)
        assert (rows.labels[place], rows.known_at_us[place]) == loop.recorded.labels[entity]
    seen = ~np.all(np.isnan(rows.numbers), axis=0)
    assert seen.all(), "an input without any value would make this test say nothing about it"
