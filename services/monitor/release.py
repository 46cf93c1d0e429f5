"""Decides who answers: a challenger earns its way from shadow over canary to champion, and a champion can lose its place.

Evidence is paired: champion and challenger score every prediction, and what counts is the difference of their losses
on the same mature rows, whole cohorts only, in block means: those that trainer held out from both come first, those of
production follow. It may be looked at after every block: the bound is an asymptotic confidence sequence (Waudby-Smith, Arbour,
Sinha, Kennedy, Ramdas: "Time-uniform central limit theory and asymptotic confidence sequences", 2021), valid at all times at once.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from driftloop.contracts.monitor.v1.monitor_pb2 import (
    DECISION_KIND_AWAIT_APPROVAL,
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
    ROLE_STANDBY,
    Arm,
    DecisionKind,
    Role,
)
from driftloop.usecase import LOSS_UNITS, Policy, Task
from services.monitor.orders import Orders, restored

SNAPSHOT_VERSION = 1
CANARY_CONFIDENCE = 0.8  # to answer a tenth of the entities takes less certainty than to answer all
PLANNED_BLOCKS = 20  # at which the bound is tightest
GAIN_MIN = 0.002  # loss per row below which a better model is not worth a change, however small production's loss
BATCHES_MIN = 8  # joined blocks that the deviation of bursty differences is taken from, at the least
ARCHIVE_MAX = 8  # former champions kept: a concept may come back
OF_ALL_ROWS = ("all", "history")  # candidates that rest on every row of the regime


@dataclass(frozen=True)
class Candidate:
    """A published model: where its bundle lies, the digest that it must have, and which of trainer's candidates it is."""

    model_id: str
    bundle_url: str
    bundle_digest: str
    kind: str = ""


@dataclass(frozen=True)
class Trial:
    """What a comparison starts from: trainer's paired gains per held-out block, the rows behind them, production's loss, the pace."""

    gains: tuple[float, ...] = ()
    rows: int = 0
    production_loss: float = 0.0
    pace: int = 1


@dataclass(frozen=True)
class Step:
    """One decision about a release, for the log."""

    kind: DecisionKind
    model_id: str
    because: str
    evidence: dict[str, float]


class Evidence:
    """Paired differences of loss, reference less candidate (above 0: the candidate is better), in block means."""

    def __init__(self, block_rows: int, bursty: bool = False) -> None:
        self._block_rows, self._bursty = block_rows, bursty
        self._values: list[float] = []  # of a bursty stream only; as many as a trial has blocks
        self.rows = 0
        self._open_sum, self._open_rows = 0.0, 0
        self._blocks, self._mean, self._squares = 0, 0.0, 0.0

    def add(self, reference_loss: float, candidate_loss: float) -> None:
        """Takes one mature row in."""
        self.rows += 1
        self._open_sum += reference_loss - candidate_loss
        self._open_rows += 1
        if self._open_rows >= self._block_rows:
            self._add_block(self._open_sum / self._open_rows)
            self._open_sum, self._open_rows = 0.0, 0

    def start_with(self, gains: tuple[float, ...], rows: int) -> None:
        """Takes in the means of blocks that were held out, and how many rows they hold."""
        self.rows += rows
        for gain in gains:
            self._add_block(gain)

    def _add_block(self, value: float) -> None:
        self._blocks += 1
        if self._bursty:
            self._values.append(value)
        delta = value - self._mean
        self._mean += delta / self._blocks
        self._squares += delta * (value - self._mean)

    @property
    def mean(self) -> float:
        """Mean gain in loss per row over the closed blocks."""
        return self._mean

    def half_width(self, confidence: float) -> float:
        """Distance from the mean to the one-sided bound; infinite before there are three blocks.

        The bound is asymptotic: of few blocks the deviation is not known well, and is taken to be larger.
        """
        blocks, alpha = self._blocks, 1.0 - confidence
        if blocks < 3:
            return math.inf
        deviation = max(math.sqrt(self._squares / (blocks - 1)), self._deviation_of_neighbours()) * (1.0 + 2.0 / blocks)
        spread = -2.0 * math.log(2.0 * alpha)
        rho_squared = (spread + math.log(max(spread, 1.0)) + 1.0) / PLANNED_BLOCKS
        grown = blocks * rho_squared + 1.0
        return deviation * math.sqrt(
            2.0 * grown / (blocks * blocks * rho_squared) * math.log1p(math.sqrt(grown) / (2.0 * alpha))
        )

    def _deviation_of_neighbours(self) -> float:
        """Deviation of one block as means of 2, 4, 8 … neighbours suggest it (overlapping batch means, as in `rise`).

        Where hard rows come in bursts, one model's advantage does, too: an hour of storms would count as many proofs.
        """
        deviation, size, count = 0.0, 2, len(self._values)
        while count / size >= BATCHES_MIN:
            sums = [0.0, *itertools.accumulate(value - self._mean for value in self._values)]
            means = [(after - before) / size for before, after in zip(sums, sums[size:], strict=False)]
            variance = math.fsum(mean * mean for mean in means) / len(means) * count / len(means)
            deviation, size = max(deviation, math.sqrt(variance * size)), size * 2
        return deviation

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
        return [self.rows, self._open_sum, self._open_rows, self._blocks, self._mean, self._squares, *self._values]

    def restore(self, state: list[Any]) -> None:
        """Takes a snapshot back."""
        self.rows, self._open_sum, self._open_rows, self._blocks, self._mean, self._squares, *self._values = state


class Releases:
    """The state of who answers, for one use case: a champion and at most one other arm under comparison.

    The champion before stays loaded, as the previous one while it is compared, then as standby: a rollback needs nothing but a
    release. `missing` says, of a model, which replicas do not hold it: until then it goes no step further.
    """

    def __init__(
        self, policy: Policy, task: Task = "binary", missing: Callable[[str], str] = lambda model_id: ""
    ) -> None:
        self._policy = policy
        self._missing = missing
        self.orders = Orders()
        self.standby: Candidate | None = None
        self._unit = LOSS_UNITS[task]
        self.champion: Candidate | None = None
        self.other: Candidate | None = None
        self.other_role: Role = ROLE_SHADOW
        self.archive: list[Candidate] = []
        self._has_answered = False  # whether the champion has: some replica could load it then
        self._trial = Trial()
        self._evidence = self._fresh()

    def _fresh(self) -> Evidence:
        return Evidence(self._policy.block_labels * self._trial.pace, bursty=self._trial.pace > 1)

    def _rows_of(self, rows: int) -> int:
        return rows * self._trial.pace

    @property
    def has_challenger(self) -> bool:
        """Whether a model is on its way up."""
        return self.other is not None and self.other_role != ROLE_PREVIOUS

    def arms(self) -> tuple[Arm | None, list[Arm]]:
        """The champion's arm and the others'."""
        if self.champion is None:
            return None, []
        role = ROLE_SHADOW if self.other_role == ROLE_CANARY and not self.orders.may_answer else self.other_role
        share = self._policy.canary_share if role == ROLE_CANARY and self.other is not None else 0.0
        others = [] if self.other is None else [_arm(self.other, role, share)]
        if self.standby is not None:
            others.append(_arm(self.standby, ROLE_STANDBY, 0.0))
        return _arm(self.champion, ROLE_CHAMPION, 1.0 - share), others

    def known(self) -> list[Candidate]:
        """Every model that may answer or did: the champion first, then the archive, newest first."""
        found = [self.champion, self.other, self.standby, *reversed(self.archive)]
        return list({each.model_id: each for each in found if each is not None}.values())

    def published(self, candidate: Candidate, trial: Trial | None = None) -> list[Step]:
        """A model passed trainer's gates: the first one answers at once, a later one is compared in the shadow."""
        if self.champion is None:
            return [self._first(candidate, "the first model: nothing to compare it with")]
        steps = []
        if self.has_challenger and self.other is not None:
            steps.append(self.drop("a newer challenger takes its place"))
        self._retire()
        self._trial = trial or Trial()
        self.other, self.other_role, self._evidence = candidate, ROLE_SHADOW, self._fresh()
        self._evidence.start_with(self._trial.gains, self._trial.rows)
        because = "it scores every prediction beside production and answers nobody until mature labels speak for it"
        return [*steps, Step(DECISION_KIND_SHADOW, candidate.model_id, because, {})]

    def _first(self, candidate: Candidate, because: str) -> Step:
        self.champion, self._has_answered = candidate, False
        return Step(DECISION_KIND_FIRST_MODEL, candidate.model_id, because, {})

    def answered(self) -> None:
        """The champion has answered somebody, or was heard beside who did."""
        self._has_answered = True

    def refused_by_serving(self, model_id: str, why: str) -> list[Step]:
        """Serving could not load a bundle: it leaves the comparison.

        A champion that has answered stays: replicas keep what they have. One that never did leaves its place to a challenger,
        or empty: nobody could ever answer otherwise, nor anything be compared with it.
        """
        self._forget_standby(model_id)
        if self.other is not None and self.other.model_id == model_id:
            return [self.drop(f"serving refused its bundle: {why}")]
        if self.champion is None or self.champion.model_id != model_id or self._has_answered:
            return []
        challenger = self.other
        self.champion, self.other, self.other_role, self._evidence = None, None, ROLE_SHADOW, self._fresh()
        self.orders = Orders(paused=self.orders.paused, drained=self.orders.drained)
        if challenger is None:
            return []
        return [self._first(challenger, f"the first model that can answer: serving refused the one before it: {why}")]

    def failing(self, model_id: str, why: str) -> list[Step]:
        """A model fails or is slow where it answers: a challenger leaves the comparison, a champion its place to the previous one.

        A champion without a previous one stays: serving answers by what is known without looking, and says so.
        """
        self._forget_standby(model_id)
        if self.other is not None and self.other.model_id == model_id:
            return [self.drop(f"serving's guardrail: {why}")]
        if self.champion is None or self.champion.model_id != model_id:
            return []
        return self.roll_back(f"serving's guardrail: {why}")

    def roll_back(self, why: str) -> list[Step]:
        """Puts the former champion back, and lets the one that failed go; nothing happens if none is held ready."""
        failed, pinned = self.champion, self.orders.pinned
        if failed is not None and failed.model_id == pinned:
            return []
        steps = self.return_to_former(why)
        if steps:
            self.standby = None
        return steps

    def return_to_former(self, why: str) -> list[Step]:
        """Puts the former champion back; the one that it replaces is held ready in its place. A pin is over with it."""
        former = self.other if self.other is not None and self.other_role == ROLE_PREVIOUS else self.standby
        return [] if self.champion is None or former is None else self._replace(former, DECISION_KIND_ROLL_BACK, why)

    def put(self, candidate: Candidate, why: str) -> list[Step]:
        """Makes a known model the champion, whatever the evidence."""
        return self._replace(candidate, DECISION_KIND_PROMOTE, why)

    def _replace(self, candidate: Candidate, kind: DecisionKind, why: str) -> list[Step]:
        evidence = self._evidence.as_map(self._policy.confidence)
        self.orders.pinned = ""
        if self.other is not None and (self.other_role == ROLE_PREVIOUS or self.other == candidate):
            self.orders.forget(self.other.model_id)
            self.other, self.other_role = None, ROLE_SHADOW
        self.champion, self.standby = candidate, self.champion
        # Held-out rows compared the challenger with another champion.
        self._trial, self._has_answered = Trial(pace=self._trial.pace), True
        self._evidence = self._fresh()
        return [Step(kind, candidate.model_id, why, evidence)]

    def _forget_standby(self, model_id: str) -> None:
        if self.standby is not None and self.standby.model_id == model_id:
            self.standby = None

    def _retire(self) -> None:
        """The previous champion is no longer compared, and stays at hand."""
        if self.other is not None and self.other_role == ROLE_PREVIOUS:
            self.standby = self.other

    def labelled(self, losses: dict[str, float]) -> None:
        """The losses, by model, on one mature row that was predicted: counts if both models had scored it."""
        if self.champion is None or self.other is None:
            return
        ours, theirs = losses.get(self.champion.model_id), losses.get(self.other.model_id)
        if ours is not None and theirs is not None:
            self._evidence.add(ours, theirs)

    def decide(self) -> list[Step]:
        """The steps that the evidence allows now."""
        if self.champion is None or self.other is None or not self.orders.may_step:
            return []
        return self._on_probation() if self.other_role == ROLE_PREVIOUS else self._on_trial(self.other)

    def _on_trial(self, challenger: Candidate) -> list[Step]:
        policy, evidence = self._policy, self._evidence
        shown = evidence.as_map(policy.confidence)
        worth = max(GAIN_MIN, policy.gain * self._trial.production_loss)
        canary_rows, promote_rows, give_up_rows = map(
            self._rows_of, (policy.canary_rows, policy.promote_rows, policy.give_up_rows)
        )
        held_back = not self.orders.may_answer or bool(self._missing(challenger.model_id))
        if evidence.rows >= promote_rows and evidence.lower(policy.confidence) > 0 and evidence.mean >= worth:
            if held_back:
                return []
            if policy.approval == "manual" and self.orders.approved != challenger.model_id:
                return self._await_approval(challenger, shown)
            assert self.champion is not None
            self.orders.forget(challenger.model_id)
            self.standby = None
            self.archive = [*self.archive, self.champion][-ARCHIVE_MAX:]
            self.champion, self.other, self.other_role = challenger, self.champion, ROLE_PREVIOUS
            self._has_answered = True
            self._evidence = self._fresh()
            return [
                Step(DECISION_KIND_PROMOTE, challenger.model_id, f"better than production {self._gained(shown)}", shown)
            ]
        if evidence.rows >= canary_rows and evidence.upper(policy.confidence) < worth:
            less = "is worse than" if evidence.upper(policy.confidence) < 0 else "gains too little over"
            return [self.drop(f"mature labels show that it {less} production")]
        if evidence.rows >= give_up_rows:
            return [self.drop(f"not shown to be better within {give_up_rows} paired mature rows")]
        if self.other_role == ROLE_SHADOW and evidence.rows >= canary_rows and evidence.lower(CANARY_CONFIDENCE) > 0:
            if held_back:
                return []
            self.other_role = ROLE_CANARY
            because = f"ahead {self._gained(shown)}"
            return [Step(DECISION_KIND_CANARY, challenger.model_id, because, shown)]
        return []

    def _await_approval(self, challenger: Candidate, shown: dict[str, float]) -> list[Step]:
        if self.orders.awaiting == challenger.model_id:
            return []
        self.orders.awaiting = challenger.model_id
        because = f"better than production {self._gained(shown)}; its promotion waits for a person"
        return [Step(DECISION_KIND_AWAIT_APPROVAL, challenger.model_id, because, shown)]

    def _gained(self, shown: dict[str, float]) -> str:
        return f"by {shown['gain']:.4f} {self._unit} a row on {int(shown['paired_rows'])} paired mature rows"

    def _on_probation(self) -> list[Step]:
        policy, evidence = self._policy, self._evidence
        if evidence.rows >= self._rows_of(policy.promote_rows) and evidence.lower(policy.confidence) > 0:
            return self.roll_back("mature labels show that the previous model was better")
        if evidence.rows >= self._rows_of(policy.give_up_rows) and self.champion is not None:
            step = Step(
                DECISION_KIND_KEEP, self.champion.model_id, "its probation is over", evidence.as_map(policy.confidence)
            )
            self._retire()
            self.other, self.other_role, self._evidence = None, ROLE_SHADOW, self._fresh()
            return [step]
        return []

    def drop(self, because: str) -> Step:
        """The other arm leaves the comparison."""
        assert self.other is not None
        step = Step(
            DECISION_KIND_DROP_CHALLENGER, self.other.model_id, because, self._evidence.as_map(self._policy.confidence)
        )
        self.orders.forget(self.other.model_id)
        self.other, self.other_role, self._evidence = None, ROLE_SHADOW, self._fresh()
        return step

    def snapshot(self) -> dict[str, Any]:
        """State as plain values."""
        return {
            "version": SNAPSHOT_VERSION,
            "champion": _plain(self.champion),
            "other": _plain(self.other),
            "other_role": int(self.other_role),
            "has_answered": self._has_answered,
            "archive": [_plain(candidate) for candidate in self.archive],
            "trial": [list(self._trial.gains), self._trial.rows, self._trial.production_loss, self._trial.pace],
            "evidence": self._evidence.snapshot(),
            "standby": _plain(self.standby),
            "orders": self.orders.snapshot(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Takes a snapshot back."""
        self.champion, self.other = (Candidate(*state[name]) if state[name] else None for name in ("champion", "other"))
        self.other_role = state["other_role"]
        self._has_answered = state["has_answered"]
        self.archive = [Candidate(*plain) for plain in state["archive"]]
        gains, rows, production_loss, pace = state["trial"]
        self._trial = Trial(tuple(gains), rows, production_loss, pace)
        self._evidence = self._fresh()
        self._evidence.restore(state["evidence"])
        # Absent from checkpoints of before there were any.
        self.standby = Candidate(*state["standby"]) if state.get("standby") else None
        self.orders = restored(state.get("orders", {}))


def _plain(candidate: Candidate | None) -> list[str] | None:
    return (
        None
        if candidate is None
        else [candidate.model_id, candidate.bundle_url, candidate.bundle_digest, candidate.kind]
    )


def _arm(candidate: Candidate, role: Role, share: float) -> Arm:
    return Arm(
        model_id=candidate.model_id,
        bundle_url=candidate.bundle_url,
        bundle_digest=candidate.bundle_digest,
        role=role,
        share=share,
    )
