"""How a schema may change while old and new producers run side by side: what is allowed, what breaks whom; pure.

Ingest is brought up to date first, producers follow when they can. So a new version must accept what the old one accepted, and
everything that reads an event must still understand it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from driftloop.contracts.ingest.v1.ingest_pb2 import EventSchema, FieldSchema, Schema

PRODUCERS = "producers"
"""Who breaks where something that was accepted would be refused."""
LOG = "the log"
"""What breaks where events of another kind lie under the same name."""


@dataclass(frozen=True, slots=True)
class Change:
    """One difference. `place`: the event, or event.field. `breaks`: who would no longer work; empty: it is allowed."""

    place: str
    what: str
    breaks: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.place}: {self.what}" + (f"; breaks {', '.join(self.breaks)}" if self.breaks else "")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a declared schema. `refused`: why it is not accepted, one line each. `is_new`: it is to be stored."""

    changes: tuple[Change, ...]
    refused: tuple[str, ...]
    is_new: bool


def judge(history: Sequence[Schema], declared: Schema) -> Verdict:
    """Whether a declared schema may follow the stored ones, which come oldest first."""
    if not history:
        return Verdict((), (), True)
    newest = history[-1]
    if declared.digest == newest.digest:
        if declared.version < newest.version:
            return Verdict((), (_older(newest, declared),), False)
        return Verdict((), (), declared.version > newest.version)
    if declared.version < newest.version:
        return Verdict((), (_older(newest, declared),), False)
    changes = (*compare(newest, declared), *_revived(history, declared))
    refused = [str(change) for change in changes if change.breaks]
    if declared.version == newest.version:
        refused.append(f"the schema has changed: say schema_version={newest.version + 1}")
    return Verdict(changes, tuple(refused), True)


def _older(newest: Schema, declared: Schema) -> str:
    return f"version {newest.version} is in use and version {declared.version} is declared: this is older code"


def compare(old: Schema, new: Schema) -> list[Change]:
    """Every difference between two versions, in the order of the old one."""
    before = {event.name: event for event in old.events}
    after = {event.name: event for event in new.events}
    found: list[Change] = []
    for name, event in before.items():
        if name in after:
            found += _of_event(event, after[name])
        else:
            readers = dict.fromkeys(reader for field in event.fields for reader in field.readers)
            found.append(Change(name, "the event is gone", (PRODUCERS, *readers)))
    return found + [Change(name, "is a new event") for name in after if name not in before]


def _of_event(old: EventSchema, new: EventSchema) -> Iterator[Change]:
    if old.entity != new.entity:
        readers = dict.fromkeys(reader for field in old.fields for reader in field.readers)
        yield Change(old.name, f"is about {new.entity!r} instead of {old.entity!r}", (PRODUCERS, *readers))
    before = {field.name: field for field in old.fields}
    after = {field.name: field for field in new.fields}
    for name, field in before.items():
        place = f"{old.name}.{name}"
        if name in after:
            yield from _of_field(place, field, after[name])
        elif field.deprecated and not field.readers:
            yield Change(place, "the deprecated field is gone")
        else:
            told = "" if field.deprecated else ": deprecate it for a version first"
            yield Change(place, f"the field is gone{told}", (PRODUCERS, *field.readers))
    for name, field in after.items():
        if name not in before:
            breaks = () if field.optional else (PRODUCERS,)
            what = "is a new optional field" if field.optional else "is a new field that old producers do not send"
            yield Change(f"{old.name}.{name}", what, breaks)
    was = {each.name: each.otherwise for each in old.expectations}
    for each in new.expectations:
        if each.otherwise == "reject" and was.get(each.name) != "reject":
            yield Change(old.name, f"expectation {each.name} now refuses events", (PRODUCERS,))
        elif was.get(each.name) != each.otherwise:
            yield Change(old.name, f"expectation {each.name} is met with {each.otherwise}")
    for name in sorted(was.keys() - {each.name for each in new.expectations}):
        yield Change(old.name, f"expectation {name} is gone")


def _of_field(place: str, old: FieldSchema, new: FieldSchema) -> Iterator[Change]:
    readers = tuple(dict.fromkeys((*old.readers, *new.readers)))
    if old.kind != new.kind:
        wider = (old.kind, new.kind) == ("integer", "number")
        what = f"is {new.kind} instead of {old.kind}"
        yield Change(place, what, () if wider else (PRODUCERS, *readers))
    if old.unit != new.unit:
        what = f"is in {new.unit or 'no unit'} instead of {old.unit or 'no unit'}"
        yield Change(place, what, (PRODUCERS, *readers) if old.unit else ())
    if new.optional and not old.optional:
        yield Change(place, "may be left out")
    if old.optional and not new.optional:
        yield Change(place, "may no longer be left out", (PRODUCERS,))
    for what, is_narrower in _bounds(old, new):
        yield Change(place, what, (PRODUCERS,) if is_narrower else ())
    if new.deprecated and not old.deprecated:
        read = f"; it is still read by {', '.join(new.readers)}" if new.readers else ""
        yield Change(place, f"is deprecated ({new.deprecated}){read}")


def _bounds(old: FieldSchema, new: FieldSchema) -> Iterator[tuple[str, bool]]:
    """How the values that are accepted have changed, and whether there are fewer."""
    if old.max_length != new.max_length and old.kind == new.kind == "text":
        yield f"has at most {new.max_length} characters instead of {old.max_length}", new.max_length < old.max_length
    was, now = old.otherwise == "reject", new.otherwise == "reject"
    old_ge, old_le = _ends(old) if was else (None, None)
    new_ge, new_le = _ends(new) if now else (None, None)
    if old_ge != new_ge:
        yield f"{_end('ge', new_ge)} instead of {_end('ge', old_ge)}", _narrower(new_ge, old_ge, 1)
    if old_le != new_le:
        yield f"{_end('le', new_le)} instead of {_end('le', old_le)}", _narrower(new_le, old_le, -1)
    old_texts, new_texts = (sorted(old.one_of) if was else []), (sorted(new.one_of) if now else [])
    if old_texts != new_texts:
        lost = [text for text in old_texts if text not in new_texts]
        narrower = bool(new_texts) and (not old_texts or bool(lost))
        yield (f"no longer allows {', '.join(lost) or 'all texts'}" if narrower else "allows more texts"), narrower
    old_pattern, new_pattern = (old.pattern if was else ""), (new.pattern if now else "")
    if old_pattern != new_pattern:
        yield (f"has to match {new_pattern!r}" if new_pattern else "matches anything"), bool(new_pattern)


def _ends(field: FieldSchema) -> tuple[float | None, float | None]:
    return field.ge if field.HasField("ge") else None, field.le if field.HasField("le") else None


def _end(name: str, value: float | None) -> str:
    return f"no {name}" if value is None else f"{name}={value:g}"


def _narrower(new: float | None, old: float | None, sign: int) -> bool:
    return new is not None and (old is None or sign * new > sign * old)


def _revived(history: Sequence[Schema], declared: Schema) -> list[Change]:
    """Fields that were gone and come back as another kind: the log still holds the old ones."""
    newest = {(event.name, field.name) for event in history[-1].events for field in event.fields}
    kinds = {(e.name, f.name): f.kind for schema in history for e in schema.events for f in e.fields}
    return [
        Change(
            f"{event.name}.{field.name}", f"comes back as {field.kind}, it was {kinds[event.name, field.name]}", (LOG,)
        )
        for event in declared.events
        for field in event.fields
        if (event.name, field.name) not in newest and kinds.get((event.name, field.name), field.kind) != field.kind
    ]
