"""Models that were really trained on something wrong, through trainer's gates and then monitor's trial on rows as they truly are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from driftloop.contracts.monitor.v1.monitor_pb2 import (
    DECISION_KIND_PROMOTE,
    RETRAIN_REASON_BOOTSTRAP,
    RETRAIN_REASON_NEW_DATA,
    ROLE_CANARY,
    RetrainRequest,
)
from driftloop.contracts.trainer.v1.trainer_pb2 import Model
from driftloop.scoring import ScoringModel
from driftloop.usecase import HOUR_US, Event, Field, Label, Latest, Policy, Prediction, Request, UseCase, before
from services.monitor.agreement import HeldOutRows, ProductionRecord
from services.monitor.arms import Candidate, Trial
from services.monitor.budget import EVIDENCE_ROWS, RECENT_ROWS_MIN
from services.monitor.release import Releases
from services.trainer.attempts import TrainingSet, TrainingSettings
from services.trainer.fitting import fit_request
from services.trainer.gates import GateSettings
from services.trainer.measures import row_losses

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

booked = Event("booked", entity="trip", fields={"line": Field(str), "load": Field(float), "leaves_at": Field("time")})
measured = Event("measured", entity="line", fields={"line": Field(str), "wear": Field(float), "heat": Field(float)})
came = Event("came", entity="trip", fields={"late": Field(bool)})
trips = UseCase(
    name="trips",
    events=[booked, measured, came],
    predict=Prediction(on=booked, at=before("leaves_at", "1h")),
    features=[Request("load", "line"), Latest(measured, by="line", of=["wear", "heat"], max_age="24h")],
    label=Label(on=came, value=lambda e: bool(e["late"]), matures_after="24h"),
    slices=["line"],
    policy=Policy(cohort="1h"),
)
SMALL = TrainingSettings(epochs=15, patience=4, hidden=24, category_rows_min=5)
LINES, SHARES = ["blue", "red", "green"], [0.5, 0.15, 0.35]
STEP_US = 60_000_000
FIRST_ROWS, NEWER_ROWS, PRODUCTION_ROWS = 2_500, 800, 4_000
CHAMPIONS = 10  # different ones, that seeds share
LOOK_ROWS = 20


@dataclass(frozen=True)
class Wrong:
    """A fault of training data: what it does to the rows, and how a first model or a challenger is made of them."""

    name: str
    spoil: Callable[[TrainingSet, np.random.Generator], TrainingSet]
    is_first: bool = False
    turned: bool = False  # production's concept has changed for one line, so that a new model gains on the whole


@dataclass(frozen=True)
class Fate:
    """What became of one model: whether trainer published it, and monitor promoted it; the share of answers that it gave."""

    published: bool
    promoted: bool
    exposed: float
    why: str


def world(count: int, seed: int, first: int = 0, *, turned: bool = False) -> TrainingSet:
    """Rows a minute apart from minute `first` on; `turned`: one line's odds are the reverse."""
    rng = np.random.default_rng([seed, first])
    lines = rng.choice(LINES, size=count, p=SHARES)
    load, wear, heat = rng.normal(size=(3, count))
    odds = 1.5 * load + np.abs(wear) - 1.2
    odds = np.where((lines == "blue") & turned, -odds, odds)
    heat[rng.random(count) < 0.3] = np.nan
    at_us = (first + np.arange(count, dtype=np.int64)) * STEP_US
    return TrainingSet(
        entities=[f"t{first + place}" for place in range(count)],
        at_us=at_us,
        numbers=np.column_stack([load, wear, heat]),
        texts=np.array(lines, dtype=object)[:, None],
        labels=(rng.random(count) < 1.0 / (1.0 + np.exp(-odds))).astype(np.float64),
        known_at_us=at_us + HOUR_US,
    )


def shuffled(rows: TrainingSet, rng: np.random.Generator) -> TrainingSet:
    """Labels of other rows."""
    return replace(rows, labels=rng.permutation(rows.labels))


def leaked(rows: TrainingSet, rng: np.random.Generator) -> TrainingSet:
    """The label as an input, which nobody has when an answer is due."""
    return _with_heat(rows, rows.labels + rng.normal(0.0, 0.01, len(rows)))


def nearly_leaked(rows: TrainingSet, rng: np.random.Generator) -> TrainingSet:
    """The same, and wrong for a twentieth of the rows."""
    wrong = rng.random(len(rows)) < 0.05
    return _with_heat(rows, np.where(wrong, 1.0 - rows.labels, rows.labels) + rng.normal(0.0, 0.01, len(rows)))


def one_class(rows: TrainingSet, rng: np.random.Generator) -> TrainingSet:
    """No positive label."""
    del rng
    return replace(rows, labels=np.zeros(len(rows)))


def newest_of_one_class(rows: TrainingSet, rng: np.random.Generator) -> TrainingSet:
    """No positive label among the newest 300."""
    del rng
    labels = rows.labels.copy()
    labels[-300:] = 0.0
    return replace(rows, labels=labels)


def biased_newest(rows: TrainingSet, rng: np.random.Generator) -> TrainingSet:
    """Of the newest 800, two thirds of the positive rows are not there: their labels come late."""
    newest = np.arange(len(rows)) >= len(rows) - NEWER_ROWS
    return _kept(rows, ~(newest & (rows.labels > 0.5) & (rng.random(len(rows)) < 2 / 3)))


def slice_spoilt(rows: TrainingSet, rng: np.random.Generator) -> TrainingSet:
    """One line's labels are the reverse."""
    del rng
    return replace(rows, labels=np.where(rows.texts[:, 0] == "red", 1.0 - rows.labels, rows.labels))


def unspoilt(rows: TrainingSet, rng: np.random.Generator) -> TrainingSet:
    """Nothing is wrong."""
    del rng
    return rows


WRONGS = (
    Wrong("shuffled labels, first model", shuffled, is_first=True),
    Wrong("shuffled labels", shuffled),
    Wrong("leaked label, first model", leaked, is_first=True),
    Wrong("leaked label", leaked),
    Wrong("leaked label, 5 % wrong", nearly_leaked),
    Wrong("one class", one_class),
    Wrong("newest rows of one class", newest_of_one_class),
    Wrong("biased newest sample", biased_newest),
    Wrong("one slice reversed, the whole gains", slice_spoilt, turned=True),
)
RIGHT = Wrong("nothing wrong, one line turned", unspoilt, turned=True)
RIGHT_FIRST = Wrong("nothing wrong, first model", unspoilt, is_first=True)


def fate(wrong: Wrong, seed: int) -> Fate:
    """Trains one model on spoilt rows and takes it as far as it comes."""
    rng = np.random.default_rng([seed, 7])
    first = FIRST_ROWS
    if wrong.is_first:
        true = world(first, seed)
        answer, model = _fit(wrong.spoil(true, rng), None, RETRAIN_REASON_BOOTSTRAP, seed)
        return Fate(model is not None, model is not None, float(model is not None), answer.because)
    champion = _champion(seed % CHAMPIONS)
    newer = world(NEWER_ROWS * 2 if wrong.turned else NEWER_ROWS, seed, first, turned=wrong.turned)
    true = _joined(world(first, seed % CHAMPIONS), newer)
    answer, model = _fit(wrong.spoil(true, rng), champion, RETRAIN_REASON_NEW_DATA, seed)
    if model is None:
        return Fate(False, False, 0.0, answer.because)
    return _tried(answer, champion, model, newer, world(PRODUCTION_ROWS, seed, len(true), turned=wrong.turned))


def _tried(answer: Model, champion: ScoringModel, model: ScoringModel, newer: TrainingSet, later: TrainingSet) -> Fate:
    record, releases = ProductionRecord(), Releases(trips.policy)
    known = _losses(champion, newer)
    for at_us, loss in zip(newer.at_us.tolist(), known.tolist(), strict=True):
        record.labelled({"champion": loss}, at_us)
    said = HeldOutRows(
        answer.held_out_rows, answer.held_out_from_us, answer.held_out_to_us, answer.held_out_champion_loss
    )
    gains = () if record.disagreement("champion", said) else tuple(answer.held_out_gains)
    releases.published(Candidate("champion", "", "", "all"))
    loss = float(known[-1_000:].mean())
    releases.published(
        Candidate("m", "", "", answer.candidate), Trial(gains, answer.held_out_rows if gains else 0, loss)
    )
    ours, theirs = _losses(champion, later), _losses(model, later)
    promoted, exposed, why = False, 0.0, "on trial at the end"
    for row in range(len(later)):
        releases.labelled({"champion": float(ours[row]), "m": float(theirs[row])}, {"line": str(later.texts[row, 0])})
        _, arms = releases.arms()
        exposed += sum(arm.share for arm in arms if arm.role == ROLE_CANARY)
        exposed += float(releases.champion is not None and releases.champion.model_id == "m")
        if row % LOOK_ROWS:
            continue
        for step in releases.decide():
            promoted |= step.kind == DECISION_KIND_PROMOTE
            why = step.because
    return Fate(True, promoted, exposed / len(later), why)


def _fit(rows: TrainingSet, champion: ScoringModel | None, reason: Any, seed: int) -> tuple[Model, ScoringModel | None]:
    request = RetrainRequest(
        use_case=trips.name,
        id=f"r{seed}",
        reason=reason,
        clock_us=int(rows.known_at_us.max()),
        champion_id="" if champion is None else "champion",
        seed=seed,
        recent_rows=0 if champion is None else 2 * RECENT_ROWS_MIN,
        evidence_rows=0 if champion is None else EVIDENCE_ROWS,
        block_rows=trips.policy.block_labels,
    )
    found = fit_request(trips, request, rows, champion, SMALL, GateSettings(), lambda stage, detail: None)
    return found.answer, found.published


@cache
def _champion(seed: int) -> ScoringModel:
    _, model = _fit(world(FIRST_ROWS, seed), None, RETRAIN_REASON_BOOTSTRAP, seed)
    if model is None:
        raise RuntimeError(f"seed {seed}: the champion itself was refused")
    return model


def _losses(model: ScoringModel, rows: TrainingSet) -> Floats:
    return row_losses("binary", model.predict(rows.numbers, rows.texts), rows.labels, 1.0)


def _with_heat(rows: TrainingSet, heat: Floats) -> TrainingSet:
    numbers = rows.numbers.copy()
    numbers[:, 2] = heat
    return replace(rows, numbers=numbers)


def _kept(rows: TrainingSet, mask: Mask) -> TrainingSet:
    return TrainingSet(
        [name for name, keep in zip(rows.entities, mask.tolist(), strict=True) if keep],
        rows.at_us[mask],
        rows.numbers[mask],
        rows.texts[mask],
        rows.labels[mask],
        rows.known_at_us[mask],
    )


def _joined(one: TrainingSet, other: TrainingSet) -> TrainingSet:
    return TrainingSet(
        one.entities + other.entities,
        np.concatenate([one.at_us, other.at_us]),
        np.concatenate([one.numbers, other.numbers]),
        np.concatenate([one.texts, other.texts]),
        np.concatenate([one.labels, other.labels]),
        np.concatenate([one.known_at_us, other.known_at_us]),
    )
