"""Classes and numbers are learned, compared, gated and published as a yes or no is; binary has its own tests beside this one."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from sklearn import datasets

from driftloop.artifacts import ArtifactStore
from driftloop.artifacts.bundles import build_bundle, fetch_bundle, load_bundle, publish_bundle
from driftloop.artifacts.signing import ensure_keys
from driftloop.contracts.trainer.v1.trainer_pb2 import OUTCOME_PUBLISHED, OUTCOME_REFUSED
from driftloop.usecase import Event, Field, Label, Prediction, Request, Task, UseCase, before
from services.trainer.attempts import TrainingSet, TrainingSettings
from services.trainer.fitting import Fitting, fit_request
from services.trainer.gates import GateSettings, judge
from services.trainer.held_out import HeldOut
from services.trainer.measures import compared_losses, measures
from services.trainer.training import Trained, train
from tests.trainer_twin import QUICK, STEP_US, TASKS, mean_of, part, request, rows, trained_on

OTHERS: tuple[Task, ...] = ("multiclass", "regression")
LOSS = {"multiclass": "log_loss", "regression": "squared_error"}


@cache
def case(task: Task) -> tuple[Trained, TrainingSet]:
    found = rows(3_000, task=task)
    return trained_on(part(found, 0, 2_500), task=task), found


@pytest.mark.parametrize("task", OTHERS)
def test_the_first_model_is_much_better_than_the_base_rate_on_rows_it_has_not_seen(task: Task) -> None:
    trained, found = case(task)
    new = part(found, 2_500, 3_000)
    scale = trained.label_scale or 1.0
    answers = trained.model.predict(new.numbers, new.texts)
    base = np.broadcast_to(trained.held_out.base, answers.shape)
    ours, theirs = (compared_losses(task, said, new.labels, scale).mean() for said in (answers, base))
    assert ours < 0.85 * theirs
    assert trained.metrics[LOSS[task]] < 0.85 * trained.metrics[f"base_{LOSS[task]}"]


@pytest.mark.parametrize("task", OTHERS)
def test_the_metrics_are_those_of_the_task(task: Task) -> None:
    trained, _ = case(task)
    expected = {
        "multiclass": {"accuracy", "kappa", "roc_auc", "pr_auc", "log_loss", "brier", "base_log_loss"},
        "regression": {"mae", "rmse", "r2", "squared_error", "base_squared_error"},
    }[task]
    assert expected <= set(trained.metrics)
    assert trained.metrics.get("r2", 1.0) > 0.3
    assert trained.metrics.get("accuracy", 1.0) > 0.5


@pytest.mark.parametrize("task", OTHERS)
def test_the_published_graph_answers_as_the_network_does(task: Task) -> None:
    found = rows(1_200, turned=["blue"], turned_from=600, task=task)
    first = trained_on(part(found, 0, 600), task=task).model
    trained = trained_on(found, 600 * STEP_US, first, task=task)
    odd, texts = found.numbers.copy(), found.texts.copy()
    odd[0] = [np.nan, np.nan, np.nan]
    odd[1] = [1e30, -1e30, 1e6]
    texts[2] = "a line that nobody has seen"
    raw = mean_of(trained.model, odd, texts)
    answers = trained.model.predict(odd, texts)
    if task == "multiclass":
        assert answers.shape == (1_200, 3)
        assert answers == pytest.approx(np.exp(raw) / np.exp(raw).sum(axis=1, keepdims=True), abs=1e-6)
        assert answers.sum(axis=1) == pytest.approx(np.ones(1_200), abs=1e-6)
    else:
        assert answers == pytest.approx(raw, abs=1e-4)


@pytest.mark.parametrize("task", OTHERS)
def test_the_same_rows_and_seed_give_the_same_model_and_another_seed_another(task: Task) -> None:
    found = rows(700, task=task)
    first, second, other = (trained_on(found, seed=seed, task=task) for seed in (1, 1, 2))
    assert (first.model_digest, first.onnx) == (second.model_digest, second.onnx)
    assert other.model_digest != first.model_digest


@pytest.mark.parametrize("task", OTHERS)
def test_a_turned_concept_is_recovered_from_few_rows(task: Task) -> None:
    onset, new = 3_000, 1_500
    whole = rows(onset + new + 2_000, turned=["blue"], turned_from=onset, task=task)
    clean = rows(len(whole), task=task)
    champion = trained_on(part(whole, 0, onset), task=task)
    trained = trained_on(part(whole, 0, onset + new), onset * STEP_US, champion.model, task=task)
    later, unturned = part(whole, onset + new, len(whole)), part(clean, onset + new, len(whole))

    def loss(model: Trained, found: TrainingSet) -> float:
        said = model.model.predict(found.numbers, found.texts)
        return float(compared_losses(task, said, found.labels, champion.label_scale or 1.0).mean())

    lost = loss(champion, later) - loss(champion, unturned)
    assert (loss(champion, later) - loss(trained, later)) / lost > 2 / 3
    assert trained.metrics[LOSS[task]] < trained.metrics[f"champion_{LOSS[task]}"]
    assert trained.label_scale == champion.label_scale


def test_a_few_extreme_labels_do_not_spoil_the_fit() -> None:
    draws = np.random.default_rng(4)
    found = rows(3_000, task="regression")
    spoiled = replace(found, labels=np.where(draws.random(3_000) < 0.005, 1e9, found.labels))
    trained = trained_on(part(spoiled, 0, 2_500), task="regression")
    new = part(found, 2_500, 3_000)
    assert measures("regression", trained.model.predict(new.numbers, new.texts), new.labels)["r2"] > 0.3


@pytest.mark.parametrize(
    ("task", "label", "why"), [("multiclass", 2.0, "one class"), ("regression", 7.5, "one value of the label")]
)
def test_rows_of_one_label_are_refused(task: Task, label: float, why: str) -> None:
    found = rows(600, task=task)
    with pytest.raises(ValueError, match=why):
        trained_on(replace(found, labels=np.full(600, label)), task=task)


def test_a_class_that_no_row_has_keeps_a_small_probability() -> None:
    found = rows(1_500, task="multiclass")
    two = np.flatnonzero(found.labels != 2.0)
    kept = TrainingSet(
        [found.entities[place] for place in two],
        found.at_us[two],
        found.numbers[two],
        found.texts[two],
        found.labels[two],
        found.known_at_us[two],
    )
    trained = trained_on(kept, task="multiclass")
    answers = trained.model.predict(kept.numbers, kept.texts)
    assert answers.shape[1] == 3
    assert answers[:, 2].mean() < 0.05


# A request, from rows to the answer


def answered(task: Task, found: TrainingSet, champion: Trained | None = None, since_us: int = 0) -> Fitting:
    asked = request(since_us=since_us).payload
    model = None if champion is None else champion.model
    return fit_request(TASKS[task], asked, found, model, QUICK, GateSettings(), lambda stage, detail: None)


@pytest.mark.parametrize(
    ("task", "words"), [("multiclass", "log loss .* base rate"), ("regression", "squared error .* mean")]
)
def test_a_good_model_is_published_in_the_words_of_its_task(task: Task, words: str) -> None:
    fitting = answered(task, case(task)[1])
    assert fitting.answer.outcome == OUTCOME_PUBLISHED
    assert fitting.published is not None
    assert re.search(words, fitting.answer.because)
    assert (fitting.answer.label_scale > 0) == (task == "regression")
    assert fitting.answer.fitted_rows > fitting.answer.trained_rows


@pytest.mark.parametrize("task", OTHERS)
def test_a_model_of_shuffled_labels_is_refused(task: Task) -> None:
    found = rows(1_500, task=task)
    shuffled = replace(found, labels=np.random.default_rng(5).permutation(found.labels))
    fitting = answered(task, shuffled)
    assert fitting.answer.outcome == OUTCOME_REFUSED
    assert fitting.published is None
    assert "base_rate" in [gate.name for gate in fitting.answer.gates if not gate.passed]


@pytest.mark.parametrize("task", OTHERS)
def test_rows_of_one_label_are_an_answer_that_says_so(task: Task) -> None:
    found = rows(600, task=task)
    fitting = answered(task, replace(found, labels=np.ones(600)))
    assert (fitting.answer.outcome, fitting.trained) == (OUTCOME_REFUSED, None)
    assert "have the label" in fitting.answer.because


@pytest.mark.parametrize("task", OTHERS)
def test_a_champion_of_another_task_is_not_compared_with(task: Task) -> None:
    fitting = answered(task, rows(1_200, task=task), trained_on(rows(700)), since_us=600 * STEP_US)
    assert fitting.trained is not None
    assert fitting.trained.held_out.champion is None
    assert fitting.trained.chosen in ("history", "since")


# Gates


@pytest.mark.parametrize("task", OTHERS)
def test_a_model_that_is_surely_worse_than_the_champion_is_refused(task: Task) -> None:
    trained, found = case(task)
    seen = part(found, 0, 2_500)
    held = trained.held_out
    worse: HeldOut = replace(
        held,
        challenger=held.challenger[::-1],
        champion=held.challenger,
        unseen_by_champion=np.ones(len(held.labels), dtype=bool),
    )
    results = {gate.name: gate for gate in judge(TASKS[task], replace(trained, held_out=worse), seen, GateSettings())}
    assert not results["champion"].passed
    assert not results["base_rate"].passed
    assert all(gate.passed for gate in judge(TASKS[task], trained, seen, GateSettings()))


class Says:
    """A model that answers every row alike."""

    def __init__(self, use_case: UseCase, *answer: float) -> None:
        self.inputs_digest = use_case.inputs_digest
        self._answer = answer

    def predict(self, numbers: np.ndarray, texts: object) -> np.ndarray:
        return (
            np.tile(self._answer, (len(numbers), 1))
            if len(self._answer) > 1
            else np.full(len(numbers), self._answer[0])
        )


@pytest.mark.parametrize(
    ("task", "answer"),
    [
        ("multiclass", (0.5, 0.5, 0.5)),
        ("multiclass", (0.2, 0.3, 0.5)),
        ("multiclass", (np.nan, 0.5, 0.5)),
        ("regression", (np.inf,)),
        ("regression", (np.nan,)),
        ("regression", (3.0,)),
    ],
)
def test_answers_that_are_unusable_or_always_the_same_are_not_sane(task: Task, answer: tuple[float, ...]) -> None:
    trained, found = case(task)
    broken = replace(trained, model=Says(TASKS[task], *answer))  # type: ignore[arg-type]
    results = {gate.name: gate for gate in judge(TASKS[task], broken, part(found, 0, 2_500), GateSettings())}
    assert not results["sane"].passed


# Real tables


def table(name: str) -> tuple[UseCase, TrainingSet]:
    """A small real table in random order, as a use case of numbers only."""
    found = getattr(datasets, f"load_{name}")()
    task: Task = "regression" if name == "diabetes" else "multiclass"
    names = [f"n{place}" for place in range(found.data.shape[1])]
    asked = Event("asked", entity="row", fields={n: Field(float) for n in names} | {"due_at": Field("time")})
    told = Event("told", entity="row", fields={"label": Field(float)})
    classes = [str(k) for k in range(3)] if task == "multiclass" else []
    use_case = UseCase(
        name=name,
        events=[asked, told],
        predict=Prediction(on=asked, at=before("due_at", "1h"), task=task, classes=classes),
        features=[Request(*names)],
        label=Label(on=told, value=lambda fields: fields["label"]),
    )
    order = np.random.default_rng(0).permutation(len(found.data))
    at_us = np.arange(len(order), dtype=np.int64) * STEP_US
    rows_of = TrainingSet(
        [str(place) for place in order],
        at_us,
        found.data[order],
        np.empty((len(order), 0)),
        found.target[order].astype(float),
        at_us + 1,
    )
    return use_case, rows_of


@pytest.mark.parametrize(
    ("name", "measure", "least"), [("iris", "accuracy", 0.85), ("wine", "accuracy", 0.9), ("diabetes", "r2", 0.3)]
)
def test_small_real_tables_are_learned(name: str, measure: str, least: float) -> None:
    use_case, found = table(name)
    cut = int(len(found) * 0.7)
    settings = TrainingSettings(epochs=150, patience=30, batch_rows=32)
    trained = train(use_case, part(found, 0, cut), 0, None, 1, settings, lambda detail: None)
    new = part(found, cut, len(found))
    got = measures(use_case.predict.task, trained.model.predict(new.numbers, new.texts), new.labels)
    assert got[measure] > least


# Bundles


@pytest.mark.parametrize("task", OTHERS)
def test_a_published_bundle_and_its_service_answer_as_the_model_does(tmp_path: Path, task: Task) -> None:
    trained, found = case(task)
    store = ArtifactStore(tmp_path / "store")
    key = ensure_keys(store)
    model_id = f"of_{task}"
    built = build_bundle(
        "trips", model_id, trained.onnx, trained.weights, trained.spec, tmp_path / "b", tmp_path / "home"
    )
    bundle = publish_bundle(store, "trips", model_id, built, key)
    file = fetch_bundle(store, bundle.url, bundle.digest, key.verify_key, tmp_path / "fetched")
    loaded = load_bundle(file, tmp_path / "home", model_id)
    declared = TASKS[task].predict
    assert (loaded.task, loaded.classes) == (declared.task, declared.classes)
    numbers, texts = np.nan_to_num(found.numbers[:5]), found.texts[:5].tolist()
    expected = trained.model.predict(numbers, texts)
    assert loaded.predict(numbers, texts).tolist() == expected.tolist()
    served = sys.modules[f"driftloop_model_{model_id}.service"].Model.inner()
    assert served.predict(numbers.tolist(), texts) == expected.tolist()
