"""A heart or a gateway with one fault of its own turns the invariant red that is there for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from driftloop.contracts import Message, Record
from driftloop.contracts.monitor.v1.monitor_pb2 import ROLE_CHAMPION, Arm
from driftloop.contracts.trainer.v1.trainer_pb2 import Model
from driftloop.recalibration import Scalings
from services.features.aggregation import Aggregation
from services.features.rekeying import Rekeying
from services.ingest.admission import Admission, Rejected
from services.ingest.intake import Intake
from services.monitor.arms import Step
from services.monitor.judging import Judging
from services.monitor.matching import Matching
from services.monitor.release import Releases
from services.serving.assembly import Assembly, Inputs
from services.serving.gateways.log import PredictionLog
from services.serving.routing import LoadedArm, Router
from services.trainer.handlers import RetrainHandler
from simulation.faults import Faults, parsed
from simulation.invariants import AT_THE_END, EACH_STEP, FOLLOWED
from simulation.simulate import simulate

CALM = parsed("never=0.03,corrected=0.03")
SEEDS = (1, 5, 2)
CRASHING = parsed("crash=0.08,stop=0.03,never=0.03,corrected=0.03")
PATIENCE_S = 300.0  # of virtual time: longer than anything here lasts, and cheap where a mutant stops the loop for good
CUT_OFF = parsed("crash=0.3,outage=0.5,never=0.03,corrected=0.03")
FOLLOWS, ALIKE = "the_loop_follows", "what_happens_does_not_depend_on_faults"
"""Held by the run itself: there is no function for them."""


def broken(faults: Faults, seed: int) -> set[str]:
    """Names of the invariants that break in a seed."""
    return {breach.invariant for breach in simulate(seed, faults).breaches}


class LosesWindows(Aggregation):
    """Forgets the events of its windows when it is restored."""

    def restore(self, state: dict[str, Any]) -> None:
        super().restore({**state, "entities": []})


class DropsEvents(Rekeying):
    """Takes every fiftieth event for a duplicate."""

    def fold(self, records: list[Record]) -> list[Message[Any]]:
        return super().fold([r for r in records if r.message.is_watermark or r.offset % 50 != 7])


class LosesEntities(Matching):
    """Forgets entities that are not scored yet when it is restored."""

    def restore(self, state: dict[str, Any]) -> None:
        super().restore({**state, "entities": []})


class SaysThingsEarly(Aggregation):
    """Tells values as known an hour before."""

    def fold(self, records: list[Record]) -> list[Message[Any]]:
        out = super().fold(records)
        for message in out:
            if not message.is_watermark:
                message.payload.known_at_us -= 3_600_000_000
                message.known_at_us -= 3_600_000_000
        return out


class NamesNoCauses(Matching):
    """Scores say nothing of what they rest on."""

    def fold(self, records: list[Record]) -> list[Message[Any]]:
        out = super().fold(records)
        for message in out:
            message.causes = ()
        return out


class KeepsEverything(Matching):
    """Never forgets an entity."""

    def snapshot(self) -> dict[str, Any]:
        state = super().snapshot()
        self._hoard = getattr(self, "_hoard", []) + [["kept"]] * 300
        return {**state, "entities": [*state["entities"], *self._hoard]}


class TwoChampions(Releases):
    """Every arm of a release answers as its champion."""

    def arms(self) -> Any:
        champion, others = super().arms()
        for arm in others:
            arm.role = ROLE_CHAMPION
        return champion, others


class PromotesTheWorse(Releases):
    """Puts a challenger in front, and the former champion back, whatever labels say."""

    def decide(self, least_gain: float = 0.0) -> list[Step]:
        if self.has_challenger and self.other is not None:
            return self.put(self.other, "it is new")
        return self.return_to_former("it was there before")


class AsksForNoReason(Judging):
    """Asks for models without saying why."""

    def fold(self, records: list[Record]) -> list[Message[Any]]:
        out = super().fold(records)
        for message in out:
            if message.topic == "retrain":
                message.causes, message.payload.because = message.causes[:1], ""
        return out


class MakesValuesUp(Assembly):
    """Vectors hold other values than the updates that they name."""

    def assemble_columns(self, columns: Any, rows: int, lookup: Any) -> Any:
        found = super().assemble_columns(columns, rows, lookup).rows()
        return Inputs.of([each._replace(numbers=each.numbers[:-8] + b"\x00\x00\x00\x00\x00\x00E@") for each in found])


class AcknowledgesAtOnce(Intake):
    """Tells callers that their events are in the log before they are."""

    async def _acknowledged(self, flight: Any) -> None:
        del flight


class TakesAnything(Admission):
    """Refuses no event for what is in it."""

    def _refusal(self, event: Any, reference_us: int, taken: Any) -> Any:
        found = super()._refusal(event, reference_us, taken)
        return None if isinstance(found, Rejected) and not found.id_taken else found


class LetsShadowsAnswer(Router):
    """Every entity is answered by the arm that came last."""

    def arms_for(self, entities: Sequence[str]) -> list[LoadedArm]:
        return [self.arms[-1] for _ in super().arms_for(entities)]


def forgets_recalibrations(arm: Arm) -> None:
    """Answers are the scores, whatever the release says of how they are to be read."""


def recalibrates_unasked(arm: Arm) -> Scalings:
    """Answers are half as sure as the scores, whatever the release says of how they are to be read."""
    return Scalings(np.array([1.0]), np.array([0.5]), np.array([[0.0]]))


class ForgetsAnswers(PredictionLog):
    """Does not log what was answered in every tenth call."""

    _calls = 0

    def write(self, answers: Any, as_of_us: int) -> None:
        self._calls += 1
        if self._calls % 10:
            super().write(answers, as_of_us)


class MatchesNoAnswer(Matching):
    """Scores do not say which answer they are about."""

    def fold(self, records: list[Record]) -> list[Message[Any]]:
        out = super().fold(records)
        for message in out:
            if message.topic == "scores" and not message.is_watermark:
                message.payload.prediction_id = ""
        return out


class AnswersTwice(RetrainHandler):
    """Publishes every model under two ids."""

    def retrain(self, record: Record) -> Model:
        answer = super().retrain(record)
        again = Model()
        again.CopyFrom(answer)
        again.id += "-again"
        self._outgoing.deliver(replace(record.message, topic="models", id=again.id, payload=again, causes=(answer.id,)))
        return answer


class StandsStill(Judging):
    """Never says how far it has come."""

    def fold(self, records: list[Record]) -> list[Message[Any]]:
        return [message for message in super().fold(records) if not message.is_watermark]


MUTANTS = [
    ("services.features.gateways.Aggregation", LosesWindows, CRASHING, ALIKE),
    ("services.features.gateways.Rekeying", DropsEvents, CALM, "every_accepted_event_has_its_effect_once"),
    ("services.monitor.gateways.Matching", LosesEntities, CRASHING, "watermarks_keep_their_promise"),
    ("services.features.gateways.Aggregation", SaysThingsEarly, CALM, "no_value_used_before_it_was_known"),
    ("services.monitor.gateways.Matching", NamesNoCauses, CALM, "the_chain_of_causes_never_breaks"),
    ("services.monitor.gateways.Matching", KeepsEverything, CALM, "state_is_bounded"),
    ("services.monitor.judging.Releases", TwoChampions, CALM, "one_champion_at_most"),
    ("services.monitor.judging.Releases", PromotesTheWorse, CALM, "no_release_to_a_worse_model"),
    ("services.monitor.gateways.Judging", AsksForNoReason, CALM, "every_retrain_has_evidence"),
    ("services.serving.answering.Assembly", MakesValuesUp, CALM, "no_prediction_without_the_vector_it_used"),
    ("simulation.hosted.ingest.Intake", AcknowledgesAtOnce, CUT_OFF, "no_accepted_event_is_lost"),
    ("simulation.hosted.ingest.Admission", TakesAnything, CALM, "no_event_breaks_its_schema"),
    ("services.serving.routing.Router", LetsShadowsAnswer, CALM, "every_answer_is_by_its_release"),
    ("services.serving.routing._scalings", forgets_recalibrations, CALM, "every_answer_is_by_its_release"),
    ("services.serving.routing._scalings", recalibrates_unasked, CALM, "every_answer_is_by_its_release"),
    ("simulation.hosted.serving.PredictionLog", ForgetsAnswers, CALM, "every_answer_is_logged"),
    ("services.monitor.gateways.Matching", MatchesNoAnswer, CALM, "every_answer_meets_its_label"),
    ("simulation.hosted.trainer.RetrainHandler", AnswersTwice, CALM, "every_request_is_answered_once"),
    ("services.monitor.gateways.Judging", StandsStill, CALM, FOLLOWS),
]


@pytest.mark.timeout(280)
@pytest.mark.parametrize(("place", "mutant", "faults", "invariant"), MUTANTS, ids=[row[1].__name__ for row in MUTANTS])
def test_a_mutant_breaks_its_invariant(place, mutant, faults, invariant, monkeypatch):
    monkeypatch.setattr(place, mutant)
    monkeypatch.setattr("simulation.caller.PATIENCE_S", PATIENCE_S)
    assert any(invariant in broken(faults, seed) for seed in SEEDS)


def test_every_invariant_has_a_mutant():
    invariants = {invariant.__name__ for invariant in (*EACH_STEP, *FOLLOWED, *AT_THE_END)}
    assert {invariant for *_, invariant in MUTANTS} == invariants | {FOLLOWS, ALIKE}


@pytest.mark.timeout(280)
@pytest.mark.parametrize("faults", [CALM, CRASHING])
def test_without_a_mutant_the_same_seeds_hold(faults):
    assert [broken(faults, seed) for seed in SEEDS] == [set()] * len(SEEDS)
