"""Decides who answers: a challenger earns its way from shadow over canary to champion, and a champion can lose its place.

Evidence is paired: champion and challenger score every prediction, and what counts is the difference of their losses
on the same mature rows, whole cohorts only, in block means. It may be looked at after every block: the bound is an
asymptotic confidence sequence (Waudby-Smith, Arbour, Sinha, Kennedy, Ramdas: "Time-uniform central limit theory and
asymptotic confidence sequences", 2021), valid at all times at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from driftloop.contracts.monitor.v1.monitor_pb2 import (
    DECISION_KIND_CANARY,
    DECISION_KIND_DROP_CHALLENGER,
    DECISION_KIND_FIRST_MODEL,
    DECISION_KIND_KEEP,
    DECISION_KIND_PROMOTE,
    DECISION_KIND_ROLL_BACK,
    DECISION_KIND_SHADOW,
    ROLE_CANARY,
    ROLE_CHAMPION,
    ROLE_PREVIOUS,
    ROLE_SHADOW,
    Arm,
    DecisionKind,
    Role,
)
from driftloop.usecase import LOSS_UNITS, Policy, Task

SNAPSHOT_VERSION = 1
CANARY_CONFIDENCE = 0.8  # to answer a tenth of the entities takes less certainty than to answer all


@dataclass(frozen=True)
class Candidate:
    """A published model: where its bundle lies and the digest that it must have."""

    model_id: str
    bundle_url: str
    bundle_digest: str


@dataclass(frozen=True)
class Step:
    """One decision about a release, for the log."""

    kind: DecisionKind
    model_id: str
    because: str
    evidence: dict[str, float]


class Evidence:
    """Paired differences of loss, reference less candidate (above 0: the candidate is better), in block means."""

    def __init__(self, block_rows: int, planned_rows: int) -> None:
        self._block_rows, self._planned_blocks = block_rows, max(2, planned_rows // block_rows)
        self.rows = 0
        self._open_sum, self._open_rows = 0.0, 0
        self._blocks, self._mean, self._squares = 0, 0.0, 0.0

    def add(self, reference_loss: float, candidate_loss: float) -> None:
        """Takes one mature row in."""
        self.rows += 1
        self._open_sum += reference_loss - candidate_loss
        self._open_rows += 1
        if self._open_rows >= self._block_rows:
            value = self._open_sum / self._open_rows
            self._blocks += 1
            delta = value - self._mean
            self._mean += delta / self._blocks
            self._squares += delta * (value - self._mean)
            self._open_sum, self._open_rows = 0.0, 0

    @property
    def mean(self) -> float:
        """Mean gain in loss per row over the closed blocks."""
        return self._mean

    def half_width(self, confidence: float) -> float:
        """Distance from the mean to the one-sided bound; infinite before there are two blocks."""
        blocks, alpha = self._blocks, 1.0 - confidence
        if blocks < 2:
            return math.inf
        deviation = math.sqrt(self._squares / (blocks - 1))
        spread = -2.0 * math.log(2.0 * alpha)
        rho_squared = (spread + math.log(max(spread, 1.0)) + 1.0) / self._planned_blocks  # tightest at the planned rows
        grown = blocks * rho_squared + 1.0
        return deviation * math.sqrt(
            2.0 * grown / (blocks * blocks * rho_squared) * math.log1p(math.sqrt(grown) / (2.0 * alpha))
        )

    def lower(self, confidence: float) -> float:
        """The gain is above this at all times with the confidence."""
        return self.mean - self.half_width(confidence)

    def upper(self, confidence: float) -> float:
        """The gain is below this at all times with the confidence."""
        return self.mean + self.half_width(confidence)

    def as_map(self, confidence: float) -> dict[str, float]:
        """What a decision shows of it."""
        bounds = {"gain_lower": self.lower(confidence), "gain_upper": self.upper(confidence)}
        return {"paired_rows": float(self.rows), "gain": self.mean} | {
            k: v for k, v in bounds.items() if math.isfinite(v)
        }

    def snapshot(self) -> list[float]:
        """State as plain values."""
        return [self.rows, self._open_sum, self._open_rows, self._blocks, self._mean, self._squares]

    def restore(self, state: list[Any]) -> None:
        """Takes a snapshot back."""
        self.rows, self._open_sum, self._open_rows, self._blocks, self._mean, self._squares = state


class Releases:
    """The state of who answers, for one use case: a champion and at most one other arm under comparison."""

    def __init__(self, policy: Policy, task: Task = "binary") -> None:
        self._policy = policy
        self._unit = LOSS_UNITS[task]
        self.champion: Candidate | None = None
        self.other: Candidate | None = None
        self.other_role: Role = ROLE_SHADOW
        self._evidence = self._fresh()

    def _fresh(self) -> Evidence:
        return Evidence(self._policy.block_labels, self._policy.promote_rows)

    @property
    def has_challenger(self) -> bool:
        """Whether a model is on its way up."""
        return self.other is not None and self.other_role != ROLE_PREVIOUS

    def arms(self) -> tuple[Arm | None, list[Arm]]:
        """The champion's arm and the others'."""
        if self.champion is None:
            return None, []
        share = self._policy.canary_share if self.other_role == ROLE_CANARY and self.other is not None else 0.0
        others = [] if self.other is None else [_arm(self.other, self.other_role, share)]
        return _arm(self.champion, ROLE_CHAMPION, 1.0 - share), others

    def published(self, candidate: Candidate) -> list[Step]:
        """A model passed trainer's gates: the first one answers at once, a later one is compared in the shadow."""
        if self.champion is None:
            self.champion = candidate
            return [
                Step(DECISION_KIND_FIRST_MODEL, candidate.model_id, "the first model: nothing to compare it with", {})
            ]
        steps = []
        if self.has_challenger and self.other is not None:
            steps.append(self._drop("a newer challenger takes its place"))
        self.other, self.other_role, self._evidence = candidate, ROLE_SHADOW, self._fresh()
        because = "it scores every prediction beside production and answers nobody until mature labels speak for it"
        return [*steps, Step(DECISION_KIND_SHADOW, candidate.model_id, because, {})]

    def refused_by_serving(self, model_id: str, why: str) -> list[Step]:
        """Serving could not load a bundle: it leaves the comparison. A champion stays: replicas keep what they have."""
        if self.other is not None and self.other.model_id == model_id:
            return [self._drop(f"serving refused its bundle: {why}")]
        return []

    def roll_back(self, why: str) -> list[Step]:
        """Puts the previous champion back; nothing happens if none is held ready."""
        if self.champion is None or self.other is None or self.other_role != ROLE_PREVIOUS:
            return []
        evidence = self._evidence.as_map(self._policy.confidence)
        self.champion, self.other, self._evidence = self.other, None, self._fresh()
        return [Step(DECISION_KIND_ROLL_BACK, self.champion.model_id, why, evidence)]

    def labelled(self, losses: dict[str, float]) -> None:
        """The losses, by model, on one mature row that was predicted: counts if both models had scored it."""
        if self.champion is None or self.other is None:
            return
        ours, theirs = losses.get(self.champion.model_id), losses.get(self.other.model_id)
        if ours is not None and theirs is not None:
            self._evidence.add(ours, theirs)

    def decide(self) -> list[Step]:
        """The steps that the evidence allows now."""
        if self.champion is None or self.other is None:
            return []
        return self._probation() if self.other_role == ROLE_PREVIOUS else self._trial(self.other)

    def _trial(self, challenger: Candidate) -> list[Step]:
        policy, evidence = self._policy, self._evidence
        shown = evidence.as_map(policy.confidence)
        if evidence.rows >= policy.canary_rows and evidence.upper(policy.confidence) < 0:
            return [self._drop("mature labels show that it is worse than production")]
        if evidence.rows >= policy.promote_rows and evidence.lower(policy.confidence) > 0:
            self.champion, self.other, self.other_role = challenger, self.champion, ROLE_PREVIOUS
            self._evidence = self._fresh()
            because = f"better than production {self._gained(shown)}"
            return [Step(DECISION_KIND_PROMOTE, challenger.model_id, because, shown)]
        if evidence.rows >= policy.give_up_rows:
            return [self._drop(f"not shown to be better within {policy.give_up_rows} paired mature rows")]
        if (
            self.other_role == ROLE_SHADOW
            and evidence.rows >= policy.canary_rows
            and evidence.lower(CANARY_CONFIDENCE) > 0
        ):
            self.other_role = ROLE_CANARY
            because = f"ahead {self._gained(shown)}"
            return [Step(DECISION_KIND_CANARY, challenger.model_id, because, shown)]
        return []

    def _gained(self, shown: dict[str, float]) -> str:
        return f"by {shown['gain']:.4f} {self._unit} a row on {int(shown['paired_rows'])} paired mature rows"

    def _probation(self) -> list[Step]:
        policy, evidence = self._policy, self._evidence
        if evidence.rows >= policy.canary_rows and evidence.lower(policy.confidence) > 0:
            return self.roll_back("mature labels show that the previous model was better")
        if evidence.rows >= policy.give_up_rows and self.champion is not None:
            step = Step(
                DECISION_KIND_KEEP, self.champion.model_id, "its probation is over", evidence.as_map(policy.confidence)
            )
            self.other, self._evidence = None, self._fresh()
            return [step]
        return []

    def _drop(self, because: str) -> Step:
        assert self.other is not None
        step = Step(
            DECISION_KIND_DROP_CHALLENGER, self.other.model_id, because, self._evidence.as_map(self._policy.confidence)
        )
        self.other, self.other_role, self._evidence = None, ROLE_SHADOW, self._fresh()
        return step

    def snapshot(self) -> dict[str, Any]:
        """State as plain values."""
        return {
            "version": SNAPSHOT_VERSION,
            "champion": _plain(self.champion),
            "other": _plain(self.other),
            "other_role": int(self.other_role),
            "evidence": self._evidence.snapshot(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Takes a snapshot back."""
        self.champion, self.other = (Candidate(*state[name]) if state[name] else None for name in ("champion", "other"))
        self.other_role = state["other_role"]
        self._evidence.restore(state["evidence"])


def _plain(candidate: Candidate | None) -> list[str] | None:
    return None if candidate is None else [candidate.model_id, candidate.bundle_url, candidate.bundle_digest]


def _arm(candidate: Candidate, role: Role, share: float) -> Arm:
    return Arm(
        model_id=candidate.model_id,
        bundle_url=candidate.bundle_url,
        bundle_digest=candidate.bundle_digest,
        role=role,
        share=share,
    )
