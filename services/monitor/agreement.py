"""Whether trainer's held-out rows are the rows that production saw: what it says of the champion there is held against our own record.

Both sides know what the champion's answers to the same mature rows cost. Where the two disagree, labels or rows reached trainer that
production never saw so (shuffled or corrupted labels, a sample that lacks the slow labels), and gains on them prove nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

KEPT_ROWS = 4_096  # losses kept per model, 24 bytes each: twice what trainer holds out at the most
MODELS_MAX = (
    4  # of which the one is forgotten that has scored nothing for longest: a champion, its challenger and those before
)
COVERED_SHARE = 0.9  # of trainer's rows that production must have scored, and the reverse, for the two to be compared
ROWS_MIN = 30
TOLERANCE_SHARE, TOLERANCE = 0.1, 0.01  # of the loss, and in its unit: late corrections and rounding stay below


@dataclass(frozen=True)
class HeldOutRows:
    """What trainer says of the rows that it compared on: prediction times from and to (both included), and the champion's mean loss."""

    rows: int = 0
    from_us: int = 0
    to_us: int = 0
    champion_loss: float = 0.0


class ProductionRecord:
    """What the answers of the models that score in production have cost, by declared prediction time."""

    def __init__(self) -> None:
        self._losses: dict[str, deque[tuple[int, float]]] = {}

    def labelled(self, losses: dict[str, float], predicted_for_us: int) -> None:
        """One mature row, with the loss of every model that had scored it."""
        for name, loss in losses.items():
            self._losses.setdefault(name, deque(maxlen=KEPT_ROWS)).append((predicted_for_us, loss))
        if len(self._losses) > MODELS_MAX:
            del self._losses[min(self._losses, key=lambda name: (self._losses[name][-1][0], name))]

    def disagreement(
        self, champion: str, said: HeldOutRows, is_left_out: Callable[[int], bool] = lambda predicted_for_us: False
    ) -> str:
        """In words, how trainer's rows differ from production's; empty where they agree or cannot be compared.

        is_left_out: of a prediction time, whether trainer was told to learn nothing from it.
        """
        losses = self._losses.get(champion)
        if not losses or said.rows < ROWS_MIN:
            return ""
        ours = [
            (at_us, loss) for at_us, loss in losses if said.from_us <= at_us <= said.to_us and not is_left_out(at_us)
        ]
        if len(ours) < COVERED_SHARE * said.rows:
            return ""
        # Many rows share a prediction time, and trainer's may begin and end among those of one.
        inside = sum(said.from_us < at_us < said.to_us for at_us, _ in ours)
        if said.rows < COVERED_SHARE * inside:
            return f"trainer compared on {said.rows} rows where production has {inside} labels"
        mean = sum(loss for _, loss in ours) / len(ours)
        if abs(mean - said.champion_loss) > TOLERANCE_SHARE * mean + TOLERANCE:
            return f"on the same {said.rows} rows trainer saw the champion lose {said.champion_loss:.4f} a row, production {mean:.4f}"
        return ""

    def snapshot(self) -> dict[str, list[list[float]]]:
        """State as plain values."""
        return {name: [list(one) for one in losses] for name, losses in self._losses.items()}

    def restore(self, state: dict[str, Any]) -> None:
        """Takes a snapshot back."""
        self._losses = {
            name: deque(((at_us, loss) for at_us, loss in losses), maxlen=KEPT_ROWS) for name, losses in state.items()
        }
