"""Judging as a whole: from scores and answers to requests, decisions and releases."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np

from driftloop.contracts import Message, Record, watermark
from driftloop.contracts.monitor.v1.monitor_pb2 import (
    COMMAND_KIND_BUNDLE_REFUSED,
    COMMAND_KIND_GUARDRAIL,
    DECISION_KIND_DROP_CHALLENGER,
    DECISION_KIND_GUARDRAIL,
    DECISION_KIND_MODEL_REFUSED,
    DECISION_KIND_PROMOTE,
    DECISION_KIND_WAIT,
    LABEL_STATE_MATCHED,
    RETRAIN_REASON_BOOTSTRAP,
    RETRAIN_REASON_DRIFT,
    Command,
    Release,
    Score,
)
from driftloop.contracts.serving.v1.scored_pb2 import Scored
from driftloop.contracts.serving.v1.serving_pb2 import Prediction, Vector
from driftloop.contracts.trainer.v1.trainer_pb2 import OUTCOME_PUBLISHED, OUTCOME_REFUSED, Model
from driftloop.recalibration import Scalings
from driftloop.usecase import HOUR_US, Policy, load_use_case
from services.monitor.judging import Judging

FLIGHTS = dataclasses.replace(
    load_use_case("flights"), policy=Policy(bootstrap_rows=200, canary_rows=80, promote_rows=160)
)


def judging() -> Judging:
    return Judging(FLIGHTS, 2, 1)


def clock(clock_us: int) -> list[Record]:
    places = [
        ("predictions", 0, "serving/0"),
        ("predictions", 1, "serving/0"),
        ("scores", 0, "matching/0"),
        ("scores", 0, "matching/1"),
    ]
    return [Record(topic, p, 0, watermark(topic, p, writer, clock_us)) for topic, p, writer in places]


def scored(index: int, at_us: int, label: float, scores: dict[str, float] | None = None) -> Record:
    payload = Score(
        use_case="flights",
        entity=f"f{index}",
        predicted_for_us=at_us,
        matured_at_us=at_us,
        as_of_us=at_us,
        state=LABEL_STATE_MATCHED,
        label=label,
        scores=[Scored(model_id=m, score=s) for m, s in (scores or {}).items()],
    )
    return Record("scores", 0, index, Message("scores", f"f{index}", payload, f"s{index}", "test", at_us, at_us))


def answered(model_id: str, request_id: str, outcome=OUTCOME_PUBLISHED) -> Record:
    payload = Model(
        use_case="flights",
        id=model_id,
        request_id=request_id,
        outcome=outcome,
        because="tried",
        bundle_url=f"b/{model_id}",
    )
    return Record("models", 0, 0, Message("models", "flights", payload, model_id, "test", 0, 0, (request_id,)))


def refused(model_id: str) -> Record:
    payload = Command(
        use_case="flights",
        id=f"refused-{model_id}",
        kind=COMMAND_KIND_BUNDLE_REFUSED,
        who="serving/0",
        why="bad signature",
        model_id=model_id,
    )
    return Record("commands", 0, 0, Message("commands", "flights", payload, payload.id, "test", 0, 0))


def failing(model_id: str) -> Record:
    payload = Command(
        use_case="flights",
        id=f"failing-{model_id}",
        kind=COMMAND_KIND_GUARDRAIL,
        who="serving/0",
        why="20 rows without a usable answer: answered nan, which is no probability",
        model_id=model_id,
    )
    return Record("commands", 0, 0, Message("commands", "flights", payload, payload.id, "test", 0, 0))


def predicted(prediction_id: str, as_of_us: int, model_id: str) -> Record:
    payload = Prediction(use_case="flights", id=prediction_id, entity=prediction_id, as_of_us=as_of_us, score=0.3)
    payload.scores.add(model_id=model_id, score=0.3)
    message = Message("predictions", payload.entity, payload, prediction_id, "test", as_of_us, as_of_us + 1)
    return Record("predictions", 0, 0, message)


def rows(first: int, count: int, hour: int, models=()) -> list[Record]:
    rng = np.random.default_rng(first)
    found = []
    for i in range(count):
        label = float(rng.random() < 0.3)
        scores = {m: (0.25 if quality == "poor" else 0.1 + 0.75 * label) for m, quality in models}
        found.append(scored(first + i, hour * HOUR_US + i, label, scores))
    return found


def of(messages, topic: str) -> list:
    return [message for message in messages if message.topic == topic and not message.is_watermark]


def started() -> tuple[Judging, str]:
    heart = judging()
    out = heart.fold([*rows(0, 200, 1), *clock(2 * HOUR_US)])
    return heart, of(out, "retrain")[0].id


def test_the_first_model_is_requested_and_the_release_says_that_it_is_pending():
    heart = judging()
    assert of(heart.fold([*rows(0, 199, 1), *clock(2 * HOUR_US)]), "retrain") == []
    out = heart.fold([*rows(199, 1, 3), *clock(4 * HOUR_US)])
    (request,), (release,) = of(out, "retrain"), of(out, "releases")
    assert request.payload.reason == RETRAIN_REASON_BOOTSTRAP
    assert request.payload.clock_us == 4 * HOUR_US
    assert release.payload.pending_retrain == request.id
    assert not release.payload.HasField("champion")
    assert len(request.causes) == 9
    assert request.ranges[0].last == 199
    assert out[-1].is_watermark
    assert out[-1].payload.writer == "judging"


def test_the_first_published_model_answers_and_asks_for_a_checkpoint_before_it_is_told():
    heart, request_id = started()
    out = heart.fold([answered("m1", request_id)])
    (release,) = of(out, "releases")
    assert heart.needs_checkpoint
    assert (release.payload.champion.model_id, release.payload.pending_retrain, release.payload.revision) == (
        "m1",
        "",
        2,
    )
    assert of(out, "decisions")[0].causes[0] == "m1"
    assert heart.fold([answered("m1", request_id)]) == []


def test_a_refused_model_ends_the_wait_and_changes_nobody():
    heart, request_id = started()
    out = heart.fold([answered("m1", request_id, OUTCOME_REFUSED)])
    assert [m.payload.kind for m in of(out, "decisions")] == [DECISION_KIND_MODEL_REFUSED]
    assert [m.payload.pending_retrain for m in of(out, "releases")] == [""]


def test_an_answer_that_comes_before_its_request_is_folded_again_waits_for_it():
    _heart, request_id = started()
    other = judging()
    assert other.fold([answered("m1", request_id)]) == []
    out = other.fold([*rows(0, 200, 1), *clock(2 * HOUR_US)])
    assert [m.payload.champion.model_id for m in of(out, "releases")] == ["", "m1"]


def test_what_was_judged_before_is_dropped_when_it_comes_again():
    heart, _ = started()
    assert of(heart.fold([*rows(0, 200, 1), *clock(2 * HOUR_US)]), "retrain") == []
    assert heart.snapshot()["policy"]["rows"] == 200


def test_inputs_of_another_declaration_are_not_watched_in_the_place_of_others():
    heart, request_id = started()
    heart.fold([answered("m1", request_id)])
    before = copy.deepcopy(heart.snapshot()["watch"]["inputs"])
    other = predicted("p1", 3 * HOUR_US, "m1")
    other.message.payload.vector.CopyFrom(Vector(inputs_digest="another", numbers=[1.0, 2.0]))
    heart.fold([other, *clock(4 * HOUR_US)])
    assert heart.snapshot()["watch"]["inputs"] == before
    same = predicted("p2", 5 * HOUR_US, "m1")
    numbers = [1.0] * len(FLIGHTS.numeric_inputs)
    same.message.payload.vector.CopyFrom(Vector(inputs_digest=FLIGHTS.inputs_digest, numbers=numbers))
    heart.fold([same, *clock(6 * HOUR_US)])
    assert heart.snapshot()["watch"]["inputs"] != before


def test_a_better_challenger_is_promoted_on_mature_rows():
    heart, request_id = started()
    heart.fold([answered("m1", request_id)])
    out = heart.fold([*rows(200, 400, 10, [("m1", "poor")]), *clock(12 * HOUR_US)])
    (request,) = of(out, "retrain")
    heart.fold([answered("m2", request.id)])
    roles = []
    for hour in range(20, 30):
        out = heart.fold([*rows(hour * 100, 80, hour, [("m1", "poor"), ("m2", "good")]), *clock((hour + 1) * HOUR_US)])
        roles += [(m.payload.champion.model_id, [arm.model_id for arm in m.payload.arms]) for m in of(out, "releases")]
    assert ("m2", ["m1"]) in roles


def test_after_an_alarm_nothing_waits_for_labels_that_were_rare_before():
    heart, request_id = started()
    heart.fold([answered("m1", request_id)])

    def reasons(positive_every: int) -> list[int]:
        """What models are asked for with forty rows more, of an hour; none is found."""
        nonlocal hour
        hour += 1
        first = hour * 1_000
        labelled = [
            scored(first + i, hour * HOUR_US + i, float(i % positive_every == 0), {"m1": 0.02}) for i in range(40)
        ]
        asked = of(heart.fold([*labelled, *clock((hour + 1) * HOUR_US)]), "retrain")
        heart.fold([answered(f"r{hour}", request.id, OUTCOME_REFUSED) for request in asked])
        return [request.payload.reason for request in asked]

    hour = 2
    for _ in range(50):  # one label in forty is positive
        reasons(40)
    changed = hour
    while RETRAIN_REASON_DRIFT not in reasons(3):  # from now on every third is
        assert hour < changed + 50
    assert (hour - changed) * 40 <= 300


def test_a_bundle_that_serving_refused_is_an_incident():
    heart, request_id = started()
    heart.fold([answered("m1", request_id)])
    out = heart.fold([refused("m1")])
    assert "bad signature" in of(out, "incidents")[0].payload.what
    (release,) = of(out, "releases")
    assert not release.payload.HasField("champion")


def test_after_a_first_model_that_nobody_could_load_another_is_asked_for_as_rows_come():
    heart, request_id = started()
    heart.fold([answered("m1", request_id), refused("m1")])
    out = heart.fold([*rows(200, 240, 3), *clock(12 * HOUR_US)])
    (request,) = of(out, "retrain")
    assert (request.payload.reason, request.payload.champion_id) == (RETRAIN_REASON_BOOTSTRAP, "")
    (release,) = of(heart.fold([answered("m2", request.id)]), "releases")
    assert (release.payload.champion.model_id, list(release.payload.arms)) == ("m2", [])


def test_a_refusal_of_a_model_that_has_answered_changes_nobody_and_is_answered_by_a_release():
    heart, request_id = started()
    heart.fold([answered("m1", request_id)])
    heart.fold([predicted("p1", 3 * HOUR_US, "m1"), *clock(4 * HOUR_US)])
    (release,) = of(heart.fold([refused("m1")]), "releases")
    assert release.payload.champion.model_id == "m1"


def challenged() -> Judging:
    """m1 answers, m2 is compared with it."""
    heart, request_id = started()
    heart.fold([answered("m1", request_id)])
    out = heart.fold([*rows(200, 400, 10, [("m1", "poor")]), *clock(12 * HOUR_US)])
    heart.fold([answered("m2", of(out, "retrain")[0].id)])
    return heart


def test_a_challenger_that_gains_little_waits_with_its_promotion_and_holds_up_no_other_candidate():
    policy = dataclasses.replace(FLIGHTS.policy, bootstrap_rows=2_000)
    heart = Judging(dataclasses.replace(FLIGHTS, policy=policy), 2, 1)
    (first,) = of(heart.fold([*rows(0, 2_000, 1), *clock(2 * HOUR_US)]), "retrain")
    heart.fold([answered("m1", first.id)])
    (second,) = of(heart.fold([*rows(2_000, 1_000, 10, [("m1", "poor")]), *clock(12 * HOUR_US)]), "retrain")
    heart.fold([answered("m2", second.id)])
    told, roles, asked_after = [], [], 0
    for hour in range(20, 38):
        labelled = [
            scored(hour * 1_000 + i, hour * HOUR_US + i, label, {"m1": 0.25, "m2": 0.257 if label else 0.246})
            for i, label in enumerate([1.0, 0.0, 0.0, 1.0, 0.0] * 20)
        ]
        out = heart.fold([*labelled, *clock((hour + 1) * HOUR_US)])
        asked = of(out, "retrain")
        asked_after += len(asked) if DECISION_KIND_WAIT in told else 0
        told += [m.payload.kind for m in of(out, "decisions")]
        out += heart.fold([answered(f"r{hour}", request.id, OUTCOME_REFUSED) for request in asked])
        roles += [
            (m.payload.champion.model_id, {a.model_id: a.share for a in m.payload.arms}) for m in of(out, "releases")
        ]
    assert (told.count(DECISION_KIND_WAIT), DECISION_KIND_PROMOTE in told) == (1, False)
    assert roles[-1] == ("m1", {"m2": Policy().canary_share})
    assert asked_after > 0


def promoted() -> Judging:
    """m2 answers, m1 is held ready."""
    heart = challenged()
    for hour in range(20, 30):
        out = heart.fold([*rows(hour * 100, 80, hour, [("m1", "poor"), ("m2", "good")]), *clock((hour + 1) * HOUR_US)])
        if any(m.payload.champion.model_id == "m2" for m in of(out, "releases")):
            return heart
    raise AssertionError("the better challenger was not promoted")


def test_a_challenger_that_fails_where_it_answers_leaves_the_comparison_with_an_incident():
    heart = challenged()
    out = heart.fold([failing("m2")])
    assert [m.payload.kind for m in of(out, "decisions")] == [DECISION_KIND_GUARDRAIL, DECISION_KIND_DROP_CHALLENGER]
    assert "no probability" in of(out, "incidents")[0].payload.what
    (release,) = of(out, "releases")
    assert (release.payload.champion.model_id, list(release.payload.arms)) == ("m1", [])


def test_a_champion_that_fails_where_it_answers_gives_its_place_back_to_the_previous_one():
    (release,) = of(promoted().fold([failing("m2")]), "releases")
    assert (release.payload.champion.model_id, list(release.payload.arms)) == ("m1", [])
    assert "no probability" in release.payload.because


def test_a_failing_champion_without_a_previous_one_stays_and_serving_is_answered():
    heart, request_id = started()
    heart.fold([answered("m1", request_id)])
    out = heart.fold([failing("m1")])
    assert [m.payload.champion.model_id for m in of(out, "releases")] == ["m1"]
    assert len(of(out, "incidents")) == 1


def unsure(first: int, count: int, hour: int, model_id: str = "m1") -> list[Record]:
    """Labels that are true nine times in ten, of which a model says that they are as often as not."""
    rng = np.random.default_rng(first)
    return [scored(first + i, hour * HOUR_US + i, float(rng.random() < 0.9), {model_id: 0.5}) for i in range(count)]


def test_late_labels_that_contradict_the_scores_recalibrate_them_without_a_decision_or_another_model():
    heart, request_id = started()
    first = of(heart.fold([answered("m1", request_id)]), "releases")[-1].payload
    heart.fold([*unsure(200, 200, 3), *clock(4 * HOUR_US)])
    out = heart.fold([*unsure(400, 100, 5), *clock(6 * HOUR_US)])
    message = next(message for message in of(out, "releases") if not message.payload.decision_id)
    release = message.payload
    assert release.champion.recalibration.labels == 300
    told = Scalings.of(release.champion.recalibration)
    assert told is not None
    assert 0.75 < told.applied("binary", np.array([0.5]))[0] < 0.92
    assert "late labels" in release.because
    assert message.causes == tuple(f"s{n}" for n in range(492, 500))
    assert release.revision > first.revision
    kept = Release.FromString(release.SerializeToString())
    kept.champion.ClearField("recalibration")
    assert (kept.champion, list(kept.arms)) == (first.champion, [])


def test_scores_that_labels_bear_out_are_left_as_they_are():
    heart, request_id = started()
    heart.fold([answered("m1", request_id)])
    rng = np.random.default_rng(8)
    records = [scored(200 + i, 3 * HOUR_US + i, float(rng.random() < 0.3), {"m1": 0.3}) for i in range(200)]
    out = heart.fold([*records, *clock(4 * HOUR_US)])
    assert all(message.payload.decision_id for message in of(out, "releases"))


def test_a_use_case_may_have_its_scores_answered_as_they_are():
    plain = dataclasses.replace(FLIGHTS, policy=dataclasses.replace(FLIGHTS.policy, recalibrate=False))
    heart = Judging(plain, 2, 1)
    request_id = of(heart.fold([*rows(0, 200, 1), *clock(2 * HOUR_US)]), "retrain")[0].id
    heart.fold([answered("m1", request_id)])
    out = heart.fold([*unsure(200, 200, 3), *clock(4 * HOUR_US)])
    assert not any(message.payload.champion.HasField("recalibration") for message in of(out, "releases"))


def test_a_use_case_that_wants_scores_as_they_are_after_all_gets_them_with_the_next_labels():
    heart, request_id = started()
    heart.fold([answered("m1", request_id)])
    heart.fold([*unsure(200, 200, 3), *clock(4 * HOUR_US)])
    heart.fold([*unsure(400, 100, 5), *clock(6 * HOUR_US)])
    plain = dataclasses.replace(FLIGHTS, policy=dataclasses.replace(FLIGHTS.policy, recalibrate=False))
    after = Judging(plain, 2, 1)
    after.restore(heart.snapshot())
    out = after.fold([*unsure(500, 40, 7), *clock(8 * HOUR_US)])
    (withdrawn,) = [message.payload for message in of(out, "releases") if not message.payload.decision_id]
    assert "as they are" in withdrawn.because
    out += after.fold([*unsure(540, 40, 9), *clock(10 * HOUR_US)])
    told = [message.payload for message in of(out, "releases") if message.payload.revision >= withdrawn.revision]
    assert not any(release.champion.HasField("recalibration") for release in told)
    assert [release.revision for release in told if not release.decision_id] == [withdrawn.revision]


def test_folding_a_batch_equals_folding_one_at_a_time_also_across_a_restore():
    records = [*rows(0, 200, 1), *clock(2 * HOUR_US)]
    request_id = of(judging().fold(records), "retrain")[0].id
    records += [answered("m1", request_id)]
    for hour in range(3, 9):
        records += [*rows(hour * 100, 50, hour, [("m1", "poor")]), *clock((hour + 1) * HOUR_US)]
    whole = judging()
    expected = whole.fold(records)
    for cut in (10, 201, 203, 205, 300):
        one, other = judging(), judging()
        found = [message for record in records[:cut] for message in one.fold([record])]
        other.restore(one.snapshot())
        found += other.fold(records[cut:])
        assert found == expected
        assert other.snapshot() == whole.snapshot()
