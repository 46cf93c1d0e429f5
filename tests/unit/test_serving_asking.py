"""Events that ask for predictions: answered once each, with no caller, on an in-memory bus."""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace
from pathlib import Path

import pytest

from driftloop.contracts import Message, prediction_id, to_wire
from driftloop.contracts.event.v1.event_pb2 import Event as EventPayload
from driftloop.contracts.monitor.v1.monitor_pb2 import ROLE_CHAMPION
from driftloop.contracts.serving.v1.serving_pb2 import Prediction as Logged
from driftloop.messaging import MemoryBus
from driftloop.usecase import DeclarationError, Event, Field
from services.serving.asking import request_id
from tests.unit.serving_twin import SHOP, SPREAD, Constant, Twin, delivered, ordered, orders, twin

reminded = Event(
    "reminded",
    entity="order",
    fields={"shop": Field(str, optional=True), "rider": Field(str, optional=True), "price": Field(float)},
)
asking = replace(orders, predict=replace(orders.predict, asked_by=ordered))
FIELDS = {"shop": "s1", "price": 12.5, "due": 9_000}


def event(number: int, known_at_us: int = 1_500, of: Event = ordered, **changes: object) -> Message[EventPayload]:
    """An event that was accepted."""
    fields = {name: value for name, value in {**FIELDS, **changes}.items() if name in of.fields and value is not None}
    payload = EventPayload(
        use_case="orders",
        id=f"e{number}",
        type=of.name,
        entity=f"o{number}",
        known_at_us=known_at_us,
        fields=to_wire(fields, of.fields),
    )
    return Message("events", payload.entity, payload, payload.id, "test", 0, known_at_us)


def expected(*numbers: int) -> list[str]:
    return sorted(prediction_id("orders", f"o{number}", request_id(f"e{number}")) for number in numbers)


async def logged(replica: Twin, count: int) -> list[Logged]:
    """The predictions on the bus, once there are as many."""
    async with asyncio.timeout(10):
        while len(found := replica.records("predictions")) < count:
            await asyncio.to_thread(replica.bus.await_growth, lambda: len(replica.records("predictions")) >= count, 1.0)
    return [record.message.payload for record in found]


async def test_an_event_asks_for_one_prediction_as_of_when_it_was_known_however_often_it_comes(tmp_path: Path) -> None:
    async with twin(tmp_path, use_case=asking) as replica:
        update_id = replica.feature(SHOP, f"{SHOP}|s1", [20.0, 2.0], sequence=7, known_at_us=900)
        await replica.released(("m1", ROLE_CHAMPION))
        for one in (event(1, 2_500), event(2, of=delivered), event(1, 2_500), event(3, 2_600)):
            replica.bus.append(one)
        found = await logged(replica, 2)
        await replica.marked(9_000)
        assert sorted(each.id for each in found) == expected(1, 3)
        assert len(replica.records("predictions")) == 2
        first = next(each for each in found if each.entity == "o1")
        assert (first.score, first.arm, first.as_of_us >= 2_500) == (0.1, "champion", True)
        assert first.vector.readings[0].update_id == update_id
        assert first.vector.numbers[0] == 12.5


async def test_before_the_first_model_events_are_passed_over_as_calls_are_refused(tmp_path: Path) -> None:
    async with twin(tmp_path, use_case=asking) as replica:
        replica.bus.append(event(1))
        async with asyncio.timeout(10):
            while len(replica.bus._committed) < SPREAD - 1:
                await asyncio.sleep(0)
        await replica.released(("m1", ROLE_CHAMPION))
        replica.bus.append(event(2))
        assert [each.id for each in await logged(replica, 1)] == expected(2)


async def test_what_became_known_too_long_ago_is_not_asked_about(tmp_path: Path) -> None:
    async with twin(tmp_path, use_case=asking, asking_age_s_max=1.0) as replica:
        replica.clock_us = 5_000_000
        await replica.released(("m1", ROLE_CHAMPION))
        replica.bus.append(event(1, known_at_us=3_000_000))
        replica.bus.append(event(2, known_at_us=4_900_000))
        assert [each.id for each in await logged(replica, 1)] == expected(2)


async def test_a_replica_that_follows_goes_on_where_the_answers_ended_and_asks_again_under_the_same_ids(
    tmp_path: Path,
) -> None:
    bus = MemoryBus("orders", SPREAD)
    async with twin(tmp_path, bus=bus, use_case=asking) as replica:
        await replica.released(("m1", ROLE_CHAMPION))
        replica.bus.append(event(1))
        await logged(replica, 1)
    bus.append(event(2))
    async with twin(tmp_path, bus=bus, use_case=asking) as replica:
        assert sorted(each.id for each in await logged(replica, 2)) == expected(1, 2)
    bus._committed.clear()
    async with twin(tmp_path, bus=bus, use_case=asking) as replica:
        found = await logged(replica, 4)
        assert sorted(each.id for each in found) == sorted(expected(1, 2) * 2)


async def test_an_event_that_cannot_be_answered_is_set_aside_and_the_others_are_answered(tmp_path: Path) -> None:
    events = [*orders.events, reminded]
    use_case = replace(orders, events=events, predict=replace(orders.predict, asked_by=reminded))
    async with twin(tmp_path, use_case=use_case) as replica:
        await replica.released(("m1", ROLE_CHAMPION))
        for one in (event(1, of=reminded), event(2, of=reminded, shop=None), event(3, of=reminded)):
            replica.bus.append(one)
        assert sorted(each.id for each in await logged(replica, 2)) == expected(1, 3)
        (letter,) = replica.records("dead-letters")
        assert (letter.message.payload.event_id, letter.message.payload.rule) == ("e2", "request")
        assert "fields.shop" in letter.message.payload.reason


async def test_where_no_model_has_an_answer_the_event_is_set_aside(tmp_path: Path) -> None:
    async with twin(tmp_path, {"m1": Constant(math.nan)}, use_case=asking) as replica:
        await replica.released(("m1", ROLE_CHAMPION))
        replica.bus.append(event(1))
        async with asyncio.timeout(10):
            while not (letters := replica.records("dead-letters")):
                await asyncio.to_thread(replica.bus.await_growth, lambda: bool(replica.records("dead-letters")), 1.0)
        assert letters[0].message.payload.rule == "no_usable_score"


@pytest.mark.parametrize(
    ("asked_by", "why"),
    [
        (delivered, "does not carry price"),
        (Event("elsewhere", entity="shop", fields=dict(ordered.fields)), "does not tell of a order"),
    ],
)
def test_an_event_that_could_not_ask_is_refused_in_the_declaration(asked_by: Event, why: str) -> None:
    events = [*orders.events, *([] if asked_by is delivered else [asked_by])]
    with pytest.raises(DeclarationError, match=why):
        replace(orders, events=events, predict=replace(orders.predict, asked_by=asked_by))
