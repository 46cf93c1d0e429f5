"""A recorded window of production's topics, replayed through the hearts: what they said then must be what they say now.

Each heart is given the records that it was given, and what follows is compared with what was recorded. State at the start of
the window is made by folding from the topics' beginning; nothing else can be known to be what production's hearts held then.
Where a heart has several inputs, the order in which production took them is in the record: in the clocks that its outputs name.
"""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import msgpack

from driftloop.contracts import UNSET_US, Message, Record
from driftloop.contracts.monitor.v1.monitor_pb2 import COMMAND_KIND_RETRAIN
from driftloop.contracts.ordering import pack, unpack
from driftloop.usecase import UseCase
from services.features.aggregation import Aggregation
from services.features.rekeying import Rekeying
from services.monitor.judging import Judging
from services.monitor.matching import Matching

TOPICS = (
    "events",
    "keyed",
    "features",
    "predictions",
    "scores",
    "models",
    "commands",
    "drift",
    "decisions",
    "retrain",
    "releases",
    "incidents",
)
"""What is recorded: inputs and outputs of the hearts that fold topics."""
COMPACTED = ("features", "releases")
UNTIMED = ("models", "commands", "incidents")
JUDGED = ("drift", "decisions", "retrain", "releases", "incidents")
FORMAT = "driftloop-window"
FORMAT_VERSION = 1
STATE_BYTES_MAX = 4 << 30
SHOWN_MAX = 10
Place = tuple[str, int]
_NEVER = (1 << 62, 1 << 62)  # a clock and a place beyond all others


class WindowUnusable(Exception):
    """The records do not bear a replay: the sentence says why, and what would."""


class Heart(Protocol):
    """What is replayed."""

    @property
    def clock_us(self) -> int: ...
    def fold(self, records: list[Record]) -> list[Message[Any]]: ...


@dataclass
class Window:
    """Records of one use case by partition, in order, control records included; what lies in [from_us, to_us] is compared."""

    use_case: str
    spread: int
    serving_replicas: int
    from_us: int
    to_us: int
    records: dict[Place, list[Record]] = field(default_factory=dict)

    def of(self, topic: str) -> list[Record]:
        """The records of a topic, partition by partition."""
        return [record for place, found in sorted(self.records.items()) if place[0] == topic for record in found]


def window_of(use_case: str, records: Iterable[Record], from_us: int, to_us: int, serving_replicas: int = 1) -> Window:
    """The window of records read from the beginning of every topic; WindowUnusable where the beginning is gone."""
    found: dict[Place, list[Record]] = {}
    for record in records:
        if record.topic in TOPICS:
            found.setdefault((record.topic, record.partition), []).append(record)
    # Ingest writes its watermarks to every partition.
    spread = 1 + max((partition for topic, partition in found if topic == "events"), default=-1)
    if not spread:
        raise WindowUnusable(f"there are no events of {use_case}: is it the right broker and use case?")
    for (topic, partition), kept in found.items():
        kept.sort(key=lambda record: record.offset)
        # A compacted topic loses old values of a key; it is an output only, and what is left is compared.
        if kept[0].offset > 0 and topic not in COMPACTED:
            raise WindowUnusable(
                f"{topic}/{partition} begins at offset {kept[0].offset}: retention has removed what the state at the "
                "window's start rests on. Save windows while the topics are whole (--save), or keep them longer"
            )
    return Window(use_case, spread, serving_replicas, from_us, to_us, found)


def save(window: Window, file: Path) -> None:
    """Writes a window: zlib over msgpack of plain values, records as their bytes on the broker."""
    state = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "use_case": window.use_case,
        "spread": window.spread,
        "serving_replicas": window.serving_replicas,
        "from_us": window.from_us,
        "to_us": window.to_us,
        "records": [pack(record) for found in window.records.values() for record in found],
    }
    file.write_bytes(zlib.compress(msgpack.packb(state), 1))


def load(file: Path) -> Window:
    """Reads what `save` wrote; WindowUnusable if it is something else."""
    try:
        unpacking = zlib.decompressobj()
        packed = unpacking.decompress(file.read_bytes(), STATE_BYTES_MAX)
        if unpacking.unconsumed_tail:
            raise WindowUnusable(f"{file} holds more than {STATE_BYTES_MAX} bytes")
        state: Any = msgpack.unpackb(packed)
        if state["format"] != FORMAT or state["version"] != FORMAT_VERSION:
            raise WindowUnusable(f"{file} is no window of format {FORMAT_VERSION}")
        window = Window(state["use_case"], state["spread"], state["serving_replicas"], state["from_us"], state["to_us"])
        for packed_record in state["records"]:
            record = unpack(packed_record)
            window.records.setdefault((record.topic, record.partition), []).append(record)
    except (zlib.error, msgpack.UnpackException, KeyError, TypeError, ValueError) as error:
        raise WindowUnusable(f"{file} is no saved window: driftloop replay-window --save writes one") from error
    return window


@dataclass(frozen=True)
class Difference:
    """One way in which a heart says something else than it said."""

    heart: str
    what: str

    def __str__(self) -> str:
        return f"{self.heart}: {self.what}"


@dataclass
class Replayed:
    """What a replay found: how many distinct messages were the same, by topic, and where they differ."""

    same: dict[str, int] = field(default_factory=dict)
    differences: list[Difference] = field(default_factory=list)


def replay(use_case: UseCase, window: Window, progress: Callable[[str], None] = lambda heart: None) -> Replayed:
    """Folds every heart's recorded inputs and compares what follows with what was recorded."""
    found = Replayed()
    for name, heart, inputs, outputs in _hearts(use_case, window):
        progress(name)
        said: list[Message[Any]] = []
        for batch in _in_recorded_order(name, heart, inputs, outputs):
            said += heart.fold(batch)
            if isinstance(heart, Rekeying):
                heart.take_accepted()
        _compare(name, window, said, outputs, found)
    return found


def _hearts(use_case: UseCase, window: Window) -> Iterator[tuple[str, Heart, dict[Place, list[Record]], list[Record]]]:
    """Each heart with what it was given and what it is recorded to have said."""
    spread, replicas, records = window.spread, window.serving_replicas, window.records
    keyed, features, scores = window.of("keyed"), window.of("features"), window.of("scores")
    for p in range(spread):
        inputs = {("events", p): records.get(("events", p), [])}
        yield f"rekeying {p}", Rekeying(use_case, p, spread), inputs, [r for r in keyed if _packed_by(r) == p]
    for p in range(spread):
        inputs = {("keyed", p): records.get(("keyed", p), [])}
        yield f"aggregation {p}", Aggregation(use_case, p, spread), inputs, [r for r in features if r.partition == p]
    scored: dict[str, int] = {
        record.message.key: p for p in range(spread) for record in records.get(("events", p), [])
    } | {record.message.key: p for p in range(spread) for record in records.get(("predictions", p), [])}
    for p in range(spread):
        inputs = {place: records.get(place, []) for place in (("events", p), ("predictions", p))}
        outputs = [r for r in scores if _writer(r) == f"matching/{p}" or scored.get(r.message.key) == p]
        yield f"matching {p}", Matching(use_case, p, spread, replicas), inputs, outputs
    places = [place for place in records if place[0] in ("predictions", "scores", "models", "commands")]
    inputs = {place: records[place] for place in sorted(places)}
    inputs["incidents", 0] = [record for record in window.of("incidents") if not _is_judgings(record)]
    judged = [record for topic in JUDGED for record in window.of(topic) if _is_judgings(record)]
    yield "judging", Judging(use_case, spread, replicas), inputs, judged


def _is_judgings(record: Record) -> bool:
    """Whether judging said it: incidents are ingest's and its own."""
    return record.topic != "incidents" or record.message.source != "driftloop/ingest"


def _writer(record: Record) -> str:
    return str(record.message.payload.writer) if record.message.is_watermark else ""


def _packed_by(record: Record) -> int:
    if record.message.is_watermark:
        return int(record.message.payload.writer.partition("/")[2])
    return int(record.message.payload.source_partition)


# the order of several inputs ----------------------------------------------------------------------------------------


def _in_recorded_order(
    name: str, heart: Heart, inputs: Mapping[Place, Sequence[Record]], outputs: Sequence[Record]
) -> Iterator[list[Record]]:
    """Batches such that the heart's clock takes the values that its own watermarks name, one after the other."""
    timed = {place: _Input(found) for place, found in inputs.items() if place[0] not in UNTIMED}
    if len(timed) == 1:
        (only,) = timed.values()
        yield only.rest()
        return
    told = sorted(inputs.get(("incidents", 0), ()), key=lambda record: record.message.known_at_us)
    untimed = [record for place, found in inputs.items() if place[0] in ("models", "commands") for record in found]
    taken_at = _taken_at(untimed, outputs)
    clocks = _clocks(outputs)
    for clock_us in clocks:
        # What ingest tells of is with judging before the watermark of its time has come through all that lies between.
        soon = [record for record in told if record.message.known_at_us <= clock_us]
        if soon:
            told = told[len(soon) :]
            yield soon
        # Who moves the clock there is the input that says nothing between the clock before and this one: it goes last.
        for one in sorted(timed.values(), key=lambda one: one.next_mark(heart.clock_us) >= clock_us):
            batch = one.until(clock_us)
            if batch:
                yield batch
        now = [record for record in untimed if taken_at.get(record.message.id, _NEVER)[0] <= heart.clock_us]
        untimed = [record for record in untimed if record not in now]
        if now:
            yield sorted(now, key=lambda record: taken_at[record.message.id][1])
    # Of several writers of an input the others follow with the next clock, and the last has none.
    for one in timed.values():
        if clocks and (batch := one.through(clocks[-1])):
            yield batch
    now = [record for record in untimed if taken_at.get(record.message.id, _NEVER)[0] <= heart.clock_us]
    if now:
        yield sorted(now, key=lambda record: taken_at[record.message.id][1])


class _Input:
    """One partition, read up to its watermarks."""

    def __init__(self, records: Sequence[Record]) -> None:
        self._records, self._next = records, 0

    def next_mark(self, clock_us: int) -> int:
        """The first watermark beyond a clock that is still to be read."""
        ahead = (r.message.known_at_us for r in self._records[self._next :] if r.message.is_watermark)
        return next((mark for mark in ahead if mark > clock_us), UNSET_US)

    def until(self, clock_us: int) -> list[Record]:
        """What comes up to and with the first watermark that reaches a clock."""
        first = self._next
        while self._next < len(self._records):
            record = self._records[self._next]
            self._next += 1
            if record.message.is_watermark and record.message.known_at_us >= clock_us:
                break
        return list(self._records[first : self._next])

    def through(self, clock_us: int) -> list[Record]:
        """What is left up to and with the last watermark that does not lie beyond a clock."""
        first = self._next
        for place in range(first, len(self._records)):
            message = self._records[place].message
            if message.is_watermark and message.known_at_us <= clock_us:
                self._next = place + 1
        return list(self._records[first : self._next])

    def rest(self) -> list[Record]:
        """Everything that is left."""
        first, self._next = self._next, len(self._records)
        return list(self._records[first:])


def _clocks(outputs: Sequence[Record]) -> list[int]:
    """The clocks that a heart's own watermarks name, in their order, repetitions after a crash left out."""
    clocks: list[int] = []
    for record in outputs:
        if record.message.is_watermark and (not clocks or record.message.known_at_us > clocks[-1]):
            clocks.append(record.message.known_at_us)
    return clocks


def _taken_at(untimed: Sequence[Record], outputs: Sequence[Record]) -> dict[str, tuple[int, int]]:
    """For each answer or command the clock at which judging took it, and its place among those of one clock.

    The clock is that of the first message that it caused, the place that of its first decision: what is taken first decides first.
    A command to retrain shows in the decision that it leads to, which is made when the clock next moves: it was taken before.
    """
    caused: dict[str, tuple[int, int]] = {}
    for record in outputs:
        place = record.offset if record.topic == "decisions" else _NEVER[1]
        for cause in record.message.causes:
            clock_us, first = caused.get(cause, _NEVER)
            caused[cause] = min(clock_us, record.message.known_at_us), min(first, place)
    found = {}
    for record in untimed:
        message = record.message
        if message.id in caused:
            clock_us, place = caused[message.id]
            asks = record.topic == "commands" and message.payload.kind == COMMAND_KIND_RETRAIN
            found[message.id] = clock_us - asks, place
    return found


# comparison ---------------------------------------------------------------------------------------------------------


def _compare(
    heart: str, window: Window, said: Sequence[Message[Any]], outputs: Sequence[Record], found: Replayed
) -> None:
    recorded = {
        (record.topic, record.message.id): record
        for record in reversed(outputs)
        if _is_compared(record.message, window)
    }
    again = {(message.topic, message.id): message for message in reversed(said) if _is_compared(message, window)}
    counts: dict[str, int] = defaultdict(int)
    for (topic, message_id), record in recorded.items():
        message = again.get((topic, message_id))
        place = f"{topic}/{record.partition}@{record.offset} {message_id}"
        if message is None:
            found.differences.append(Difference(heart, f"{place} is recorded and was not said again"))
        elif message.payload != record.message.payload:
            found.differences.append(
                Difference(heart, f"{place} says {_told(message)} now, {_told(record.message)} then")
            )
        elif message.causes != record.message.causes:
            found.differences.append(Difference(heart, f"{place} has other causes: {message.causes}"))
        else:
            counts[topic] += 1
    # Of a compacted topic only the newest values are left, so what is said beyond them is no difference.
    for (topic, message_id), message in again.items():
        if (topic, message_id) not in recorded and topic not in COMPACTED:
            found.differences.append(
                Difference(heart, f"{topic} {message_id} was said and is not recorded: {_told(message)}")
            )
    for topic, count in counts.items():
        found.same[topic] = found.same.get(topic, 0) + count


def _is_compared(message: Message[Any], window: Window) -> bool:
    # How events were packed on `keyed` depends on how they were fetched; that their effect is the same shows in `features`.
    within = window.from_us <= message.known_at_us <= window.to_us
    return within and not message.is_watermark and message.topic != "keyed"


def _told(message: Message[Any]) -> str:
    because = getattr(message.payload, "because", "")
    return repr(because or " ".join(str(message.payload).split())[:200])
