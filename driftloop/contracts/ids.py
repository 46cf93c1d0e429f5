"""Ids derived from causes: the same cause gives the same id, on every machine and after every restart."""

from __future__ import annotations

import hashlib
from binascii import hexlify
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache

ID_CHARACTERS = 32


def derive_id(*parts: str | int) -> str:
    """32 hex characters: BLAKE2b of the parts, each with its length, so that ("ab", "c") differs from ("a", "bc")."""
    return hashlib.blake2b(_with_lengths(parts), digest_size=ID_CHARACTERS // 2).hexdigest()


def deriver(*first: str | int) -> Callable[..., str]:
    """A quicker `derive_id` for many ids that begin with the same parts.

    >>> deriver("feature", "flights")("EWR", 7) == derive_id("feature", "flights", "EWR", 7)
    True
    """
    begun = hashlib.blake2b(_with_lengths(first), digest_size=ID_CHARACTERS // 2)

    def derive(*rest: str | int) -> str:
        digest = begun.copy()
        digest.update(_with_lengths(rest))
        return digest.hexdigest()

    return derive


def _with_lengths(parts: Iterable[str | int]) -> bytes:
    encoded = [str(part).encode() for part in parts]
    return b"".join([b"%d:%b" % (len(data), data) for data in encoded])


def prediction_id(use_case: str, entity: str, request_id: str) -> str:
    """A prediction's id: a retry carries the same request id and is the same prediction."""
    return prediction_ids(use_case)([entity.encode()], [request_id.encode()])[0].decode()


@lru_cache(maxsize=64)
def prediction_ids(use_case: str) -> Callable[[Sequence[bytes], Sequence[bytes]], list[bytes]]:
    """A quicker `prediction_id` for many of one use case; takes entities and request ids in UTF-8, gives ids likewise."""
    begun = hashlib.blake2b(_with_lengths(("prediction", use_case)), digest_size=ID_CHARACTERS // 2).copy

    def made(entities: Sequence[bytes], request_ids: Sequence[bytes]) -> list[bytes]:
        found = []
        for entity, request_id in zip(entities, request_ids, strict=True):
            digest = begun()
            digest.update(b"%d:%b%d:%b" % (len(entity), entity, len(request_id), request_id))  # as `derive_id` does
            found.append(hexlify(digest.digest()))
        return found

    return made
