"""Keeps answers on local disk from before they leave until the broker has them; never sends them.

Append-only segment files `<number>.log` of records (length, crc32, body), and the file `acknowledged` with the position up
to which everything is with the broker. What was written survives the death of the process (it is in the kernel's page
cache); with `fsync` also that of the machine.
"""

from __future__ import annotations

import fcntl
import logging
import os
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, repeat
from pathlib import Path
from typing import NamedTuple

from services.serving.errors import AlreadyRunning, LogFull

_HEADER = struct.Struct("<II")
_POSITION = struct.Struct("<QQI")
_RETRY_AFTER_S = 1.0  # a broker that was away drains tens of thousands of records in it
_logger = logging.getLogger(__name__)


class Position(NamedTuple):
    """The end of a record: segment number and byte offset."""

    segment: int
    offset: int


class Spool:
    """The spool of one replica. One process at a time: AlreadyRunning if another holds the folder.

    `max_bytes` bounds what is not acknowledged; on disk there is at most one segment more.
    """

    def __init__(self, folder: Path, segment_bytes: int, max_bytes: int, fsync: bool = False) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._segment_bytes = segment_bytes
        self._max_bytes = max_bytes
        self._fsync = fsync
        self._lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._lock)
            raise AlreadyRunning(f"another process holds the spool {folder}") from error
        self._marker = os.open(folder / "acknowledged", os.O_RDWR | os.O_CREAT, 0o644)
        self._acknowledged = self._read_marker()
        self._sizes = {number: self._path(number).stat().st_size for number in self._numbers()}
        self._number = max([self._acknowledged.segment, *self._sizes]) + 1
        self._offset = 0
        self._active = -1
        self.torn_bytes = 0
        self.bytes = sum(self._unread(number) for number in self._sizes)

    def recover(self) -> Iterator[tuple[Position, bytes]]:
        """The records of earlier processes that are not acknowledged, oldest first.

        A record that was half written when its process died was never answered: it is counted in `torn_bytes` and left out.
        """
        for number in sorted(self._sizes):
            if number < self._acknowledged.segment:
                self._remove(number)
                continue
            data = self._path(number).read_bytes()
            offset = self._acknowledged.offset if number == self._acknowledged.segment else 0
            while len(data) - offset >= _HEADER.size:
                length, crc = _HEADER.unpack_from(data, offset)
                body = data[offset + _HEADER.size : offset + _HEADER.size + length]
                if len(body) < length or zlib.crc32(body) != crc:
                    break
                offset += _HEADER.size + length
                yield Position(number, offset), body
            if offset < len(data):
                torn = len(data) - offset
                self.torn_bytes += torn
                self.bytes -= torn
                self._sizes[number] -= torn
                _logger.warning("spool segment %d ends with %d bytes that are no whole record", number, torn)

    def append(self, bodies: Sequence[bytes], heads: Iterable[bytes] = repeat(b"")) -> Position:
        """Writes records with one write, all or none, and returns where they end; LogFull: no room, or the disk refuses.

        heads: what each record begins with, before its body: a longer body need not be copied for it.
        """
        pack, crc32 = _HEADER.pack, zlib.crc32
        parts = [
            (pack(len(head) + len(body), crc32(body, crc32(head))), head, body)
            for head, body in zip(heads, bodies, strict=False)
        ]
        data = b"".join(chain.from_iterable(parts))
        length = len(data)
        if self.bytes + length > self._max_bytes:
            raise LogFull(
                f"{self.bytes} bytes of answers wait for the broker, the bound is {self._max_bytes}", _RETRY_AFTER_S
            )
        if self._active < 0 or self._offset + length > self._segment_bytes:
            self._roll()
        try:
            written = os.write(self._active, data)
            if self._fsync:
                os.fdatasync(self._active)
        except OSError as error:
            os.ftruncate(self._active, self._offset)
            raise LogFull(f"the spool cannot be written: {error.strerror}", _RETRY_AFTER_S) from error
        if written < length:
            os.ftruncate(self._active, self._offset)
            raise LogFull("the spool's disk is full", _RETRY_AFTER_S)
        self._offset += length
        self._sizes[self._number] = self._offset
        self.bytes += length
        return Position(self._number, self._offset)

    def acknowledge(self, position: Position) -> None:
        """Everything up to `position` is with the broker; segments that hold nothing else are removed."""
        if position <= self._acknowledged:
            return
        for number in [n for n in self._sizes if n < position.segment]:
            self.bytes -= self._unread(number)
            self._remove(number)
        start = self._acknowledged.offset if self._acknowledged.segment == position.segment else 0
        self.bytes -= position.offset - start
        self._acknowledged = position
        packed = struct.pack("<QQ", *position)
        os.pwrite(self._marker, packed + struct.pack("<I", zlib.crc32(packed)), 0)

    def close(self) -> None:
        """Lets the folder go."""
        for descriptor in (self._active, self._marker, self._lock):
            if descriptor >= 0:
                os.close(descriptor)

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:016d}.log"

    def _numbers(self) -> list[int]:
        return [int(path.stem) for path in self._folder.glob("*.log")]

    def _unread(self, number: int) -> int:
        """Bytes of a segment that are not acknowledged."""
        if number < self._acknowledged.segment:
            return 0
        return self._sizes[number] - (self._acknowledged.offset if number == self._acknowledged.segment else 0)

    def _remove(self, number: int) -> None:
        del self._sizes[number]
        self._path(number).unlink(missing_ok=True)

    def _roll(self) -> None:
        if self._active >= 0:
            os.close(self._active)
            self._number += 1
        self._active = os.open(self._path(self._number), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
        self._offset = 0

    def _read_marker(self) -> Position:
        data = os.pread(self._marker, _POSITION.size, 0)
        if len(data) < _POSITION.size:
            return Position(0, 0)
        segment, offset, crc = _POSITION.unpack(data)
        if zlib.crc32(data[: _POSITION.size - 4]) != crc:
            _logger.warning("the spool's marker is damaged: everything that is kept is sent again")
            return Position(0, 0)
        return Position(segment, offset)
