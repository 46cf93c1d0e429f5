"""Assembles the vector of a request from its fields and what is known of its feature entities; reads nothing itself.

Values of a feature entity serve thousands of requests before they change: what a vector, a log record and an answer take of
them is serialised once per update and kept with the entry. Serialised messages of one type, written one behind the other, are
one message with the fields of all (protobuf's encoding guide, "Last One Wins"): so parts become a whole without being read.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from driftloop.contracts import MAX_CAUSES, UNSET_US
from driftloop.contracts.serving.v1.serving_pb2 import Freshness, PredictResponse, Reading, Vector
from driftloop.usecase import Feature, FieldValue, UseCase, View
from services.serving.view import Entry, Packed
from services.serving.wire import length, tag

Lookup = Callable[[str], Entry | None]
"""The newest entry of a feature entity's key, or None."""
_DIGEST, _NUMBERS, _TEXTS = (tag(Vector, field) for field in ("inputs_digest", "numbers", "texts"))
_KEYS_KEPT = 65_536  # of a view: about 0.2 KB each
_UNKNOWN_KEPT = 4_096  # keys of which nothing is known, kept ready: clients ask for the same ones again


class Assembled(NamedTuple):
    """The inputs of one request.

    numbers: little-endian doubles in declared order; texts: likewise; views: one for each view, in declared order;
    defaulted: names of the inputs that no value was known for, which have their stated default.
    """

    inputs_digest: str
    numbers: bytes
    texts: Sequence[str]
    views: Sequence[Packed]
    defaulted: list[str]

    @classmethod
    def of(cls, vector: Vector, defaulted: Sequence[str] = ()) -> Assembled:
        """The inputs of a vector that was recorded."""
        numbers = struct.pack(f"<{len(vector.numbers)}d", *vector.numbers)
        views = [packed_reading(reading) for reading in vector.readings]
        return cls(vector.inputs_digest, numbers, tuple(vector.texts), views, list(defaulted))

    @property
    def known_at_us(self) -> int:
        """When the newest of the values was known, in microseconds; UNSET_US if there are none."""
        return max([packed.known_at_us for packed in self.views if packed.found], default=UNSET_US)

    @property
    def causes(self) -> list[str]:
        """Ids of the feature updates that were read."""
        return [packed.update_id for packed in self.views if packed.found][:MAX_CAUSES]

    def serialized(self) -> bytes:
        """The vector's bytes."""
        digest, numbers = self.inputs_digest.encode(), self.numbers
        parts = [_DIGEST, length(len(digest)), digest]
        if numbers:
            parts += (_NUMBERS, length(len(numbers)), numbers)
        for text in self.texts:
            encoded = text.encode()
            parts += (_TEXTS, length(len(encoded)), encoded)
        for packed in self.views:
            parts.append(packed.reading)
        return b"".join(parts)

    @property
    def vector(self) -> Vector:
        """The vector."""
        return Vector.FromString(self.serialized())


class Assembly:
    """Puts vectors together in the order that the use case declares; made once, because the declared order never changes."""

    def __init__(self, use_case: UseCase) -> None:
        self._digest = use_case.inputs_digest
        transforms = zip(use_case.request_transforms, use_case.request_inputs, strict=True)
        self._request = [(t.of, t.compute, feature) for t, feature in transforms]
        self._pack = struct.Struct(f"<{sum(feature.numeric for _, _, feature in self._request)}d").pack
        self._views = [(_key_reader(view), _PackedView(view)) for view in use_case.views]

    def keys(self, fields: Mapping[str, FieldValue]) -> list[tuple[str, str]]:
        """View and key of every feature entity that the request refers to; a view whose key field is absent has none."""
        found = [(view.name, key_of(fields)) for key_of, view in self._views]
        return [(name, key) for name, key in found if key is not None]

    def assemble(self, fields: Mapping[str, FieldValue], lookup: Lookup) -> Assembled:
        """The inputs of a request's fields: request features first, then each view's, missing ones by their default."""
        own: list[float] = []
        texts: list[str] = []
        defaulted: list[str] = []
        for of, compute, feature in self._request:
            raw = fields.get(of)
            if raw is None:
                defaulted.append(feature.name)
                value: FieldValue = feature.default
            else:
                value = compute(raw)
            if feature.numeric:
                own.append(float(value))
            else:
                texts.append(str(value))
        numbers = [self._pack(*own)]
        views: list[Packed] = []
        for key_of, view in self._views:
            key = key_of(fields)
            entry = None if key is None else lookup(key)
            packed = view.unknown(key or "") if key is None or entry is None else entry.packed or view.known(key, entry)
            views.append(packed)
            numbers.append(packed.numbers)
            if packed.texts:
                texts += packed.texts
            if packed.defaulted:
                defaulted += packed.defaulted
        return Assembled(self._digest, b"".join(numbers), texts, views, defaulted)


KeyReader = Callable[[Mapping[str, FieldValue]], str | None]


def _key_reader(view: View) -> KeyReader:
    """`view.key`, which puts a key together, for fields that mostly had that key before."""
    by = view.by

    @lru_cache(_KEYS_KEPT)
    def made(*values: FieldValue | None) -> str | None:
        return view.key({name: value for name, value in zip(by, values, strict=True) if value is not None})

    if len(by) == 1:
        (name,) = by
        return lambda fields: made(fields.get(name))
    return lambda fields: made(*[fields.get(name) for name in by])


class _PackedView:
    """The values of one view as vectors take them."""

    def __init__(self, view: View) -> None:
        self.name = view.name
        self._features: tuple[Feature, ...] = view.features
        self._pack = struct.Struct(f"<{sum(feature.numeric for feature in view.features)}d").pack
        self.unknown = lru_cache(_UNKNOWN_KEPT)(self._unknown)

    def known(self, key: str, entry: Entry) -> Packed:
        """What is known of an entity; kept with its entry."""
        reading = Reading(
            view=self.name,
            key=key,
            found=True,
            known_at_us=entry.known_at_us,
            event_time_us=entry.event_time_us,
            sequence=entry.sequence,
            update_id=entry.update_id,
        )
        entry.packed = self._filled(reading, entry.values)
        return entry.packed

    def _unknown(self, key: str) -> Packed:
        return self._filled(Reading(view=self.name, key=key), (None,) * len(self._features))

    def _filled(self, reading: Reading, values: Sequence[FieldValue | None]) -> Packed:
        paired = list(zip(self._features, values, strict=True))
        filled = [(feature.numeric, feature.default if value is None else value) for feature, value in paired]
        packed = packed_reading(reading)
        packed.numbers = self._pack(*[float(value) for numeric, value in filled if numeric])
        packed.texts = [str(value) for numeric, value in filled if not numeric]
        packed.defaulted = [feature.name for feature, value in paired if value is None]
        return packed


def packed_reading(reading: Reading) -> Packed:
    """What a reading says of where values come from, without the values."""
    return Packed(
        view=reading.view,
        found=reading.found,
        update_id=reading.update_id,
        known_at_us=reading.known_at_us,
        event_time_us=reading.event_time_us,
        reading=Vector(readings=[reading]).SerializeToString(),
    )


def freshness(packed: Packed, as_of_us: int) -> bytes:
    """A serialised `PredictResponse` of a view's freshness alone; the last one made is kept, because the clock seldom moves."""
    if packed.fresh_as_of_us != as_of_us:
        found = Freshness(view=packed.view)
        if packed.found:
            found.found, found.known_at_us, found.event_time_us = True, packed.known_at_us, packed.event_time_us
            found.age_us = max(0, as_of_us - packed.known_at_us) if as_of_us != UNSET_US else 0
        packed.fresh, packed.fresh_as_of_us = PredictResponse(freshness=[found]).SerializeToString(), as_of_us
    return packed.fresh
