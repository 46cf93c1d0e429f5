"""Policies side by side: the same rows, nothing from the future, the same twice, and the loop itself as the default policy."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from driftloop.contracts import Record
from driftloop.tables import InferenceOptions
from driftloop.usecase import DAY_US, load_replay, load_use_case, replay_steps
from services.trainer.assembly import examples
from simulation.backtest.loop_policy import KEPT_TOPICS, HistoryTrainer, at_the_point, replayed
from simulation.backtest.outcome import Outcome
from simulation.backtest.report import Findings
from simulation.backtest.run import Prepared, prepare, run_policy
from simulation.backtest.session import backtest
from simulation.backtest.sources import Opened, TableSource
from simulation.backtest.workers import run_all
from simulation.history import history_of
from simulation.loop import Loop
from simulation.trainer import RecordedTrainer
from tests.backtest_twin import CHANGED_FROM, QUICK, ROWS, Quiet, returns, written
from tests.sample_tables import demand, payments, tickets

SIMPLE = ("static", "periodic-10%", "drift", "decay")
ALL = (*SIMPLE, "driftloop")


def outcome_of(prepared: Prepared, opened: Opened, policy: str) -> Outcome:
    return run_policy(prepared, opened.stretch, policy, lambda row, words: None)


def same(first: Outcome, second: Outcome) -> bool:
    return (
        np.array_equal(first.answers, second.answers, equal_nan=True)
        and first.events == second.events
        and first.fits == second.fits
        and first.deployed == second.deployed
    )


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> TableSource:
    return written(returns(), tmp_path_factory.mktemp("returns"))


@pytest.fixture(scope="module")
def opened(source: TableSource) -> Opened:
    return source.open()


@pytest.fixture(scope="module")
def prepared(opened: Opened) -> Prepared:
    return prepare(opened, 0, QUICK, lambda words, share: None)


@pytest.fixture(scope="module")
def outcomes(prepared: Prepared, opened: Opened) -> dict[str, Outcome]:
    return {policy: outcome_of(prepared, opened, policy) for policy in ALL}


@pytest.fixture(scope="module")
def reported(source: TableSource, tmp_path_factory: pytest.TempPathFactory) -> tuple[Findings, Path]:
    out = tmp_path_factory.mktemp("report")
    done = backtest(source, ALL, 0, 1, out, Quiet(), QUICK)
    assert done.found is not None
    assert not done.interrupted
    return done.found, out


def test_the_loop_beats_a_model_that_is_never_retrained_after_an_abrupt_change(
    reported: tuple[Findings, Path],
) -> None:
    found, _ = reported
    losses = {policy: float(lost.mean()) for policy, lost in found.losses.items()}
    assert losses["driftloop"] < losses["static"] - 0.1
    assert found.outcomes["driftloop"].count("drift") >= 1
    assert found.outcomes["driftloop"].count("promotion") >= 1
    assert found.recommendation is not None
    assert found.recommendation.policy != "static"


def test_every_policy_answers_the_same_rows_and_starts_with_the_same_model(
    prepared: Prepared, outcomes: dict[str, Outcome]
) -> None:
    history = prepared.history
    point = history.labelled[len(history.labelled) // 10]
    assert history.at_us[prepared.scored[0]] == history.at_us[point]  # the whole step of the row at the 10 % point
    assert history.at_us[prepared.scored[0] - 1] < history.at_us[point]
    for outcome in outcomes.values():
        assert not np.isnan(outcome.answers[prepared.scored]).any()
        assert outcome.fits[0] == prepared.first.fit
        changes = [event.row for event in outcome.events if event.kind in ("canary", "promotion", "recalibrated")]
        first_change = min(changes, default=len(prepared.history))
        until = prepared.scored[prepared.scored < first_change]
        assert np.allclose(outcome.answers[until], outcomes["static"].answers[until], atol=1e-6)


def test_no_label_is_learned_from_before_it_is_known(outcomes: dict[str, Outcome]) -> None:
    for outcome in outcomes.values():
        assert all(fit.newest_label_us <= fit.clock_us for fit in outcome.fits)
    assert sum(len(outcome.fits) for outcome in outcomes.values()) > len(outcomes)


def test_a_training_set_with_a_label_from_the_future_is_refused(prepared: Prepared) -> None:
    history = prepared.history
    clock_us = int(history.known_at_us[500])
    rows = history.arrived(clock_us)
    assert len(history.training_set(rows, clock_us)) == len(rows)
    with pytest.raises(ValueError, match="was not known"):
        history.training_set(np.append(rows, rows[-1] + 1), clock_us)


def test_labels_of_the_future_change_nothing_before_they_are_known(
    outcomes: dict[str, Outcome], tmp_path: Path
) -> None:
    """The sharpest proof: with every later label turned over, all answers until then are the same to the last bit."""
    later = CHANGED_FROM + 900
    turned = written(returns(flipped_from=later), tmp_path).open()
    prepared = prepare(turned, 0, QUICK, lambda words, share: None)
    known = int(prepared.history.known_at_us[later])
    before = prepared.history.at_us < known
    for policy, outcome in outcomes.items():
        again = outcome_of(prepared, turned, policy)
        assert np.array_equal(again.answers[before], outcome.answers[before], equal_nan=True), policy
        assert [fit for fit in again.fits if fit.clock_us < known] == [
            fit for fit in outcome.fits if fit.clock_us < known
        ]


def test_rows_and_labels_are_those_that_trainers_assembly_would_choose(prepared: Prepared, opened: Opened) -> None:
    history, loop = prepared.history, Loop(opened.use_case, None, vectors_only=True)
    loop.run(replay_steps(opened.stretch, opened.use_case.step_us, opened.use_case.label.matures_after_us))
    events = [
        record.message.payload
        for partition in range(loop.bus.spread)
        for record in loop.bus.read("events", partition)
        if isinstance(record, Record) and not record.message.is_watermark
    ]
    for clock_us in (prepared.first.fit.clock_us, int(history.at_us[3_210])):
        found = examples(history.use_case, events, clock_us)
        rows = history.training_set(history.mature(clock_us), clock_us)
        assert (rows.entities, rows.at_us.tolist()) == (found.entities, found.at_us)
        assert (rows.labels.tolist(), rows.known_at_us.tolist()) == (found.labels, found.known_at_us)


def test_the_same_seed_gives_the_same_run_in_this_process_and_in_others_and_another_seed_another(
    source: TableSource, opened: Opened, prepared: Prepared, outcomes: dict[str, Outcome]
) -> None:
    policies = ["periodic-10%", "decay", "driftloop"]
    apart = {outcome.policy: outcome for outcome in run_all(source, opened, prepared, policies, 2, lambda *told: None)}
    assert set(apart) == set(policies)
    for policy, outcome in apart.items():
        assert same(outcome, outcomes[policy]), policy
    other = outcome_of(replace(prepared, seed=1), opened, "periodic-10%")
    assert not same(other, outcomes["periodic-10%"])


def test_the_report_has_the_promised_form(reported: tuple[Findings, Path]) -> None:
    found, out = reported
    report = json.loads((out / "report.json").read_text())
    assert (report["rows"], report["task"], report["interrupted"]) == (ROWS, "binary", [])
    assert report["scored_rows"] == len(found.prepared.scored)
    assert list(report["policies"]) == list(ALL)
    for policy in report["policies"].values():
        assert set(policy["metrics"]) == {"accuracy", "kappa", "roc_auc", "pr_auc", "log_loss", "brier"}
        assert all(isinstance(value, float) for value in policy["metrics"].values())
        for name in ("retrains", "promotions", "rejected", "rollbacks", "trained_rows", "row_epochs"):
            assert isinstance(policy[name], int), name
        assert policy["cost_x"] == pytest.approx(policy["trained_rows"] / report["rows"])
        assert policy["seconds"] > 0
        assert policy["timeline"]
        for event in policy["timeline"]:
            assert set(event) == {"row", "time", "event", "why"}
            assert 0 <= event["row"] <= ROWS
            assert event["why"]
            pd.Timestamp(event["time"])
    static, periodic = report["policies"]["static"], report["policies"]["periodic-10%"]
    assert (static["retrains"], static["promotions"]) == (0, 0)
    assert 0.05 < static["cost_x"] < 0.25  # the fits that one tenth of the rows takes
    assert (periodic["retrains"], periodic["promotions"]) == (9, 9)  # every tenth from the 10 % point on
    page = (out / "report.html").read_text()
    for part in (
        "Quality over time",
        "Cost against quality",
        "Slices",
        "Importance drift",
        "Inferred schema",
        "Protocol",
    ):
        assert part in page
    assert "<script" not in page
    assert not re.search(r"""(src|href)=["'](?!#)""", page)  # nothing is fetched from anywhere


def test_an_interrupted_backtest_leaves_what_is_finished_and_says_what_is_not(
    source: TableSource, tmp_path: Path
) -> None:
    done = backtest(source, ["static", "periodic-10%", "decay"], 0, 1, tmp_path, Quiet("periodic-10%"), QUICK)
    assert done.interrupted
    report = json.loads((tmp_path / "report.json").read_text())
    assert list(report["policies"]) == ["static"]
    assert report["interrupted"] == ["periodic-10%", "decay"]
    assert "This backtest was interrupted" in (tmp_path / "report.html").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "report.json"]


def test_a_backtest_that_is_interrupted_before_any_policy_is_done_says_so(source: TableSource, tmp_path: Path) -> None:
    done = backtest(source, ["static", "decay"], 0, 1, tmp_path, Quiet("static"), QUICK)
    assert done.found is None
    assert json.loads((tmp_path / "report.json").read_text()) == {
        "source": "returns.csv",
        "interrupted": ["static", "decay"],
        "policies": {},
    }
    page = (tmp_path / "report.html").read_text()
    assert "interrupted before any policy was finished" in page
    assert "static, decay" in page


@pytest.mark.parametrize(
    ("table", "options", "metrics"),
    [
        (payments(3_000), InferenceOptions(label="charged_back", time="paid at", label_time="settled at"), "pr_auc"),
        (tickets(2_500), InferenceOptions(label="team", categorical=["severity"]), "kappa"),
        (demand(2_500), InferenceOptions(label="load", time="hour"), "r2"),
    ],
    ids=["rare positives, late labels", "classes", "a number"],
)
def test_every_task_goes_through_every_policy(
    table: pd.DataFrame, options: InferenceOptions, metrics: str, tmp_path: Path
) -> None:
    path = tmp_path / "table.parquet"
    table.to_parquet(path)
    done = backtest(
        TableSource(path, options),
        ["static", "periodic-25%", "drift", "decay", "driftloop"],
        0,
        1,
        tmp_path,
        Quiet(),
        QUICK,
    )
    assert done.found is not None
    for policy, found in done.found.metrics.items():
        assert np.isfinite(found[metrics]), policy
    assert (tmp_path / "report.html").is_file()


@cache
def flights() -> Opened:
    return Opened(load_use_case("flights"), load_replay("flights").stretch(start="2013-03-01", days=10))


@pytest.mark.timeout(600)
def test_the_default_policy_takes_the_decisions_that_the_whole_loop_takes() -> None:
    opened = flights()
    history = history_of(opened.use_case, opened.stretch)
    use_case = at_the_point(history, int(history.at_us[len(history) // 4]))
    whole = Loop(use_case, RecordedTrainer(use_case, QUICK))
    whole.run(replay_steps(opened.stretch, use_case.step_us, DAY_US))
    trainer = HistoryTrainer(replace(history, use_case=use_case), 0, QUICK, lambda line: None)
    answers: dict[str, float | list[float]] = {}
    steps = replay_steps(opened.stretch, use_case.step_us, DAY_US)
    fast = replayed(replace(history, use_case=use_case), trainer, steps, answers.__setitem__)
    assert len(answers) == whole.answered
    for topic in KEPT_TOPICS:
        kept, expected = (
            [r.message for r in loop.bus.read(topic, 0) if isinstance(r, Record) and not r.message.is_watermark]
            for loop in (fast, whole)
        )
        assert [(m.id, m.payload) for m in kept] == [(m.id, m.payload) for m in expected], topic
    assert fast.bus.end(("models", 0)) > 1
