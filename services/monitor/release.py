"""Decides who answers: a challenger earns its way from shadow over canary to champion, and a champion can lose its place.

Each step follows from what `proof` says of the two; what a challenger may answer meanwhile follows the odds (`odds`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from driftloop.contracts.monitor.v1.monitor_pb2 import (
    DECISION_KIND_AB_END,
    DECISION_KIND_AWAIT_APPROVAL,
    DECISION_KIND_CANARY,
    DECISION_KIND_DROP_CHALLENGER,
    DECISION_KIND_FIRST_MODEL,
    DECISION_KIND_KEEP,
    DECISION_KIND_PROMOTE,
    DECISION_KIND_ROLL_BACK,
    DECISION_KIND_SHADOW,
    DECISION_KIND_WAIT,
    ROLE_CANARY,
    ROLE_CHAMPION,
    ROLE_PREVIOUS,
    ROLE_SHADOW,
    ROLE_STANDBY,
    Arm,
    DecisionKind,
    Role,
)
from driftloop.usecase import Policy, Task
from services.monitor import odds
from services.monitor.arms import Candidate, Step, Trial, arm_of, plain
from services.monitor.comparison import Comparison
from services.monitor.orders import Orders, restored
from services.monitor.proof import Proof
from services.monitor.wanted import Challenger

SNAPSHOT_VERSION = 1
ARCHIVE_MAX = 8  # former champions kept: a concept may come back


class Releases:
    """The state of who answers, for one use case: a champion and at most one other arm under comparison.

    The champion before stays loaded, as the previous one while it is compared, then as standby: a rollback needs nothing but a
    release. `missing` says, of a model, which replicas do not hold it: until then it goes no step further.
    """

    def __init__(
        self, policy: Policy, task: Task = "binary", missing: Callable[[str], str] = lambda model_id: ""
    ) -> None:
        self._policy, self._task = policy, task
        self._missing = missing
        self.orders = Orders()
        self.comparison = Comparison()
        self.standby: Candidate | None = None
        self.champion: Candidate | None = None
        self.other: Candidate | None = None
        self.other_role: Role = ROLE_SHADOW
        self.archive: list[Candidate] = []
        self._has_answered = False  # whether the champion has: some replica could load it then
        self._compare_anew(Trial())

    def _compare_anew(self, trial: Trial) -> None:
        """Nothing is proven yet, and the model beside the champion answers nobody."""
        self._proof = Proof(self._policy, self._task, trial)
        self._share, self._unheard_share = 0.0, odds.UNHEARD_SHARE
        self._waits = False  # whether the challenger is proven, and gains too little for a promotion

    @property
    def has_challenger(self) -> bool:
        """Whether a model is on its way up."""
        return self.other is not None and self.other_role != ROLE_PREVIOUS

    @property
    def is_on_trial(self) -> bool:
        """Whether it is open what a challenger is worth: one that gains too little for a promotion is known, and holds up nothing."""
        return self.has_challenger and not self._waits

    @property
    def challenger(self) -> Challenger:
        """What the next candidate depends on of the challenger: whether it is on trial, waits for slices only, and answers somebody."""
        return Challenger(self.is_on_trial, self.waits_for_slices, answers=self._share > 0.0)

    @property
    def beside(self) -> str:
        """Id of the model that is compared with the champion; empty if there is none."""
        return "" if self.other is None else self.other.model_id

    def arms(self) -> tuple[Arm | None, list[Arm]]:
        """The champion's arm and the others'."""
        if self.champion is None:
            return None, []
        share = self._share if self.other is not None and self.orders.may_answer else 0.0
        role = ROLE_CANARY if share else ROLE_SHADOW if self.other_role == ROLE_CANARY else self.other_role
        others = [] if self.other is None else [arm_of(self.other, role, share)]
        if self.standby is not None:
            others.append(arm_of(self.standby, ROLE_STANDBY, 0.0))
        if self.comparison.arms:
            others = self.comparison.released(others, self.orders.drained)
            share = sum(arm.share for arm in others)
        return arm_of(self.champion, ROLE_CHAMPION, 1.0 - share), others

    @property
    def scoring(self) -> set[str]:
        """Ids of the models that score every row."""
        champion, others = self.arms()
        return {arm.model_id for arm in (champion, *others) if arm is not None and arm.role != ROLE_STANDBY}

    @property
    def answering(self) -> set[str]:
        """Ids of the models that answer somebody."""
        champion, others = self.arms()
        return {arm.model_id for arm in (champion, *others) if arm is not None and arm.share > 0.0}

    def known(self) -> list[Candidate]:
        """Every model that may answer or did: the champion first, then the archive, newest first."""
        found = [self.champion, self.other, self.standby, *reversed(self.archive)]
        return list({each.model_id: each for each in found if each is not None}.values())

    def published(self, candidate: Candidate, trial: Trial | None = None) -> list[Step]:
        """A model passed trainer's gates: the first one answers at once, a later one is compared in the shadow.

        A challenger that is ahead, and by no less than the newer one was on its held-out rows, goes on in its place. A newer one
        that is ahead by more may answer as much as the one that it replaces did, and one that is far ahead everybody: halving it
        would give answers back to a champion that is known to be worse.
        """
        if self.champion is None:
            return [self._first(candidate, "the first model: nothing to compare it with")]
        steps, inherited = [], 0.0
        if self.has_challenger and self.other is not None:
            if self._proof.is_likely:
                inherited = self._share
            gains = trial.gains if trial is not None else ()
            if self._proof.is_ahead_by(sum(gains) / len(gains) if gains else 0.0):
                because = "the challenger on trial is ahead by as much, and has shown it in production"
                return [Step(DECISION_KIND_DROP_CHALLENGER, candidate.model_id, because, {})]
            steps.append(self.drop("a newer challenger takes its place"))
        self._retire()
        self.other, self.other_role = candidate, ROLE_SHADOW
        self._compare_anew(trial or Trial())
        self._proof.start_with_held_out()
        self._unheard_share = max(self._proof.unheard_share, inherited)
        because = "it scores every prediction beside production and answers nobody until mature labels speak for it"
        return [*steps, Step(DECISION_KIND_SHADOW, candidate.model_id, because, {})]

    def withdrawn(self, why: str) -> list[Step]:
        """The challenger, if there is one, leaves for a reason that no evidence shows."""
        return [self.drop(why)] if self.has_challenger else []

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
        steps = self._without_arm(model_id, f"serving refused its bundle: {why}")
        if self.other is not None and self.other.model_id == model_id:
            return [*steps, self.drop(f"serving refused its bundle: {why}")]
        if self.champion is None or self.champion.model_id != model_id or self._has_answered:
            return steps
        steps += self.end_comparison("the champion has lost its place")
        challenger = self.other
        self.champion = None
        self._leave_beside()
        self.orders = Orders(paused=self.orders.paused, drained=self.orders.drained)
        if challenger is None:
            return steps
        because = f"the first model that can answer: serving refused the one before it: {why}"
        return [*steps, self._first(challenger, because)]

    def failing(self, model_id: str, why: str) -> list[Step]:
        """A model fails or is slow where it answers: a challenger leaves the comparison, a champion its place to the previous one.

        A champion without a previous one stays: serving answers by what is known without looking, and says so.
        """
        self._forget_standby(model_id)
        steps = self._without_arm(model_id, f"serving's guardrail: {why}")
        if self.other is not None and self.other.model_id == model_id:
            return [*steps, self.drop(f"serving's guardrail: {why}")]
        if self.champion is None or self.champion.model_id != model_id:
            return steps
        return self.roll_back(f"serving's guardrail: {why}")

    def end_comparison(self, why: str) -> list[Step]:
        """The named arms answer nobody any more; nothing happens if there are none."""
        return [Step(DECISION_KIND_AB_END, "", why, self.comparison.stop())] if self.comparison.arms else []

    def _without_arm(self, model_id: str, why: str) -> list[Step]:
        """A model that can answer nobody leaves the comparison, which ends with its last arm."""
        figures, name = self.comparison.figures(), self.comparison.without(model_id)
        if not name:
            return []
        if not self.comparison.arms:
            self.comparison.stop()
        return [Step(DECISION_KIND_AB_END, model_id, f"arm {name} is out: {why}", figures)]

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
        shown = self._proof.shown()
        self.orders.pinned = ""
        if self.other is not None and (self.other_role == ROLE_PREVIOUS or self.other == candidate):
            self.orders.forget(self.other.model_id)
            self.other, self.other_role = None, ROLE_SHADOW
        ended = self.end_comparison("the champion has lost its place") if candidate != self.champion else []
        self.champion, self.standby = candidate, self.champion
        # Held-out rows compared the challenger with another champion.
        trial = self._proof.trial
        self._compare_anew(Trial(pace=trial.pace, slice_pace=trial.slice_pace))
        self._has_answered = True
        return [*ended, Step(kind, candidate.model_id, why, shown)]

    def _forget_standby(self, model_id: str) -> None:
        if self.standby is not None and self.standby.model_id == model_id:
            self.standby = None

    def _retire(self) -> None:
        """The previous champion is no longer compared, and stays at hand."""
        if self.other is not None and self.other_role == ROLE_PREVIOUS:
            self.standby = self.other

    @property
    def waits_for_slices(self) -> bool:
        """Whether the challenger is proven, and goes on being a challenger only until every major slice has been seen."""
        proven = self.has_challenger and self.orders.may_step and not self.comparison.arms and self._proof.is_proven
        return proven and not self._proof.are_slices_seen

    def labelled(self, losses: dict[str, float], slices: Mapping[str, str] | None = None) -> None:
        """The losses, by model, on one mature row of some slices that was predicted: counts if both models had scored it."""
        if self.champion is None or self.other is None:
            return
        ours, theirs = losses.get(self.champion.model_id), losses.get(self.other.model_id)
        if ours is not None and theirs is not None:
            self._proof.add(ours, theirs, slices or {})

    def decide(self, least_gain: float = 0.0) -> list[Step]:
        """The steps that the evidence allows now.

        A challenger that may give nearly all answers waits with its promotion until it gains `least_gain` of production's loss.
        """
        if self.champion is None or self.other is None or not self.orders.may_step or self.comparison.arms:
            return []
        if self.other_role == ROLE_PREVIOUS:
            return self._on_probation() or self._shared(self.other)
        return self._on_trial(self.other, least_gain)

    def _on_trial(self, challenger: Candidate, least_gain: float) -> list[Step]:
        policy, proof = self._policy, self._proof
        proof.strike_if_refuted()
        shown = proof.shown() | {"production_loss": proof.production_loss}
        held_back = not self.orders.may_answer or bool(self._missing(challenger.model_id))
        if harm := proof.harm():
            return [self.drop(f"mature labels show that {harm}")]
        if proof.is_proven and proof.are_slices_cleared:
            if held_back:
                return []
            if policy.approval == "manual" and self.orders.approved != challenger.model_id:
                return self._await_approval(challenger, shown)
            if policy.canary_share >= odds.LEADING_SHARE and proof.gain < least_gain * proof.production_loss:
                return [*self._wait(challenger, shown, least_gain), *self._shared(challenger)]
            return [self._promote(challenger, shown)]
        if refutation := proof.refutation():
            return [self.drop(f"mature labels show that it {refutation} production")]
        if proof.is_spent and proof.is_heard and not self._waits:
            unshown = "to spare every slice" if proof.is_proven else "to be better"
            return [self.drop(f"not shown {unshown} within {proof.rows_of(policy.give_up_rows)} paired mature rows")]
        return [] if held_back and not self._share else self._shared(challenger)

    def _promote(self, challenger: Candidate, shown: dict[str, float]) -> Step:
        """The challenger takes the champion's place, which is held ready and compared with it."""
        assert self.champion is not None
        because = f"better than production {self._proof.in_words(shown)}"
        self.orders.forget(challenger.model_id)
        self.standby = None
        self.archive = [*self.archive, self.champion][-ARCHIVE_MAX:]
        self.champion, self.other, self.other_role = challenger, self.champion, ROLE_PREVIOUS
        self._has_answered = True
        self._compare_anew(self._proof.trial)
        return Step(DECISION_KIND_PROMOTE, challenger.model_id, because, shown)

    def _shared(self, other: Candidate) -> list[Step]:
        """What the other arm answers follows the chance that it is the better one, up and down."""
        policy, proof = self._policy, self._proof
        chance = proof.chance()
        most = policy.canary_share if policy.approval == "automatic" else min(policy.canary_share, odds.FIRST_SHARE)
        if not proof.is_heard:
            most = min(most, self._unheard_share)
        if proof.is_harm_suspected:
            most = min(most, odds.FIRST_SHARE)
        share = odds.next_share(self._share, chance, most)
        if share == self._share or (share > self._share and self._missing(other.model_id)):
            return []
        self._share = share
        shown = proof.shown() | {"chance": chance, "share": share}
        if self.other_role != ROLE_PREVIOUS:
            self.other_role = ROLE_CANARY if share else ROLE_SHADOW
        if not share:
            because = "it answers nobody any more: its newest mature labels do not speak for it"
            return [Step(DECISION_KIND_SHADOW, other.model_id, because, shown)]
        because = (
            f"better with a chance of {chance:.2f}, {proof.in_words(shown)}: it answers {share:.0%} of the entities"
        )
        return [Step(DECISION_KIND_CANARY, other.model_id, because, shown)]

    def _await_approval(self, challenger: Candidate, shown: dict[str, float]) -> list[Step]:
        if self.orders.awaiting == challenger.model_id:
            return []
        self.orders.awaiting = challenger.model_id
        because = f"better than production {self._proof.in_words(shown)}; its promotion waits for a person"
        return [Step(DECISION_KIND_AWAIT_APPROVAL, challenger.model_id, because, shown)]

    def _wait(self, challenger: Candidate, shown: dict[str, float], least_gain: float) -> list[Step]:
        if self._waits:
            return []
        self._waits = True
        gained = self._proof.in_words(shown)
        because = (
            f"better than production {gained}; it may answer, its promotion waits for {least_gain:.1%} of the loss"
        )
        return [Step(DECISION_KIND_WAIT, challenger.model_id, because, shown | {"least_gain": least_gain})]

    def _on_probation(self) -> list[Step]:
        if self._proof.is_reversed:
            return self.roll_back("mature labels show that the previous model was better")
        if self._proof.is_spent and self.champion is not None:
            step = Step(DECISION_KIND_KEEP, self.champion.model_id, "its probation is over", self._proof.shown())
            self._retire()
            self._leave_beside()
            return [step]
        return []

    def drop(self, because: str) -> Step:
        """The other arm leaves the comparison."""
        assert self.other is not None
        step = Step(DECISION_KIND_DROP_CHALLENGER, self.other.model_id, because, self._proof.shown())
        self.orders.forget(self.other.model_id)
        self._leave_beside()
        return step

    def _leave_beside(self) -> None:
        """Nobody is compared with the champion any more."""
        self.other, self.other_role = None, ROLE_SHADOW
        self._compare_anew(self._proof.trial)

    def snapshot(self) -> dict[str, Any]:
        """State as plain values."""
        return {
            "version": SNAPSHOT_VERSION,
            "champion": plain(self.champion),
            "other": plain(self.other),
            "other_role": int(self.other_role),
            "has_answered": self._has_answered,
            "archive": [plain(candidate) for candidate in self.archive],
            "standby": plain(self.standby),
            "orders": self.orders.snapshot(),
            "comparison": self.comparison.snapshot(),
            "share": self._share,
            "unheard_share": self._unheard_share,
            "waits": self._waits,
            **self._proof.snapshot(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Takes a snapshot back."""
        self.champion, self.other = (Candidate(*state[name]) if state[name] else None for name in ("champion", "other"))
        self.other_role = state["other_role"]
        self._has_answered = state["has_answered"]
        self.archive = [Candidate(*plain) for plain in state["archive"]]
        self._proof = Proof.restored(self._policy, self._task, state)
        # Absent from checkpoints of before there were any.
        self.standby = Candidate(*state["standby"]) if state.get("standby") else None
        self.orders = restored(state.get("orders", {}))
        if "comparison" in state:
            self.comparison.restore(state["comparison"])
        # Absent from checkpoints of when a canary's share was fixed, or not inherited.
        self._share = state.get("share", odds.FIRST_SHARE if self.other_role == ROLE_CANARY else 0.0)
        self._unheard_share = state.get("unheard_share", odds.UNHEARD_SHARE)
        self._waits = state.get("waits", False)
