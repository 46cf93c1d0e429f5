"""Checkpoints of hearts: state and the offsets it reflects as one file, whole or not at all; never what the state means."""

from __future__ import annotations

import hashlib
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import msgpack

from driftloop.artifacts.errors import ArtifactError, ArtifactNotFound
from driftloop.artifacts.store import ArtifactStore

_MAGIC = b"driftloop-checkpoint"
FORMAT_VERSION = 1
_DIGEST_BYTES = 32
_HEADER_BYTES = len(_MAGIC) + 1 + _DIGEST_BYTES
# A heart's whole state has to fit in memory several times over while it is packed; far past this it should be spread.
MAX_CHECKPOINT_BYTES = 1 << 30
MAX_STATE_BYTES = 4 << 30
_LEVEL = 1  # higher levels cost many times the CPU and save a tenth
_SLICE_BYTES = 32_768  # of a long list, packed at once: some 3 ms for entities of features
_COMPRESSED_BYTES = 1 << 20  # at once, without Python's lock: each turn of the lock may be 5 ms away
_NESTED = 3  # lists and dicts down to here are read item by item, so that other threads get their turn


class CheckpointUnreadable(ArtifactError):
    """A checkpoint that is damaged or of an unknown version: stop; without it the state is built again from the topics."""


class Packing:
    """State on its way into a checkpoint, all of it of one moment.

    Wherever a dict or tuple of it holds an iterator, that is a long list, packed slice by slice by `pack_more`. Its items must
    be of the moment at which the iterator was made, whatever happens meanwhile. Everything else is packed at once.
    """

    def __init__(self, state: dict[str, Any]) -> None:
        self._packer = msgpack.Packer()
        self._pieces: list[list[bytes]] = [[]]  # a long list has one to itself
        self._long: deque[tuple[list[bytes], Iterator[Any]]] = deque()
        self._items, self._items_next = 0, 1  # of the list that is being packed
        self._add(state)

    def _add(self, value: Any) -> None:
        if isinstance(value, dict):
            self._pieces[-1].append(self._packer.pack_map_header(len(value)))
            for name, held in value.items():
                self._pieces[-1].append(self._packer.pack(name))
                self._add(held)
        elif isinstance(value, tuple):
            self._pieces[-1].append(self._packer.pack_array_header(len(value)))
            for held in value:
                self._add(held)
        elif isinstance(value, Iterator):
            items: list[bytes] = []
            self._long.append((items, value))
            self._pieces += [items, []]
        else:
            self._pieces[-1].append(self._packer.pack(value))

    def pack_more(self) -> bool:
        """Packs a slice; False once there was nothing left."""
        if not self._long:
            return False
        pieces, items = self._long[0]
        packed: list[Any] = list(islice(items, self._items_next))
        if packed:
            header = len(self._packer.pack_array_header(len(packed)))
            pieces.append(self._packer.pack(packed)[header:])
            self._items += len(packed)
            # Items may be of a hundred bytes or a million.
            fitting = self._items_next * _SLICE_BYTES // max(len(pieces[-1]), 1)
            self._items_next = max(1, min(fitting, 2 * self._items_next))
        else:
            pieces.insert(0, self._packer.pack_array_header(self._items))
            self._long.popleft()
            self._items, self._items_next = 0, 1
        return True

    def packed(self) -> list[bytes]:
        """The packed state in pieces, once nothing is left to be packed."""
        return [each for pieces in self._pieces for each in pieces]


class CheckpointStore:
    """Checkpoints of one use case under `<use_case>/checkpoints/<heart>/<partition>.ckpt`.

    The file is: magic, format version, SHA-256 of the rest, then zlib over msgpack. Plain types only: None, bool, int, float,
    str, bytes, lists, tuples (read back as lists) and dicts.
    """

    def __init__(self, store: ArtifactStore, use_case: str) -> None:
        self._store = store
        self._use_case = use_case

    def require(self) -> None:
        """StoreUnavailable where no checkpoint can be asked for. Blocks."""
        self._store.require()

    def path(self, heart: str, partition: int) -> str:
        """Where a heart's checkpoint lies in the artifact store."""
        return f"{self._use_case}/checkpoints/{heart}/{partition}.ckpt"

    def save_packed(self, heart: str, partition: int, packed: Sequence[bytes]) -> int:
        """Writes packed state, replacing the checkpoint before it; returns the bytes written. Blocks."""
        compressing, digest = zlib.compressobj(_LEVEL), hashlib.sha256()
        body: list[bytes] = []
        for piece in (*_joined(packed), None):
            body.append(compressing.flush() if piece is None else compressing.compress(piece))
            digest.update(body[-1])
        data = b"".join([_MAGIC, bytes([FORMAT_VERSION]), digest.digest(), *body])
        self._store.put(self.path(heart, partition), data)
        return len(data)

    def save(self, heart: str, partition: int, state: dict[str, Any]) -> int:
        """Packs and writes state; returns the bytes written. Blocks."""
        packing = Packing(state)
        while packing.pack_more():
            pass
        return self.save_packed(heart, partition, packing.packed())

    def load(self, heart: str, partition: int) -> dict[str, Any] | None:
        """The newest checkpoint's state, None if there is none; CheckpointUnreadable. Blocks."""
        path = self.path(heart, partition)
        try:
            data = self._store.get(path, MAX_CHECKPOINT_BYTES)
        except ArtifactNotFound:
            return None
        body = data[_HEADER_BYTES:]
        if len(data) < _HEADER_BYTES or not data.startswith(_MAGIC):
            raise CheckpointUnreadable(f"{path} is no checkpoint")
        if (version := data[len(_MAGIC)]) != FORMAT_VERSION:
            raise CheckpointUnreadable(f"{path} has format {version}, this release reads {FORMAT_VERSION}")
        if hashlib.sha256(body).digest() != data[_HEADER_BYTES - _DIGEST_BYTES : _HEADER_BYTES]:
            raise CheckpointUnreadable(
                f"{path} is damaged: its SHA-256 does not match; remove it to build the state from the topics"
            )
        unpacking = zlib.decompressobj()
        packed = unpacking.decompress(body, MAX_STATE_BYTES)
        if unpacking.unconsumed_tail:
            raise CheckpointUnreadable(f"{path} holds more than {MAX_STATE_BYTES} bytes of state")
        unpacker = msgpack.Unpacker(strict_map_key=False, max_buffer_size=MAX_STATE_BYTES)
        unpacker.feed(packed)
        state: dict[str, Any] = _unpacked(unpacker, packed, _NESTED)
        return state


def _joined(pieces: Sequence[bytes]) -> Iterator[bytes]:
    """The same bytes in pieces of about `_COMPRESSED_BYTES`."""
    gathered: list[bytes] = []
    size = 0
    for piece in pieces:
        gathered.append(piece)
        size += len(piece)
        if size >= _COMPRESSED_BYTES:
            yield b"".join(gathered)
            gathered, size = [], 0
    yield b"".join(gathered)


def _unpacked(unpacker: msgpack.Unpacker, packed: bytes, nested: int) -> Any:
    """The next value; what is nested no deeper than that is read item by item."""
    kind = packed[unpacker.tell()]
    if nested and (kind >> 4 == 0x8 or kind in (0xDE, 0xDF)):
        return {unpacker.unpack(): _unpacked(unpacker, packed, nested - 1) for _ in range(unpacker.read_map_header())}
    if nested and (kind >> 4 == 0x9 or kind in (0xDC, 0xDD)):
        return [_unpacked(unpacker, packed, nested - 1) for _ in range(unpacker.read_array_header())]
    return unpacker.unpack()
