"""What was predicted from data at fault is neither learned from nor judged."""

from __future__ import annotations

from driftloop.contracts import Message, Record
from driftloop.contracts.monitor.v1.monitor_pb2 import Incident, Score
from driftloop.usecase import HOUR_US, load_use_case
from services.monitor.faults import OPEN_END_US, WINDOWS_MAX, Faults
from services.trainer.assembly import without_affected
from tests.trainer_twin import rows
from tests.unit.test_monitor_judging import answered, clock, judging, scored

LONGEST_US = 3 * HOUR_US  # how long flights look back on the weather


def incident(from_us: int, to_us: int = 0, rule: str = "stuck", source: str = "monitor") -> Incident:
    return Incident(
        use_case="flights",
        id=f"{rule}{from_us}{to_us}",
        source=source,
        what="the wind stands still",
        rule=rule,
        event_type="weather_observed",
        field="wind_speed",
        entity="JFK",
        stops_training=True,
        from_us=from_us,
        to_us=to_us,
    )


def test_a_fault_covers_what_was_predicted_until_its_last_feature_has_forgotten_it():
    faults = Faults(load_use_case("flights"))
    assert faults.told(incident(100), 200)
    assert not faults.told(incident(100), 200)
    assert [faults.covers(at) for at in (99, 100, 10**15)] == [False, True, True]
    assert faults.affected()[0].to_us == OPEN_END_US
    assert faults.open
    assert faults.told(incident(100, 500), 500)
    assert not faults.open
    assert [faults.covers(at) for at in (499 + LONGEST_US, 500 + LONGEST_US)] == [True, False]
    restored = Faults(load_use_case("flights"))
    restored.restore(faults.snapshot())
    assert restored.affected() == faults.affected()


def test_a_model_that_was_asked_for_before_the_fault_was_found_is_tainted():
    faults = Faults(load_use_case("flights"))
    faults.told(incident(100), 200)
    assert [bool(faults.taints(at)) for at in (90, 150, 250)] == [False, True, False]


def test_stretches_are_bounded_and_an_open_one_is_kept():
    faults = Faults(load_use_case("flights"))
    faults.told(incident(1), 2)
    for place in range(WINDOWS_MAX + 20):
        faults.told(incident(10 + place, 11 + place), 12 + place)
    assert len(faults.affected()) == WINDOWS_MAX
    assert faults.open


def test_rows_of_a_stretch_at_fault_are_left_out():
    found = rows(1_000)
    faults = Faults(load_use_case("flights"))
    faults.told(incident(int(found.at_us[200]), int(found.at_us[300]) - LONGEST_US), 0)
    kept, left_out = without_affected(found, faults.affected())
    assert left_out == 100
    assert kept.entities == found.entities[:200] + found.entities[300:]


def finding(at_us: int, of: Incident) -> Record:
    payload = Score(use_case="flights", incident=of)
    return Record("scores", 0, 0, Message("scores", "w", payload, f"finding-{of.id}", "test", at_us, at_us, ("event",)))


def wrong(index: int, at_us: int) -> Record:
    """A row about which the model was sure and wrong."""
    return scored(index, at_us, float(index % 2), {"a": 0.99 - 0.98 * (index % 2)})


def test_judging_tells_of_a_fault_and_asks_for_no_model_while_it_lasts():
    judge, messages, begun_us = judging(), [], 1_000 * HOUR_US
    records = [scored(row, HOUR_US + row, float(row % 2)) for row in range(200)]
    messages += judge.fold([*records, *clock(2 * HOUR_US)])
    (request,) = [message.payload for message in messages if message.topic == "retrain"]
    judge.fold([answered("a", request.id)])
    begins = judge.fold([finding(begun_us, incident(begun_us)), *clock(begun_us + 1)])
    (told,) = [message for message in begins if message.topic == "incidents"]
    assert told.payload.entity == "JFK"
    assert told.causes == (f"finding-{incident(begun_us).id}",)
    broken = [wrong(1_000 + row, begun_us + row) for row in range(3_000)]
    during = judge.fold([*broken, *clock(begun_us + HOUR_US)])
    assert not [message for message in during if message.topic in ("drift", "retrain")]
    ended_us = begun_us + 10 * HOUR_US
    ended = judge.fold([finding(ended_us, incident(begun_us, ended_us)), *clock(ended_us + 1)])
    assert [message.payload.to_us for message in ended if message.topic == "incidents"] == [ended_us]
    after_us = ended_us + 4 * HOUR_US
    after = judge.fold([*[wrong(9_000 + row, after_us + row) for row in range(3_000)], *clock(after_us + HOUR_US)])
    asked = [message.payload for message in after if message.topic == "retrain"]
    assert [(stretch.from_us, stretch.to_us) for stretch in asked[0].affected] == [(begun_us, ended_us + LONGEST_US)]


def test_a_challenger_that_may_have_learned_from_the_fault_is_refused():
    judge = judging()
    records = [scored(row, HOUR_US + row, float(row % 2)) for row in range(200)]
    messages = judge.fold([*records, *clock(20 * HOUR_US)])
    (request,) = [message.payload for message in messages if message.topic == "retrain"]
    judge.fold([finding(21 * HOUR_US, incident(10 * HOUR_US)), *clock(21 * HOUR_US + 1)])
    answer = answered("a", request.id)
    answer.message.payload.clock_us = request.clock_us
    said = judge.fold([answer])
    assert [
        "learned from data at fault" in message.payload.because for message in said if message.topic == "decisions"
    ] == [True]


def test_an_expectation_of_ingest_that_stops_training_is_honoured():
    judge = judging()
    of_ingest = incident(5 * HOUR_US, 6 * HOUR_US, "wind_speed_range", "ingest")
    record = Record("incidents", 0, 0, Message("incidents", "flights", of_ingest, of_ingest.id, "t", 1, 1, ("event",)))
    assert judge.fold([record]) == []
    assert judge.needs_checkpoint
    records = [scored(row, HOUR_US + row, float(row % 2)) for row in range(200)]
    messages = judge.fold([*records, *clock(20 * HOUR_US)])
    (request,) = [message.payload for message in messages if message.topic == "retrain"]
    assert [stretch.from_us for stretch in request.affected] == [5 * HOUR_US]
