"""Ids derived from causes: the same cause gives the same id, on every machine and after every restart."""

from __future__ import annotations

import hashlib


def derive_id(*parts: str | int) -> str:
    """32 hex characters: BLAKE2b of the parts, each with its length, so that ("ab", "c") differs from ("a", "bc")."""
    encoded = [str(part).encode() for part in parts]
    return hashlib.blake2b(b"".join([b"%d:%b" % (len(data), data) for data in encoded]), digest_size=16).hexdigest()


def prediction_id(use_case: str, entity: str, request_id: str) -> str:
    """A prediction's id: a retry carries the same request id and is the same prediction."""
    return derive_id("prediction", use_case, entity, request_id)
