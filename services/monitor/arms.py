"""What takes part in a release, and the words for it: candidates, what their trial starts from, a decision; decides nothing."""

from __future__ import annotations

from dataclasses import astuple, dataclass

from driftloop.contracts.monitor.v1.monitor_pb2 import Arm, DecisionKind, Role

GAIN_MIN = 0.002  # loss per row below which a better model is not worth a change, however small production's loss
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
    """What a comparison starts from: trainer's paired gains per held-out block, the rows behind them, production's loss, the pace.

    slice_pace: rows of a slice that say together what one independent row does; a large rise of the error makes it no smaller, for
    rows of one hour and place are as much alike as before.
    """

    gains: tuple[float, ...] = ()
    rows: int = 0
    production_loss: float = 0.0
    pace: int = 1
    slice_pace: int = 1


@dataclass(frozen=True)
class Step:
    """One decision about a release, for the log."""

    kind: DecisionKind
    model_id: str
    because: str
    evidence: dict[str, float]


def plain(candidate: Candidate | None) -> list[str] | None:
    """A candidate as plain values."""
    return None if candidate is None else list(astuple(candidate))


def arm_of(candidate: Candidate, role: Role, share: float) -> Arm:
    """A candidate in its role."""
    model_id, bundle_url, bundle_digest, _ = astuple(candidate)
    return Arm(model_id=model_id, bundle_url=bundle_url, bundle_digest=bundle_digest, role=role, share=share)
