"""Assembly: rows come from whole cohorts, as known at the clock, in the order of serving's vectors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftloop.contracts.event.v1.event_pb2 import Event as WireEvent
from driftloop.usecase import HOUR_US, MINUTE_US
from services.trainer.assembly import dataset_digest, examples, training_set, validate, view_keys
from services.trainer.attempts import TrainingSet
from services.trainer.errors import DataRefused
from tests.trainer_twin import TASKS, booked, came, dropped, event, part, rows, said, trips

WEAR, HEAT = (feature.name for feature in trips.views[0].features)
LONG_AGO = -10 * HOUR_US


def trip(entity: str, at_us: int, known_at_us: int = LONG_AGO, line: str = "blue") -> WireEvent:
    return event(booked, entity, known_at_us, line=line, load=1.0, leaves_at=at_us + HOUR_US)


def arrival(entity: str, known_at_us: int, late: bool = True) -> WireEvent:
    return event(came, entity, known_at_us, late=late)


def test_a_cohort_counts_when_every_entity_of_it_has_its_label() -> None:
    events = [trip("a", 0), trip("b", 15 * MINUTE_US), arrival("a", 70 * MINUTE_US)]
    assert examples(trips, events, 2 * HOUR_US).entities == []
    events.append(arrival("b", 90 * MINUTE_US, late=False))
    found = examples(trips, events, 2 * HOUR_US)
    assert (found.entities, found.labels) == (["a", "b"], [1.0, 0.0])


def test_an_entity_that_will_never_have_a_label_does_not_hold_its_cohort_up_and_is_left_out() -> None:
    events = [trip("a", 0), trip("b", 0), arrival("a", 70 * MINUTE_US), event(dropped, "b", 80 * MINUTE_US)]
    found = examples(trips, events, 2 * HOUR_US)
    assert (found.entities, found.never) == (["a"], 1)


def test_at_maturity_a_cohort_counts_with_the_labels_that_it_has() -> None:
    events = [trip("a", 0), trip("b", 0), arrival("a", 70 * MINUTE_US)]
    assert examples(trips, events, 25 * HOUR_US - 1).entities == []
    found = examples(trips, events, 25 * HOUR_US)
    assert (found.entities, found.never, found.incomplete) == (["a"], 1, 0)


def test_nothing_that_became_known_after_the_clock_is_used() -> None:
    clock_us = 30 * HOUR_US
    events = [trip("a", 0), arrival("a", clock_us - 5), arrival("a", clock_us + 1, late=False)]
    found = examples(trips, [*events, trip("b", 0, known_at_us=clock_us + 1)], clock_us)
    assert (found.entities, found.labels, found.known_at_us) == (["a"], [1.0], [clock_us - 5])


@pytest.mark.parametrize("fields", [{"how": "vanished"}, {}])
def test_an_event_that_tells_no_label_of_the_task_does_not_hold_its_cohort_up(fields: dict[str, str]) -> None:
    declared = TASKS["multiclass"]
    told = [event(declared.label.on, "a", 70 * MINUTE_US, how="late"), event(said, "b", 70 * MINUTE_US, **fields)]
    found = examples(declared, [trip("a", 0), trip("b", 0), *told], 2 * HOUR_US)
    assert (found.entities, found.labels, found.never) == (["a"], [2.0], 1)


def test_a_corrected_label_counts_as_last_told() -> None:
    events = [arrival("a", 3 * HOUR_US, late=False), trip("a", 0), arrival("a", 2 * HOUR_US)]
    assert examples(trips, events, 30 * HOUR_US).labels == [0.0]


def test_the_fields_are_those_known_by_the_prediction_time() -> None:
    events = [
        trip("a", 4 * HOUR_US, line="red"),
        trip("a", 2 * HOUR_US, known_at_us=HOUR_US, line="blue"),
        trip("a", 2 * HOUR_US, known_at_us=3 * HOUR_US, line="green"),
        arrival("a", 4 * HOUR_US),
    ]
    found = examples(trips, events, 30 * HOUR_US)
    assert (found.at_us, [fields["line"] for fields in found.fields]) == ([2 * HOUR_US], ["blue"])


def test_the_prediction_time_is_floored_to_the_step() -> None:
    found = examples(trips, [trip("a", HOUR_US + 14 * MINUTE_US), arrival("a", 2 * HOUR_US)], 30 * HOUR_US)
    assert found.at_us == [HOUR_US]


@given(st.permutations(range(6)))
def test_the_order_of_events_does_not_matter(order: list[int]) -> None:
    events = [
        trip("a", 0),
        trip("b", 0, line="red"),
        trip("b", 0, known_at_us=LONG_AGO + 1, line="green"),
        arrival("a", HOUR_US),
        arrival("b", HOUR_US),
        arrival("b", 2 * HOUR_US, late=False),
    ]
    expected = examples(trips, events, 30 * HOUR_US)
    assert examples(trips, [events[place] for place in order], 30 * HOUR_US) == expected


def test_rows_are_laid_out_as_serving_lays_out_a_vector() -> None:
    events = [trip("a", 0), trip("b", 0), arrival("a", HOUR_US), arrival("b", HOUR_US)]
    found = examples(trips, events, 30 * HOUR_US)
    assert view_keys(trips, found) == {"measured_latest_by_line": ["measured_latest_by_line|blue"] * 2}
    built = training_set(trips, found, {WEAR: np.array([3.0, np.nan]), HEAT: np.array([None, 5.0])})
    assert trips.numeric_inputs == ("load", WEAR, HEAT)
    np.testing.assert_array_equal(built.numbers, [[1.0, 3.0, np.nan], [1.0, np.nan, 5.0]])
    assert built.texts.tolist() == [["blue"], ["blue"]]


def test_only_the_newest_rows_are_kept_within_the_bound() -> None:
    events = [
        made for hour in range(5) for made in (trip(f"t{hour}", hour * HOUR_US), arrival(f"t{hour}", 7 * HOUR_US))
    ]
    assert examples(trips, events, 40 * HOUR_US).newest(2).entities == ["t3", "t4"]


def test_the_digest_is_of_the_content() -> None:
    found = rows(300)
    assert dataset_digest(trips, found) == dataset_digest(trips, rows(300))
    changed = rows(300)
    changed.numbers[7, 1] += 1e-9
    relabelled = rows(300)
    relabelled.labels[0] = 1.0 - relabelled.labels[0]
    digests = {dataset_digest(trips, each) for each in (found, changed, relabelled, part(found, 0, 299))}
    assert len(digests) == 4


def test_sound_rows_are_accepted() -> None:
    validate(trips, rows(300), 200, ["load", WEAR])


def refusal(found: TrainingSet) -> str:
    with pytest.raises(DataRefused) as refused:
        validate(trips, found, 200, ["load", WEAR])
    return str(refused.value)


def test_too_few_rows_are_refused() -> None:
    assert "100 rows, at least 200" in refusal(part(rows(300), 0, 100))


def test_rows_of_one_class_are_refused() -> None:
    found = rows(300)
    found.labels[:] = 1.0
    assert "all 300 rows have the label 1" in refusal(found)


def test_an_input_that_the_champion_had_and_that_is_gone_is_named() -> None:
    found = rows(300)
    found.numbers[:, trips.numeric_inputs.index(WEAR)] = np.nan
    assert f"no row has a value of {WEAR}" in refusal(found)


def test_a_join_that_found_nothing_is_refused() -> None:
    found = rows(300)
    found.numbers[:, 1:] = 0.0
    assert "the join found nothing" in refusal(found)
