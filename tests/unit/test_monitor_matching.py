"""Labels find their predictions, and cohorts are judged whole."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftloop.contracts import Message, Record, prediction_id, to_wire, watermark
from driftloop.contracts.event.v1.event_pb2 import Event
from driftloop.contracts.monitor.v1.monitor_pb2 import LABEL_STATE_CORRECTED, LABEL_STATE_MATCHED, LABEL_STATE_NEVER
from driftloop.contracts.serving.v1.scored_pb2 import Scored
from driftloop.contracts.serving.v1.serving_pb2 import Prediction
from driftloop.usecase import DAY_US, HOUR_US, load_use_case
from driftloop.usecase import Event as EventType
from services.monitor.matching import Matching
from tests.trainer_twin import TASKS, booked
from tests.trainer_twin import event as told

FLIGHTS = load_use_case("flights")
AIR = {"carrier": "UA", "origin": "EWR", "dest": "IAH"}
BEGIN = 100 * DAY_US


def event(kind: str, entity: str, known_at_us: int, suffix: str = "", **fields) -> Record:
    event_id = f"{kind}:{entity}{suffix}"
    declared = FLIGHTS.event_types[kind].fields
    wire = to_wire({k: v for k, v in (AIR | fields).items() if k in declared}, declared)
    payload = Event(
        use_case="flights",
        id=event_id,
        type=kind,
        entity=entity,
        event_time_us=known_at_us,
        known_at_us=known_at_us,
        fields=wire,
    )
    return Record("events", 0, 0, Message("events", entity, payload, event_id, "test", known_at_us, known_at_us))


def announced(entity: str, departs_at_us: int) -> Record:
    return event("flight_scheduled", entity, BEGIN - DAY_US, distance=100.0, departs_at=departs_at_us)


def predicted(entity: str, as_of_us: int, score: float = 0.3, request_id: str = "1") -> Record:
    found = prediction_id("flights", entity, request_id)
    payload = Prediction(
        use_case="flights",
        id=found,
        entity=entity,
        as_of_us=as_of_us,
        model_id="m1",
        arm="champion",
        score=score,
        scores=[Scored(model_id="m1", score=score)],
    )
    return Record("predictions", 0, 0, Message("predictions", entity, payload, found, "test", as_of_us, as_of_us + 1))


def clock(clock_us: int) -> list[Record]:
    return [
        Record("events", 0, 0, watermark("events", 0, "ingest", clock_us)),
        Record("predictions", 0, 0, watermark("predictions", 0, "serving/0", clock_us)),
    ]


def scores(messages) -> list:
    return [message.payload for message in messages if not message.is_watermark]


def matching() -> Matching:
    return Matching(FLIGHTS, 0, 2, 1)


def arrival(entity: str, known_at_us: int, delay: float, suffix: str = "") -> Record:
    return event("flight_arrived", entity, known_at_us, suffix, delay=delay)


def test_a_label_meets_its_prediction_and_names_both_as_causes():
    heart = matching()
    heart.fold([announced("f", BEGIN + HOUR_US), *clock(BEGIN), predicted("f", BEGIN)])
    out = heart.fold([arrival("f", BEGIN + 3 * HOUR_US, 45.0), *clock(BEGIN + 4 * HOUR_US)])
    (score,) = scores(out)
    assert (score.state, score.label, score.prediction_id) == (
        LABEL_STATE_MATCHED,
        1.0,
        prediction_id("flights", "f", "1"),
    )
    assert score.predicted_for_us == BEGIN
    assert dict(score.slices) == {"origin": "EWR", "carrier": "UA"}
    assert out[0].causes == (score.prediction_id, "flight_arrived:f")
    assert out[-1].payload.writer == "matching/0"


def test_a_score_has_what_was_answered_beside_what_the_models_said():
    heart, prediction = matching(), predicted("f", BEGIN, score=0.3)
    prediction.message.payload.score = 0.4  # as a release recalibrated it
    heart.fold([announced("f", BEGIN + HOUR_US), *clock(BEGIN), prediction])
    (score,) = scores(heart.fold([arrival("f", BEGIN + 3 * HOUR_US, 45.0), *clock(BEGIN + 4 * HOUR_US)]))
    assert (score.answered, score.scores[0].score) == (0.4, 0.3)


def test_a_label_that_cannot_be_told_closes_its_entity_and_stops_nothing():
    hours = replace(FLIGHTS, label=replace(FLIGHTS.label, value=lambda e: 60 / e["delay"] > 2))
    heart = Matching(hours, 0, 2, 1)
    heart.fold([announced("a", BEGIN + HOUR_US), announced("b", BEGIN + HOUR_US), *clock(BEGIN)])
    told = [arrival("a", BEGIN + 2 * HOUR_US, 0.0), arrival("b", BEGIN + 2 * HOUR_US, 20.0)]
    out = scores(heart.fold([*told, *clock(BEGIN + 5 * HOUR_US)]))
    assert [(s.entity, s.state) for s in out] == [("a", LABEL_STATE_NEVER), ("b", LABEL_STATE_MATCHED)]


def test_an_entity_that_is_far_from_its_prediction_keeps_no_other_in_memory():
    heart = matching()
    heart.fold([announced("far", BEGIN + 1_000 * DAY_US), *clock(BEGIN)])
    for day in range(30):
        at_us = BEGIN + day * DAY_US
        told = event("flight_scheduled", f"f{day}", at_us + 1, distance=100.0, departs_at=at_us + 2 * HOUR_US)
        heart.fold([told, arrival(f"f{day}", at_us + 3 * HOUR_US, 0.0), *clock(at_us + 5 * HOUR_US)])
    held = [entity[0] for entity in heart.snapshot()["entities"]]
    assert held == ["far", *(f"f{day}" for day in range(23, 30))]


def test_a_cohort_waits_for_its_last_label():
    heart = matching()
    heart.fold([announced("a", BEGIN + HOUR_US), announced("b", BEGIN + HOUR_US + 1), *clock(BEGIN)])
    assert scores(heart.fold([arrival("a", BEGIN + 2 * HOUR_US, 0.0), *clock(BEGIN + 5 * HOUR_US)])) == []
    out = heart.fold([arrival("b", BEGIN + 6 * HOUR_US, 40.0), *clock(BEGIN + 7 * HOUR_US)])
    assert [(s.entity, s.label, s.matured_at_us) for s in scores(out)] == [
        ("a", 0.0, BEGIN + 7 * HOUR_US),
        ("b", 1.0, BEGIN + 7 * HOUR_US),
    ]


def test_a_cancelled_entity_is_closed_as_never_and_keeps_nobody_waiting():
    heart = matching()
    heart.fold([announced("a", BEGIN + HOUR_US), announced("b", BEGIN + HOUR_US), *clock(BEGIN)])
    out = heart.fold(
        [
            event("flight_cancelled", "a", BEGIN + HOUR_US),
            arrival("b", BEGIN + 2 * HOUR_US, 0.0),
            *clock(BEGIN + 3 * HOUR_US),
        ]
    )
    assert [(s.entity, s.state) for s in scores(out)] == [("a", LABEL_STATE_NEVER), ("b", LABEL_STATE_MATCHED)]


def test_what_has_no_label_by_maturity_is_closed_as_never():
    heart = matching()
    heart.fold([announced("a", BEGIN + HOUR_US), *clock(BEGIN + 24 * HOUR_US)])
    assert heart.pending == 1
    out = heart.fold(clock(BEGIN + 25 * HOUR_US))
    assert [s.state for s in scores(out)] == [LABEL_STATE_NEVER]
    assert heart.pending == 0


def test_a_score_without_prediction_and_label_names_the_announcement_as_its_cause():
    heart, restored = matching(), matching()
    heart.fold([announced("a", BEGIN + HOUR_US), *clock(BEGIN + 24 * HOUR_US)])
    restored.restore(heart.snapshot())
    score, mark = restored.fold(clock(BEGIN + 25 * HOUR_US))
    assert (score.payload.state, score.causes) == (LABEL_STATE_NEVER, ("flight_scheduled:a",))
    assert mark.is_watermark


def test_an_entity_that_nobody_asked_about_is_scored_without_a_prediction():
    heart = matching()
    out = heart.fold(
        [announced("a", BEGIN + HOUR_US), arrival("a", BEGIN + 2 * HOUR_US, 0.0), *clock(BEGIN + 3 * HOUR_US)]
    )
    (score,) = scores(out)
    assert score.prediction_id == ""
    assert score.state == LABEL_STATE_MATCHED


def test_a_label_that_comes_again_with_another_value_is_a_correction():
    heart = matching()
    heart.fold([announced("a", BEGIN + HOUR_US), arrival("a", BEGIN + 2 * HOUR_US, 0.0), *clock(BEGIN + 3 * HOUR_US)])
    out = heart.fold([arrival("a", BEGIN + 4 * HOUR_US, 50.0, "/2"), *clock(BEGIN + 5 * HOUR_US)])
    assert [(s.state, s.label) for s in scores(out)] == [(LABEL_STATE_CORRECTED, 1.0)]


def test_the_same_label_event_again_is_no_correction():
    heart = matching()
    heart.fold([announced("a", BEGIN + HOUR_US), arrival("a", BEGIN + 2 * HOUR_US, 0.0), *clock(BEGIN + 3 * HOUR_US)])
    assert scores(heart.fold([arrival("a", BEGIN + 4 * HOUR_US, 0.0), *clock(BEGIN + 5 * HOUR_US)])) == []


def test_the_first_logged_answer_counts():
    heart = matching()
    heart.fold([announced("a", BEGIN + HOUR_US), *clock(BEGIN), predicted("a", BEGIN, 0.2), predicted("a", BEGIN, 0.9)])
    heart.fold([predicted("a", BEGIN + 1, 0.8, "2"), *clock(BEGIN + HOUR_US)])
    out = heart.fold([arrival("a", BEGIN + 2 * HOUR_US, 0.0), *clock(BEGIN + 3 * HOUR_US)])
    assert [s.scores[0].score for s in scores(out)] == [0.2]


def test_nothing_is_scored_before_both_inputs_have_passed_the_clock():
    heart = matching()
    records = [announced("a", BEGIN + HOUR_US), arrival("a", BEGIN + 2 * HOUR_US, 0.0)]
    events_only, predictions_only = clock(BEGIN + 3 * HOUR_US)
    assert heart.fold([*records, events_only]) == []
    assert len(scores(heart.fold([predictions_only]))) == 1


def of_trips(kind: EventType, entity: str, known_at_us: int, **fields) -> Record:
    payload = told(kind, entity, known_at_us, **fields)
    return Record("events", 0, 0, Message("events", entity, payload, payload.id, "test", known_at_us, known_at_us))


@pytest.mark.parametrize(
    ("task", "field", "value", "label"), [("multiclass", "how", "late", 2.0), ("regression", "minutes", -7.5, -7.5)]
)
def test_a_label_of_any_task_is_scored_as_a_number_with_all_that_was_answered(task, field, value, label):
    heart, use_case = Matching(TASKS[task], 0, 2, 1), TASKS[task]
    scored = Scored(model_id="m1", score=0.5, class_probabilities=[0.2, 0.3, 0.5] if task == "multiclass" else [])
    prediction = Prediction(use_case="trips", id="p1", entity="t", as_of_us=BEGIN, scores=[scored])
    asked = Message("predictions", "t", prediction, "p1", "test", BEGIN, BEGIN + 1)
    heart.fold(
        [
            of_trips(booked, "t", BEGIN - 1, line="blue", load=1.0, leaves_at=BEGIN + HOUR_US),
            Record("predictions", 0, 0, asked),
            *clock(BEGIN + 1),
        ]
    )
    came = of_trips(use_case.label.on, "t", BEGIN + HOUR_US, **{field: value})
    (score,) = scores(heart.fold([came, *clock(BEGIN + 2 * HOUR_US)]))
    assert (score.state, score.label, list(score.scores)) == (LABEL_STATE_MATCHED, label, [scored])


@pytest.mark.parametrize("fields", [{"how": "never heard of"}, {}])
def test_an_event_that_tells_no_label_of_the_task_closes_its_entity_and_keeps_nobody_waiting(fields):
    heart = Matching(TASKS["multiclass"], 0, 2, 1)
    heart.fold([of_trips(booked, "t", BEGIN - 1, line="blue", load=1.0, leaves_at=BEGIN + HOUR_US), *clock(BEGIN)])
    came = of_trips(TASKS["multiclass"].label.on, "t", BEGIN + HOUR_US, **fields)
    assert [s.state for s in scores(heart.fold([came, *clock(BEGIN + 2 * HOUR_US)]))] == [LABEL_STATE_NEVER]


flights = st.lists(
    st.tuples(
        st.integers(0, 300), st.integers(0, 600), st.sampled_from(["arrived", "cancelled", "lost"]), st.booleans()
    ),
    min_size=1,
    max_size=12,
)


def story(rows) -> list[Record]:
    """Steps of an hour: what was known in each, then the clock."""
    records = [announced(f"f{i}", BEGIN + HOUR_US + at * 60_000_000) for i, (at, *_) in enumerate(rows)] + clock(
        BEGIN - 1
    )
    dated = []
    for i, (at, after, fate, asked) in enumerate(rows):
        at_us = BEGIN + at * 60_000_000
        if asked:
            dated.append((at_us, predicted(f"f{i}", at_us)))
        if fate == "arrived":
            dated.append((at_us + after * 60_000_000, arrival(f"f{i}", at_us + after * 60_000_000 + 1, float(after))))
        elif fate == "cancelled":
            dated.append((at_us, event("flight_cancelled", f"f{i}", at_us + 1)))
    for hour in range(42):
        end_us = BEGIN + hour * HOUR_US
        records += [
            r for _, r in sorted(dated, key=lambda d: d[0]) if end_us - HOUR_US < r.message.known_at_us <= end_us
        ]
        records += clock(end_us)
    return records


@settings(max_examples=40)
@given(flights, st.integers(0, 120))
def test_every_announced_entity_is_scored_once_and_batches_restores_and_order_change_nothing(rows, cut):
    records = story(rows)
    whole = matching()
    expected = whole.fold(records)
    one = matching()
    found = [message for record in records[:cut] for message in one.fold([record])]
    other = matching()
    other.restore(one.snapshot())
    found += other.fold(records[cut:])
    assert found == expected
    assert other.snapshot() == whole.snapshot()
    assert sorted(s.entity for s in scores(expected)) == sorted(f"f{i}" for i in range(len(rows)))
    again = [record for record in records for _ in range(2)]
    assert matching().fold(again) == expected
