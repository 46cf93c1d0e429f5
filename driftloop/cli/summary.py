"""Says what a replay did, from the messages that it left and nothing else: counts, drift, models, releases, quality."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from driftloop.cli.replay import Played
from driftloop.cli.trace import Chain
from driftloop.contracts import Message, rfc3339
from driftloop.contracts import topics as registry
from driftloop.contracts.monitor.v1.monitor_pb2 import (
    LABEL_STATE_MATCHED,
    LABEL_STATE_NEVER,
    ROLE_CANARY,
    ROLE_PREVIOUS,
    ROLE_STANDBY,
    SERIES_KIND_ERROR,
    Release,
    RetrainReason,
)
from driftloop.contracts.serving.v1.serving_pb2 import Vector
from driftloop.contracts.trainer.v1.trainer_pb2 import OUTCOME_PUBLISHED
from driftloop.usecase import LOSS_METRICS, Task
from services.trainer.measures import compared_losses, measures

QUALITY_ROWS = 5_000
SHOWN_MEASURE = {"binary": "pr_auc", "multiclass": "accuracy", "regression": "mae"}  # beside the loss
Floats = npt.NDArray[np.float64]
Predict = Callable[[Floats, list[list[str]]], Floats]
"""Numbers (rows, numeric inputs) and texts to answers, (rows,) or, multiclass, (rows, classes)."""


@dataclass(frozen=True)
class JudgedRows:
    """Labelled rows that were predicted, in order of prediction time (microseconds).

    loop: what was answered, (rows,) or, multiclass, (rows, classes). scale: the variance of the label that the loop judged
    by; 1 for tasks that need none.
    """

    entities: list[str]
    at_us: npt.NDArray[np.int64]
    labels: Floats
    loop: Floats
    numbers: Floats
    texts: list[list[str]]
    task: Task = "binary"
    scale: float = 1.0

    def take(self, places: Sequence[int] | slice) -> JudgedRows:
        """Some of them."""
        index = range(len(self))[places] if isinstance(places, slice) else places
        rows = list(index)
        return replace(
            self,
            entities=[self.entities[row] for row in rows],
            at_us=self.at_us[rows],
            labels=self.labels[rows],
            loop=self.loop[rows],
            numbers=self.numbers[rows],
            texts=[self.texts[row] for row in rows],
        )

    def last(self, rows: int) -> JudgedRows:
        """The newest so many."""
        return self.take(slice(-rows, None))

    def losses(self, answers: Floats) -> Floats:
        """The loss of each row had it been answered so, (rows,)."""
        return compared_losses(self.task, answers, self.labels, self.scale)

    def __len__(self) -> int:
        return len(self.entities)


def by_topic(messages: Mapping[str, Message[Any]]) -> dict[str, list[Message[Any]]]:
    """Messages of each topic in order of time known; of those of one time, in log order where one partition has them all."""
    found: dict[str, list[Message[Any]]] = {}
    in_log_order = {name for name, topic in registry().items() if topic.partition_count(2) == 1}
    for message in sorted(messages.values(), key=lambda m: (m.known_at_us, "" if m.topic in in_log_order else m.id)):
        found.setdefault(message.topic, []).append(message)
    return found


def judged_rows(topics: Mapping[str, list[Message[Any]]], task: Task = "binary") -> JudgedRows:
    """Every predicted row with a mature label."""
    predictions = {message.id: message.payload for message in topics.get("predictions", [])}
    scores = [
        m.payload
        for m in topics.get("scores", [])
        if m.payload.state == LABEL_STATE_MATCHED and m.payload.prediction_id in predictions
    ]
    scores.sort(key=lambda score: (score.predicted_for_us, score.entity))
    vectors = [predictions[score.prediction_id].vector for score in scores]
    answers = [predictions[score.prediction_id] for score in scores]
    said = [list(one.class_probabilities) if task == "multiclass" else one.score for one in answers]
    scales = [m.payload.label_scale for m in topics.get("models", []) if m.payload.outcome == OUTCOME_PUBLISHED]
    return JudgedRows(
        entities=[score.entity for score in scores],
        at_us=np.array([score.predicted_for_us for score in scores], dtype=np.int64),
        labels=np.array([score.label for score in scores]),
        loop=np.array(said),
        numbers=np.array([list(vector.numbers) for vector in vectors]),
        texts=[list(vector.texts) for vector in vectors],
        task=task,
        scale=(scales[0] if scales else 0.0) or 1.0,
    )


def quality(
    rows: JudgedRows, static: Predict, clean: Callable[[Sequence[str]], tuple[dict[str, Vector], dict[str, float]]]
) -> dict[str, Any]:
    """Loss and a measure of the loop, of the first model never retrained, and of that model on the stream without injection.

    All on the same rows; `metrics` names the two. `clean` gives vectors and labels of the same entities from the clean stream.
    """
    if not len(rows):
        return {"rows": 0}
    vectors, labels = clean(rows.entities)
    kept = rows.take([row for row, entity in enumerate(rows.entities) if entity in vectors and entity in labels])
    clean_rows = replace(
        kept,
        labels=np.array([labels[entity] for entity in kept.entities]),
        numbers=np.array([list(vectors[entity].numbers) for entity in kept.entities]),
        texts=[list(vectors[entity].texts) for entity in kept.entities],
    )
    compared = {
        "loop": (kept, kept.loop),
        "static": (kept, static(kept.numbers, kept.texts)),
        "static_without_injection": (clean_rows, static(clean_rows.numbers, clean_rows.texts)),
    }
    loss = {name: float(of.losses(answers).mean()) for name, (of, answers) in compared.items()}
    lost = loss["static"] - loss["static_without_injection"]
    metrics = [LOSS_METRICS[rows.task], SHOWN_MEASURE[rows.task]]
    shown = {
        name: measures(of.task, answers, of.labels).get(metrics[1], 0.0) for name, (of, answers) in compared.items()
    }
    return {
        "rows": len(kept),
        "metrics": metrics,
        metrics[0]: loss,
        metrics[1]: shown,
        "recovered_share": (loss["static"] - loss["loop"]) / lost if lost > 0 else None,
    }


def _stage(release: Release) -> tuple[str, str]:
    """The model that a release is about, and its stage."""
    for arm in release.arms:
        if arm.role not in (ROLE_PREVIOUS, ROLE_STANDBY):
            return arm.model_id, "canary" if arm.role == ROLE_CANARY else "shadow"
    return release.champion.model_id, "champion"


def releases(topics: Mapping[str, list[Message[Any]]]) -> list[dict[str, Any]]:
    """Every change of who answers, in order."""
    found: list[dict[str, Any]] = []
    before: tuple[str, str] | None = None
    for message in sorted(topics.get("releases", []), key=lambda m: m.payload.revision):
        release = message.payload
        if not release.HasField("champion"):
            continue
        now = _stage(release)
        if now != before:
            found.append(
                {"model": now[0], "stage": now[1], "at": rfc3339(release.clock_us), "because": release.because}
            )
        before = now
    return found


def models(topics: Mapping[str, list[Message[Any]]]) -> list[dict[str, Any]]:
    """Every answer of trainer, and whether it came to answer everybody."""
    champions = {m.payload.champion.model_id for m in topics.get("releases", []) if m.payload.HasField("champion")}
    reasons = {
        m.id: RetrainReason.Name(m.payload.reason).removeprefix("RETRAIN_REASON_").lower()
        for m in topics.get("retrain", [])
    }
    return [
        {
            "id": m.payload.id,
            "reason": reasons.get(m.payload.request_id, "unknown"),
            "published": m.payload.outcome == OUTCOME_PUBLISHED,
            "because": m.payload.because,
            "at": rfc3339(m.payload.clock_us),
            "trained_rows": m.payload.trained_rows,
            "row_epochs": m.payload.row_epochs,
            "promoted": m.payload.id in champions,
            "metrics": dict(m.payload.metrics),
        }
        for m in topics.get("models", [])
    ]


def drift(topics: Mapping[str, list[Message[Any]]], injected_at_us: int | None) -> dict[str, Any]:
    """When the injected change was found. Alarms of the error count: they are what asks for models."""
    alarms = [m.payload for m in topics.get("drift", []) if m.payload.kind == SERIES_KIND_ERROR]
    found: dict[str, Any] = {
        "injected_at": None if injected_at_us is None else rfc3339(injected_at_us),
        "detected_at": None,
        "labels_to_detect": None,
        "alarms_before": len([a for a in alarms if injected_at_us is None or a.clock_us <= injected_at_us]),
        "input_alarms": len(topics.get("drift", [])) - len(alarms),
    }
    after = [a.clock_us for a in alarms if injected_at_us is not None and a.clock_us > injected_at_us]
    if after and injected_at_us is not None:
        known = [
            m.payload.label_known_at_us for m in topics.get("scores", []) if m.payload.state == LABEL_STATE_MATCHED
        ]
        detected_us = min(after)
        # Labels that were known by then count, judged or not: waiting for whole cohorts is part of the price.
        found |= {
            "detected_at": rfc3339(detected_us),
            "labels_to_detect": sum(injected_at_us < known_us <= detected_us for known_us in known),
        }
    return found


def labels(topics: Mapping[str, list[Message[Any]]], announcing: str) -> dict[str, int]:
    """Entities by what became of their label."""
    states = {m.payload.entity: m.payload.state for m in topics.get("scores", [])}
    announced = len({m.payload.entity for m in topics.get("events", []) if m.payload.type == announcing})
    matched = sum(state != LABEL_STATE_NEVER for state in states.values())
    return {"matched": matched, "pending": max(0, announced - len(states)), "never": len(states) - matched}


def full_chain(topics: Mapping[str, list[Message[Any]]], messages: Mapping[str, Message[Any]]) -> list[str]:
    """Ids of one chain from an event to the release that the drift it was part of led to; a promotion if there is one."""
    chain = Chain(messages)
    ordered = sorted(topics.get("releases", []), key=lambda message: message.payload.revision)
    champions = [m.payload.champion.model_id for m in ordered]
    promotions = [m for m, now, before in zip(ordered[1:], champions[1:], champions, strict=False) if now != before]
    for message in [*promotions[::-1], *ordered[::-1]]:
        path = chain.event_to_release(message.id)
        if path:
            return [link.id for link in path]
    return []


def summarise(
    played: Played, messages: Mapping[str, Message[Any]], injected_at_us: int | None, announcing: str
) -> dict[str, Any]:
    """Everything of summary.json but quality and seconds."""
    topics = by_topic(messages)
    use_case = next(iter(topics["events"])).payload.use_case if topics.get("events") else ""
    return {
        "use_case": use_case,
        "events": played.events | {"dead_lettered": len(topics.get("dead-letters", []))},
        "predictions": dict(played.predictions),
        "labels": labels(topics, announcing),
        "models": models(topics),
        "drift": drift(topics, injected_at_us),
        "releases": releases(topics),
        "trace": full_chain(topics, messages),
    }
