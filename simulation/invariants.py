"""What must hold of every run, whatever fails: one small function for each; they look from outside and change nothing.

A function yields a sentence for each breach, with the ids and places by which it can be found.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from driftloop.contracts import derive_id, from_value, topics
from driftloop.contracts.monitor.v1.monitor_pb2 import (
    DECISION_KIND_PROMOTE,
    DECISION_KIND_RETRAIN,
    DECISION_KIND_ROLL_BACK,
    DECISION_KIND_SHADOW,
    LABEL_STATE_CORRECTED,
    LABEL_STATE_MATCHED,
    RETRAIN_REASON_DRIFT,
    ROLE_CANARY,
    ROLE_CHAMPION,
    ROLE_PREVIOUS,
    ROLE_SHADOW,
    ROLE_STANDBY,
    SERIES_KIND_ERROR,
    Decision,
    Release,
)
from driftloop.contracts.trainer.v1.trainer_pb2 import OUTCOME_PUBLISHED
from driftloop.featurestore.log import OfflineLogReader
from driftloop.recalibration import Scalings
from driftloop.usecase import duration_us, row_loss
from simulation.observed import Observed, where

_ROLES = {ROLE_CANARY: "canary", ROLE_PREVIOUS: "previous", ROLE_SHADOW: "shadow", ROLE_STANDBY: "standby"}
Invariant = Callable[[Observed], Iterable[str]]


@dataclass(frozen=True)
class Breach:
    """An invariant that did not hold, and the first things by which it shows."""

    invariant: str
    clock_us: int
    found: tuple[str, ...]

    def __str__(self) -> str:
        lines = "\n".join(f"    {line}" for line in self.found)
        return f"{self.invariant.replace('_', ' ')}: broken at clock {self.clock_us}\n{lines}"


SHOWN_MAX = 5


def checked(invariants: Iterable[Invariant], observed: Observed) -> list[Breach]:
    """The invariants that do not hold now."""
    breaches = []
    for invariant in invariants:
        found = tuple(line for line, _ in zip(invariant(observed), range(SHOWN_MAX), strict=False))
        if found:
            breaches.append(Breach(invariant.__name__, observed.clock_us, found))
    return breaches


# after every step ---------------------------------------------------------------------------------------------------


def no_accepted_event_is_lost(observed: Observed) -> Iterator[str]:
    """What ingest has acknowledged is in the log."""
    for event_id in observed.told.acknowledged:
        if not observed.has("events", event_id):
            yield f"event {event_id} was acknowledged and is not on events"


def no_event_breaks_its_schema(observed: Observed) -> Iterator[str]:
    """What the schema forbids is refused, and nothing else is."""
    for event_id, why in observed.told.refused.items():
        if event_id not in observed.stretch.unreadable:
            yield f"event {event_id} was refused: {why}"
    for record in observed.fresh:
        if record.topic == "events" and record.message.id in observed.stretch.unreadable:
            yield f"{where(record)} {record.message.id} breaks its schema"


def no_prediction_without_the_vector_it_used(observed: Observed) -> Iterator[str]:
    """Every logged answer holds a whole vector whose values are those of the updates that it names."""
    use_case = observed.use_case
    for record in observed.fresh:
        if record.topic != "predictions" or record.message.is_watermark:
            continue
        prediction = record.message.payload
        vector, place = prediction.vector, f"{where(record)} {prediction.id}"
        if vector.inputs_digest != use_case.inputs_digest or len(vector.numbers) != len(use_case.numeric_inputs):
            yield f"{place}: the vector is not of this use case's inputs"
            continue
        numbers = dict(zip(use_case.numeric_inputs, vector.numbers, strict=True))
        texts = dict(zip(use_case.text_inputs, vector.texts, strict=True))
        for view, reading in zip(use_case.views, vector.readings, strict=True):
            update = observed.first.get(("features", reading.update_id))
            if reading.found and update is None:
                yield f"{place}: update {reading.update_id} of {reading.key} is not on features"
            elif reading.found and update is not None:
                for feature, value in zip(view.features, map(from_value, update.message.payload.values), strict=True):
                    used = numbers[feature.name] if feature.numeric else texts[feature.name]
                    meant = feature.default if value is None else value
                    if used != meant and not (used != used and meant != meant):
                        yield f"{place}: {feature.name} is {used}, update {reading.update_id} says {meant}"


def no_value_used_before_it_was_known(observed: Observed) -> Iterator[str]:
    """No vector holds a value from after its time, and no update is known before the event that caused it."""
    for record in observed.fresh:
        message = record.message
        if message.is_watermark:
            continue
        if record.topic == "predictions":
            for reading in message.payload.vector.readings:
                if reading.known_at_us > message.payload.as_of_us:
                    yield (
                        f"{where(record)} {message.id}: as of {message.payload.as_of_us} it used {reading.key}, "
                        f"known at {reading.known_at_us}"
                    )
        elif record.topic == "features":
            for cause in message.causes:
                event = observed.first.get(("events", cause))
                if event is not None and event.message.known_at_us > message.known_at_us:
                    yield f"{where(record)} {message.id}: known before its cause {cause}"


def every_answer_is_logged(observed: Observed) -> Iterator[str]:
    """What a caller was told is on predictions, the very same, once the loop has come to the step's end."""
    for prediction_id, answer in observed.told.answered.items():
        record = observed.first.get(("predictions", prediction_id))
        if record is None:
            yield f"answer {prediction_id} is not on predictions"
            continue
        logged = record.message.payload
        if logged.model_id == answer.model_id and logged.vector == answer.vector and logged.score != answer.score:
            yield f"{where(record)} {prediction_id}: {logged.score} is logged, {answer.score} was told"


def every_retrain_has_evidence(observed: Observed) -> Iterator[str]:
    """A request names the decision that made it and what that rests on; drift names an alarm of the error."""
    for record in observed.fresh:
        if record.topic != "retrain":
            continue
        message, request = record.message, record.message.payload
        place = f"{where(record)} {message.id}"
        decisions = [observed.first.get(("decisions", cause)) for cause in message.causes]
        kinds = [found.message.payload.kind for found in decisions if found is not None]
        if kinds != [DECISION_KIND_RETRAIN]:
            yield f"{place}: no decision to retrain among its causes {message.causes}"
        if not request.because or len(message.causes) < 2:
            yield f"{place}: it rests on nothing: because {request.because!r}, causes {message.causes}"
        alarms = [observed.first.get(("drift", cause)) for cause in message.causes]
        if request.reason == RETRAIN_REASON_DRIFT and not any(
            alarm is not None and alarm.message.payload.kind == SERIES_KIND_ERROR for alarm in alarms
        ):
            yield f"{place}: drift without an alarm of the error among its causes {message.causes}"
        ends = {(r.topic, r.partition): r.last for r in message.ranges}
        for (topic, partition), last in ends.items():
            if not any(found.partition == partition and found.offset >= last for found in _of(observed, topic)):
                yield f"{place}: {topic}/{partition}@{last} of its evidence is not there"


def one_champion_at_most(observed: Observed) -> Iterator[str]:
    """Revisions rise one by one, each says one thing, and has one champion and no other arm of that role."""
    releases: Mapping[int, Release] = {m.payload.revision: m.payload for m in observed.of("releases")}
    if len(releases) != len(observed.of("releases")):
        revisions = Counter(message.payload.revision for message in observed.of("releases"))
        yield f"revisions {[n for n, count in revisions.items() if count > 1]} were released with different ids"
    if sorted(releases) != list(range(1, len(releases) + 1)):
        yield f"revisions are {sorted(releases)}, one is missing"
    for revision, release in releases.items():
        arms = [release.champion, *release.arms] if release.HasField("champion") else list(release.arms)
        champions = [arm.model_id for arm in arms if arm.role == ROLE_CHAMPION]
        if len(champions) > 1 or (arms and len(champions) != 1):
            yield f"release {revision} has the champions {champions}"
        if len({arm.model_id for arm in arms}) != len(arms) or sum(arm.share for arm in arms) > 1.0 + 1e-9:
            yield f"release {revision} names a model twice or shares more than everything: {arms}"


def every_answer_is_by_its_release(observed: Observed) -> Iterator[str]:
    """Who answered had that role in the release by which it answered, or stood in for who had; what was told follows from both."""
    releases = {message.payload.revision: message.payload for message in observed.of("releases")}
    for record in observed.fresh:
        if record.topic != "predictions" or record.message.is_watermark:
            continue
        prediction, place = record.message.payload, f"{where(record)} {record.message.id}"
        release = releases.get(prediction.revision)
        if release is None:
            yield f"{place}: answered by release {prediction.revision}, which nobody made"
            continue
        roles = {release.champion.model_id: "champion"} | {arm.model_id: _ROLES[arm.role] for arm in release.arms}
        if roles.get(prediction.model_id) != prediction.arm or prediction.arm == "shadow":
            yield f"{place}: answered by {prediction.model_id} as {prediction.arm}, release {release.revision} has {roles}"
        arms = {arm.model_id: arm for arm in (release.champion, *release.arms)}
        scored = next((each for each in prediction.scores if each.model_id == prediction.model_id), None)
        scalings = Scalings.of(arms[prediction.model_id].recalibration) if prediction.model_id in arms else None
        if scored is not None:
            task, said = observed.use_case.predict.task, np.array([list(scored.class_probabilities) or scored.score])
            told = (said if scalings is None else scalings.applied(task, said))[0]
            if not np.array_equal(told, list(prediction.class_probabilities) or prediction.score):
                yield f"{place}: {prediction.score} was told, release {release.revision} makes {told} of {said[0]}"
        strangers = {scored.model_id for scored in prediction.scores} - set(roles)
        if strangers:
            yield f"{place}: scored by {strangers}, which release {release.revision} does not name"


def no_release_to_a_worse_model(observed: Observed) -> Iterator[str]:
    """Who was put in front was the better one on the rows that both had scored, trainer's held-out ones and mature ones of
    production, counted again from the messages."""
    policy = observed.use_case.policy
    decisions = [message.payload for message in observed.of("decisions")]
    for place, decision in enumerate(decisions):
        if decision.kind not in (DECISION_KIND_PROMOTE, DECISION_KIND_ROLL_BACK):
            continue
        other = _champion_before(observed, decision)
        since_us = max(
            [d.clock_us for d in decisions[:place] if d.kind in (DECISION_KIND_PROMOTE, DECISION_KIND_ROLL_BACK)]
            + [
                d.clock_us
                for d in decisions[:place]
                if d.kind == DECISION_KIND_SHADOW and d.model_id == decision.model_id
            ]
            + [-1]
        )
        gains = _gains(observed, decision.model_id, other, since_us, decision.clock_us)
        rows, total = len(gains), sum(gains)
        if decision.kind == DECISION_KIND_PROMOTE:
            for message in observed.of("models"):
                model = message.payload
                if model.id == decision.model_id and model.held_out_gains:
                    rows += model.held_out_rows
                    total += model.held_out_rows * sum(model.held_out_gains) / len(model.held_out_gains)
        if rows < policy.promote_rows or total <= 0.0:
            yield (
                f"decision {decision.id}: {decision.model_id} before {other} on {rows} paired rows of {policy.promote_rows}, "
                f"gain {total / max(1, rows):.4f} ({decision.because})"
            )


def the_chain_of_causes_never_breaks(observed: Observed) -> Iterator[str]:
    """Every message but an event has causes, and each of them is there when the loop has come to the step's end."""
    for cause, of in observed.causes_missing.items():
        yield f"{of} names the cause {cause}, which is nowhere"
    for record in observed.fresh:
        message = record.message
        if message.is_watermark or record.topic in ("events", "dead-letters", "predictions") or message.causes:
            continue
        yield f"{where(record)} {message.id} has no cause"


def watermarks_keep_their_promise(observed: Observed) -> Iterator[str]:
    """Nothing new follows a watermark on its partition that was known before it."""
    yield from observed.broken_marks


def state_is_bounded(observed: Observed) -> Iterator[str]:
    """What hearts hold goes with the events of the last hours, not with the run's length."""
    use_case, step_us = observed.use_case, observed.use_case.step_us
    lived_us = duration_us(use_case.policy.dedupe_horizon) + use_case.label.matures_after_us
    slack_us = duration_us(use_case.policy.cohort) + 8 * step_us + 3 * duration_us("1h")
    recent = [m for m in observed.of("events") if m.known_at_us > observed.clock_us - lived_us - slack_us]
    bounds = {
        "seen": len(recent),
        "entities": len(recent),
        "buffer": len(recent) + 100,
        "held": 64,
        "changes": 4 * len(recent),
    }
    for heart, sizes in observed.sizes.items():
        for name, size in sizes.items():
            if name in bounds and size > bounds[name]:
                yield f"{heart} holds {size} {name}, at most {bounds[name]} can be of use at clock {observed.clock_us}"


EACH_STEP: tuple[Invariant, ...] = (
    no_accepted_event_is_lost,
    no_event_breaks_its_schema,
    no_prediction_without_the_vector_it_used,
    no_value_used_before_it_was_known,
    every_retrain_has_evidence,
    one_champion_at_most,
    every_answer_is_by_its_release,
    no_release_to_a_worse_model,
    watermarks_keep_their_promise,
    state_is_bounded,
)
FOLLOWED: tuple[Invariant, ...] = (every_answer_is_logged, the_chain_of_causes_never_breaks)
"""Hold when the loop has come to the end of a step."""


# at the end ---------------------------------------------------------------------------------------------------------


def every_accepted_event_has_its_effect_once(observed: Observed) -> Iterator[str]:
    """The offline log holds each accepted event once, and every announced entity is scored once."""
    logged = Counter(
        OfflineLogReader(observed.store, observed.use_case.name).snapshot().events().to_table()["id"].to_pylist()
    )
    accepted = observed.told.acknowledged
    for event_id in accepted:
        if logged[event_id] != 1:
            yield f"event {event_id} is {logged[event_id]} times in the offline log"
    for event_id in logged.keys() - accepted.keys():
        yield f"event {event_id} is in the offline log and was never acknowledged"
    announced = {event.entity for event in accepted.values() if event.type == observed.use_case.predict.on.name}
    scored = Counter(m.payload.entity for m in observed.of("scores") if m.payload.state != LABEL_STATE_CORRECTED)
    for entity in sorted(announced):
        if scored[entity] != 1:
            yield f"entity {entity} was scored {scored[entity]} times"


def every_answer_meets_its_label(observed: Observed) -> Iterator[str]:
    """A matched score of an entity that was answered names an answer, and the label that came."""
    answered: dict[str, set[str]] = {}
    for message in observed.of("predictions"):
        answered.setdefault(message.payload.entity, set()).add(message.id)
    for message in observed.of("scores"):
        score = message.payload
        if score.state == LABEL_STATE_CORRECTED:
            continue
        if score.entity in answered and score.prediction_id not in answered[score.entity]:
            yield f"score {message.id} of {score.entity} has prediction {score.prediction_id!r}, answers were {answered[score.entity]}"
        if score.state == LABEL_STATE_MATCHED and not observed.has("events", score.label_event_id):
            yield f"score {message.id} of {score.entity} has label event {score.label_event_id}, which is not on events"


def every_request_is_answered_once(observed: Observed) -> Iterator[str]:
    """One model for every request, and none that nobody asked for."""
    asked = {message.id for message in observed.of("retrain")}
    answers = Counter(message.payload.request_id for message in observed.of("models"))
    for request_id in asked | answers.keys():
        if answers[request_id] != 1 or request_id not in asked:
            yield f"request {request_id} was answered {answers[request_id]} times"
    for message in observed.of("models"):
        if message.payload.outcome == OUTCOME_PUBLISHED and message.payload.id != derive_id(
            "model", observed.use_case.name, message.payload.request_id
        ):
            yield f"model {message.payload.id} has not the id that follows from its request"


AT_THE_END: tuple[Invariant, ...] = (
    every_accepted_event_has_its_effect_once,
    every_answer_meets_its_label,
    every_request_is_answered_once,
)


def _of(observed: Observed, topic: str) -> Iterator:
    assert topic in topics()
    return (record for (found, _), record in observed.first.items() if found == topic)


def _champion_before(observed: Observed, decision: Decision) -> str:
    """The champion of the newest release before the one that a decision led to."""
    champion = ""
    for message in observed.of("releases"):
        if message.payload.decision_id == decision.id:
            break
        champion = message.payload.champion.model_id
    return champion


def _gains(observed: Observed, model_id: str, other: str, since_us: int, until_us: int) -> list[float]:
    """By how much a model's loss was below another's, row by row, in the order in which judging saw them."""
    rows = [
        m
        for m in observed.of("scores")
        if m.payload.state == LABEL_STATE_MATCHED and since_us < m.known_at_us <= until_us
    ]
    rows.sort(key=lambda message: (message.known_at_us, message.id))
    gains = []
    for message in rows:
        scores = {scored.model_id: scored.score for scored in message.payload.scores}
        if model_id in scores and other in scores:
            label = message.payload.label
            losses = [row_loss(observed.use_case.predict.task, scores[name], label) for name in (other, model_id)]
            gains.append(losses[0] - losses[1])
    return gains
