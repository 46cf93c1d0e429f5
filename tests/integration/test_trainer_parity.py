"""What trainer trains on is what serving would have shown: the join of the offline log against the vectors of a replay."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import numpy as np
import pytest

from driftloop.artifacts import ArtifactStore
from driftloop.usecase import UseCase, load_replay, load_use_case, replay_steps
from services.trainer.assembly import event_types, examples, training_set
from services.trainer.gateways import OfflineData
from simulation.loop import Loop
from tests.loop_log import write_log


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


def test_a_kept_training_set_says_what_it_rests_on(replayed: tuple[UseCase, Loop, int], tmp_path: Path) -> None:
    flights, loop, end_us = replayed
    store = ArtifactStore(tmp_path / "artifacts")
    write_log(loop, store, end_us)
    data = OfflineData(flights, store, store.url, tmp_path / "feast", 1.0, 2, threading.Event())
    events = data.events(data.await_clock(end_us), event_types(flights), end_us)
    found = examples(flights, events, end_us)
    data.keep("d1", training_set(flights, found, data.values(found)))
    version = json.loads(store.get("flights/datasets/d1.json", 1 << 20))
    assert (version["digest"], version["schema_version"], version["clock_us"]) == ("d1", 1, end_us)
    ranges = version["offset_ranges"]
    told = [record.offset for record in loop.bus.read("events", 0) if not record.message.is_watermark]
    assert ranges["events/0"] == [min(told), max(told)]
    assert {name.split("/")[1] for name in ranges if name.startswith("features/")} == {v.name for v in flights.views}
