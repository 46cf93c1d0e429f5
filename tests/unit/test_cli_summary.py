"""What the summary says follows from the messages; a loop that did not close is named as such."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner

from bench.loop import results
from driftloop.cli.__main__ import COMMANDS, SUMMARIES, main
from driftloop.cli.demo import as_judged, missing_links
from driftloop.cli.replay import Played
from driftloop.cli.report import write_report
from driftloop.cli.summary import JudgedRows, by_topic, judged_rows, quality, summarise
from driftloop.contracts import Message
from driftloop.contracts.monitor.v1.monitor_pb2 import LABEL_STATE_MATCHED, Decision, Score
from driftloop.contracts.serving.v1.serving_pb2 import Prediction, Vector
from driftloop.contracts.trainer.v1.trainer_pb2 import OUTCOME_PUBLISHED, Model
from driftloop.usecase import HOUR_US, ReplayEvent, ReplayRequest, load_use_case, replay_steps

CLOSED = {
    "events": {"sent": 3, "accepted": 1, "duplicate": 1, "rejected": 1, "dead_lettered": 1},
    "predictions": {"answered": 1, "before_model": 0, "failed": 0},
    "models": [{"promoted": True, "reason": "drift"}],
    "drift": {"detected_at": "then"},
    "trace": ["a"],
}


def test_decisions_of_one_moment_keep_their_order():
    taken = [Message("decisions", "flights", Decision(id=name), name, "monitor", 1, 1) for name in ("c", "a", "b")]
    assert [m.id for m in by_topic({m.id: m for m in taken})["decisions"]] == ["c", "a", "b"]


def test_a_closed_loop_misses_nothing():
    assert missing_links(CLOSED, injected=True) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"events": CLOSED["events"] | {"sent": 4}}, "accounted"),
        ({"predictions": CLOSED["predictions"] | {"failed": 1}}, "failed"),
        ({"models": []}, "no model"),
        ({"models": [{"promoted": True, "reason": "bootstrap"}]}, "drift asked for"),
        ({"drift": {"detected_at": None}}, "not found"),
        ({"trace": []}, "chain"),
    ],
)
def test_a_loop_that_did_not_close_says_which_link_is_missing(change, said):
    assert any(said in link for link in missing_links(CLOSED | change, injected=True))


def test_the_recovered_share_is_of_what_the_change_cost():
    labels = np.array([1.0, 0.0] * 50)
    rows = JudgedRows(
        [f"e{i}" for i in range(100)],
        np.arange(100),
        labels,
        np.where(labels > 0, 0.7, 0.3),
        np.zeros((100, 1)),
        [[]] * 100,
    )

    def static(numbers, texts):
        return np.full(len(numbers), 0.5) if numbers[0, 0] == 0 else np.where(labels > 0, 0.9, 0.1)

    def clean(entities):
        return {e: Vector(numbers=[1.0]) for e in entities}, dict(zip(entities, labels, strict=True))

    found = quality(rows, static, clean)
    expected = (np.log(2) + np.log(0.7)) / (np.log(2) + np.log(0.9))
    assert found["recovered_share"] == pytest.approx(expected)
    assert found["pr_auc"]["loop"] == 1.0


def test_losses_are_finite_for_a_model_that_is_sure_and_wrong():
    rows = JudgedRows(["a", "b"], np.arange(2), np.array([1.0, 0.0]), np.zeros(2), np.zeros((2, 1)), [[], []])
    assert np.isfinite(rows.losses(np.array([0.0, 1.0]))).all()


def judged(task, count=40) -> dict[str, list[Message]]:
    """Topics with as many answers and labels, each a model's best."""
    topics = {"predictions": [], "scores": [], "models": []}
    for row in range(count):
        label = float(row % 3)
        chances = [0.8 if k == label else 0.1 for k in range(3)] if task == "multiclass" else []
        answer = Prediction(
            id=f"p{row}", entity=f"e{row}", score=0.8 if chances else label + 0.5, class_probabilities=chances
        )
        answer.vector.numbers.append(float(row))
        score = Score(entity=f"e{row}", prediction_id=f"p{row}", label=label, state=LABEL_STATE_MATCHED)
        topics["predictions"].append(Message("predictions", "k", answer, f"p{row}", "t", 1, 1))
        topics["scores"].append(Message("scores", "k", score, f"s{row}", "t", 1, 1))
    scale = 0.5 if task == "regression" else 0.0
    model = Model(id="m", outcome=OUTCOME_PUBLISHED, label_scale=scale)
    topics["models"].append(Message("models", "k", model, "m", "t", 1, 1))
    return topics


@pytest.mark.parametrize(
    ("task", "metrics", "loop"),
    [
        ("multiclass", ["log_loss", "accuracy"], (-np.log(0.8), 1.0)),
        ("regression", ["squared_error", "mae"], (0.25 / 0.5, 0.5)),
    ],
)
def test_quality_is_told_in_the_terms_of_the_task(task, metrics, loop):
    rows = judged_rows(judged(task), task)

    def static(numbers, texts):
        return np.full((len(numbers), 3), 1 / 3) if task == "multiclass" else np.full(len(numbers), 1.0)

    found = quality(rows, static, lambda entities: as_judged(rows))
    assert found["metrics"] == metrics
    assert [found[name]["loop"] for name in metrics] == pytest.approx(loop)
    assert found[metrics[0]]["static"] > found[metrics[0]]["loop"]


@pytest.mark.parametrize(("task", "words"), [("multiclass", "log loss, nats"), ("regression", "squared error, label")])
def test_the_report_is_worded_for_the_task(tmp_path, task, words):
    topics = judged(task, count=600)
    rows = judged_rows(topics, task)
    summary = summarise(Played(), {m.id: m for found in topics.values() for m in found}, None, "asked") | {"seconds": 1}
    write_report(tmp_path / "report.html", load_use_case("flights"), summary, topics, rows, None)
    page = (tmp_path / "report.html").read_text()
    assert words.split(",")[0].capitalize() in page
    assert words in page


class Stretch:
    start_us, end_us, injected_at_us, rows = HOUR_US, 3 * HOUR_US, None, 2

    def events(self):
        return iter(
            [ReplayEvent("t", f"e{i}", "f", at, at, {}) for i, at in enumerate((HOUR_US, 2 * HOUR_US, 2 * HOUR_US + 1))]
        )

    def requests(self):
        return iter([ReplayRequest(at, f"f{i}", {}) for i, at in enumerate((2 * HOUR_US, 2 * HOUR_US + 1))])


def test_a_step_asks_at_its_start_and_sends_what_is_known_by_its_end():
    steps = list(replay_steps(Stretch(), HOUR_US))
    assert [(s.start_us // HOUR_US, [e.id for e in s.events], [r.entity for r in s.requests]) for s in steps] == [
        (0, ["e0"], []),
        (1, ["e1"], []),
        (2, ["e2"], ["f0", "f1"]),
    ]


def test_the_command_line_knows_its_commands_without_importing_them():
    result = CliRunner().invoke(main, ["--help"])
    assert result.exit_code == 0
    assert all(name in result.output for name in COMMANDS)
    assert set(COMMANDS) == set(SUMMARIES)


@pytest.mark.parametrize(
    "arguments",
    [["nonsense"], ["replay", "nowhere"], ["replay", "flights", "--days", "0"], ["trace"], ["demo", "nowhere"]],
)
def test_wrong_use_of_the_command_line_exits_with_two(arguments):
    assert CliRunner().invoke(main, arguments).exit_code == 2


def test_targets_of_the_loop_benchmark_are_computed():
    measured = {
        "peak_memory_gib": 5.0,
        "ready_s": 20.0,
        "ingest_events_per_s": 1000.0,
        "drift_to_last_release_s": None,
        **{key: {"n": 0} for key in ("event_to_feature", "predict", "clock_to_score", "clock_to_judged", "step")},
    }
    summary = CLOSED | {"seconds": 400, "quality": {"recovered_share": 0.9}, "drift": {"labels_to_detect": None}}
    found = {(r.case, r.metric): r.as_dict() for r in results(json.loads(json.dumps(summary)), measured)}
    assert found[("demo", "duration")]["met"] is False
    assert found[("quality", "recovered share")]["met"] is True
    assert found[("drift", "labels to detect")]["met"] is False
    assert found[("ingest", "events")]["met"] is None
