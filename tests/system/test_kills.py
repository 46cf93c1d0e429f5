"""The five services as processes on a real broker: what a replay leaves behind is the same whoever is killed on the way."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from deploy.local import LocalLoop, free_base_port
from driftloop.artifacts import ArtifactStore
from driftloop.cli.history import first_by_id, read_topics
from driftloop.cli.replay import Played, Replay, steps_of
from driftloop.cli.replay_window import replay_window
from driftloop.cli.summary import by_topic
from driftloop.cli.trace import load_chain
from driftloop.contracts import Message
from driftloop.featurestore.log import OfflineLogReader
from driftloop.usecase import ReplayStep, load_replay, load_use_case

DAYS = 10
CHECKPOINT_TIMEOUT_S = 60.0
FLIGHTS = load_use_case("flights")
WINDOW = ("--from", "2013-03-08T00:00", "--to", "2013-03-10T12:00")  # the first model and all that it scores
# Step at which each service is killed: before, while and after there is a first model (asked for at about step 920).
KILLS = {150: "ingest", 300: "features", 450: "monitor", 600: "serving", 922: "trainer", 960: "monitor", 985: "serving"}


@dataclass
class Run:
    played: Played
    messages: dict[str, Message]
    topics: dict[str, list[Message]]
    applied: list[str]
    restarts: dict[str, int]
    chain_length: int
    window: Result


def run(folder: Path, kills: dict[int, str]) -> Run:
    stretch = load_replay("flights").stretch(days=DAYS)
    with LocalLoop("flights", folder, base_port=free_base_port(), clock_mode="replay", fresh=True) as loop:
        replay = Replay(FLIGHTS, loop.addresses["ingest"], loop.addresses["serving"])
        killers: list[threading.Thread] = []

        def after_step(step: ReplayStep, played: Played) -> None:
            if played.steps in kills:
                # From another thread: the next step's calls are on their way when the service dies.
                killers.append(threading.Thread(target=loop.kill, args=(kills[played.steps],)))
                killers[-1].start()

        try:
            played = replay.run(steps_of(FLIGHTS, stretch), after_step)
        finally:
            replay.close()
            for killer in killers:
                killer.join()
        messages = first_by_id(read_topics(loop.bootstrap_servers, "flights"))
        topics = by_topic(messages)
        log = OfflineLogReader(ArtifactStore(loop.artifacts_url), "flights")
        told = log.await_clock(played.clock_us, CHECKPOINT_TIMEOUT_S, threading.Event())
        applied = told.events().to_table(columns=["id"]).column("id").to_pylist()
        chain = load_chain(loop.bootstrap_servers, "flights")
        links = chain.around(topics["releases"][-1].id) if topics.get("releases") else []
        window = CliRunner().invoke(replay_window, ["flights", "--bootstrap-servers", loop.bootstrap_servers, *WINDOW])
        restarts = {name: loop.restarts(name) for name in loop.addresses}
        return Run(played, messages, topics, applied, restarts, len(links), window)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Run:
    return run(tmp_path_factory.mktemp("undisturbed"), {})


@pytest.fixture(scope="module")
def killed(tmp_path_factory) -> Run:
    return run(tmp_path_factory.mktemp("killed"), KILLS)


pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]


def test_an_undisturbed_replay_accounts_for_every_event_and_call(undisturbed):
    counts = undisturbed.played.events
    assert counts["sent"] == counts["accepted"] == len(undisturbed.topics["events"])
    assert counts["rejected"] == counts["duplicate"] == 0
    assert undisturbed.played.predictions["failed"] == 0
    assert undisturbed.played.predictions["answered"] == len(undisturbed.topics["predictions"]) > 500
    assert sorted(undisturbed.applied) == sorted(message.id for message in undisturbed.topics["events"])
    assert undisturbed.restarts == dict.fromkeys(undisturbed.restarts, 0)
    assert undisturbed.chain_length > 5


def test_every_service_was_killed_and_came_back(killed):
    assert killed.restarts == {"ingest": 1, "features": 1, "monitor": 2, "serving": 2, "trainer": 1}


def test_no_call_fails_through_the_kills(killed):
    assert killed.played.failures == []
    assert killed.played.predictions["failed"] == 0


def test_no_event_is_lost_or_applied_twice(undisturbed, killed):
    counts = killed.played.events
    assert counts["sent"] == counts["accepted"] + counts["duplicate"]
    assert {m.id for m in killed.topics["events"]} == {m.id for m in undisturbed.topics["events"]}
    assert sorted(killed.applied) == sorted(undisturbed.applied)


@pytest.mark.parametrize("topic", ["scores", "decisions", "retrain", "models", "releases", "predictions"])
def test_what_the_loop_says_is_the_same_with_and_without_kills(undisturbed, killed, topic):
    assert {m.id for m in killed.topics[topic]} == {m.id for m in undisturbed.topics[topic]}


def test_answers_and_models_are_the_same_with_and_without_kills(undisturbed, killed):
    answers = [{m.id: m.payload.score for m in r.topics["predictions"]} for r in (undisturbed, killed)]
    assert answers[0] == answers[1]
    digests = [[m.payload.model_digest for m in r.topics["models"]] for r in (undisturbed, killed)]
    assert digests[0] == digests[1]


@pytest.mark.parametrize("kind", ["undisturbed", "killed"])
def test_the_recorded_window_replays_to_the_same_ids_and_decisions(kind, request):
    window = request.getfixturevalue(kind).window
    assert window.exit_code == 0, window.output
    assert "nothing differs" in window.output
    for topic in ("features", "scores", "decisions", "retrain", "releases"):
        assert topic in window.output
