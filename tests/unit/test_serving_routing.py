"""Who answers whom: champion, canary by its share, shadow and previous; and what a refused model changes."""

from __future__ import annotations

from driftloop.contracts import Message
from driftloop.contracts.monitor.v1.monitor_pb2 import (
    COMMAND_KIND_BUNDLE_REFUSED,
    ROLE_CANARY,
    ROLE_CHAMPION,
    ROLE_PREVIOUS,
    ROLE_SHADOW,
    Arm,
    Release,
    Role,
)
from services.serving.routing import Router, next_router, refusal
from tests.unit.serving_twin import Constant

MODELS = {"m1": Constant(0.1), "m2": Constant(0.2), "m3": Constant(0.3)}


def release(*arms: tuple[str, Role, float], revision: int = 1) -> Release:
    made = [Arm(model_id=model_id, role=role, share=share) for model_id, role, share in arms]
    return Release(use_case="orders", revision=revision, champion=made[0], arms=made[1:])


def exposed_to_canary(router: Router, entities: list[str]) -> set[str]:
    arms = router.arms_for(entities)
    return {entity for entity, arm in zip(entities, arms, strict=True) if arm.role == "canary"}


def test_a_canary_answers_its_share_and_always_the_same_entities() -> None:
    router = Router(release(("m1", ROLE_CHAMPION, 0.9), ("m2", ROLE_CANARY, 0.1)), MODELS)
    entities = [f"o{n}" for n in range(20_000)]
    exposed = exposed_to_canary(router, entities)
    assert 0.09 < len(exposed) / len(entities) < 0.11
    again = Router(release(("m1", ROLE_CHAMPION, 0.9), ("m2", ROLE_CANARY, 0.1), revision=2), MODELS)
    assert exposed == exposed_to_canary(again, entities)


def test_a_growing_share_keeps_the_entities_that_were_in_it() -> None:
    small = Router(release(("m1", ROLE_CHAMPION, 0.9), ("m2", ROLE_CANARY, 0.1)), MODELS)
    large = Router(release(("m1", ROLE_CHAMPION, 0.5), ("m2", ROLE_CANARY, 0.5)), MODELS)
    entities = [f"o{n}" for n in range(2_000)]
    assert exposed_to_canary(small, entities) < exposed_to_canary(large, entities)


def test_several_canaries_get_their_shares_of_all_entities() -> None:
    router = Router(release(("m1", ROLE_CHAMPION, 0.4), ("m2", ROLE_CANARY, 0.3), ("m3", ROLE_CANARY, 0.3)), MODELS)
    answered = [arm.model_id for arm in router.arms_for([f"o{n}" for n in range(20_000)])]
    for model_id, share in (("m1", 0.4), ("m2", 0.3), ("m3", 0.3)):
        assert abs(answered.count(model_id) / len(answered) - share) < 0.015


def test_shadow_and_previous_answer_nobody() -> None:
    router = Router(release(("m1", ROLE_CHAMPION, 1), ("m2", ROLE_SHADOW, 0), ("m3", ROLE_PREVIOUS, 0)), MODELS)
    assert {arm.role for arm in router.arms_for([f"o{n}" for n in range(500)])} == {"champion"}
    assert [arm.model_id for arm in router.arms] == ["m1", "m2", "m3"]


def test_a_refused_challenger_is_left_out() -> None:
    router = Router(release(("m1", ROLE_CHAMPION, 0.5), ("m9", ROLE_CANARY, 0.5)), MODELS)
    assert {arm.model_id for arm in router.arms_for([f"o{n}" for n in range(200)])} == {"m1"}


def test_a_release_with_a_refused_champion_changes_nothing_for_callers() -> None:
    current = Router(release(("m1", ROLE_CHAMPION, 1)), MODELS)
    assert (
        next_router(release(("m9", ROLE_CHAMPION, 1), ("m1", ROLE_PREVIOUS, 0), revision=2), MODELS, current) is current
    )


def test_after_a_cold_start_the_previous_champion_stands_in_for_a_refused_one() -> None:
    routed = next_router(release(("m9", ROLE_CHAMPION, 1), ("m1", ROLE_PREVIOUS, 0), revision=2), MODELS, None)
    assert routed is not None
    assert [(arm.model_id, arm.role) for arm in routed.arms_for(["o1"])] == [("m1", "previous")]
    assert next_router(release(("m9", ROLE_CHAMPION, 1), ("m2", ROLE_SHADOW, 0)), MODELS, None) is None


def test_a_release_before_the_first_model_routes_nobody() -> None:
    assert next_router(Release(use_case="orders", revision=1, pending_retrain="r1"), {}, None) is None


def test_a_refusal_is_a_command_caused_by_the_release() -> None:
    message = Message("releases", "orders", release(("m1", ROLE_CHAMPION, 1)), "release-1", "test", 5, 5)
    command = refusal(message, "m1", "serving/0", "the signature does not match")
    assert (command.topic, command.key, command.causes) == ("commands", "orders", ("release-1",))
    assert command.payload.kind == COMMAND_KIND_BUNDLE_REFUSED
    assert (command.payload.who, command.payload.model_id) == ("serving/0", "m1")
    assert command.id == refusal(message, "m1", "serving/0", "again").id
    assert command.id != refusal(message, "m1", "serving/1", "again").id
