"""Decides which released model answers whom, from a release and the models that could be loaded; loads nothing itself."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from driftloop.contracts import Message, derive_id
from driftloop.contracts.monitor.v1.monitor_pb2 import (
    COMMAND_KIND_BUNDLE_REFUSED,
    ROLE_AB,
    ROLE_CANARY,
    ROLE_CHAMPION,
    ROLE_PREVIOUS,
    ROLE_SHADOW,
    ROLE_STANDBY,
    Arm,
    Command,
    CommandKind,
    Release,
)
from driftloop.recalibration import Scalings

_ROLES = {
    ROLE_CHAMPION: "champion",
    ROLE_CANARY: "canary",
    ROLE_AB: "ab",
    ROLE_PREVIOUS: "previous",
    ROLE_STANDBY: "standby",
    ROLE_SHADOW: "shadow",
}
# In this order; a shadow never stands in: nothing has been shown yet that would let it answer anybody.
_STAND_INS = ("champion", "previous", "standby", "canary", "ab")
PRIOR = "prior"
_POINTS = 1 << 64
_logger = logging.getLogger(__name__)


class Model(Protocol):
    """What answers. `numbers` is (rows, numeric inputs), NaN: missing; `texts` rows of the categorical ones, "": missing."""

    def predict(self, numbers: npt.NDArray[np.float64], texts: Sequence[Sequence[str]]) -> npt.NDArray[np.float64]:
        """One answer per row, (rows,) or, multiclass, (rows, classes): see `ScoringModel.predict`."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class LoadedArm:
    """A model in its role. `share`: the part of all entities that it answers; `name`: what its answers are logged under.

    recalibration: how its scores become answers; None: they are.
    """

    model_id: str
    role: str
    share: float
    model: Model
    name: str
    recalibration: Scalings | None = None


class NoModel:
    """What answers as the prior: it has no score of its own."""

    def predict(self, numbers: npt.NDArray[np.float64], texts: Sequence[Sequence[str]]) -> npt.NDArray[np.float64]:
        """Never called."""
        raise LookupError("the prior is no model")


def arms_of(release: Release) -> list[Arm]:
    """Every arm of a release, the champion first; empty before there is a model."""
    return [release.champion, *release.arms] if release.HasField("champion") else []


def role_of(arm: Arm, index: int) -> str:
    """The role of an arm of `arms_of`, in words; what is not known here does no harm in the shadow."""
    return "champion" if index == 0 else _ROLES.get(arm.role, "shadow")


def same_arms(one: Release, other: Release) -> bool:
    """Whether two releases have the same models in the same roles and shares, however their scores are read."""
    return _unread(one) == _unread(other)


def _unread(release: Release) -> list[tuple[str, str, int, float, str]]:
    return [(arm.model_id, arm.bundle_digest, arm.role, arm.share, arm.name) for arm in arms_of(release)]


def only_recalibrates(release: Release) -> bool:
    """Whether a release follows from late labels alone, and answers nothing that anybody asked or found."""
    return not release.decision_id and any(arm.HasField("recalibration") for arm in arms_of(release))


def _scalings(arm: Arm) -> Scalings | None:
    """How an arm's scores become answers; as they are where the release says what cannot be followed: that must stop no release."""
    try:
        return Scalings.of(arm.recalibration)
    except ValueError as error:
        _logger.error("model %s answers by its scores as they are: %s", arm.model_id, error)
        return None


class Router:
    """The arms of one release, immutable: a swap replaces the whole router.

    `arms` score every request, the champion first; `standby` are loaded and asked only where no other answers. Models that are
    not in `models` (they were refused) are left out. Where the champion is missing, the previous one or a standby stands in
    for it; `arms` is empty where none is there. `prior` answers where no model does: what is known without looking.
    """

    __slots__ = ("_sharing", "_stand_ins", "arms", "lead", "prior", "release", "standby")

    def __init__(self, release: Release, models: Mapping[str, Model]) -> None:
        loaded = [
            LoadedArm(
                arm.model_id,
                role_of(arm, index),
                arm.share,
                models[arm.model_id],
                arm.name or role_of(arm, index),
                _scalings(arm),
            )
            for index, arm in enumerate(arms_of(release))
            if arm.model_id in models
        ]
        lead = next((arm for role in ("champion", "previous", "standby") for arm in loaded if arm.role == role), None)
        others = [] if lead is None else [arm for arm in loaded if arm is not lead]
        self.release = release
        self.lead = lead
        self.arms: tuple[LoadedArm, ...] = (
            () if lead is None else (lead, *(arm for arm in others if arm.role != "standby"))
        )
        self.standby = tuple(arm for arm in others if arm.role == "standby")
        self.prior = LoadedArm("", PRIOR, 0.0, NoModel(), PRIOR)
        self._sharing = tuple(arm for arm in self.arms if arm.role in ("canary", "ab"))
        self._stand_ins = tuple(arm for role in _STAND_INS for arm in (*self.arms, *self.standby) if arm.role == role)

    @property
    def revision(self) -> int:
        """The revision of the release."""
        return self.release.revision

    def arms_for(self, entities: Sequence[str]) -> list[LoadedArm]:
        """Who answers each entity: always the same arm while the arms are the same, each for its share of entities.

        Growing a share keeps the entities that were in it: an entity's point depends on the entity and the model only.
        """
        lead = self.lead
        if lead is None:
            raise LookupError(f"release {self.revision} has no arm that could answer")
        return [self._sharer(entity) or lead for entity in entities] if self._sharing else [lead] * len(entities)

    def stand_ins(self, arm: LoadedArm) -> tuple[LoadedArm, ...]:
        """Who answers instead, in order, where `arm` gives no usable score."""
        return tuple(other for other in self._stand_ins if other is not arm)

    def _sharer(self, entity: str) -> LoadedArm | None:
        """The canary or A/B arm in whose share an entity is."""
        left = 1.0
        for arm in self._sharing:
            if left <= 0:
                break
            if _point(arm.model_id, entity) < arm.share / left:
                return arm
            left -= arm.share
        return None


def next_router(release: Release, models: Mapping[str, Model], current: Router | None) -> Router | None:
    """The router to answer by once `release` is applied.

    A release whose champion could not be loaded changes nothing for callers: what answers goes on answering.
    """
    routed = Router(release, models)
    if routed.lead is not None and (routed.lead.role == "champion" or current is None):
        return routed
    return current


def refusal(
    release: Message[Release], model_id: str, who: str, why: str, kind: CommandKind = COMMAND_KIND_BUNDLE_REFUSED
) -> Message[Command]:
    """The command that tells monitor that a bundle of a release is not used here, or how its model fails, and why."""
    finding = "bundle_refused" if kind == COMMAND_KIND_BUNDLE_REFUSED else "guardrail"
    command_id = derive_id(finding, release.id, model_id, who)
    use_case = release.payload.use_case
    return Message(
        topic="commands",
        key=use_case,
        payload=Command(use_case=use_case, id=command_id, kind=kind, who=who, why=why, model_id=model_id),
        id=command_id,
        source=f"driftloop/{who}",
        time_us=release.payload.clock_us,
        known_at_us=release.payload.clock_us,
        causes=(release.id,),
        traceparent=release.traceparent,
    )


def _point(model_id: str, entity: str) -> float:
    digest = hashlib.blake2b(entity.encode(), digest_size=8, key=model_id.encode()[:64]).digest()
    return int.from_bytes(digest) / _POINTS
