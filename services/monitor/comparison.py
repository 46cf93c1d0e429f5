"""An A/B comparison that somebody asked for: named arms beside the champion, and how each does on mature labels; pure.

The arms stand until somebody ends them, or the champion that they are compared with loses its place. Which entities an arm answers
follows from the entity and the arm's model alone (`routing` in serving): they are as good as drawn, and stay. An arm's own rows
tell what its callers saw; because every arm scores every row, its gain over the champion is paired, rests on all rows, and is sharper.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, field
from typing import Any

from driftloop.contracts.monitor.v1.monitor_pb2 import ROLE_AB, ROLE_SHADOW, Arm
from services.monitor.moments import Moments

ARMS_MAX = 4  # each scores every prediction
NAME_CHARACTERS_MAX = 32
SHARE_MIN = 0.001  # of all entities
CONTROL = "champion"
OTHER_NAMES = frozenset(
    {CONTROL, "canary", "previous", "prior", "shadow", "standby", "ab"}
)  # of answers outside a comparison


def _words(found: Moments, rows: str, mean: str) -> dict[str, float]:
    """By name: how many, the mean and its standard error, as far as there are any."""
    words = {rows: float(found.count)}
    if found.count:
        words[mean] = found.mean
    if found.count > 1:
        words[f"{mean}_error"] = found.error
    return words


@dataclass
class _Arm:
    """How one arm does. `gains`: the champion's loss less the arm's, on rows that both have scored."""

    exposures: int = 0
    losses: Moments = field(default_factory=Moments)
    gains: Moments = field(default_factory=Moments)


class Comparison:
    """The arms of the comparison that is on, if one is."""

    def __init__(self) -> None:
        self.arms: list[Arm] = []
        self._champion_id = ""
        self._by_name: dict[str, _Arm] = {}

    def start(self, champion_id: str, arms: Sequence[Arm]) -> None:
        """Begins: arms with model, bundle, name and share, which are not `wrong`; the champion answers the rest."""
        self.arms, self._champion_id = list(arms), champion_id
        self._by_name = {name: _Arm() for name in (CONTROL, *(arm.name for arm in arms))}

    def stop(self) -> dict[str, float]:
        """Ends it; how the arms did."""
        figures = self.figures()
        self.arms, self._champion_id, self._by_name = [], "", {}
        return figures

    def without(self, model_id: str) -> str:
        """A model can answer nobody any more: the name of the arm that leaves with it, or ""."""
        name = next((arm.name for arm in self.arms if arm.model_id == model_id), "")
        self.arms = [arm for arm in self.arms if arm.name != name]
        return name

    def released(self, others: Sequence[Arm], drained: bool) -> list[Arm]:
        """The arms of a release beside its champion: each model once, and no canary answers beside the arms."""
        named = {arm.model_id for arm in self.arms}
        role = ROLE_SHADOW if drained else ROLE_AB
        return [
            *(_with(arm, role, 0.0 if drained else arm.share) for arm in self.arms),
            *(_with(arm, arm.role, 0.0) for arm in others if arm.model_id not in named),
        ]

    def exposed(self, arm: str) -> None:
        """An arm has answered somebody."""
        if arm in self._by_name:
            self._by_name[arm].exposures += 1

    def labelled(self, answered_by: str, losses: Mapping[str, float]) -> None:
        """The losses, by model, on one mature row, and the arm that answered it."""
        production = losses.get(self._champion_id)
        if not self.arms or production is None:
            return
        if answered_by == CONTROL:
            self._by_name[CONTROL].losses.add(production)
        for arm in self.arms:
            loss = losses.get(arm.model_id)
            if loss is None:
                continue
            self._by_name[arm.name].gains.add(production - loss)
            if answered_by == arm.name:
                self._by_name[arm.name].losses.add(loss)

    def figures(self) -> dict[str, float]:
        """Of each arm, as `<name>/<figure>`: `exposures`; `rows` and `loss` of what it answered; `gain` on `paired_rows`.

        `<figure>_error`: the standard error of a mean. The champion gains nothing over itself.
        """
        found: dict[str, float] = {}
        for name, arm in self._by_name.items():
            of = {"exposures": float(arm.exposures), **_words(arm.losses, "rows", "loss")}
            if name != CONTROL:
                of |= _words(arm.gains, "paired_rows", "gain")
            found |= {f"{name}/{figure}": value for figure, value in of.items()}
        return found

    def snapshot(self) -> dict[str, Any]:
        """State as plain values."""
        return {
            "champion": self._champion_id,
            "arms": [[arm.name, arm.model_id, arm.bundle_url, arm.bundle_digest, arm.share] for arm in self.arms],
            "moments": {name: list(astuple(arm)) for name, arm in self._by_name.items()},
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Takes a snapshot back."""
        self._champion_id = state["champion"]
        self.arms = [
            Arm(name=name, model_id=model_id, bundle_url=url, bundle_digest=digest, share=share)
            for name, model_id, url, digest, share in state["arms"]
        ]
        # Checkpoints of before had sums, and sums of squares.
        moments, sums = state.get("moments", {}), state.get("figures", {})
        self._by_name = {
            name: _Arm(exposures, Moments(*losses), Moments(*gains))
            for name, (exposures, losses, gains) in moments.items()
        } | {
            name: _Arm(exposures, _of_sums(*losses), _of_sums(*gains))
            for name, (exposures, losses, gains) in sums.items()
        }


def _of_sums(count: int, total: float, squares: float) -> Moments:
    mean = total / count if count else 0.0
    return Moments(count, mean, max(0.0, squares - count * mean * mean))


def wrong(arms: Sequence[Arm]) -> str:
    """Why arms that somebody asks for cannot be compared; "" if they can."""
    if not 0 < len(arms) <= ARMS_MAX:
        return f"{len(arms)} arms: give 1 to {ARMS_MAX}"
    for arm in arms:
        if not arm.name or len(arm.name) > NAME_CHARACTERS_MAX or not arm.name.isprintable() or "/" in arm.name:
            return (
                f"arm {arm.name[:NAME_CHARACTERS_MAX]!r}: a name has 1 to {NAME_CHARACTERS_MAX} characters and no '/'"
            )
        if arm.name in OTHER_NAMES:
            return f"arm {arm.name!r}: other answers are logged under this name"
    if len({arm.name for arm in arms}) < len(arms) or len({arm.model_id for arm in arms}) < len(arms):
        return "two arms have the same name or the same model"
    shares = [arm.share for arm in arms]
    if not (all(share >= SHARE_MIN for share in shares) and math.fsum(shares) <= 1.0 - SHARE_MIN):
        return f"shares are {SHARE_MIN:g} at the least, and {1.0 - SHARE_MIN:g} together at most: the champion answers the rest"
    return ""


def _with(arm: Arm, role: int, share: float) -> Arm:
    found = Arm()
    found.CopyFrom(arm)
    found.role, found.share = role, share  # type: ignore[assignment]
    return found
