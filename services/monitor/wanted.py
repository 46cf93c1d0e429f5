"""What the policy is told and says: why a model is wanted, and whether one is asked for now, of which rows and at what cost."""

from __future__ import annotations

from dataclasses import dataclass

from driftloop.contracts.monitor.v1.monitor_pb2 import RetrainReason


@dataclass(frozen=True)
class Wanted:
    """A reason to retrain, with its evidence and the ids of the messages that are its causes."""

    reason: RetrainReason
    because: str
    causes: tuple[str, ...]
    since_us: int = 0
    urgent: bool = False  # not held back by budget or cooldown
    is_suspicion: bool = False  # no alarm yet: worth a cheap look at the newest rows
    is_collapse: bool = False  # production is worse than nothing: whatever is known of the newest rows is better
    is_of_all: bool = False  # a candidate of all rows that there are, whatever alarms have dated


@dataclass(frozen=True)
class Challenger:
    """What a next candidate depends on of the model that is on its way up; by default there is none."""

    is_on_trial: bool = False  # it is open what it is worth
    is_proven: bool = False  # and waits for its slices only
    answers: bool = True  # somebody, by the odds


@dataclass(frozen=True)
class Counts:
    """How many rows there are: mature labelled ones, those of the regime, and blocks per independent piece of evidence (`pace`)."""

    rows: int
    regime_rows: int
    pace: int = 1


@dataclass(frozen=True)
class Verdict:
    """What to do about the strongest trigger: retrain, on which rows and at what cost (rows of all fits), or why not now."""

    wanted: Wanted
    not_now: str = ""
    recent_rows: int = 0
    evidence_rows: int = 0
    block_rows: int = 0
    rows_max: int = 0
