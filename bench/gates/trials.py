"""Challengers of a known quality through monitor's own hearts: what is asked for, tried, promoted and rolled back."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from bench.gates.worlds import Floats, Kind, losses, rows
from driftloop.contracts.monitor.v1.monitor_pb2 import (
    DECISION_KIND_DROP_CHALLENGER,
    DECISION_KIND_PROMOTE,
    DECISION_KIND_ROLL_BACK,
    DECISION_KIND_WAIT,
)
from driftloop.usecase import DAY_US, Policy
from services.monitor.arms import Candidate, Trial
from services.monitor.drift import RISE_SHARE, RisingError
from services.monitor.policy import RetrainPolicy
from services.monitor.release import Releases
from services.trainer.gates import GateSettings

LABELS = 10_000
EARLIER = 8_000  # labels before the first candidate: the champion's regime, on which the pace is measured
ROW_US = DAY_US // 1_000  # a thousand labels a day, about flights
LOOK_ROWS = 20  # between two looks at the evidence
CANDIDATES = 3  # of which trainer takes the one that does best on the held-out rows: the luckiest


@dataclass
class Trialled:
    """What became of the challengers of one stream of LABELS labels. `harmed`: labels whose answer came of a worse model."""

    made: int = 0
    refused: int = 0
    promoted: int = 0
    rolled_back: int = 0
    first_promotion: float = math.inf
    harmed: float = 0.0


def trial(kind: Kind, relative: float, seed: int, *, every: bool) -> Trialled:
    """Runs one stream on which every candidate has (1 + relative) times the champion's loss.

    every: go on with the next candidate after a promotion was rolled back or kept; otherwise the first promotion ends the trial.
    """
    rng = np.random.default_rng([seed, len(kind), round(1_000 * (relative + 1))])
    policy = Policy()
    found = rows(kind, EARLIER + LABELS, rng)
    champion = losses(kind, found, 0.0, rng)
    watch = RisingError(policy.block_labels, RISE_SHARE / policy.alarm_labels)
    retrain, releases = RetrainPolicy(policy), Releases(policy)
    releases.published(Candidate("champion", "", "", "all"))
    retrain.has_model = True
    outcome, answers, known = Trialled(), {"champion": champion}, 0.0
    for row in range(EARLIER + LABELS):
        at_us = row * ROW_US
        known += found.labels[row]
        retrain.labelled(at_us)
        watch.add(champion[row], at_us, min(known, row + 1 - known) / (row + 1))
        assert releases.champion is not None
        if row < EARLIER:
            continue
        if row == EARLIER:
            retrain.asked("", at_us)
            retrain.promoted(False)  # the youngest champion: a promotion waits for the largest gain
        outcome.harmed += _harm(releases, relative)
        releases.labelled({name: losses_of[row] for name, losses_of in answers.items()})
        if row % LOOK_ROWS:
            continue
        for step in releases.decide(retrain.least_gain):
            if step.kind == DECISION_KIND_PROMOTE:
                outcome.promoted += 1
                outcome.first_promotion = min(outcome.first_promotion, row + 1 - EARLIER)
                if not every:
                    return outcome
                retrain.promoted(False)
            elif step.kind == DECISION_KIND_WAIT:
                retrain.waits(False)
            elif step.kind in (DECISION_KIND_DROP_CHALLENGER, DECISION_KIND_ROLL_BACK):
                outcome.rolled_back += step.kind == DECISION_KIND_ROLL_BACK
                retrain.failed()
        retrain.pace = watch.pace
        verdict = retrain.decide(at_us, (), releases.challenger)
        if verdict is None or verdict.not_now or releases.champion.model_id != "champion":
            continue
        outcome.made += 1
        name = f"m{outcome.made}"
        retrain.asked(name, at_us)
        held = _held_out_rows(verdict.recent_rows, verdict.evidence_rows, verdict.block_rows)
        tried = [losses(kind, found, relative, rng) for _ in range(CANDIDATES)]
        chosen, gains = _chosen(tried, champion, row + 1, held, verdict.block_rows)
        refused = chosen is None
        retrain.answered(name, not refused, verdict.recent_rows * 2, releases.is_on_trial)
        if chosen is None:
            outcome.refused += 1
            continue
        answers = {"champion": champion, name: chosen}
        releases.published(
            Candidate(name, "", "", "recent"), Trial(gains, held, watch.recent_error, watch.pace, watch.pace)
        )
    return outcome


def _held_out_rows(recent: int, evidence: int, block: int) -> int:
    """As trainer's `held_out_rows`, for candidates that are adapted on `recent` rows."""
    return int(min(max(2 * block, evidence, round(0.25 * recent)), max(2_000, round(2.5 * block)), 0.4 * recent))


def _chosen(
    tried: list[Floats], champion: Floats, end: int, held: int, block_rows: int
) -> tuple[Floats | None, tuple[float, ...]]:
    """Trainer's choice on the `held` newest rows, and its paired gains there; None where it is not ahead of the champion."""
    newest = slice(end - held, end)
    best = min(tried, key=lambda found: float(np.mean(found[newest])))
    ahead = champion[newest] - best[newest]
    if float(np.mean(ahead)) <= GateSettings().gain * float(np.mean(champion[newest])):
        return None, ()
    blocks = held // min(block_rows, max(block_rows // 4, held // 8))
    return best, tuple(float(np.mean(part)) for part in np.array_split(ahead, blocks))


def _harm(releases: Releases, relative: float) -> float:
    """Share of this label's answers that a worse model gave."""
    if relative <= 0.0:
        return 0.0
    champion, others = releases.arms()
    assert champion is not None
    return sum(arm.share for arm in (champion, *others) if arm.model_id != "champion")
