"""Makes requests of events that ask for a prediction, each event once; pure.

The request's id is derived from the event's, so the answer's id is, too: whatever is asked again, after a restart or by another
replica, is the same prediction, and every reader of `predictions` keeps the first of an id.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable
from typing import NamedTuple

from driftloop.contracts import UNSET_US, Message, derive_id
from driftloop.contracts.event.v1.event_pb2 import Event
from driftloop.contracts.serving.v1.serving_pb2 import PredictRequest
from driftloop.usecase import UseCase


class EventAsked(NamedTuple):
    """A request, the event that it was made of, and that event's trace."""

    request: PredictRequest
    event: Event
    traceparent: str


class Asking:
    """Which events of a use case ask; remembers the newest `remembered_max` that did.

    age_us_max: what became known longer ago, on the use case's clock, is not asked about any more.
    """

    def __init__(self, use_case: UseCase, age_us_max: int, remembered_max: int) -> None:
        asked_by = use_case.predict.asked_by
        self._use_case = use_case.name
        self._type = "" if asked_by is None else asked_by.name
        self._fields = tuple(use_case.request_fields)
        self._age_us_max = age_us_max
        self._remembered_max = remembered_max
        self._remembered: OrderedDict[str, None] = OrderedDict()
        self.passed_over: Counter[str] = Counter()
        """Events that would ask but do not, by why: `repeated` or `too_old`. Whoever counts them may clear it."""

    def asked(self, messages: Iterable[Message[Event]], clock_us: int) -> list[EventAsked]:
        """The requests of some events, in order."""
        found = []
        for message in messages:
            event = message.payload
            if event.type != self._type:
                continue
            if clock_us != UNSET_US and clock_us - event.known_at_us > self._age_us_max:
                self.passed_over["too_old"] += 1
            elif event.id in self._remembered:
                self.passed_over["repeated"] += 1
            else:
                self._remember(event.id)
                fields = {name: event.fields[name] for name in self._fields if name in event.fields}
                request = PredictRequest(
                    use_case=self._use_case, entity=event.entity, request_id=request_id(event.id), fields=fields
                )
                found.append(EventAsked(request, event, message.traceparent))
        return found

    def _remember(self, event_id: str) -> None:
        self._remembered[event_id] = None
        if len(self._remembered) > self._remembered_max:
            self._remembered.popitem(last=False)


def request_id(event_id: str) -> str:
    """The id of the request that an event is."""
    return derive_id("asked by", event_id)
