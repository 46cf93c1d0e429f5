"""What people ask of a release, from the command line through monitor to every replica of serving, on a real broker."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from click.testing import CliRunner, Result

from driftloop.cli.__main__ import main
from driftloop.contracts import Message
from driftloop.contracts.monitor.v1.monitor_pb2 import COMMAND_KIND_RETRAIN, Command
from driftloop.contracts.serving.v1.serving_pb2 import ListModelsRequest
from driftloop.contracts.serving.v1.serving_pb2_grpc import PredictionServiceStub
from tests.integration.test_monitor_service import SPREAD, World, until_request
from tests.service_world import free_address
from tests.unit.serving_bundles import publish

pytestmark = pytest.mark.timeout(240)
REPLICAS = 2
IN_EFFECT_S = 2.0


class Loop(World):
    """Monitor, and replicas of serving behind it."""

    def __init__(self, bootstrap_servers: str, folder: Path) -> None:
        super().__init__(bootstrap_servers, folder)
        self.replicas = [free_address() for _ in range(REPLICAS)]

    def publish(self, model_id: str, score: float) -> None:
        """Trainer's answer to the newest request: a real bundle."""
        bundle = publish(self.folder, self.use_case, model_id, score)
        self.answer(self.payloads("retrain")[-1], model_id, bundle.url, bundle.digest)

    def ask_for_model(self, number: int) -> None:
        """A retrain that somebody commands."""
        payload = Command(use_case=self.name, id="again", kind=COMMAND_KIND_RETRAIN, who="ann", why="a test")
        requests = len(self.payloads("retrain"))
        self.tell([Message("commands", self.name, payload, payload.id, "test", 0, 0)])
        self.step(number, "m1")
        self.read_until(lambda: len(self.payloads("retrain")) > requests)

    def say(self, *argv: str) -> Result:
        """A command of the command line, which waits until every replica has applied what follows."""
        serving = [option for address in self.replicas for option in ("--serving", address)]
        where = ["--bootstrap-servers", self.bootstrap_servers, *serving]
        return CliRunner().invoke(main, [*argv, self.name, *where, "--why", "a test", "--json"])

    def models(self, address: str) -> dict[str, str]:
        """Roles of the models that a replica holds."""
        with grpc.insecure_channel(address) as channel:
            stub: Any = PredictionServiceStub(channel)
            found = stub.ListModels(ListModelsRequest(use_case=self.name), timeout=10)
        return {model.model_id: model.role for model in found.models if not model.refused}


@pytest.fixture
def loop(kafka_bootstrap_servers: str, tmp_path: Path) -> Iterator[Loop]:
    found = Loop(kafka_bootstrap_servers, tmp_path)
    found.create_topics()
    yield found
    found.close()


def test_a_rollback_is_in_effect_on_every_replica_within_two_seconds_and_needs_no_bundle(loop: Loop) -> None:
    loop.start()
    loop.await_serving()
    for replica, address in enumerate(loop.replicas):
        loop.start(address, "serving", DRIFTLOOP_REPLICA=str(replica + SPREAD))
    following = until_request(loop)
    loop.publish("m1", 0.25)
    for address in loop.replicas:
        loop.await_serving(address, "serving")
    loop.ask_for_model(following)
    loop.publish("m2", 0.75)

    put = loop.say("pin", "--model", "m2")
    assert put.exit_code == 0, put.output
    assert [loop.models(address) for address in loop.replicas] == [{"m2": "champion", "m1": "standby"}] * REPLICAS
    for bundle in (loop.folder / "artifacts").rglob("*.bento"):
        bundle.unlink()

    returned = loop.say("rollback")
    assert returned.exit_code == 0, returned.output
    state = json.loads(returned.output)
    assert (state["champion"], state["pinned"], state["not_applied"]) == ("m1", "", [])
    assert state["seconds"] < IN_EFFECT_S
    assert [loop.models(address) for address in loop.replicas] == [{"m1": "champion", "m2": "standby"}] * REPLICAS

    compared = loop.say("ab", "start", "--arm", "treatment=m2:0.5")
    assert compared.exit_code == 0, compared.output
    assert json.loads(compared.output)["arms"] == {"treatment": {"model": "m2", "share": 0.5}}
    assert [loop.models(address) for address in loop.replicas] == [{"m1": "champion", "m2": "ab"}] * REPLICAS
    ended = json.loads(loop.say("ab", "stop").output)
    assert (ended["arms"], set(ended["figures"])) == ({}, {"champion", "treatment"})
    assert [loop.models(address) for address in loop.replicas] == [{"m1": "champion", "m2": "standby"}] * REPLICAS

    refused = loop.say("pin", "--model", "m9")
    assert refused.exit_code == 1
    assert "m9" in refused.output
