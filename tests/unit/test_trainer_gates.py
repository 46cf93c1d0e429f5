"""Gates: a model that does harm on rows that nobody has seen is kept out; one that proves nothing either way is not."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import numpy.typing as npt

from services.trainer.attempts import TrainingSet
from services.trainer.gates import GateResult, GateSettings, judge
from services.trainer.held_out import HeldOut
from services.trainer.training import Trained
from tests.trainer_twin import QUICK, STEP_US, rows, trained_on, trips

Floats = npt.NDArray[np.float64]
SETTINGS = GateSettings()


@cache
def case() -> tuple[Trained, TrainingSet]:
    found = rows(2_500)
    return trained_on(found), found


def gates(
    challenger: Floats | None = None,
    champion: Floats | None = None,
    seen: int = 0,
    settings: GateSettings = SETTINGS,
) -> dict[str, GateResult]:
    """Gates of the trained model with other answers on its held-out rows; the champion has seen the first `seen` of them."""
    trained, found = case()
    held = trained.held_out
    unseen = np.arange(len(held.labels)) >= seen
    held_out: HeldOut = replace(
        held,
        challenger=held.challenger if challenger is None else challenger,
        champion=champion,
        unseen_by_champion=unseen if champion is not None else np.zeros(len(unseen), dtype=bool),
    )
    return {gate.name: gate for gate in judge(trips, replace(trained, held_out=held_out), found, settings)}


def good() -> Floats:
    return case()[0].held_out.challenger


def poor() -> Floats:
    return np.full(len(good()), 0.5)


def test_a_first_model_needs_no_champion() -> None:
    assert all(gate.passed for gate in gates().values())


def test_a_model_that_is_no_better_than_the_base_rate_is_refused() -> None:
    held = case()[0].held_out
    assert not gates(challenger=np.full(len(held.labels), held.base))["base_rate"].passed
    noise = np.random.default_rng(1).normal(scale=0.02, size=len(held.labels))
    assert not gates(challenger=np.clip(held.base + noise, 0.01, 0.99))["base_rate"].passed


def test_a_model_that_ranks_an_odd_day_whose_level_nobody_could_know_is_let_through() -> None:
    held = case()[0].held_out
    logit = np.log(good() / (1 - good()))
    level = (1 / (1 + np.exp(-(logit + 0.9))) + held.base) / 2
    gate = gates(challenger=level)["base_rate"]
    assert gate.passed


def test_a_model_that_is_surely_worse_than_the_base_rate_is_refused_however_well_it_ranks() -> None:
    assert not gates(challenger=np.clip(good() ** 6, 1e-6, 1.0))["base_rate"].passed


def test_a_model_that_is_surely_worse_than_the_champion_is_refused() -> None:
    gate = gates(challenger=np.clip(poor() + 0.02, 0, 1), champion=good())["champion"]
    assert not gate.passed
    assert "paired rows" in gate.reason


def test_a_model_that_is_as_good_as_the_champion_is_let_through() -> None:
    noise = np.random.default_rng(0).normal(scale=0.01, size=len(good()))
    assert gates(champion=np.clip(good() + noise, 0.001, 0.999))["champion"].passed


def test_rows_that_the_champion_has_seen_prove_nothing() -> None:
    few = len(good()) - SETTINGS.paired_rows_min + 1
    gate = gates(challenger=poor(), champion=good(), seen=few)["champion"]
    assert gate.passed
    assert "has not seen" in gate.reason


def test_a_slice_that_surely_suffers_is_refused_though_the_whole_gains() -> None:
    trained, found = case()
    newest = slice(len(found) - len(trained.held_out.labels), None)
    red = found.texts[newest, 0] == "red"
    assert red.sum() >= 100
    right = np.clip(trained.held_out.labels, 0.02, 0.98)
    challenger = np.where(red, 1.0 - right, right)
    settings = replace(SETTINGS, slice_rows_min=100)
    found_gates = gates(challenger=challenger, champion=np.where(red, right, 1.0 - right), settings=settings)
    assert found_gates["champion"].passed
    assert not found_gates["slices"].passed
    assert "line=red" in found_gates["slices"].reason


def test_a_graph_beyond_its_bound_is_refused() -> None:
    assert not gates(settings=replace(SETTINGS, size_bytes_max=10))["size"].passed


def test_a_model_of_other_inputs_is_refused() -> None:
    trained, found = case()
    elsewhere = trained_on(found, epochs=1)
    elsewhere.model.inputs_digest = "another"
    found_gates = {gate.name: gate for gate in judge(trips, replace(trained, model=elsewhere.model), found, SETTINGS)}
    assert not found_gates["inputs"].passed


def test_a_model_that_always_says_the_same_is_not_sane() -> None:
    trained, found = case()

    class Constant:
        inputs_digest = trips.inputs_digest

        def predict(self, numbers: Floats, texts: object) -> Floats:
            return np.full(len(numbers), 0.3)

    constant = replace(trained, model=Constant())  # type: ignore[arg-type]
    assert not {gate.name: gate for gate in judge(trips, constant, found, SETTINGS)}["sane"].passed


def test_a_recovered_model_passes_every_gate() -> None:
    whole = rows(4_500, turned=["blue"], turned_from=3_000)
    champion = trained_on(rows(3_000)).model
    trained = trained_on(whole, 3_000 * STEP_US, champion, hidden=QUICK.hidden)
    assert all(gate.passed for gate in judge(trips, trained, whole, SETTINGS))


def with_answer(found: TrainingSet, noise: float = 0.0) -> TrainingSet:
    """The rows with the label itself as the number `wear`."""
    numbers = found.numbers.copy()
    numbers[:, 1] = found.labels + np.random.default_rng(0).normal(scale=0.01 + noise, size=len(found))
    return replace(found, numbers=numbers)


def leak_of(found: TrainingSet, champion: Floats | None, **known: bool) -> GateResult:
    trained, _ = case()
    unseen = np.ones(len(trained.held_out.labels), dtype=bool)
    held_out = replace(trained.held_out, champion=champion, unseen_by_champion=unseen)
    judged = judge(trips, replace(trained, held_out=held_out), found, SETTINGS, **known)
    return next(gate for gate in judged if gate.name == "leak")


def test_an_input_that_tells_the_label_alone_is_taken_for_a_leak() -> None:
    for champion in (None, good()):
        gate = leak_of(with_answer(case()[1]), champion)
        assert not gate.passed
        assert "wear" in gate.reason


def test_what_production_knows_as_well_is_no_leak() -> None:
    right = np.clip(case()[0].held_out.labels, 0.01, 0.99)
    assert leak_of(with_answer(case()[1]), right).passed


def test_a_new_concept_may_be_as_simple_as_a_leak_and_is_left_to_production() -> None:
    assert leak_of(with_answer(case()[1]), good(), is_after_alarm=True).passed


def test_an_input_that_tells_much_but_not_all_is_no_leak() -> None:
    assert leak_of(with_answer(case()[1], noise=0.4), None).passed
    assert leak_of(case()[1], None).passed
