"""What the summary says follows from the messages; a loop that did not close is named as such."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner

from bench.loop import results
from driftloop.cli.__main__ import COMMANDS, SUMMARIES, main
from driftloop.cli.demo import missing_links
from driftloop.cli.summary import JudgedRows, by_topic, quality, row_losses
from driftloop.contracts import Message
from driftloop.contracts.monitor.v1.monitor_pb2 import Decision
from driftloop.contracts.serving.v1.serving_pb2 import Vector
from driftloop.usecase import HOUR_US, ReplayEvent, ReplayRequest, replay_steps

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


def test_row_losses_are_finite_for_a_model_that_is_sure_and_wrong():
    assert np.isfinite(row_losses(np.array([1.0, 0.0]), np.array([0.0, 1.0]))).all()


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
