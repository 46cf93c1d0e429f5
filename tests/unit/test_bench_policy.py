"""The benchmark of the default policy: its streams are what they say, its verdicts follow from its results, and it can go on."""

from __future__ import annotations

import json

import numpy as np
import pytest

from bench.policy import runs
from bench.policy.boosting import train_boosted
from bench.policy.checks import Mean, nearest_periodic, quiet, ranks, relative, table_of, verdicts
from bench.policy.runs import STREAMS, Run, carry_out, missing
from services.trainer.attempts import TrainingSettings
from simulation.history import history_of

NEVER_US = 2**62


def mean(loss: float, cost_x: float = 1.0, promotions: float = 0.0, drifts: float = 0.0, seeds: int = 1) -> Mean:
    return Mean(loss, {"accuracy": 1.0 - loss}, cost_x, promotions, 0, drifts, 0, 10_000, 1, seeds)


@pytest.mark.parametrize("name", ["sea-abrupt", "led-none", "new-categories", "late-biased-labels"])
def test_a_stream_is_the_same_for_the_same_seed_only(name):
    first, again, other = (STREAMS[name].make(seed, 600).columns["label"].tolist() for seed in (3, 3, 4))
    assert first == again != other


def test_the_clock_that_the_benchmark_makes_for_late_labels_is_no_input():
    use_case = STREAMS["late-biased-labels"].source(1, 2_000).open().use_case
    assert not [name for name in (*use_case.numeric_inputs, *use_case.text_inputs) if "asked_at" in name]


def test_labels_that_are_corrected_are_told_wrong_first_and_right_in_the_end():
    opened = STREAMS["corrected-labels"].source(1, 2_000).open()
    made = STREAMS["corrected-labels"].make(1, 2_000)
    history = history_of(opened.use_case, opened.stretch)
    wrong = made.correction.rows
    told = made.columns["label"].astype(float)
    assert np.array_equal(history.labels[wrong], 1 - told[wrong])
    right = np.setdiff1d(np.arange(len(told)), wrong)
    assert np.array_equal(history.labels[right], told[right])
    soon = history.known_at_us[wrong[0]]
    assert history.labels_at(soon)[wrong[0]] == told[wrong[0]]


def test_the_default_policy_is_held_to_static_and_to_the_period_of_the_nearest_cost():
    table = {
        "good": {"static": mean(0.5), "periodic-5%": mean(0.4, 2.0), "periodic-25%": mean(0.45, 0.5)},
        "bad": {"static": mean(0.5), "periodic-5%": mean(0.3, 2.0), "periodic-25%": mean(0.6, 0.5)},
    }
    table["good"]["driftloop"], table["bad"]["driftloop"] = mean(0.4, 1.8), mean(0.55, 0.6)
    assert nearest_periodic(table["good"]) == "periodic-5%"
    found = {result.case: result for result in verdicts(table)}
    assert found["worst against static: bad"].value == pytest.approx(0.1)
    assert found["worst against static: bad"].as_dict()["met"] is False
    assert found["worst against the nearest period: good"].as_dict()["met"] is True


def test_what_is_done_where_nothing_changes_is_counted_per_so_many_rows_of_all_seeds():
    loud, still = mean(0.5, promotions=1.0, drifts=0.5, seeds=3), mean(0.5)
    found = {(one.case, one.metric): one for one in quiet({"loud": {"driftloop": loud}, "still": {"driftloop": still}})}
    together = found["2 stable streams", "promotions per 50,000 rows"]
    assert together.value == pytest.approx(3 / 40_000 * 50_000)
    assert together.as_dict()["met"] is False
    assert found["loudest stable stream: loud", "promotions per 50,000 rows"].value == pytest.approx(5)
    assert found["2 stable streams", "alarms of all series per 50,000 rows"].value == pytest.approx(1.875)
    assert quiet({}) == []


def test_equal_losses_share_their_ranks():
    table = {"stream": {"static": mean(0.3), "drift": mean(0.3), "driftloop": mean(0.1)}}
    assert ranks(table, ["static", "drift", "driftloop"], "log_loss") == {"static": 2.5, "drift": 2.5, "driftloop": 1.0}


def test_a_share_of_next_to_nothing_is_taken_of_a_hundredth():
    assert relative(0.0002, 0.0001) == pytest.approx(0.01)


def test_only_seeds_with_every_policy_count():
    def result(policy: str, seed: int, loss: float) -> dict:
        numbers = dict.fromkeys(
            ("cost_x", "promotions", "rejected", "drifts", "input_drifts", "scored_rows", "seconds"), 1
        )
        return {"stream": "s", "seed": seed, "policy": policy, "loss": loss, "metrics": {}} | numbers

    found = table_of([result("static", 0, 0.2), result("static", 1, 0.9), result("drift", 0, 0.4)], ["static", "drift"])
    assert found["s"]["static"].loss == 0.2
    assert found["s"]["static"].seeds == 1


def test_trees_learn_what_a_stream_says_inside_the_policy():
    opened = STREAMS["sea-none"].source(1, 1_500).open()
    history = history_of(opened.use_case, opened.stretch)
    rows = history.training_set(history.labelled[:1_000], NEVER_US)
    trained = train_boosted(opened.use_case, rows, 0, None, 1, TrainingSettings(), lambda words: None)
    answers = trained.model.predict(history.numbers[1_000:], history.texts[1_000:])
    assert trained.chosen == "all"
    assert np.mean((answers > 0.5) == history.labels[1_000:]) > 0.75


def test_what_is_there_is_not_run_again_unless_other_code_made_it(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "FOLDER", tmp_path)
    run = Run("breast-cancer", 0, 0, ("static",))
    assert "breast-cancer" in carry_out(missing(run, accept_old=False))[0]
    assert missing(run, accept_old=False).policies == ()
    path = run.path("static")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"code": "other"}))
    assert missing(run, accept_old=False).policies == ("static",)
    assert missing(run, accept_old=True).policies == ()
