"""What people ask of a release, and what follows: roll back, approve, reject, pin, pause, drain; every answer is a decision.

Commands hold over evidence. What cannot be done is refused with the reason, and changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from driftloop.contracts.monitor.v1.monitor_pb2 import (
    COMMAND_KIND_AB_REPORT,
    COMMAND_KIND_AB_START,
    COMMAND_KIND_AB_STOP,
    COMMAND_KIND_APPROVE,
    COMMAND_KIND_DRAIN,
    COMMAND_KIND_PAUSE,
    COMMAND_KIND_PIN,
    COMMAND_KIND_REJECT,
    COMMAND_KIND_RESUME,
    COMMAND_KIND_ROLL_BACK,
    COMMAND_KIND_UNPIN,
    DECISION_KIND_AB,
    DECISION_KIND_AB_END,
    DECISION_KIND_APPROVE,
    DECISION_KIND_COMMAND_REFUSED,
    DECISION_KIND_DRAIN,
    DECISION_KIND_PAUSE,
    DECISION_KIND_PIN,
    DECISION_KIND_REJECT,
    DECISION_KIND_RESUME,
    DECISION_KIND_UNPIN,
    Arm,
    Command,
    CommandKind,
    DecisionKind,
)
from services.monitor.arms import Step
from services.monitor.comparison import wrong
from services.monitor.release import Releases


class CannotDo(Exception):
    """What a command asks for is impossible as things stand; the message says why."""


@dataclass(frozen=True)
class Done:
    """What a command led to, in words for the log, and the steps of the release that it caused."""

    kind: DecisionKind
    model_id: str
    because: str
    steps: tuple[Step, ...] = ()
    evidence: Mapping[str, float] = field(default_factory=dict)


def obey(command: Command, releases: Releases) -> Done:
    """Does what a command asks. A command that cannot be done, or is unknown, is answered by COMMAND_REFUSED."""
    said = spoken(command)
    try:
        found = _BY_KIND[command.kind](command, releases, said)
    except CannotDo as error:
        return Done(DECISION_KIND_COMMAND_REFUSED, command.model_id, f"{said}; refused: {error}")
    return found


def spoken(command: Command) -> str:
    """Who asked, when by their own clock, and why."""
    at = datetime.fromtimestamp(command.at_us / 1e6, UTC).strftime(" at %Y-%m-%dT%H:%M:%SZ") if command.at_us else ""
    return f"{command.who}{at}: {command.why}"


def _roll_back(command: Command, releases: Releases, said: str) -> Done:
    steps = releases.return_to_former(said)
    if not steps:
        raise CannotDo("no former champion is held ready")
    return Done(steps[-1].kind, steps[-1].model_id, said, tuple(steps))


def _approve(command: Command, releases: Releases, said: str) -> Done:
    orders, waiting = releases.orders, releases.orders.awaiting
    if not waiting or command.model_id not in ("", waiting):
        raise CannotDo(f"{f'model {waiting}' if waiting else 'no step'} awaits approval")
    orders.awaiting, orders.approved = "", waiting
    return Done(DECISION_KIND_APPROVE, waiting, said, tuple(releases.decide()))


def _reject(command: Command, releases: Releases, said: str) -> Done:
    challenger = releases.other if releases.has_challenger else None
    if challenger is None or command.model_id not in ("", challenger.model_id):
        raise CannotDo(f"{f'model {challenger.model_id}' if challenger else 'no model'} is compared with production")
    return Done(DECISION_KIND_REJECT, challenger.model_id, said, (releases.drop(f"rejected by {said}"),))


def _pin(command: Command, releases: Releases, said: str) -> Done:
    if releases.champion is None:
        raise CannotDo("there is no model yet")
    wanted = command.model_id or releases.champion.model_id
    steps: list[Step] = []
    if wanted != releases.champion.model_id:
        known = {candidate.model_id: candidate for candidate in releases.known()}
        if wanted not in known:
            raise CannotDo(f"model {wanted[:64]!r} is none of {', '.join(known)}")
        steps = releases.put(known[wanted], said)
    releases.orders.pinned = wanted
    return Done(DECISION_KIND_PIN, wanted, said, tuple(steps))


def _unpin(command: Command, releases: Releases, said: str) -> Done:
    pinned, releases.orders.pinned = releases.orders.pinned, ""
    if not pinned:
        raise CannotDo("no model is pinned")
    return Done(DECISION_KIND_UNPIN, pinned, said)


def _pause(command: Command, releases: Releases, said: str) -> Done:
    releases.orders.paused = True
    return Done(DECISION_KIND_PAUSE, "", said)


def _drain(command: Command, releases: Releases, said: str) -> Done:
    releases.orders.drained = True
    return Done(DECISION_KIND_DRAIN, "", said)


def _resume(command: Command, releases: Releases, said: str) -> Done:
    orders = releases.orders
    if not orders.paused and not orders.drained:
        raise CannotDo("nothing is paused or drained")
    orders.paused = orders.drained = False
    return Done(DECISION_KIND_RESUME, "", said)


def _start_comparison(command: Command, releases: Releases, said: str) -> Done:
    if releases.champion is None:
        raise CannotDo("there is no model yet")
    if releases.comparison.arms:
        raise CannotDo(f"arms {_named(releases.comparison.arms)} are compared already: stop that first")
    if why := wrong(command.arms):
        raise CannotDo(why)
    known = {candidate.model_id: candidate for candidate in releases.known()}
    arms = []
    for arm in command.arms:
        model = known.get(arm.model_id)
        if model is None or model == releases.champion:
            raise CannotDo(f"model {arm.model_id[:64]!r} is none of {', '.join(list(known)[1:]) or 'no others'}")
        arms.append(
            Arm(
                name=arm.name,
                model_id=model.model_id,
                bundle_url=model.bundle_url,
                bundle_digest=model.bundle_digest,
                share=arm.share,
            )
        )
    releases.comparison.start(releases.champion.model_id, arms)
    return Done(DECISION_KIND_AB, releases.champion.model_id, f"{said}; arms {_named(arms)}")


def _stop_comparison(command: Command, releases: Releases, said: str) -> Done:
    if not releases.comparison.arms:
        raise CannotDo("no arms are compared")
    return Done(DECISION_KIND_AB_END, "", said, evidence=releases.comparison.stop())


def _report_comparison(command: Command, releases: Releases, said: str) -> Done:
    arms = releases.comparison.arms
    if not arms:
        raise CannotDo("no arms are compared")
    return Done(DECISION_KIND_AB, "", f"{said}; arms {_named(arms)}", evidence=releases.comparison.figures())


def _named(arms: Iterable[Arm]) -> str:
    return ", ".join(f"{arm.name} ({arm.model_id}, {arm.share:g})" for arm in arms)


_BY_KIND: Mapping[CommandKind, Callable[[Command, Releases, str], Done]] = {
    COMMAND_KIND_ROLL_BACK: _roll_back,
    COMMAND_KIND_APPROVE: _approve,
    COMMAND_KIND_REJECT: _reject,
    COMMAND_KIND_PIN: _pin,
    COMMAND_KIND_UNPIN: _unpin,
    COMMAND_KIND_PAUSE: _pause,
    COMMAND_KIND_DRAIN: _drain,
    COMMAND_KIND_RESUME: _resume,
    COMMAND_KIND_AB_START: _start_comparison,
    COMMAND_KIND_AB_STOP: _stop_comparison,
    COMMAND_KIND_AB_REPORT: _report_comparison,
}
OF_PEOPLE = frozenset(_BY_KIND)
"""Commands that `obey` knows."""
