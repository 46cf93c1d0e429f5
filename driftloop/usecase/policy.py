"""What a use case may say about retraining and release; every default is worth having and says why."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, get_args

from driftloop.usecase.durations import DAY_US, HOUR_US, duration_us
from driftloop.usecase.errors import DeclarationError

Approval = Literal["automatic", "manual"]
APPROVALS: tuple[Approval, ...] = get_args(Approval)


@dataclass(frozen=True)
class Policy:
    """When to retrain and when to believe a new model. All times are use-case time.

    budget            retrain requests per period that drift, decay, new data and schedule may spend together
    bootstrap_rows    mature entities before the first model is asked for
    cooldown          least time between two retrain requests, so that one change is not paid for twice
    cohort            labels are judged by cohorts of prediction time of this length, once a cohort is complete
    alarm_labels      at most one false alarm per so many labels, over all monitored series together
    block_labels      labels per block mean that the error detector sees: single labels of bursty days set it off
    fit_budget        rows of all fits together, candidates and refused models included, per labelled row: what learning may cost
    recent_rows       least rows between two candidates, and half of what one is adapted on: fewer learn mostly noise
    change_rows       rows since a change from which a model is worth fitting: it will not be the last
    schedule          retrain every so often whatever is seen, after twice as long while a challenger is on trial; None: never
    promote_rows      paired mature rows that a challenger needs at the least before it is made champion, those that trainer
                      held out among them
    canary_rows       the same before it answers anybody
    gain              share of production's loss that a challenger must surely win and be worth changing for
    canary_share      share of entities that a canary answers at the most: it begins with a tenth, follows the evidence, up and
                      down, and stays at a tenth where a person approves promotions. From .9 on a promotion that gains little
                      waits (`docs/policy.md`): the challenger gives nearly all answers anyway
                      Rows of these and of recent_rows, change_rows, give_up_rows are meant for independent rows: where hard
                      rows come in bursts, or labels of one kind are rare, monitor multiplies them by the measured pace
    confidence        one-sided confidence that the evidence for a promotion or a rollback must reach, at any time
    give_up_rows      paired mature rows after which a challenger that could not be shown to be better is dropped
    recalibrate       whether answers follow what late labels say of the model's scores, between two trainings and without one
    approval          "manual": a person approves each promotion that the evidence speaks for (`driftloop approve`)
    lateness          how far behind the clock an event may lie and still change an aggregate
    dedupe_horizon    how long the id of an event is remembered; features do so for `lateness` at the least
    """

    budget: str = "4 retrains/day"
    bootstrap_rows: int = 7_000
    cooldown: str = "6h"
    cohort: str = "1h"
    alarm_labels: int = 50_000
    block_labels: int = 40
    fit_budget: float = 2.0
    recent_rows: int = 400
    change_rows: int = 240
    schedule: str | None = None
    promote_rows: int = 100
    canary_rows: int = 60
    canary_share: float = 0.95
    gain: float = 0.01
    confidence: float = 0.98
    give_up_rows: int = 3_000
    recalibrate: bool = True
    approval: Approval = "automatic"
    lateness: str = "24h"
    dedupe_horizon: str = "7d"

    def __post_init__(self) -> None:
        for text in (self.cooldown, self.cohort, self.lateness, self.dedupe_horizon):
            duration_us(text)
        if self.schedule is not None:
            duration_us(self.schedule)
        if not 0 < self.canary_share < 1 or not 0.5 < self.confidence < 1 or not 0 <= self.gain < 1:
            raise DeclarationError("policy: canary_share lies in (0, 1), confidence in (0.5, 1), gain in [0, 1)")
        if self.fit_budget < 1 or self.recent_rows < 20 or self.change_rows < 20:
            raise DeclarationError("policy: fit_budget is at least 1, recent_rows and change_rows are at least 20")
        if not 0 < self.canary_rows <= self.promote_rows <= self.give_up_rows or self.bootstrap_rows < 100:
            raise DeclarationError(
                "policy: need 0 < canary_rows ≤ promote_rows ≤ give_up_rows and bootstrap_rows ≥ 100"
            )
        if self.approval not in APPROVALS:
            raise DeclarationError(f"policy: approval is {' or '.join(APPROVALS)}, not {self.approval!r}")
        _ = self.budget_retrains, self.budget_period_us

    def _budget(self) -> tuple[int, int]:
        match = re.fullmatch(r"(\d+) retrains?/(hour|day|week)", self.budget)
        if match is None or int(match[1]) == 0:
            raise DeclarationError(
                f"policy: budget {self.budget!r} is not of the form '4 retrains/day' (hour, day, week)"
            )
        return int(match[1]), {"hour": HOUR_US, "day": DAY_US, "week": 7 * DAY_US}[match[2]]

    @property
    def budget_retrains(self) -> int:
        """Retrains that one budget period allows."""
        return self._budget()[0]

    @property
    def budget_period_us(self) -> int:
        """The budget period in microseconds."""
        return self._budget()[1]
