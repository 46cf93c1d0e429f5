"""Typed clients for producers of events and callers of predictions; every call is bounded and safe to retry.

Events carry the producer's id and predictions the caller's request id, so a call that was cut off is simply made again: the
clients do so by themselves within each call's deadline, also across a restart of the server.
"""

from driftloop.client._channel import ClientSettings
from driftloop.client._errors import (
    CallFailed,
    ClientError,
    ClockBehind,
    ClockIsLive,
    EventRejected,
    IdTaken,
    InvalidCall,
    NoModel,
    Unreachable,
)
from driftloop.client._events import EventLike, EventOutcome, EventsClient, NewEvent
from driftloop.client._predictions import (
    Freshness,
    PendingPrediction,
    Prediction,
    PredictionRequest,
    PredictionsClient,
    ReachedClock,
)
from driftloop.client._violations import Violation
from driftloop.client._wire import PlainValue

__all__ = [
    "CallFailed",
    "ClientError",
    "ClientSettings",
    "ClockBehind",
    "ClockIsLive",
    "EventLike",
    "EventOutcome",
    "EventRejected",
    "EventsClient",
    "Freshness",
    "IdTaken",
    "InvalidCall",
    "NewEvent",
    "NoModel",
    "PendingPrediction",
    "PlainValue",
    "Prediction",
    "PredictionRequest",
    "PredictionsClient",
    "ReachedClock",
    "Unreachable",
    "Violation",
]
