"""Which trace belongs to what a heart says: that of the sampled messages that caused it, however long ago they were folded."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from driftloop.contracts import Message, Record
from driftloop.telemetry import SpanHandle, span

_LINKS_MAX = 16  # traces that one span names
_SPANS_MAX = 64  # of one fold: what it says beyond that goes on in the trace of its cause, without a span of this stage
_UNSAMPLED = "00-00000000000000000000000000000001-0000000000000001-00"


class CausalTraces:
    """Remembers the traces of the newest `ids_max` sampled messages by id; a restart forgets them, as it may: traces are samples.

    A label matures a day after its prediction, so what matching says of it comes out of a fold that read neither. Causes are in
    the messages; here they are looked up. Where nothing is sampled nothing is remembered, and nothing looked up.
    """

    def __init__(self, name: str, ids_max: int) -> None:
        self._name = f"{name} fold"
        self._ids_max = ids_max
        self._traces: OrderedDict[str, str] = OrderedDict()

    def fold(self, records: Sequence[Record]) -> SpanHandle:
        """A span under the first sampled trace of a batch, linked to the others; none where nothing is sampled."""
        sampled = [record.message for record in records if record.message.traceparent.endswith("01")]
        if not sampled:
            return SpanHandle(_UNSAMPLED)
        for message in sampled:
            self._remember(message.id, message.traceparent)
        first, *others = dict.fromkeys(message.traceparent for message in sampled)
        return span(self._name, first, attributes={"records": len(records)}, links=others[: _LINKS_MAX - 1])

    def carry(self, traced: SpanHandle, outputs: Sequence[Message[Any]]) -> None:
        """Gives each output the trace of its causes; what names none belongs to the fold."""
        fold = traced.traceparent if traced.traceparent.endswith("01") else ""
        if not fold and not self._traces:
            return
        made: dict[tuple[str, ...], str] = {}
        for message in outputs:
            causes = self._causes(message)
            if causes:
                message.traceparent = self._at_this_stage(causes, fold, made)
                self._remember(message.id, message.traceparent)
            elif fold and not message.causes and not message.traceparent and not message.is_watermark:
                message.traceparent = fold

    def _causes(self, message: Message[Any]) -> tuple[str, ...]:
        """Sampled traces that brought a message about: the one that its heart knows of, or those of its causes."""
        if message.traceparent:
            return (message.traceparent,) if message.traceparent.endswith("01") else ()
        traces = self._traces
        return tuple(dict.fromkeys([traces[cause] for cause in message.causes if cause in traces]))

    def _at_this_stage(self, causes: tuple[str, ...], fold: str, made: dict[tuple[str, ...], str]) -> str:
        if causes in made:
            return made[causes]
        if len(causes) == 1 and _trace_id(causes[0]) == _trace_id(fold):
            return fold
        if len(made) >= _SPANS_MAX:
            return causes[0]
        with span(self._name, causes[0], links=[*causes[1:_LINKS_MAX], fold]) as traced:
            made[causes] = traced.traceparent
        return traced.traceparent

    def _remember(self, message_id: str, traceparent: str) -> None:
        self._traces[message_id] = traceparent
        if len(self._traces) > self._ids_max:
            self._traces.popitem(last=False)


def _trace_id(traceparent: str) -> str:
    return traceparent[3:35]
