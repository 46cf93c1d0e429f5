"""Checkpoints of hearts: state and the offsets it reflects as one file, whole or not at all; never what the state means."""

from __future__ import annotations

import hashlib
import zlib
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


class CheckpointUnreadable(ArtifactError):
    """A checkpoint that is damaged or of an unknown version: stop; without it the state is built again from the topics."""


class CheckpointStore:
    """Checkpoints of one use case under `<use_case>/checkpoints/<heart>/<partition>.ckpt`.

    The file is: magic, format version, SHA-256 of the rest, then zlib over msgpack. Plain types only: None, bool, int, float,
    str, bytes, lists, tuples (read back as lists) and dicts.
    """

    def __init__(self, store: ArtifactStore, use_case: str) -> None:
        self._store = store
        self._use_case = use_case

    def path(self, heart: str, partition: int) -> str:
        """Where a heart's checkpoint lies in the artifact store."""
        return f"{self._use_case}/checkpoints/{heart}/{partition}.ckpt"

    @staticmethod
    def pack(state: dict[str, Any]) -> bytes:
        """The state as bytes at this moment: call it before the state can change, and `save_packed` whenever."""
        return bytes(msgpack.packb(state))

    def save_packed(self, heart: str, partition: int, packed: bytes) -> int:
        """Writes packed state, replacing the checkpoint before it; returns the bytes written. Blocks."""
        body = zlib.compress(packed, _LEVEL)
        header = _MAGIC + bytes([FORMAT_VERSION]) + hashlib.sha256(body).digest()
        self._store.put(self.path(heart, partition), header + body)
        return len(header) + len(body)

    def save(self, heart: str, partition: int, state: dict[str, Any]) -> int:
        """Packs and writes state; returns the bytes written. Blocks."""
        return self.save_packed(heart, partition, self.pack(state))

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
        state: dict[str, Any] = msgpack.unpackb(packed, strict_map_key=False)
        return state
