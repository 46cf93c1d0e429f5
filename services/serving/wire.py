"""Protobuf's wire format (its encoding guide, "Message Structure"), for the few fields that every answer and log record has.

Building a message object for them costs a microsecond or two each, several times per prediction; joining bytes costs a tenth.
Field numbers and types are read from the descriptors: nothing of a contract is written down twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import repeat
from typing import Any, TypeVar

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

_VARINT, _FIXED64, _LENGTH = 0, 1, 2
_WIRE_TYPES = {
    FieldDescriptor.TYPE_DOUBLE: _FIXED64,
    FieldDescriptor.TYPE_STRING: _LENGTH,
    FieldDescriptor.TYPE_BYTES: _LENGTH,
    FieldDescriptor.TYPE_MESSAGE: _LENGTH,
}
DOUBLE_BYTES = 8
Row = TypeVar("Row", bound=tuple[Any, ...])
_SHORT = 16_384  # lengths below it take two bytes at the most


def varint(number: int) -> bytes:
    """A number that is not negative."""
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)


def tag(message: type[Message], field: str) -> bytes:
    """What stands before a field: its number and how long its value is. Packed numbers have a length, whatever their type."""
    described = message.DESCRIPTOR.fields_by_name[field]
    packed = described.is_repeated and described.type == FieldDescriptor.TYPE_DOUBLE
    return varint(described.number << 3 | (_LENGTH if packed else _WIRE_TYPES.get(described.type, _VARINT)))


_SHORT_LENGTHS = [varint(length) for length in range(_SHORT)]


def length(size: int) -> bytes:
    """What stands between the tag and the bytes of a text, a message or packed numbers."""
    return _SHORT_LENGTHS[size] if size < _SHORT else varint(size)


def lengths(texts: Sequence[bytes]) -> Iterable[bytes]:
    """`length` of each text."""
    if max(map(len, texts), default=0) < _SHORT:
        return map(_SHORT_LENGTHS.__getitem__, map(len, texts))
    return map(length, map(len, texts))


def rows_of(kind: type[Row], *columns: Iterable[Any]) -> list[Row]:
    """The rows of columns, of which some may repeat for ever, as named tuples: to call their class for each costs twice as much."""
    return list(map(tuple.__new__, repeat(kind), zip(*columns, strict=False)))
