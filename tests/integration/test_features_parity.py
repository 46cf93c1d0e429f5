"""Parity on flights: every value that serving's hearts put into a vector is the one that Feast's join gives for that time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from driftloop.artifacts import ArtifactStore
from driftloop.cli.__main__ import main
from driftloop.contracts import Message
from driftloop.contracts.serving.v1.serving_pb2 import Prediction
from driftloop.featurestore.known import KnownValues
from driftloop.featurestore.parity import compare
from driftloop.featurestore.store import FeatureStoreSettings, feature_store
from driftloop.usecase import ReplayEvent, ReplayRequest, load_replay, load_use_case, replay_steps
from services.features import backfilling
from simulation.loop import Loop
from tests.loop_log import write_log
from tests.service_world import ServiceWorld
from tests.tiny_usecase import MINUTE_US, START_US

SIZES = [pytest.param(2, 1_500), pytest.param(62, 50_000, marks=pytest.mark.soak)]


@pytest.mark.timeout(1_800)
@pytest.mark.parametrize(("days", "at_least"), SIZES)
def test_flights_have_no_unexplained_mismatch_also_where_the_past_was_computed_anew(
    tmp_path: Path, days: int, at_least: int
) -> None:
    flights = load_use_case("flights")
    stretch = load_replay("flights").stretch("2013-03-01", days)
    loop = Loop(flights, None, vectors_only=True)
    loop.run(replay_steps(stretch, flights.step_us))
    store = ArtifactStore(tmp_path / "artifacts")
    write_log(loop, store, stretch.end_us)
    predictions = [
        Prediction(id=entity, entity=entity, as_of_us=loop.recorded.at_us[entity], vector=vector)
        for entity, vector in loop.recorded.vectors.items()
    ]
    assert len(predictions) >= at_least
    places = FeatureStoreSettings(tmp_path / "registry.db", store.url, tmp_path / "online.db")
    known = KnownValues(flights, feature_store(flights, places), store)

    found = compare(flights, predictions, known.joined, known.by_id)
    assert found.predictions == len(predictions)
    assert found.values == len(predictions) * sum(len(view.features) for view in flights.views)
    assert not found.mismatches

    backfilling.run(flights, store, None, None)
    again = compare(flights, predictions, known.joined, known.by_id)
    assert not again.mismatches, "what is computed anew is what was streamed"


def test_the_command_compares_what_lies_on_the_broker_and_fails_on_what_it_cannot_explain(
    kafka_bootstrap_servers: str, tmp_path: Path
) -> None:
    world = ServiceWorld("serving", kafka_bootstrap_servers, tmp_path, 2, ["predictions"])
    world.create_topics()
    use_case = world.use_case
    made = [
        ReplayEvent("left", f"e{n}", f"t{n}", at_us, at_us, {"line": f"line{n % 3}", "delay": float(n)})
        for n, at_us in enumerate(range(START_US, START_US + 60 * MINUTE_US, MINUTE_US))
    ]
    asked = [
        ReplayRequest(START_US + n * 15 * MINUTE_US, f"r{n}", {"line": f"line{n % 3}", "starts_at": START_US})
        for n in range(1, 5)
    ]
    loop = Loop(use_case, None, vectors_only=True)
    loop.run(replay_steps(_Made(made, asked), use_case.step_us))
    write_log(loop, world.store, _Made.end_us)
    predictions = [
        Prediction(use_case=world.name, id=f"p{entity}", as_of_us=loop.recorded.at_us[entity], vector=vector)
        for entity, vector in loop.recorded.vectors.items()
    ]

    def send(payload: Prediction) -> None:
        times = (payload.as_of_us, payload.as_of_us)
        world.send([Message("predictions", payload.id, payload, payload.id, "test", *times)])

    def parity() -> Result:
        options = ["--usecases", str(tmp_path / "usecases"), "--artifacts-url", world.store.url]
        servers = ["--bootstrap-servers", kafka_bootstrap_servers]
        return CliRunner().invoke(main, ["features", "parity", world.name, *options, *servers, "--json"])

    for payload in predictions:
        send(payload)
    done = parity()
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["predictions"] == len(predictions) == 4
    assert json.loads(done.stdout)["mismatches"] == []
    wrong = Prediction()
    wrong.CopyFrom(predictions[-1])
    wrong.id = "wrong"
    wrong.vector.readings[0].update_id = "nobody's"
    wrong.vector.numbers[0] += 1.0
    send(wrong)
    failed = parity()
    assert failed.exit_code == 1, failed.output
    assert json.loads(failed.stdout)["unexplained"] == 1


class _Made:
    """A stretch made of given events and requests."""

    start_us, end_us, injected_at_us, rows = START_US, START_US + 75 * MINUTE_US, None, 0

    def __init__(self, made: list[ReplayEvent], asked: list[ReplayRequest]) -> None:
        self._made, self._asked = made, asked

    def events(self) -> Iterator[ReplayEvent]:
        return iter(self._made)

    def requests(self) -> Iterator[ReplayRequest]:
        return iter(self._asked)
