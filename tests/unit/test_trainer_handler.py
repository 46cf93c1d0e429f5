"""One answer per request: published, or refused with the reason; unanswered only when the process ends."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from driftloop.contracts import Message, Record, derive_id
from driftloop.contracts.monitor.v1.monitor_pb2 import Archived
from driftloop.contracts.trainer.v1.trainer_pb2 import (
    OUTCOME_PUBLISHED,
    OUTCOME_REFUSED,
    STAGE_ASSEMBLING,
    STAGE_EVALUATING,
    STAGE_PUBLISHING,
    STAGE_TRAINING,
    STAGE_WAITING_FOR_DATA,
)
from services.trainer.errors import Stopping
from services.trainer.gates import GateSettings
from services.trainer.handlers import Bounds, RetrainHandler
from services.trainer.instruments import TrainerInstruments
from tests.trainer_twin import QUICK, STEP_US, TwinBundles, TwinData, TwinOutgoing, request, rows, trained_on, trips


class Bench:
    """A handler with twins around it."""

    def __init__(self, count: int = 1_200, **changes: Any) -> None:
        self.data, self.bundles, self.outgoing = TwinData(rows(count, **changes)), TwinBundles(), TwinOutgoing()
        self.stopping = False
        self.handler = RetrainHandler(
            use_case=trips,
            data=self.data,
            bundles=self.bundles,
            outgoing=self.outgoing,
            bounds=Bounds(rows_max=100_000, rows_min=200),
            training=QUICK,
            gates=GateSettings(),
            measured=TrainerInstruments(),
            stopping=lambda: self.stopping,
        )

    def ask(self, message: Message[Any]) -> Any:
        """The answer to a request."""
        return self.handler.retrain(Record("retrain", 0, 0, message))


def test_a_good_model_is_published_with_what_is_known_of_it() -> None:
    bench = Bench()
    asked = request(since_us=0)
    model = bench.ask(asked)
    assert (model.outcome, model.request_id, model.id) == (
        OUTCOME_PUBLISHED,
        "r1",
        derive_id("model", "trips", "r1"),
    )
    assert model.bundle_url == f"trips/bundles/{model.id}/model.bento"
    assert model.inputs_digest == trips.inputs_digest
    assert len(model.model_digest) == len(model.dataset_digest) == 64
    assert bench.data.kept == [model.dataset_digest]
    assert model.trained_rows == 1_200
    assert model.row_epochs > model.trained_rows
    assert model.metrics["log_loss"] < model.metrics["base_log_loss"]
    assert {gate.name for gate in model.gates} >= {"base_rate", "champion", "sane", "inputs"}
    assert (model.clock_us, model.device) == (asked.payload.clock_us, "cpu")


def test_the_answer_is_one_message_that_names_its_cause() -> None:
    bench = Bench()
    bench.ask(request(3))
    [message] = bench.outgoing.delivered
    assert (message.topic, message.key, message.causes) == ("models", "trips", ("r3",))
    assert message.id == message.payload.id
    assert message.known_at_us == message.payload.clock_us


def test_the_stages_are_told_in_order() -> None:
    bench = Bench()
    bench.ask(request())
    stages = [message.payload.stage for message in bench.outgoing.told]
    assert list(dict.fromkeys(stages)) == [
        STAGE_WAITING_FOR_DATA,
        STAGE_ASSEMBLING,
        STAGE_TRAINING,
        STAGE_EVALUATING,
        STAGE_PUBLISHING,
    ]
    assert len({message.id for message in bench.outgoing.told}) == len(bench.outgoing.told)


def test_the_same_request_gives_the_same_model() -> None:
    assert Bench().ask(request()) == Bench().ask(request())


def test_nothing_known_after_the_requests_clock_is_used() -> None:
    clock_us = 800 * STEP_US
    bench = Bench()
    bench.ask(request(clock_us=clock_us))
    earlier = Bench()
    earlier.data.accepted = [event for event in bench.data.accepted if event.known_at_us <= clock_us]
    earlier_answer = earlier.ask(request(clock_us=clock_us))
    assert bench.outgoing.delivered[0].payload.dataset_digest == earlier_answer.dataset_digest


def test_a_changed_concept_is_answered_from_the_champion() -> None:
    bench = Bench(count=3_500, turned=["blue"], turned_from=2_000)
    first = bench.ask(request(1, clock_us=2_000 * STEP_US))
    second = bench.ask(request(2, since_us=2_000 * STEP_US, champion_id=first.id, champion_bundle_url=first.bundle_url))
    assert second.outcome == OUTCOME_PUBLISHED
    assert second.metrics["log_loss"] < second.metrics["champion_log_loss"]
    assert "champion" in second.because


def test_a_champion_that_cannot_be_had_does_not_keep_the_loop_from_healing_itself() -> None:
    model = Bench().ask(request(champion_id="lost", champion_bundle_url="x"))
    assert model.outcome == OUTCOME_PUBLISHED
    assert "champion's bundle was refused (missing)" in model.because


def test_a_former_champion_answers_again_when_its_concept_comes_back() -> None:
    bench = Bench(count=4_400)
    bench.bundles.models = {
        "former": trained_on(rows(3_000)).model,
        "present": trained_on(rows(4_000, turned=["blue", "red", "green"])).model,
    }
    archive = [Archived(model_id="lost"), Archived(model_id="former", bundle_url="f")]
    asked = request(
        since_us=4_000 * STEP_US, champion_id="present", champion_bundle_url="p", archive=archive, rows_max=2_000
    )
    model = bench.ask(asked)
    assert (model.outcome, model.candidate) == (OUTCOME_PUBLISHED, "archived")
    assert bench.bundles.models[model.id] is bench.bundles.models["former"]
    assert model.id not in ("former", "present")


def test_evidence_against_the_champion_comes_with_the_model() -> None:
    bench = Bench(count=3_500, turned=["blue"], turned_from=2_000)
    first = bench.ask(request(1, clock_us=2_000 * STEP_US))
    assert (first.candidate, list(first.held_out_gains), first.held_out_rows) == ("all", [], 0)
    second = bench.ask(
        request(2, since_us=2_000 * STEP_US, champion_id=first.id, champion_bundle_url="x", block_rows=40)
    )
    assert second.held_out_rows == len(second.held_out_gains) * 40 + second.held_out_rows % 40
    assert sum(second.held_out_gains) > 0


def test_data_that_do_not_come_are_a_refusal_that_names_who_is_behind() -> None:
    bench = Bench()
    bench.data.behind = True
    model = bench.ask(request())
    assert model.outcome == OUTCOME_REFUSED
    assert "features-0" in model.because


def test_too_few_examples_are_a_refusal() -> None:
    model = Bench(count=150).ask(request())
    assert (model.outcome, model.bundle_url) == (OUTCOME_REFUSED, "")
    assert "at least 200" in model.because


def test_a_training_that_raises_is_a_refusal() -> None:
    bench = Bench()
    bench.handler._training = replace(QUICK, batch_rows=0)
    assert "training failed: ValueError" in bench.ask(request()).because
    assert [message.payload.outcome for message in bench.outgoing.delivered] == [OUTCOME_REFUSED]


def test_a_model_that_fails_a_gate_is_refused_and_not_published() -> None:
    bench = Bench()
    found = rows(1_200)
    found.labels[:] = rows(1_200, seed=11).labels  # no input says anything about the label
    bench.data = TwinData(found)
    bench.handler._data = bench.data
    model = bench.ask(request())
    assert model.outcome == OUTCOME_REFUSED
    assert model.because.startswith("base_rate")
    assert bench.bundles.models == {}
    assert [gate.name for gate in model.gates if not gate.passed] == ["base_rate"]


def test_a_request_is_left_unanswered_when_the_process_ends_in_between() -> None:
    bench = Bench()

    def stop() -> None:
        bench.stopping = len(bench.outgoing.told) >= 3

    bench.outgoing._on_tell = stop
    with pytest.raises(Stopping):
        bench.ask(request())
    assert bench.outgoing.delivered == []


def test_waiting_for_data_that_the_stop_cuts_short_is_no_refusal() -> None:
    bench = Bench()
    bench.data.behind = True
    bench.outgoing._on_tell = lambda: setattr(bench, "stopping", True)
    with pytest.raises(Stopping):
        bench.ask(request())
    assert bench.outgoing.delivered == []


def test_a_store_that_fails_is_the_processs_failure() -> None:
    bench = Bench()

    def broken(*_: Any) -> None:
        raise OSError("no space left")

    bench.bundles.publish = broken  # type: ignore[method-assign,assignment]
    with pytest.raises(OSError, match="no space"):
        bench.ask(request())
    assert bench.outgoing.delivered == []
