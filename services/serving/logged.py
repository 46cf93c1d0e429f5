"""What is logged of an answer: its payload, serialised once, and the envelope around it; sends nothing."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from driftloop.contracts import MAX_CAUSES, Encoded, Envelope
from driftloop.contracts.serving.v1.serving_pb2 import Prediction

_FULL_NAME = Prediction.DESCRIPTOR.full_name


class Logged(NamedTuple):
    """One answer in bytes: a serialised `Prediction`, what of it the record's envelope repeats, and the trace it belongs to.

    causes: ids with commas between them.
    """

    id: bytes
    entity: bytes
    causes: bytes
    payload: bytes
    traceparent: bytes = b""


def logged_of(prediction: Prediction, traceparent: str = "") -> Logged:
    """A prediction as it is logged."""
    return Logged(
        prediction.id.encode(),
        prediction.entity.encode(),
        ",".join(causes_of(prediction)).encode(),
        prediction.SerializeToString(),
        traceparent.encode(),
    )


def causes_of(prediction: Prediction) -> list[str]:
    """What caused a prediction: the feature updates that its vector read."""
    return [reading.update_id for reading in prediction.vector.readings if reading.found][:MAX_CAUSES]


def known_at_us(as_of_us: int) -> int:
    """When an answer given as of a clock is known: just after it.

    The replica's watermark of that very time is written before the answers given at it, and promises that nothing known at
    or before it follows.
    """
    return as_of_us + 1


def source_of(replica: str) -> str:
    """The source of what a replica writes."""
    return f"driftloop/serving/{replica}"


def encode_logged(answers: Sequence[Logged], as_of_us: int, replica: str) -> list[Encoded]:
    """The records on `predictions` of answers given as of one clock."""
    return _envelope(replica, as_of_us).encode_all(answers)


@lru_cache(maxsize=16)
def _envelope(replica: str, as_of_us: int) -> Envelope:
    return Envelope(_FULL_NAME, source_of(replica), as_of_us, known_at_us(as_of_us))
