"""Which models are tried on which rows, what they may cost, and what their paired evidence says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from driftloop.scoring import ScoringModel
from driftloop.usecase import MAX_LOSS
from services.trainer.attempts import TrainingSettings
from services.trainer.candidates import Asked, Setting, candidates, held_out_rows, planned
from services.trainer.held_out import HeldOut
from services.trainer.training import ARCHIVED, train
from tests.trainer_twin import QUICK, STEP_US, part, rows, trained_on, trips


def setting(total: int, since: int = 0, learned: int = 0) -> Setting:
    return Setting(total, since, learned, 1, TrainingSettings())


def sizes(total: int, since: int = 0, learned: int = 0, newer: int = 0, **asked) -> dict[str, int]:
    found = candidates(replace(setting(total, since, learned), newer_rows=newer), Asked(**asked))
    return {one.name: len(one.rows) for one in found}


def test_the_first_model_rests_on_all_rows():
    assert sizes(7_000) == {"all": 7_000}


def test_after_a_change_the_rows_since_are_what_counts():
    assert sizes(9_000, 8_500, 7_000, change=True) == {
        "since": 500,
        "history": 9_000,
        "recalibrated": 500,
        "tuned": 500,
    }
    assert "history" not in sizes(9_000, 8_500, 7_000, change=True, rows_max=5_000)


def test_a_change_of_long_ago_costs_no_more_than_it_may():
    found = sizes(20_000, 6_600, 7_000, change=True, rows_max=4_000)
    assert found == {"since": 2_000, "recalibrated": 2_000}


def test_later_a_fresh_model_is_tried_beside_the_champion_trained_further():
    assert sizes(9_000, 0, 7_000, 2_000, recent_rows=800) == {"recent": 800, "tuned": 800}
    assert sizes(14_000, 0, 7_000, 7_000, recent_rows=800) == {"all": 14_000, "tuned": 800}


def test_the_champion_is_trained_further_on_what_it_does_not_know_among_rows_of_the_whole_regime():
    (tuned,) = [
        one
        for one in candidates(replace(setting(9_000, 1_000, 7_000), newer_rows=300), Asked(recent_rows=800))
        if one.name == "tuned"
    ]
    assert len(tuned.rows) == len(set(tuned.rows.tolist())) == 800
    assert np.array_equal(tuned.rows[-400:], np.arange(8_600, 9_000))
    assert 1_000 <= tuned.rows[0] < 3_000


@pytest.mark.parametrize(
    ("other_class", "tried", "recent_rows"),
    [
        (slice(8_600, 9_000), {"since": 500, "recalibrated": 500, "tuned": 500}, 0),
        (slice(7_500, 8_000), {"recent": 2_000}, 2_000),  # in the newest that are paid for
        (slice(0, 1_000), {"all": 2_000}, 9_000),  # in a draw of all
        (slice(0, 0), {}, 9_000),
    ],
)
def test_where_rows_since_a_change_are_of_one_class_those_from_before_it_are_tried_and_a_draw_of_all_last(
    other_class: slice, tried: dict[str, int], recent_rows: int
) -> None:
    labels = np.zeros(9_000)
    labels[other_class] = 1.0
    plan = planned(labels, setting(9_000, 8_500, 7_000), Asked(change=True, rows_max=2_000))
    assert {one.name: len(one.rows) for one in plan.candidates} == tried
    assert (plan.setting.since, plan.asked.change, plan.asked.recent_rows) == (
        (8_500, True, 0) if "since" in tried else (0, False, recent_rows)
    )


def test_where_all_rows_cost_too_much_the_newest_do():
    assert sizes(14_000, 0, 7_000, 7_000, recent_rows=800, rows_max=2_000) == {"recent": 800, "tuned": 800}
    assert sizes(14_000, 0, 7_000, 7_000, recent_rows=800, rows_max=1_000) == {"recent": 800}


def test_all_rows_go_before_another_try_of_the_newest_where_only_one_is_paid_for():
    assert sizes(14_000, 0, 7_000, recent_rows=9_000, rows_max=15_000) == {"all": 14_000}


def test_in_a_grown_regime_rows_from_before_it_are_tried_beside_its_own():
    found = {one.name: one for one in candidates(setting(30_000, 20_000, 500), Asked(recent_rows=800))}
    assert set(found) == {"all", "history", "tuned"}
    assert found["history"].change == 20_000
    assert np.array_equal(found["history"].rows[-10_000:], found["all"].rows)
    assert len(found["history"].rows) == 20_000
    assert np.all(np.diff(found["history"].rows) > 0)


def test_of_very_many_rows_the_newest_are_whole_and_older_ones_drawn():
    most = TrainingSettings().sampled_rows_max
    (fresh, _) = candidates(setting(2 * most, 0, 7_000), Asked(recent_rows=5_000))
    again = candidates(setting(2 * most, 0, 7_000), Asked(recent_rows=5_000))[0]
    assert len(fresh.rows) == most
    assert np.array_equal(fresh.rows[-5_000:], np.arange(2 * most - 5_000, 2 * most))
    assert np.all(np.diff(fresh.rows) > 0)
    assert np.array_equal(fresh.rows, again.rows)


def test_of_all_rows_a_draw_is_fitted_where_they_cost_more_than_is_allowed_and_the_newest_quarter_is_whole():
    (drawn,) = candidates(setting(100_000, 0, 60_000), Asked(recent_rows=200_000, rows_max=20_000))
    assert (drawn.name, len(drawn.rows)) == ("all", 20_000)
    assert np.array_equal(drawn.rows[-5_000:], np.arange(95_000, 100_000))
    assert np.histogram(drawn.rows[:-5_000], 5, (0, 95_000))[0] == pytest.approx(3_000, rel=0.1)


@pytest.mark.parametrize("rows_max", [1, 2, 3])
def test_a_request_that_pays_for_hardly_any_row_still_gets_the_newest(rows_max):
    (drawn,) = candidates(setting(1_000, 0, 600), Asked(recent_rows=2_000, rows_max=rows_max))
    assert len(drawn.rows) == rows_max
    assert drawn.rows[-1] == 999


@pytest.mark.parametrize(
    ("total", "asked", "expected"),
    [
        (7_000, Asked(), 1_750),
        (20_000, Asked(), 2_000),
        (400, Asked(), 100),
        (400, Asked(evidence_rows=300), 160),
        (2_000, Asked(block_rows=320, evidence_rows=640), 640),
        (100_000, Asked(block_rows=320, evidence_rows=640), 16_000),
    ],
)
def test_enough_rows_are_held_out_and_never_too_many(total, asked, expected):
    assert held_out_rows(candidates(setting(total), asked), asked) == expected


def test_gains_are_paired_and_only_of_rows_that_the_champion_has_not_seen():
    labels = np.ones(200)
    challenger, champion = np.full(200, 0.9), np.full(200, 0.5)
    unseen = np.arange(200) >= 40
    held_out = HeldOut(np.arange(200), labels, challenger, np.array(0.5), champion, unseen)
    gains, count = held_out.gains("binary", 40)
    assert count == 160
    assert len(gains) >= 8
    assert gains == pytest.approx([np.log(0.9 / 0.5)] * len(gains))
    alone = HeldOut(np.arange(200), labels, challenger, np.array(0.5), None, unseen)
    assert alone.gains("binary", 40) == ([], 0)


def test_one_row_that_a_champion_was_sure_about_is_bounded_as_in_production():
    labels, champion = np.ones(400), np.full(400, 0.5)
    champion[7] = 1e-12
    held_out = HeldOut(np.arange(400), labels, np.full(400, 0.5), np.array(0.5), champion, np.ones(400, dtype=bool))
    gains, count = held_out.gains("binary", 40)
    assert count == 400
    assert sum(gains) * 40 == pytest.approx(MAX_LOSS - np.log(2))


def test_a_former_champion_is_published_again_when_its_concept_comes_back():
    before, turned = trained_on(rows(3_000)), rows(4_000, turned=["blue", "red", "green"], turned_from=0)
    former = ScoringModel(before.onnx, {**before.spec, "model_id": "m1"}, before.weights)  # as its bundle holds it
    champion = trained_on(turned).model
    back = rows(4_400)
    asked = Asked(change=True, rows_max=2_000)
    found = train(trips, back, 4_000 * STEP_US, champion, 1, QUICK, lambda line: None, asked, {"m1": former})
    assert found.chosen == ARCHIVED
    assert found.model is former
    assert found.model_digest == before.model_digest
    assert found.fitted_rows > 0
    again = train(
        trips, part(turned, 0, 4_000), 3_600 * STEP_US, champion, 1, QUICK, lambda line: None, asked, {"m1": former}
    )
    assert again.chosen != ARCHIVED


def test_a_champion_trained_further_has_learned_from_its_rows_too():
    whole = rows(4_000)
    champion = trained_on(part(whole, 0, 3_000)).model
    found = train(trips, whole, 0, champion, 1, QUICK, lambda line: None, Asked(recent_rows=800))
    assert champion.spec["trained_rows"] == 3_000
    assert found.spec["trained_rows"] == {"tuned": 4_000, "recent": 800}[found.chosen]
