"""How soon a change of the error rate is found, and how often nothing is: production's own watch fed with drawn labels."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from driftloop.usecase import DAY_US, MINUTE_US, Event, Field, Label, Prediction, Request, UseCase, before
from services.monitor.drift import DriftWatch

BEFORE, AFTER = 0.2, 0.4  # error rates
STEADY_ROWS, DELAY_ROWS_MAX = 4_000, 4_000
INPUTS = 8
SURE = 0.8  # the probability that the model gives its answer: calibrated before the change


def _use_case() -> UseCase:
    inputs = {f"x_{place}": Field(float) for place in range(INPUTS)}
    asked = Event("asked", entity="row", fields={"at": Field("time"), **inputs})
    labelled = Event("labelled", entity="row", fields={"y": Field(bool)})
    return UseCase(
        name="detection",
        events=[asked, labelled],
        predict=Prediction(on=asked, at=before("at", "1m"), task="binary"),
        features=[Request(*inputs)],
        label=Label(on=labelled, value=lambda fields: fields["y"], matures_after="1h"),
        clock="replay",
    )


def _rows(rng: np.random.Generator, rows: int, rate: float) -> Iterator[tuple[list[float], float, float]]:
    """Inputs, the model's answer and the label of some rows."""
    numbers, answers = rng.normal(size=(rows, INPUTS)), rng.random(rows) < 0.5
    wrong = rng.random(rows) < rate
    for row in range(rows):
        said = bool(answers[row])
        yield numbers[row].tolist(), SURE if said else 1.0 - SURE, float(said != bool(wrong[row]))


def delays(seeds: int) -> list[int | None]:
    """Labels from an abrupt change of the error rate to its alarm, per seed; None: not within DELAY_ROWS_MAX."""
    found: list[int | None] = []
    use_case = _use_case()
    for seed in range(seeds):
        watch, rng = DriftWatch(use_case), np.random.default_rng((seed, 41))
        watch_rows = [*_rows(rng, STEADY_ROWS, BEFORE), *_rows(rng, DELAY_ROWS_MAX, AFTER)]
        found.append(None)
        for row, (_, answer, label) in enumerate(watch_rows):
            if watch.labelled(answer, label, row * MINUTE_US) and row >= STEADY_ROWS:
                found[-1] = row - STEADY_ROWS + 1
                break
    return found


def false_alarms(labels: int, seed: int = 0) -> int:
    """Alarms of all series together on so many stable labels with their predictions and inputs, ten rows an hour."""
    watch, rng, alarms = DriftWatch(_use_case()), np.random.default_rng((seed, 43)), 0
    apart_us = DAY_US // 240
    for row, (numbers, answer, label) in enumerate(_rows(rng, labels, BEFORE)):
        alarms += len(watch.predicted(answer, numbers, row * apart_us))
        alarms += len(watch.labelled(answer, label, row * apart_us))
    return alarms
