"""Assembles the vector of a request from its fields and what is known of its feature entities; reads nothing itself.

Values of a feature entity serve thousands of requests before they change: what a vector, a log record and an answer take of
them is serialised once per update and kept with the entry. Serialised messages of one type, written one behind the other, are
one message with the fields of all (protobuf's encoding guide, "Last One Wins"): so parts become a whole without being read.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import chain, repeat
from typing import Any, NamedTuple, TypeVar

from driftloop.contracts import UNSET_US
from driftloop.contracts.serving.v1.serving_pb2 import Freshness, PredictResponse, Reading, Vector
from driftloop.usecase import Feature, FieldValue, UseCase, View
from services.serving.view import Entry, Packed
from services.serving.wire import length, rows_of, tag

Columns = Mapping[str, Sequence[FieldValue | None]]
"""Of each request field the values of all requests; None: absent."""
Lookup = Callable[[Sequence[str | None]], Sequence[Entry | None]]
"""The newest entries of keys of feature entities; None where there is no entry, or no key."""
_DIGEST, _NUMBERS, _TEXTS = (tag(Vector, field) for field in ("inputs_digest", "numbers", "texts"))
_KEYS_KEPT = 65_536  # of a view: about 0.2 KB each
_UNKNOWN_KEPT = 4_096  # keys of which nothing is known, kept ready: clients ask for the same ones again
Value = TypeVar("Value")


def joined(parts: Sequence[Sequence[Value]]) -> Sequence[Value]:
    """One column of the parts of a column, one behind the other."""
    return parts[0] if len(parts) == 1 else list(chain.from_iterable(parts))


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
    def traceparents(self) -> list[str]:
        """The sampled traces of the feature updates that were read."""
        return [packed.traceparent for packed in self.views if packed.traceparent]

    def serialized(self) -> bytes:
        """The vector's bytes."""
        digest, numbers, texts, views, _ = self
        parts = [vector_head(digest, len(numbers)), numbers]
        for text in texts:
            encoded = text.encode()
            parts += (_TEXTS, length(len(encoded)), encoded)
        parts += [packed.reading for packed in views]
        return b"".join(parts)

    @property
    def vector(self) -> Vector:
        """The vector."""
        return Vector.FromString(self.serialized())


class Inputs(NamedTuple):
    """The inputs of several requests by column, as `Assembled` has those of one: to make each of them a row costs a twentieth.

    digests, texts, defaulted: one for each request; numbers: columns whose bytes, side by side, are a request's numbers; views:
    the column of each view.
    """

    digests: Sequence[str]
    numbers: Sequence[Sequence[bytes]]
    texts: Sequence[Sequence[str]]
    views: Sequence[Sequence[Packed]]
    defaulted: Sequence[list[str]]

    @classmethod
    def of(cls, rows: Sequence[Assembled]) -> Inputs:
        """The columns of some rows."""
        digests, numbers, texts, views, defaulted = zip(*rows, strict=True)
        return cls(digests, [numbers], texts, list(zip(*views, strict=True)), defaulted)

    @classmethod
    def joined(cls, parts: Sequence[Inputs]) -> Inputs:
        """The requests of some parts of one use case, one behind the other."""
        if len(parts) == 1:
            return parts[0]
        digests, numbers, texts, views, defaulted = zip(*parts, strict=True)
        columns, readings = list(map(joined, zip(*numbers, strict=True))), list(map(joined, zip(*views, strict=True)))
        return cls(joined(digests), columns, joined(texts), readings, joined(defaulted))

    @property
    def matrix_bytes(self) -> bytes:
        """The numbers of all requests, row by row."""
        return b"".join(chain.from_iterable(zip(*self.numbers, strict=True)))

    @property
    def known_at_us(self) -> int:
        """When the newest of all values was known, in microseconds; UNSET_US if there are none."""
        times = [packed.known_at_us for column in self.views for packed in column if packed.found]
        return max(times, default=UNSET_US)

    @property
    def traceparents(self) -> list[str]:
        """The sampled traces of the feature updates that were read, each once, in the order of the requests."""
        rows = zip(*self.views, strict=True)
        return list(dict.fromkeys(packed.traceparent for row in rows for packed in row if packed.traceparent))

    def part(self, start: int, stop: int) -> Inputs:
        """The inputs of the requests from `start` up to `stop`."""
        own = slice(start, stop)
        numbers, views = [column[own] for column in self.numbers], [column[own] for column in self.views]
        return Inputs(self.digests[own], numbers, self.texts[own], views, self.defaulted[own])

    def rows(self) -> list[Assembled]:
        """The inputs of each request."""
        numbers = map(b"".join, zip(*self.numbers, strict=True))
        views: Iterable[Sequence[Packed]] = zip(*self.views, strict=True) if self.views else repeat(())
        return rows_of(Assembled, self.digests, numbers, self.texts, views, self.defaulted)

    def vectors(self) -> list[bytes]:
        """The serialised vector of each request."""
        sizes = [set(map(len, column)) for column in self.numbers]
        if any(self.texts) or len(set(self.digests)) > 1 or any([len(each) > 1 for each in sizes]):
            return [each.serialized() for each in self.rows()]
        head = repeat(vector_head(self.digests[0], sum([size for each in sizes for size in each])))
        readings = [[packed.reading for packed in column] for column in self.views]
        return list(map(b"".join, zip(head, *self.numbers, *readings, strict=False)))


@lru_cache(maxsize=64)
def vector_head(digest: str, numbers_bytes: int) -> bytes:
    """What stands before the numbers of a vector."""
    encoded = digest.encode()
    head = _DIGEST + length(len(encoded)) + encoded
    return head + _NUMBERS + length(numbers_bytes) if numbers_bytes else head


class Assembly:
    """Puts vectors together in the order that the use case declares; made once, because the declared order never changes.

    It works through requests column by column: what is done once per call instead of once per request costs nothing.
    """

    def __init__(self, use_case: UseCase) -> None:
        self._digest = use_case.inputs_digest
        self._fields = tuple(use_case.request_fields)
        transforms = zip(use_case.request_transforms, use_case.request_inputs, strict=True)
        self._request = [(t.of, t.compute, feature) for t, feature in transforms]
        self._pack = struct.Struct(f"<{sum(feature.numeric for _, _, feature in self._request)}d").pack
        self._views = [_PackedView(view) for view in use_case.views]

    def columns(self, requests: Sequence[Mapping[str, FieldValue]]) -> Columns:
        """The fields of some requests, by column."""
        return {name: [fields.get(name) for fields in requests] for name in self._fields}

    def keys(self, columns: Columns) -> list[tuple[str, str]]:
        """View and key of every feature entity that the requests refer to; a view whose key field is absent has none."""
        return [(view.name, key) for view in self._views for key in view.keys(columns) if key is not None]

    def assemble(self, fields: Mapping[str, FieldValue], lookup: Lookup) -> Assembled:
        """The inputs of one request's fields."""
        return self.assemble_all(self.columns([fields]), 1, lookup)[0]

    def assemble_all(self, columns: Columns, rows: int, lookup: Lookup) -> list[Assembled]:
        """The inputs of `rows` requests: request features first, then each view's, missing ones by their default."""
        return self.assemble_columns(columns, rows, lookup).rows()

    def assemble_columns(self, columns: Columns, rows: int, lookup: Lookup) -> Inputs:
        """The same by column."""
        own: list[Sequence[FieldValue]] = []
        texts: list[Sequence[str]] = []
        defaulted: list[list[str]] = [[] for _ in range(rows)]
        for of, compute, feature in self._request:
            raws, default = columns[of], feature.default
            if None in raws:
                values = [default if raw is None else compute(raw) for raw in raws]
                for names, raw in zip(defaulted, raws, strict=True):
                    if raw is None:
                        names.append(feature.name)
            else:
                values = [compute(raw) for raw in raws]  # type: ignore[arg-type]
            if feature.numeric:
                own.append(values)
            else:
                texts.append([str(value) for value in values])
        packed = [view.packed(columns, lookup) for view in self._views]
        for column in packed:
            lacking = [each.defaulted for each in column]
            if any(lacking):
                for names, more in zip(defaulted, lacking, strict=True):
                    names += more
        first = list(map(self._pack, *own)) if own else [b""] * rows
        words: Sequence[Sequence[str]] = list(zip(*texts, strict=True)) if texts else [()] * rows
        if any(view.has_texts for view in self._views):
            views = zip(*packed, strict=True)
            words = [
                [*said, *(text for each in of for text in each.texts)] for said, of in zip(words, views, strict=True)
            ]
        numbers = [first, *[[each.numbers for each in column] for column in packed]]
        return Inputs([self._digest] * rows, numbers, words, packed, defaulted)


class _Keys(dict[Any, str | None]):
    """The keys of one view by the values of its fields, put together once: entities are asked about again."""

    def __init__(self, view: View) -> None:
        super().__init__()
        self._view = view

    def __missing__(self, values: FieldValue | tuple[FieldValue | None, ...] | None) -> str | None:
        by, given = self._view.by, values if isinstance(values, tuple) else (values,)
        key = self._view.key({name: value for name, value in zip(by, given, strict=True) if value is not None})
        if len(self) >= _KEYS_KEPT:
            self.clear()
        self[values] = key
        return key


class _PackedView:
    """The values of one view as vectors take them."""

    def __init__(self, view: View) -> None:
        self.name = view.name
        self.has_texts = not all(feature.numeric for feature in view.features)
        self._by = view.by
        self._keys = _Keys(view)
        self._features: tuple[Feature, ...] = view.features
        self._pack = struct.Struct(f"<{sum(feature.numeric for feature in view.features)}d").pack
        self.unknown = lru_cache(_UNKNOWN_KEPT)(self._unknown)

    def keys(self, columns: Columns) -> list[str | None]:
        """The key of each request; None where a field of it is absent."""
        keys = self._keys
        if len(self._by) == 1:
            return [keys[value] for value in columns[self._by[0]]]
        return [keys[values] for values in zip(*[columns[name] for name in self._by], strict=True)]

    def packed(self, columns: Columns, lookup: Lookup) -> list[Packed]:
        """What is known of each request's entity."""
        keys = self.keys(columns)
        return [
            self.unknown(key or "") if key is None or entry is None else entry.packed or self.known(key, entry)
            for key, entry in zip(keys, lookup(keys), strict=True)
        ]

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
        entry.packed.traceparent = entry.traceparent
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
        cause=reading.update_id.encode() if reading.found else b"",
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
