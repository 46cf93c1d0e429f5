"""Says what mature labels prove of the model beside the champion: better by enough, worse, harmful, or nothing yet; it takes no step.

Evidence is paired: champion and challenger score every prediction, and what counts is the difference of their losses
on the same mature rows, whole cohorts only, in block means: those that trainer held out from both come first, those of
production follow. It may be looked at after every block: the bound is an asymptotic confidence sequence (Waudby-Smith, Arbour,
Sinha, Kennedy, Ramdas: "Time-uniform central limit theory and asymptotic confidence sequences", 2021), valid at all times at once.
What trainer held out proposes, production disposes: nothing is proven before production's own rows speak for it, too, and
held-out gains that production surely does not see (labels or inputs that were not yet known when it had to answer) are struck out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from driftloop.usecase import LOSS_UNITS, Policy, Task
from services.monitor import odds
from services.monitor.arms import GAIN_MIN, Trial
from services.monitor.evidence import Evidence
from services.monitor.slices import Harm, SliceGains

SLICE_HARM = 0.1  # of production's loss by which a slice must surely be worse: smaller losses are the price of a repaired concept
SLICE_ROWS_SHARE = 0.8  # of promote_rows: a slice turned upside down loses half a deviation a row, which 80 rows show
# Confidence of a slice's harm with which a promotion waits, and with which the challenger goes: it is looked at often.
SLICE_SUSPICION, SLICE_CERTAINTY = 0.9, 0.999


class Proof:
    """Paired losses of the champion and the model beside it, on the whole and by slice, and what follows from them."""

    def __init__(self, policy: Policy, task: Task, trial: Trial) -> None:
        self.trial = trial
        self._policy = policy
        self._unit = LOSS_UNITS[task]
        self._slices = SliceGains()
        self._paired_loss, self._paired_rows = 0.0, 0
        self._evidence = Evidence(policy.block_labels * trial.pace, trial.pace)

    def start_with_held_out(self) -> None:
        """Takes in what trainer held out from both models."""
        self._evidence.start_with(self.trial.gains, self.trial.rows)

    def add(self, ours: float, theirs: float, slices: Mapping[str, str]) -> None:
        """The champion's loss and the other's on one mature row; `slices`: its value of each declared slice."""
        self._evidence.add(ours, theirs)
        self._paired_loss += ours
        self._paired_rows += 1
        self._slices.add(slices, ours - theirs)

    def strike_if_refuted(self) -> None:
        """Forgets what was held out if production surely sees less of a gain."""
        self._evidence.strike_if_refuted()

    @property
    def production_loss(self) -> float:
        """The champion's mean loss, before the trial or on the rows of it, whichever is more: after a change the latter is."""
        paired = self._paired_loss / self._paired_rows if self._paired_rows else 0.0
        return max(self.trial.production_loss, paired)

    @property
    def gain(self) -> float:
        """Mean gain in loss per row."""
        return self._evidence.mean

    @property
    def is_heard(self) -> bool:
        """Whether production's own rows have had a say."""
        return self._evidence.is_heard

    def is_ahead_by(self, gain: float) -> bool:
        """Whether production has shown that the challenger is likely the better one, lately by so much."""
        return self.is_likely and self._evidence.recent_mean >= gain

    @property
    def is_likely(self) -> bool:
        """Whether production has shown that the challenger is likely enough the better one to answer everybody."""
        return self.is_heard and self._chance() >= odds.SHARES[-1][0]

    @property
    def is_proven(self) -> bool:
        """Whether the challenger is surely better by enough, and no slice is suspected to be harmed."""
        worth = self._worth
        enough = self._has(self._policy.promote_rows)
        sure = enough and self._is_sure and self.gain >= worth and self._evidence.is_confirmed(worth)
        return sure and not self.is_harm_suspected

    @property
    def are_slices_seen(self) -> bool:
        """Whether every major slice has rows enough to be judged."""
        return self._slices.are_seen(SLICE_ROWS_SHARE * self._policy.promote_rows)

    @property
    def are_slices_cleared(self) -> bool:
        """Whether every major slice has been seen, and is unlikely to be harmed by much."""
        return self.are_slices_seen and self._slices.are_cleared(SLICE_HARM * self.production_loss)

    @property
    def is_harm_suspected(self) -> bool:
        """Whether some slice may be harmed."""
        return self._harm(SLICE_SUSPICION) is not None

    @property
    def is_reversed(self) -> bool:
        """Whether the model that was replaced is surely the better one."""
        return self._has(self._policy.promote_rows) and self._is_sure

    @property
    def is_spent(self) -> bool:
        """Whether all rows have been seen that a comparison may take."""
        return self._has(self._policy.give_up_rows)

    @property
    def unheard_share(self) -> float:
        """What the challenger may answer before production's own rows have had a say."""
        return odds.unheard_share(self._gained, self.trial.pace)

    def chance(self) -> float:
        """The chance that the other model is the better one; none before the policy's `canary_rows`."""
        return self._chance() if self._has(self._policy.canary_rows) else 0.0

    def harm(self) -> str:
        """In words, the slice that is surely harmed; empty if none is."""
        harm = self._harm(SLICE_CERTAINTY)
        return "" if harm is None else harm.in_words(self._unit)

    def refutation(self) -> str:
        """In words, what the other model surely is if it is not worth a change; empty as long as it may be."""
        upper = self._evidence.upper(self._policy.confidence)
        if not self._has(self._policy.canary_rows) or upper >= self._worth:
            return ""
        return "is worse than" if upper < 0 else "gains too little over"

    def shown(self) -> dict[str, float]:
        """What a decision shows of it."""
        return self._evidence.as_map(self._policy.confidence)

    def in_words(self, shown: dict[str, float]) -> str:
        """The gain, for a decision."""
        return f"by {shown['gain']:.4f} {self._unit} a row on {int(shown['paired_rows'])} paired mature rows"

    def rows_of(self, rows: int) -> int:
        """How many rows say what so many independent ones do."""
        return rows * self.trial.pace

    def _has(self, rows: int) -> bool:
        return self._evidence.rows >= self.rows_of(rows)

    @property
    def _worth(self) -> float:
        """The gain that a change must be worth."""
        return max(GAIN_MIN, self._policy.gain * self.production_loss)

    def _chance(self) -> float:
        return self._evidence.chance(odds.PRIOR_DEVIATION * max(self.production_loss, GAIN_MIN))

    @property
    def _gained(self) -> float:
        return self.gain / max(self.production_loss, GAIN_MIN)

    @property
    def _is_sure(self) -> bool:
        caution = odds.caution(self._gained, self.trial.pace)
        return self.gain > self._evidence.half_width(self._policy.confidence) * caution

    def _harm(self, confidence: float) -> Harm | None:
        return self._slices.harmed(confidence, SLICE_HARM * self.production_loss, self.trial.slice_pace)

    def snapshot(self) -> dict[str, Any]:
        """State as plain values, which are a part of a release's."""
        return {
            "trial": [
                list(self.trial.gains),
                self.trial.rows,
                self.trial.production_loss,
                self.trial.pace,
                self.trial.slice_pace,
            ],
            "evidence": self._evidence.snapshot(),
            "slices": self._slices.snapshot(),
            "paired": [self._paired_loss, self._paired_rows],
        }

    @classmethod
    def restored(cls, policy: Policy, task: Task, state: dict[str, Any]) -> Proof:
        """A proof from its snapshot."""
        gains, rows, production_loss, pace, *slice_pace = state["trial"]
        # Absent from checkpoints of when a large rise made slices be judged as fast as the whole.
        trial = Trial(tuple(gains), rows, production_loss, pace, *(slice_pace or [pace]))
        proof = cls(policy, task, trial)
        proof._evidence.restore(state["evidence"])
        # Absent from checkpoints of before slices were judged.
        proof._paired_loss, proof._paired_rows = state.get("paired", [0.0, 0])
        proof._slices.restore(state.get("slices", [0, []]))
        return proof
