"""Trainer's held-out rows count as evidence only if they are rows that production saw so, too."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.monitor.agreement import KEPT_ROWS, MODELS_MAX, HeldOutRows, ProductionRecord


def record(losses: list[float], model: str = "a") -> ProductionRecord:
    found = ProductionRecord()
    for at_us, loss in enumerate(losses):
        found.labelled({model: loss}, at_us)
    return found


@given(st.lists(st.floats(0.0, 4.0), min_size=30, max_size=200), st.integers(0, 20))
def test_the_same_rows_agree_whatever_they_cost(losses, first):
    rows = losses[first:]
    said = HeldOutRows(len(rows), first, len(losses) - 1, sum(rows) / max(1, len(rows)))
    assert record(losses).disagreement("a", said) == ""


def test_other_labels_are_told_by_what_the_champion_lost():
    said = HeldOutRows(100, 0, 99, 0.6)
    assert "the champion lose 0.6000" in record([0.4] * 100).disagreement("a", said)


def test_a_sample_that_lacks_rows_is_no_evidence():
    said = HeldOutRows(60, 0, 99, 0.4)
    assert "98 labels" in record([0.4] * 100).disagreement("a", said)


def test_rows_that_share_a_prediction_time_with_the_first_or_the_last_are_not_missed():
    found = ProductionRecord()
    for at_us in [0] * 40 + list(range(1, 50)) + [50] * 40:
        found.labelled({"a": 0.4}, at_us)
    assert found.disagreement("a", HeldOutRows(60, 0, 50, 0.4)) == ""


def test_what_trainer_was_told_to_leave_out_is_not_missed():
    said = HeldOutRows(60, 0, 99, 0.4)
    assert record([0.4] * 100).disagreement("a", said, lambda at_us: 20 <= at_us < 60) == ""


def test_what_production_did_not_score_cannot_be_compared():
    assert record([0.4] * 100).disagreement("b", HeldOutRows(100, 0, 99, 0.9)) == ""
    assert record([0.4] * 50).disagreement("a", HeldOutRows(100, 0, 99, 0.9)) == ""


def test_the_record_is_bounded_and_survives_a_restart():
    found = ProductionRecord()
    for at_us in range(KEPT_ROWS + 10):
        found.labelled({f"m{at_us // 1_000}": 0.4}, at_us)
    restored = ProductionRecord()
    restored.restore(found.snapshot())
    assert restored.snapshot() == found.snapshot()
    assert len(found.snapshot()) <= MODELS_MAX
    assert all(len(losses) <= KEPT_ROWS for losses in found.snapshot().values())
