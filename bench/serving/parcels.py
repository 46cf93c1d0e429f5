"""The benchmark's requests, features and model: who is asked about, and what is known of them."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from driftloop.contracts import Message, derive_id, to_value, to_wire
from driftloop.contracts.features.v1.features_pb2 import FeatureUpdate
from driftloop.contracts.serving.v1.serving_pb2 import PredictBatchRequest, PredictRequest
from driftloop.usecase import HOUR_US, FieldValue, UseCase

USE_CASES = Path(__file__).parent / "usecases"
NAME = "parcels"
SPREAD = 2
CLOCK_US = 1_000 * HOUR_US
_DEPOTS, _COURIERS, _PAIRS = 500, 1_000, 5_000
_EPOCH_HOURS = 24


@dataclass(frozen=True)
class Shipment:
    """What is known of a parcel by who asks."""

    number: int
    depot: str
    courier: str
    weight: float
    due_us: int

    @property
    def hour(self) -> int:
        """Of the day, UTC."""
        return self.due_us // HOUR_US % _EPOCH_HOURS


def _pair(number: int) -> tuple[str, str]:
    draw = random.Random(number % _PAIRS)
    return f"depot-{draw.randrange(_DEPOTS)}", f"courier-{draw.randrange(_COURIERS)}"


def shipment(number: int) -> Shipment:
    """The shipment of a number: always the same."""
    draw = random.Random(number)
    depot, courier = _pair(draw.randrange(_PAIRS))
    return Shipment(number, depot, courier, draw.uniform(0.1, 900), CLOCK_US + draw.randrange(HOUR_US))


def keys_of(use_case: UseCase, of: Shipment) -> list[str]:
    """The key of each view, in declared order."""
    return [view.key({"depot": of.depot, "courier": of.courier}) or "" for view in use_case.views]


def predict_request(use_case: UseCase, run: str, number: int) -> PredictRequest:
    """Asks about one shipment, under an id of its own."""
    of = shipment(number)
    fields: dict[str, FieldValue] = {"depot": of.depot, "courier": of.courier, "weight": of.weight, "due": of.due_us}
    return PredictRequest(
        use_case=NAME, entity=f"p{number}", request_id=run, fields=to_wire(fields, use_case.request_fields)
    )


def requests(use_case: UseCase, run: str, count: int) -> list[bytes]:
    """So many calls of Predict."""
    return [predict_request(use_case, run, number).SerializeToString() for number in range(count)]


def batches(use_case: UseCase, run: str, count: int, size: int) -> list[bytes]:
    """Calls of PredictBatch or messages of PredictStream, `size` entities each."""
    return [
        PredictBatchRequest(
            requests=[predict_request(use_case, run, number) for number in range(first, min(first + size, count))]
        ).SerializeToString()
        for first in range(0, count, size)
    ]


def updates(use_case: UseCase) -> list[Message[FeatureUpdate]]:
    """The values of every feature entity that shipments refer to."""
    by_key: dict[str, Message[FeatureUpdate]] = {}
    for number in range(_PAIRS):
        depot, courier = _pair(number)
        for view in use_case.views:
            key = view.key({"depot": depot, "courier": courier}) or ""
            draw = random.Random(key)
            payload = FeatureUpdate(
                use_case=NAME,
                view=view.name,
                key=key,
                known_at_us=CLOCK_US - 1,
                event_time_us=CLOCK_US - 1,
                values=[to_value(draw.uniform(0, 60)) for _ in view.features],
                sequence=1,
            )
            by_key[key] = Message("features", key, payload, derive_id(key), "bench", CLOCK_US - 1, CLOCK_US - 1)
    return list(by_key.values())


def training_columns(rows: int, inputs: int) -> tuple[np.ndarray, np.ndarray]:
    """Numbers (rows, inputs) and labels that follow some of them."""
    draw = np.random.default_rng(1)
    numbers = draw.uniform(0, 60, size=(rows, inputs))
    chance = 1.0 / (1.0 + np.exp(-(numbers[:, 2] + numbers[:, 6] - 60.0) / 15.0))
    return numbers, (draw.random(rows) < chance).astype(np.float64)
