"""The declaration of a use case: what its author writes, and what follows from it; no I/O but finding its files."""

from driftloop.usecase.declaration import Label, Prediction, PredictionTime, UseCase, before
from driftloop.usecase.discovery import load_replay, load_use_case
from driftloop.usecase.durations import DAY_US, HOUR_US, MINUTE_US, SECOND_US, duration_us, floor_us
from driftloop.usecase.errors import DeclarationError, LabelRefused, UnknownUseCase, UseCaseError
from driftloop.usecase.features import (
    Feature,
    Latest,
    Request,
    RequestTransform,
    View,
    Window,
    entity_key,
    hour_of,
    weekday_of,
)
from driftloop.usecase.losses import (
    LOSS_METRICS,
    LOSS_NAMES,
    LOSS_UNITS,
    MAX_LOSS,
    SUM_TOLERANCE,
    Answer,
    Task,
    label_scale,
    max_loss,
    row_loss,
)
from driftloop.usecase.policy import Policy
from driftloop.usecase.replay import ReplayEvent, ReplayRequest, ReplayStep, ReplayStretch, replay_steps
from driftloop.usecase.schema import Arrivals, Consequence, Event, Expectation, Field, Fields, FieldValue

__all__ = [
    "DAY_US",
    "HOUR_US",
    "LOSS_METRICS",
    "LOSS_NAMES",
    "LOSS_UNITS",
    "MAX_LOSS",
    "MINUTE_US",
    "SECOND_US",
    "SUM_TOLERANCE",
    "Answer",
    "Arrivals",
    "Consequence",
    "DeclarationError",
    "Event",
    "Expectation",
    "Feature",
    "Field",
    "FieldValue",
    "Fields",
    "Label",
    "LabelRefused",
    "Latest",
    "Policy",
    "Prediction",
    "PredictionTime",
    "ReplayEvent",
    "ReplayRequest",
    "ReplayStep",
    "ReplayStretch",
    "Request",
    "RequestTransform",
    "Task",
    "UnknownUseCase",
    "UseCase",
    "UseCaseError",
    "View",
    "Window",
    "before",
    "duration_us",
    "entity_key",
    "floor_us",
    "hour_of",
    "label_scale",
    "load_replay",
    "load_use_case",
    "max_loss",
    "replay_steps",
    "row_loss",
    "weekday_of",
]
