"""Training: the same rows give the same model, a turned concept is recovered, and what is published is what was trained."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from driftloop.scoring import ScoringModel
from driftloop.scoring.model import ONNX_CODES, ONNX_NUMBERS
from driftloop.usecase import Event, Field, Label, Prediction, Request, UseCase, Window, before
from services.trainer.attempts import TrainingSet
from services.trainer.candidates import Asked
from services.trainer.measures import log_losses
from services.trainer.published import members_of
from services.trainer.training import train
from tests.trainer_twin import QUICK, STEP_US, mean_of, part, rows, trained_on, trips

REPOSITORY = Path(__file__).resolve().parents[2]


def loss(model: ScoringModel, found: TrainingSet) -> float:
    return float(np.mean(log_losses(found.labels, model.predict(found.numbers, found.texts))))


def test_the_same_rows_and_seed_give_the_same_model_and_another_seed_another() -> None:
    found = rows(800)
    first, second, other = trained_on(found), trained_on(found), trained_on(found, seed=2)
    assert (first.model_digest, first.weights, first.onnx) == (second.model_digest, second.weights, second.onnx)
    assert other.model_digest != first.model_digest


def test_another_process_gives_the_same_digest() -> None:
    code = "from tests.trainer_twin import *; print(trained_on(rows(800)).model_digest)"
    answer = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == trained_on(rows(800)).model_digest


def test_training_leaves_the_processes_random_state_and_threads_as_they_were() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    threads = torch.get_num_threads()
    trained_on(rows(400), epochs=1)
    assert torch.equal(torch.rand(3), expected)
    assert torch.get_num_threads() == threads
    assert not torch.are_deterministic_algorithms_enabled()


def test_the_first_model_is_much_better_than_the_base_rate_on_rows_it_has_not_seen() -> None:
    found = rows(4_000)
    trained = trained_on(part(found, 0, 3_000))
    new = part(found, 3_000, 4_000)
    base = np.full(len(new), float(trained.held_out.base))
    assert loss(trained.model, new) < float(np.mean(log_losses(new.labels, base))) - 0.1
    assert trained.metrics["log_loss"] < trained.metrics["base_log_loss"] - 0.1
    assert trained.metrics["pr_auc"] > 0.7
    assert (trained.trained_rows, trained.chosen) == (3_000, "all")


@pytest.mark.parametrize("dated_too_early", [0, 500])
def test_a_turned_concept_is_recovered_from_few_rows(dated_too_early: int) -> None:
    onset, new = 3_000, 1_500
    whole = rows(onset + new + 2_000, turned=["blue"], turned_from=onset)
    champion = trained_on(part(whole, 0, onset)).model
    since_us = (onset - dated_too_early) * STEP_US
    trained = trained_on(part(whole, 0, onset + new), since_us, champion)
    later = part(whole, onset + new, len(whole))
    before_the_change = loss(champion, part(rows(len(whole)), onset + new, len(whole)))
    recovered = (loss(champion, later) - loss(trained.model, later)) / (loss(champion, later) - before_the_change)
    assert recovered > 2 / 3
    assert trained.metrics["log_loss"] < trained.metrics["champion_log_loss"]


def test_a_request_without_a_champion_still_uses_the_date_of_the_change() -> None:
    whole = rows(4_000, turned=["blue", "red", "green"], turned_from=2_500)
    trained = trained_on(part(whole, 0, 3_800), 2_500 * STEP_US)
    assert trained.chosen in ("since", "history")
    assert loss(trained.model, part(whole, 3_800, 4_000)) < trained.metrics["base_log_loss"]


def test_too_few_rows_since_the_change_are_no_regime_of_their_own() -> None:
    trained = trained_on(rows(1_000), 990 * STEP_US)
    assert (trained.chosen, trained.trained_rows) == ("all", 1_000)


def test_rows_since_a_change_that_are_all_of_one_class_are_learned_from_beside_those_before() -> None:
    whole = rows(2_000)
    champion = trained_on(part(whole, 0, 1_000)).model
    whole.labels[1_500:] = 1.0
    told: list[str] = []
    asked = Asked(change=True, recent_rows=500, rows_max=1_200)
    trained = train(trips, whole, 1_500 * STEP_US, champion, 1, QUICK, told.append, asked)
    held_out = len(trained.held_out.labels)
    assert (trained.chosen, trained.fitted_rows) == ("recent", 1_200 + held_out)
    assert any("one value of the label only" in line for line in told)
    assert trained.metrics["log_loss"] < trained.metrics["champion_log_loss"]


def test_every_fit_counts_towards_the_cost() -> None:
    told: list[str] = []
    trained = train(trips, rows(1_000), 500 * STEP_US, None, 1, QUICK, told.append)
    candidates = [name for name in trained.metrics if name.startswith("candidate_")]
    assert len(candidates) == 2
    assert trained.row_epochs > sum(400 for _ in candidates)
    history, since, kept_back = 1_000, 500, 125
    assert trained.fitted_rows == (history - kept_back) + (since - kept_back) + 2 * kept_back
    assert any(trained.chosen in line for line in told)


def test_the_published_graph_answers_as_the_network_does() -> None:
    found = rows(1_200, turned=["blue"], turned_from=600)
    trained = trained_on(found, 600 * STEP_US, trained_on(part(found, 0, 600)).model)
    odd = found.numbers.copy()
    odd[0] = [np.nan, np.nan, np.nan]
    odd[1] = [1e30, -1e30, 1e6]
    texts = found.texts.copy()
    texts[2] = "a line that nobody has seen"
    assert trained.model.predict(odd, texts) == pytest.approx(
        1 / (1 + np.exp(-mean_of(trained.model, odd, texts))), abs=1e-6
    )


@pytest.mark.parametrize("count", [1, 2, 7, 64, 300])
def test_the_published_graph_encodes_numbers_as_the_network_learned_them_bit_for_bit(count: int) -> None:
    found = rows(600)
    found.numbers[::3, 0] = np.nan
    found.numbers[:, 1] = found.numbers[:, 1] > np.median(found.numbers[:, 1])  # fewer bins than the others
    found.numbers[:, 2] = 4.0  # none at all
    trained = trained_on(found)
    graph = onnx.load_from_string(trained.onnx)
    graph.graph.output.append(onnx.helper.make_empty_tensor_value_info("encoded"))
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    asked = np.random.default_rng(5).normal(0.0, 30.0, (count, 3))
    asked[::2, 0], asked[::3, 1], asked[::5, 2], asked[1::7] = np.nan, np.inf, -np.inf, 0.0
    codes = trained.model.codes([["red"] * len(trained.model.text_inputs)] * count)
    (encoded,) = session.run(["encoded"], {ONNX_NUMBERS: asked, ONNX_CODES: codes})
    preprocessing = members_of(trained.model, 0.0)[0].preprocessing
    assert {len(edges) for edges in preprocessing.edges} > {1, 2}
    assert np.array_equal(encoded.T, preprocessing.encode(asked))


def test_a_row_is_answered_the_same_alone_and_among_others() -> None:
    trained, found = trained_on(rows(600)), rows(50, seed=9)
    alone = [trained.model.predict(found.numbers[i : i + 1], [list(found.texts[i])])[0] for i in range(len(found))]
    assert alone == trained.model.predict(found.numbers, found.texts).tolist()


def test_the_published_parts_alone_make_the_same_model() -> None:
    trained, found = trained_on(rows(600)), rows(20, seed=9)
    again = ScoringModel(trained.onnx, json.loads(json.dumps(trained.spec)), trained.weights)
    assert (
        again.predict(found.numbers, found.texts).tolist() == trained.model.predict(found.numbers, found.texts).tolist()
    )


def test_rows_of_one_class_are_refused() -> None:
    found = rows(600)
    found.labels[:] = 1.0
    with pytest.raises(ValueError, match="one class"):
        trained_on(found)


def test_rows_out_of_order_are_refused() -> None:
    found = rows(10)
    with pytest.raises(ValueError, match="sorted"):
        TrainingSet(found.entities, found.at_us[::-1], found.numbers, found.texts, found.labels, found.known_at_us)


said = Event("said", entity="id", fields={"word": Field(str), "size": Field(float), "due_at": Field("time")})
heard = Event("heard", entity="id", fields={"yes": Field(bool)})


@pytest.mark.parametrize("kind", ["numbers", "texts"])
def test_a_use_case_with_only_one_kind_of_inputs_is_trained(kind: str) -> None:
    inputs = (
        [Request("word")] if kind == "texts" else [Request("size"), Window(said, "word", "size", ["1h"], ["count"])]
    )
    use_case = UseCase(
        name="plain",
        events=[said, heard],
        predict=Prediction(on=said, at=before("due_at", "1h")),
        features=inputs,
        label=Label(on=heard, value=lambda e: bool(e["yes"])),
    )
    found = rows(600)
    single = TrainingSet(
        found.entities,
        found.at_us,
        found.numbers[:, : len(use_case.numeric_inputs)],
        found.texts[:, : len(use_case.text_inputs)],
        found.labels,
        found.known_at_us,
    )
    trained = train(use_case, single, 0, None, 1, QUICK, lambda detail: None)
    assert trained.model.predict(single.numbers, single.texts).shape == (600,)


def test_without_texts_a_turned_concept_is_recovered_too() -> None:
    use_case = UseCase(
        name="plain",
        events=[said, heard],
        predict=Prediction(on=said, at=before("due_at", "1h")),
        features=[Request("size"), Window(said, "word", "size", ["1h"], ["sum", "count"])],
        label=Label(on=heard, value=lambda e: bool(e["yes"])),
    )
    whole = rows(4_000, turned=["blue", "red", "green"], turned_from=2_500)
    whole = TrainingSet(
        whole.entities, whole.at_us, whole.numbers, np.empty((4_000, 0)), whole.labels, whole.known_at_us
    )
    champion = train(use_case, part(whole, 0, 2_500), 0, None, 1, QUICK, lambda detail: None).model
    trained = train(use_case, part(whole, 0, 3_500), 2_500 * STEP_US, champion, 1, QUICK, lambda detail: None)
    later = part(whole, 3_500, 4_000)
    assert loss(champion, later) > np.log(2)
    assert loss(trained.model, later) < trained.metrics["base_log_loss"] - 0.05


def test_an_input_that_stood_still_changes_no_answer_when_it_moves() -> None:
    found = rows(600)
    found.numbers[:, 1], found.numbers[:, 2] = 4.0, np.nan
    model = trained_on(found).model
    still = model.predict(found.numbers, found.texts)
    assert np.isfinite(still).all()
    for value in (4.5, -1e9, np.inf):
        moved = found.numbers.copy()
        moved[:, 1] = value
        assert model.predict(moved, found.texts).tolist() == still.tolist()


def test_a_champion_that_its_new_rows_cannot_better_is_not_made_worse() -> None:
    whole = rows(3_000)
    champion = trained_on(part(whole, 0, 2_000)).model
    noise = part(rows(3_000), 2_000, 3_000)
    noise.labels[:700] = np.random.default_rng(3).permutation(noise.labels[:700])
    spoiled = TrainingSet(
        whole.entities,
        whole.at_us,
        whole.numbers,
        whole.texts,
        np.concatenate([whole.labels[:2_000], noise.labels]),
        whole.known_at_us,
    )
    asked = Asked(recent_rows=1_000)
    trained = train(trips, spoiled, 0, champion, 1, replace(QUICK, tuning_rate=0.1), lambda line: None, asked)
    assert trained.metrics["candidate_tuned_log_loss"] <= trained.metrics["champion_log_loss"] + 1e-6
