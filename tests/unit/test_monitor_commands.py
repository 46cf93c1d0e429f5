"""What people ask of a release: done, or refused with the reason; who, when and why are in the log."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from driftloop.contracts import Message, Record, watermark
from driftloop.contracts.monitor.v1.monitor_pb2 import (
    COMMAND_KIND_AB_REPORT,
    COMMAND_KIND_AB_START,
    COMMAND_KIND_AB_STOP,
    COMMAND_KIND_APPROVE,
    COMMAND_KIND_DRAIN,
    COMMAND_KIND_GUARDRAIL,
    COMMAND_KIND_PAUSE,
    COMMAND_KIND_PIN,
    COMMAND_KIND_REJECT,
    COMMAND_KIND_RESUME,
    COMMAND_KIND_ROLL_BACK,
    COMMAND_KIND_UNPIN,
    DECISION_KIND_AB,
    DECISION_KIND_AB_END,
    DECISION_KIND_APPROVE,
    DECISION_KIND_AWAIT_APPROVAL,
    DECISION_KIND_COMMAND_REFUSED,
    DECISION_KIND_DROP_CHALLENGER,
    DECISION_KIND_PAUSE,
    DECISION_KIND_PIN,
    DECISION_KIND_PROMOTE,
    DECISION_KIND_REJECT,
    DECISION_KIND_ROLL_BACK,
    ROLE_AB,
    ROLE_PREVIOUS,
    ROLE_SHADOW,
    ROLE_STANDBY,
    Arm,
    Command,
    CommandKind,
    Release,
)
from driftloop.usecase import HOUR_US
from services.monitor.judging import Judging
from tests.unit.test_monitor_judging import (
    FLIGHTS,
    answered,
    challenged,
    of,
    predicted,
    promoted,
    rows,
    scored,
    started,
)

AT_US = 1_700_000_000_000_000


def asked(kind: CommandKind, model_id: str = "") -> Record:
    name = f"{CommandKind.Name(kind)}-{model_id}"
    payload = Command(
        use_case="flights", id=name, kind=kind, who="ann", why="the label is broken", model_id=model_id, at_us=AT_US
    )
    return Record("commands", 0, 0, Message("commands", "flights", payload, name, "test", 0, 0))


def told(heart: Judging, kind: CommandKind, model_id: str = "") -> tuple[list[int], Release]:
    """The kinds of the decisions that follow from a command, and the release that answers it."""
    out = heart.fold([asked(kind, model_id)])
    (release,) = of(out, "releases")
    return [message.payload.kind for message in of(out, "decisions")], release.payload


def clock(clock_us: int, revision: int = 0, refused: tuple[str, ...] = ()) -> list[Record]:
    """Watermarks of everybody; serving says which release it has applied."""
    found = [
        Record("predictions", p, 0, watermark("predictions", p, "serving/0", clock_us, revision, refused))
        for p in (0, 1)
    ]
    return found + [Record("scores", 0, 0, watermark("scores", 0, f"matching/{p}", clock_us)) for p in (0, 1)]


def better_challenger(heart: Judging, hours: range = range(20, 30), revision: int = 0) -> list[Any]:
    """Hours in which m2 is better than m1; what is said in them."""
    out = []
    for hour in hours:
        scores = [("m1", "poor"), ("m2", "good")]
        out += heart.fold([*rows(hour * 100, 80, hour, scores), *clock((hour + 1) * HOUR_US, revision)])
    return out


def kinds(messages: list[Any]) -> list[int]:
    return [message.payload.kind for message in of(messages, "decisions")]


def with_approval() -> Judging:
    policy = dataclasses.replace(FLIGHTS.policy, approval="manual")
    heart = Judging(dataclasses.replace(FLIGHTS, policy=policy), 2, 1)
    heart.restore(challenged().snapshot())
    return heart


def test_a_rollback_returns_to_the_former_champion_and_holds_the_other_ready_for_the_way_back():
    heart = promoted()
    made, release = told(heart, COMMAND_KIND_ROLL_BACK)
    assert made == [DECISION_KIND_ROLL_BACK]
    assert release.champion.model_id == "m1"
    assert [(arm.model_id, arm.role) for arm in release.arms] == [("m2", ROLE_STANDBY)]
    heart.fold([asked(COMMAND_KIND_PAUSE)])
    out = heart.fold([dataclasses.replace(asked(COMMAND_KIND_ROLL_BACK), message=again("back"))])
    assert of(out, "releases")[0].payload.champion.model_id == "m2"


def again(name: str, kind: CommandKind = COMMAND_KIND_ROLL_BACK) -> Message[Command]:
    payload = Command(use_case="flights", id=name, kind=kind, who="ann", why="and back", at_us=AT_US)
    return Message("commands", "flights", payload, name, "test", 0, 0)


def test_a_decision_says_who_asked_when_and_why():
    out = promoted().fold([asked(COMMAND_KIND_ROLL_BACK)])
    (decision,) = of(out, "decisions")
    assert decision.payload.because == "ann at 2023-11-14T22:13:20Z: the label is broken"
    assert decision.causes[-1] == asked(COMMAND_KIND_ROLL_BACK).message.id


def test_where_no_former_champion_is_there_a_rollback_is_refused_and_answered():
    heart, request_id = started()
    heart.fold([answered("m1", request_id)])
    made, release = told(heart, COMMAND_KIND_ROLL_BACK)
    assert made == [DECISION_KIND_COMMAND_REFUSED]
    assert release.champion.model_id == "m1"


def test_after_its_probation_the_former_champion_is_still_at_hand():
    heart = promoted()
    challenger = heart.snapshot()["releases"]["champion"]
    heart.fold([asked(COMMAND_KIND_ROLL_BACK)])
    assert heart.snapshot()["releases"]["standby"] == challenger


def test_without_approval_a_better_challenger_waits_and_with_it_it_is_promoted():
    heart = with_approval()
    out = better_challenger(heart)
    assert DECISION_KIND_PROMOTE not in kinds(out)
    assert kinds(out).count(DECISION_KIND_AWAIT_APPROVAL) == 1
    assert of(out, "releases")[-1].payload.awaiting_approval == "m2"
    made, release = told(heart, COMMAND_KIND_APPROVE)
    assert made == [DECISION_KIND_APPROVE, DECISION_KIND_PROMOTE]
    assert (release.champion.model_id, release.awaiting_approval) == ("m2", "")
    assert [(arm.model_id, arm.role) for arm in release.arms] == [("m1", ROLE_PREVIOUS)]


def test_a_rejected_challenger_leaves_the_comparison():
    heart = with_approval()
    better_challenger(heart)
    made, release = told(heart, COMMAND_KIND_REJECT)
    assert made == [DECISION_KIND_REJECT, DECISION_KIND_DROP_CHALLENGER]
    assert (release.champion.model_id, list(release.arms), release.awaiting_approval) == ("m1", [], "")


def test_an_approval_that_nobody_waits_for_is_refused():
    assert told(challenged(), COMMAND_KIND_APPROVE)[0] == [DECISION_KIND_COMMAND_REFUSED]


def test_a_pinned_champion_stays_whatever_the_evidence_until_it_is_unpinned():
    heart = challenged()
    made, release = told(heart, COMMAND_KIND_PIN)
    assert (made, release.pinned) == ([DECISION_KIND_PIN], "m1")
    assert DECISION_KIND_PROMOTE not in kinds(better_challenger(heart))
    assert told(heart, COMMAND_KIND_UNPIN)[1].pinned == ""
    assert DECISION_KIND_PROMOTE in kinds(better_challenger(heart, range(30, 33)))


def test_a_known_model_is_put_in_place_and_pinned_an_unknown_one_refused():
    heart = promoted()
    made, release = told(heart, COMMAND_KIND_PIN, "m9")
    assert (made, release.champion.model_id) == ([DECISION_KIND_COMMAND_REFUSED], "m2")
    made, release = told(heart, COMMAND_KIND_PIN, "m1")
    assert made == [DECISION_KIND_PIN, DECISION_KIND_PROMOTE]
    assert (release.champion.model_id, release.pinned) == ("m1", "m1")
    assert [arm.model_id for arm in release.arms] == ["m2"]


def test_while_the_release_is_paused_evidence_changes_nothing_and_a_rollback_still_happens():
    heart = promoted()
    made, release = told(heart, COMMAND_KIND_PAUSE)
    assert (made, release.paused) == ([DECISION_KIND_PAUSE], True)
    assert told(heart, COMMAND_KIND_ROLL_BACK)[1].champion.model_id == "m1"
    assert not told(heart, COMMAND_KIND_RESUME)[1].paused


def test_a_drained_challenger_answers_nobody_and_is_not_promoted_until_it_is_resumed():
    heart = challenged()
    released = of(heart.fold([asked(COMMAND_KIND_DRAIN)]), "releases")
    released += of(better_challenger(heart), "releases")
    assert {(arm.model_id, arm.role, arm.share) for r in released for arm in r.payload.arms} == {
        ("m2", ROLE_SHADOW, 0.0)
    }
    told(heart, COMMAND_KIND_RESUME)
    assert DECISION_KIND_PROMOTE in kinds(better_challenger(heart, range(30, 33)))


def test_a_pinned_champion_that_fails_stays_and_is_an_incident():
    heart = promoted()
    heart.fold([asked(COMMAND_KIND_PIN)])
    out = heart.fold([asked(COMMAND_KIND_GUARDRAIL, "m2")])
    assert of(out, "releases")[0].payload.champion.model_id == "m2"
    assert len(of(out, "incidents")) == 1


@pytest.mark.parametrize(("revision", "refused"), [(1, ()), (4, ("m2",))], ids=["silent", "refused"])
def test_a_challenger_goes_no_step_further_before_every_replica_holds_it(revision: int, refused: tuple[str, ...]):
    heart = challenged()
    out = []
    for hour in range(20, 30):
        scores = [("m1", "poor"), ("m2", "good")]
        out += heart.fold([*rows(hour * 100, 80, hour, scores), *clock((hour + 1) * HOUR_US, revision, refused)])
    assert not {arm.share for r in of(out, "releases") for arm in r.payload.arms} - {0.0}
    assert DECISION_KIND_PROMOTE not in kinds(out)
    assert DECISION_KIND_PROMOTE in kinds(better_challenger(heart, range(30, 33), revision=4))


def test_orders_survive_a_restart():
    heart = promoted()
    heart.fold([asked(COMMAND_KIND_PIN), asked(COMMAND_KIND_PAUSE)])
    other = Judging(FLIGHTS, 2, 1)
    other.restore(heart.snapshot())
    assert other.snapshot() == heart.snapshot()
    assert told(other, COMMAND_KIND_RESUME)[1].pinned == "m2"


# Named arms


def compared(*arms: tuple[str, str, float]) -> Record:
    """A command to let arms (name, model, share) answer beside the champion."""
    made = [Arm(name=name, model_id=model_id, share=share) for name, model_id, share in arms]
    payload = Command(
        use_case="flights", id=f"ab-{arms}", kind=COMMAND_KIND_AB_START, who="ann", why="a new model", arms=made
    )
    return Record("commands", 0, 0, Message("commands", "flights", payload, payload.id, "test", 0, 0))


def answered_by(arm: str, index: int, hour: int, label: float, scores: dict[str, float]) -> Record:
    """A mature row that an arm answered."""
    record = scored(index, hour * HOUR_US + index, label, scores)
    record.message.payload.arm = arm
    return record


def figures(heart: Judging, kind: CommandKind = COMMAND_KIND_AB_REPORT) -> dict[str, float]:
    (decision,) = of(heart.fold([asked(kind)]), "decisions")
    return dict(decision.payload.evidence)


def test_named_arms_answer_their_shares_and_the_champion_the_rest_until_they_are_stopped():
    heart = challenged()
    out = heart.fold([compared(("treatment", "m2", 0.25))])
    (release,) = [message.payload for message in of(out, "releases")]
    assert (release.champion.model_id, release.champion.share) == ("m1", 0.75)
    assert [(a.name, a.model_id, a.bundle_url, a.role, a.share) for a in release.arms] == [
        ("treatment", "m2", "b/m2", ROLE_AB, 0.25)
    ]
    (decision,) = [message.payload for message in of(out, "decisions")]
    assert decision.kind == DECISION_KIND_AB
    assert decision.because == "ann: a new model; arms treatment (m2, 0.25)"
    assert DECISION_KIND_PROMOTE not in kinds(better_challenger(heart))

    made, release = told(heart, COMMAND_KIND_AB_STOP)
    assert made == [DECISION_KIND_AB_END]
    assert [(arm.model_id, arm.role) for arm in release.arms] == [("m2", ROLE_SHADOW)]
    assert DECISION_KIND_PROMOTE in kinds(better_challenger(heart, range(30, 33)))


def test_each_arm_is_reported_on_the_rows_that_it_answered_and_paired_on_all_also_after_a_restart():
    before = challenged()
    before.fold([compared(("treatment", "m2", 0.5))])
    before.fold([answered_by("treatment", 5_000, 20, 1.0, {"m1": 0.5, "m2": 0.9}), *clock(21 * HOUR_US)])
    heart = Judging(FLIGHTS, 2, 1)
    heart.restore(before.snapshot())
    exposed = [predicted(f"p{n}", 21 * HOUR_US + n, "m1") for n in range(3)]
    for record, arm in zip(exposed, ("champion", "treatment", "treatment"), strict=True):
        record.message.payload.arm = arm
    champions = [answered_by("champion", 5_001 + n, 21, 1.0, {"m1": 0.5, "m2": 0.5}) for n in range(2)]
    heart.fold([*exposed, *champions, *clock(22 * HOUR_US)])
    shown = figures(heart)
    half, tenth = math.log(2), -math.log(0.9)
    assert {name: shown[name] for name in ("champion/exposures", "treatment/exposures")} == {
        "champion/exposures": 1.0,
        "treatment/exposures": 2.0,
    }
    assert (shown["champion/rows"], shown["champion/loss"]) == (2.0, pytest.approx(half))
    assert (shown["treatment/rows"], shown["treatment/loss"]) == (1.0, pytest.approx(tenth))
    assert (shown["treatment/paired_rows"], shown["treatment/gain"]) == (3.0, pytest.approx((half - tenth) / 3))
    assert shown["treatment/gain_error"] == pytest.approx((half - tenth) / 3)
    assert figures(heart, COMMAND_KIND_AB_STOP) == shown


@pytest.mark.parametrize(
    ("arms", "why"),
    [
        ([], "0 arms"),
        ([("treatment", "m9", 0.5)], "m9"),
        ([("treatment", "m1", 0.5)], "m1"),
        ([("champion", "m2", 0.5)], "other answers are logged"),
        ([("a/b", "m2", 0.5)], "no '/'"),
        ([("a", "m2", 0.5), ("a", "m3", 0.1)], "the same name"),
        ([("treatment", "m2", 1.0)], "shares"),
        ([("treatment", "m2", float("nan"))], "shares"),
    ],
)
def test_arms_that_cannot_be_compared_are_refused_and_named(arms: list[tuple[str, str, float]], why: str):
    out = challenged().fold([compared(*arms)])
    (decision,) = [message.payload for message in of(out, "decisions")]
    assert decision.kind == DECISION_KIND_COMMAND_REFUSED
    assert why in decision.because


def test_a_comparison_ends_when_its_champion_loses_its_place_and_says_how_the_arms_did():
    heart = promoted()
    heart.fold([compared(("old", "m1", 0.2))])
    made, release = told(heart, COMMAND_KIND_ROLL_BACK)
    assert made == [DECISION_KIND_ROLL_BACK, DECISION_KIND_AB_END]
    assert (release.champion.model_id, [arm.role for arm in release.arms]) == ("m1", [ROLE_STANDBY])
    assert told(heart, COMMAND_KIND_AB_REPORT)[0] == [DECISION_KIND_COMMAND_REFUSED]


def test_an_arm_whose_model_fails_answers_nobody_any_more():
    heart = challenged()
    heart.fold([compared(("treatment", "m2", 0.2))])
    made, release = told(heart, COMMAND_KIND_GUARDRAIL, "m2")
    assert DECISION_KIND_AB_END in made
    assert (release.champion.share, list(release.arms)) == (1.0, [])


def test_drained_arms_go_on_in_the_shadow():
    heart = challenged()
    heart.fold([compared(("treatment", "m2", 0.2))])
    release = told(heart, COMMAND_KIND_DRAIN)[1]
    assert [(arm.model_id, arm.role, arm.share) for arm in release.arms] == [("m2", ROLE_SHADOW, 0.0)]
