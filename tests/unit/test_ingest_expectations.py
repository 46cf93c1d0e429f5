"""What follows where events do not meet what their use case expects: refused, told of, or kept from training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from driftloop.contracts import Message
from driftloop.contracts.event.v1.event_pb2 import Event as WireEvent
from driftloop.contracts.monitor.v1.monitor_pb2 import Incident
from driftloop.usecase import HOUR_US, MINUTE_US, Arrivals, DeclarationError, Event, Expectation, Field, UseCase
from services.ingest.admission import Admission, Rejected, Taken
from services.ingest.errors import Overloaded
from services.ingest.intake import Sent
from tests.unit.ingest_twin import NOON_US, SPREAD, announced, delivered, door, orders

PAID = {
    "amount": Field(float, ge=0, le=100, otherwise="warn"),
    "iban": Field(str, pattern="[A-Z]{2}[0-9]{4}", optional=True),
    "booked": Field("time", optional=True),
    "paid": Field("time", optional=True),
}


def declared(expectations: Sequence[Expectation] = (), arrivals: Arrivals | None = None) -> UseCase:
    paid = Event("paid", entity="order", fields=PAID, expectations=expectations, arrivals=arrivals)
    return replace(orders(), events=[announced, delivered, paid])


def payment(number: int, at_us: int = NOON_US, source: str = "bank", **fields: Any) -> WireEvent:
    event = WireEvent(use_case="orders", id=f"p{number}", type="paid", source=source, entity="order-1")
    event.event_time_us = event.known_at_us = at_us
    event.fields["amount"].number = fields.pop("amount", 5.0)
    if "iban" in fields:
        event.fields["iban"].text = fields.pop("iban")
    for name, at in fields.items():
        event.fields[name].time_us = at
    return event


def take(heart: Admission, *events: WireEvent) -> Taken:
    return told(heart, *events)[0]


def told(heart: Admission, *events: WireEvent) -> tuple[Taken, list[Message[Incident]]]:
    """Events that find room and are written, and the incidents that follow from them."""
    taken = heart.take([event.SerializeToString() for event in events], 0)
    incidents = heart.sent(taken)
    heart.settle(taken, written=True)
    return taken, incidents


def heart(use_case: UseCase) -> Admission:
    return Admission(use_case, SPREAD, 1_000, 1_000)


def incidents(messages: Sequence[Any]) -> list[Incident]:
    return [message.payload for message in messages]


def test_a_text_must_match_its_whole_pattern() -> None:
    taken = take(heart(declared()), payment(1, iban="DE1234"), payment(2, iban="xDE1234"), payment(3, iban="DE1234\n"))
    assert set(taken.others) == {1, 2}
    refused = taken.others[1]
    assert isinstance(refused, Rejected)
    assert [(v.field, v.rule) for v in refused.violations] == [("fields.iban", "pattern")]


def test_a_rule_over_fields_refuses_and_does_not_apply_where_one_is_absent() -> None:
    ordered = Expectation("paid_after_booked", lambda e: e["paid"] >= e["booked"], otherwise="reject")
    taken = take(
        heart(declared([ordered])),
        payment(1, booked=NOON_US, paid=NOON_US + 1),
        payment(2, booked=NOON_US, paid=NOON_US - 1),
        payment(3, booked=NOON_US),
    )
    assert list(taken.admitted) == ["p1", "p3"]
    refused = taken.others[1]
    assert isinstance(refused, Rejected)
    assert [v.rule for v in refused.violations] == ["paid_after_booked"]


def test_a_rule_that_only_warns_lets_events_in_and_is_told_once_for_each_window() -> None:
    small = Expectation("small", lambda e: e["amount"] < 50, otherwise="warn", window="1h")
    admission = heart(declared([small]))
    taken, messages = told(admission, payment(1, amount=60.0), payment(2, amount=70.0), payment(3))
    assert len(taken.admitted) == 3
    assert [finding.event_id for finding in taken.findings] == ["p1", "p2"]
    (incident,) = incidents(messages)
    assert (incident.rule, incident.event_type, incident.stops_training) == ("small", "paid", False)
    assert (incident.from_us, incident.to_us) == (NOON_US, NOON_US + HOUR_US)
    assert messages[0].causes == ("p1",)
    _, (later,) = told(admission, payment(4, NOON_US + HOUR_US, amount=60.0))
    assert later.id != messages[0].id


def test_a_range_of_a_field_may_warn_instead_of_refusing() -> None:
    taken = take(heart(declared()), payment(1, amount=101.0))
    assert [finding.rule for finding in taken.findings] == ["amount_range"]
    assert list(taken.admitted) == ["p1"]


def test_a_rule_may_keep_its_window_from_training() -> None:
    small = Expectation("small", lambda e: e["amount"] < 50, otherwise="stop_training", window="30m")
    (incident,) = incidents(told(heart(declared([small])), payment(1, NOON_US + MINUTE_US, amount=60.0))[1])
    assert incident.stops_training
    assert (incident.from_us, incident.to_us) == (NOON_US, NOON_US + 30 * MINUTE_US)


def test_a_source_that_falls_silent_is_told_of_once_and_again_when_it_is_heard() -> None:
    admission = heart(declared(arrivals=Arrivals(quiet_at_most="1h", otherwise="stop_training")))
    take(admission, payment(1, NOON_US))
    assert admission.advance("orders", NOON_US + HOUR_US).incidents == []
    (began,) = incidents(admission.advance("orders", NOON_US + HOUR_US + 1).incidents)
    assert admission.advance("orders", NOON_US + HOUR_US + 2).incidents == []
    (ended,) = incidents(told(admission, payment(2, NOON_US + HOUR_US + 10))[1])
    assert [(i.rule, i.event_source, i.from_us, i.to_us) for i in (began, ended)] == [
        ("freshness", "bank", NOON_US, 0),
        ("freshness", "bank", NOON_US, NOON_US + HOUR_US + 10),
    ]


def test_a_source_that_tells_too_little_or_too_much_in_a_whole_window_is_told_of() -> None:
    admission = heart(declared(arrivals=Arrivals(per="1h", at_least=2, at_most=3)))
    take(admission, payment(1, NOON_US + 1))
    assert admission.advance("orders", NOON_US + HOUR_US).incidents == []  # its first window was not whole
    step_us = 15 * MINUTE_US
    at_us = NOON_US + HOUR_US
    take(admission, *(payment(n, at_us + n) for n in range(2, 6)))
    (much,) = incidents(admission.advance("orders", at_us + HOUR_US).incidents)
    assert (much.rule, much.from_us, much.to_us) == ("volume", at_us, at_us + HOUR_US)
    take(admission, payment(9, at_us + HOUR_US + step_us))
    few, none = incidents(admission.advance("orders", at_us + 5 * HOUR_US).incidents)
    assert (few.from_us, few.to_us) == (at_us + HOUR_US, at_us + 2 * HOUR_US)
    assert (none.from_us, none.to_us) == (at_us + 2 * HOUR_US, at_us + 5 * HOUR_US)


async def test_incidents_are_on_their_topic_behind_the_event_that_caused_them() -> None:
    small = Expectation("small", lambda e: e["amount"] < 50)
    async with door(declared([small])) as open_door:
        await open_door.intake.submit(Sent([payment(1, amount=60.0).SerializeToString()]))
        assert [message.payload.rule for message in open_door.written("incidents")] == ["small"]


async def test_an_event_that_a_full_queue_sends_back_is_counted_once_it_is_in() -> None:
    """Exactly three are expected in the hour, and three come, however often they have to try."""
    async with door(declared(arrivals=Arrivals(per="1h", at_least=3, at_most=3))) as open_door:
        first, second, third = (payment(n, NOON_US + n).SerializeToString() for n in range(3))
        await open_door.intake.submit(Sent([first]))
        open_door.producer.capacity = 0
        for _ in range(3):
            with pytest.raises(Overloaded):
                await open_door.intake.submit(Sent([second, third]))
        open_door.producer.capacity = 1
        with pytest.raises(Overloaded):
            await open_door.intake.submit(Sent([second, third]))
        open_door.producer.capacity = 1_000
        assert len((await open_door.intake.submit(Sent([second, third]))).others) == 1
        await open_door.intake.advance("orders", NOON_US + HOUR_US)
        assert open_door.written("incidents") == []


@pytest.mark.parametrize(
    "value", [lambda e: "perhaps", lambda e: 1 / 0, lambda e: [e["late"]], lambda e: e["late"].missing, lambda e: None]
)
def test_a_label_that_the_task_does_not_know_or_that_cannot_be_told_is_refused(value: Any) -> None:
    use_case = orders()
    labelled = replace(use_case, label=replace(use_case.label, value=value))
    event = WireEvent(use_case="orders", id="d1", type="delivered", entity="order-1")
    event.event_time_us = event.known_at_us = NOON_US
    event.fields["late"].flag = True
    refused = take(heart(labelled), event).others[0]
    assert isinstance(refused, Rejected)
    assert [violation.rule for violation in refused.violations] == ["label"]


@pytest.mark.parametrize(
    "make",
    [
        lambda: Field(str, pattern="("),
        lambda: Field(float, one_of=("a",)),
        lambda: Field(str, one_of=("a", "bb"), max_length=1),
        lambda: Field(str, one_of=("a", "c"), pattern="[ab]"),
        lambda: Field(float, ge=2, le=1),
        lambda: Field(float, otherwise="shout"),  # type: ignore[arg-type]
        lambda: Arrivals(),
        lambda: Arrivals(at_least=3, at_most=2),
        lambda: Arrivals(at_least=1, otherwise="reject"),  # type: ignore[arg-type]
        lambda: Expectation("no name", lambda e: True),
        lambda: Event("e", "x", {}, [Expectation("a", lambda e: True), Expectation("a", lambda e: True)]),
        lambda: heart(
            replace(orders(), events=[announced, replace(delivered, fields={"a": Field(str, pattern="(?=a)")})])
        ),
    ],
)
def test_what_cannot_be_meant_is_refused_where_it_is_declared(make: Any) -> None:
    with pytest.raises(DeclarationError):
        make()
