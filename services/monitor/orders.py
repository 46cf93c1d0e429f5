"""What people have asked for that holds until they say otherwise: a pin, a pause, a drain, an approval; decides nothing itself."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass
class Orders:
    """The orders in force.

    pinned    the champion that stays until it is unpinned or rolled back
    paused    evidence changes nothing about who answers
    drained   no challenger answers anybody; it goes on in the shadow
    awaiting  the challenger whose promotion waits for a person, and `approved`: one has said yes
    """

    pinned: str = ""
    paused: bool = False
    drained: bool = False
    awaiting: str = ""
    approved: str = ""

    @property
    def may_step(self) -> bool:
        """Whether evidence may change who answers."""
        return not self.paused and not self.pinned

    @property
    def may_answer(self) -> bool:
        """Whether a challenger may answer anybody."""
        return self.may_step and not self.drained

    def forget(self, model_id: str) -> None:
        """A model has left the comparison: what was said of it is over."""
        if self.awaiting == model_id:
            self.awaiting = ""
        if self.approved == model_id:
            self.approved = ""

    def snapshot(self) -> dict[str, Any]:
        """State as plain values."""
        return asdict(self)


def restored(state: dict[str, Any]) -> Orders:
    """Orders of a snapshot."""
    return Orders(**state)
