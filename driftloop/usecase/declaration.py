"""A use case: everything that its author says, and what follows from it; no I/O."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, get_args

from driftloop.usecase.durations import MINUTE_US, duration_us, floor_us
from driftloop.usecase.errors import DeclarationError, LabelRefused
from driftloop.usecase.features import Feature, Latest, Request, RequestTransform, Since, View, Window
from driftloop.usecase.losses import Task
from driftloop.usecase.policy import Policy
from driftloop.usecase.schema import Event, Field, Fields, FieldValue


@dataclass(frozen=True)
class PredictionTime:
    """When a prediction is asked: some time before a time field of the event that announces the entity."""

    field: str
    before_us: int

    def at_us(self, fields: Fields) -> int:
        """The declared prediction time in microseconds for an announcing event's fields."""
        return int(fields[self.field]) - self.before_us


def before(field: str, duration: str) -> PredictionTime:
    """`duration` before the time in `field`."""
    return PredictionTime(field, duration_us(duration))


@dataclass(frozen=True)
class Prediction:
    """What is predicted: entities announced by `on`, asked at `at`.

    `task`: binary, the probability that the label is true; multiclass, the probability of each of `classes`, which are all
    the texts that the label can be; regression, the number that the label will be. Raises DeclarationError if they disagree.
    `asked_by`: an event that asks for a prediction by itself, so that predictions flow with no caller; None: callers ask.
    """

    on: Event
    at: PredictionTime
    task: Task = "binary"
    classes: Sequence[str] = ()
    asked_by: Event | None = None

    def __post_init__(self) -> None:
        if self.task not in get_args(Task):
            raise DeclarationError(f"task is one of {', '.join(get_args(Task))}, not {self.task!r}")
        if isinstance(self.classes, str) or not all(isinstance(name, str) and name for name in self.classes):
            raise DeclarationError("classes are a list of texts that are not empty")
        object.__setattr__(self, "classes", tuple(self.classes))
        if self.task == "multiclass" and (len(self.classes) < 2 or len(set(self.classes)) != len(self.classes)):
            raise DeclarationError("task multiclass needs classes=[…]: at least two, each listed once")
        if self.task != "multiclass" and self.classes:
            raise DeclarationError(f"task {self.task} has no classes; leave classes out, or declare task='multiclass'")


@dataclass(frozen=True)
class Label:
    """Where the truth comes from: the event `on` and a function of its fields, `value`, which returns what the task predicts.

    Binary: a bool. Multiclass: one of the declared classes (declare a text field that holds it with `one_of`). Regression: a
    number.
    `never` lists the events after which no label can come. `matures_after` counts from the declared prediction time:
    what has no label by then is closed as `never`.
    """

    on: Event
    value: Callable[[Mapping[str, Any]], bool | float | str]
    never: Sequence[Event] = ()
    matures_after: str = "24h"

    @property
    def matures_after_us(self) -> int:
        """Maturity in microseconds after the declared prediction time."""
        return duration_us(self.matures_after)


@dataclass(frozen=True)
class UseCase:
    """One prediction problem on a stream of events; see `usecases/flights` for a complete one.

    `clock`: "live" (wall time drives the use-case clock in quiet times) or "replay" (only `Advance` moves it).
    `retention` bounds how far behind the clock an accepted event may lie, `future` how far ahead.
    Raises DeclarationError where the declaration contradicts itself.
    """

    name: str
    events: Sequence[Event]
    predict: Prediction
    features: Sequence[Request | View]
    label: Label
    slices: Sequence[str] = ()
    policy: Policy = field(default_factory=Policy)
    clock: Literal["live", "replay"] = "live"
    step_us: int = 15 * MINUTE_US
    retention: str = "90d"
    future: str = "5m"
    schema_version: int = 1

    def __post_init__(self) -> None:
        if not self.name.replace("_", "").replace("-", "").isalnum():
            raise DeclarationError(f"use case name {self.name!r}: letters, digits, '-' and '_' only")
        names = [event.name for event in self.events]
        if len(set(names)) != len(names):
            raise DeclarationError(f"{self.name}: two events have the same name")
        asking = [] if self.predict.asked_by is None else [self.predict.asked_by]
        used = [self.predict.on, self.label.on, *self.label.never, *(view.event for view in self.views), *asking]
        for event in used:
            if event.name not in names:
                raise DeclarationError(f"{self.name}: event {event.name} is used but not listed in events=[…]")
        announced = self.predict.on.fields
        if self.predict.at.field not in announced or announced[self.predict.at.field].kind != "time":
            raise DeclarationError(
                f"{self.name}: prediction time {self.predict.at.field!r} is no time field of {self.predict.on.name}"
            )
        if announced[self.predict.at.field].optional:
            raise DeclarationError(
                f"{self.name}: prediction time {self.predict.at.field!r} may be left out of {self.predict.on.name}: nobody "
                "would know when to ask"
            )
        for name in self.request_fields:
            if name not in announced:
                raise DeclarationError(
                    f"{self.name}: the request needs {name!r}, which {self.predict.on.name} does not carry"
                )
        for event in asking:
            lacking = [name for name in self.request_fields if name not in event.fields]
            if lacking or event.entity != self.predict.on.entity:
                what = f"carry {', '.join(lacking)}" if lacking else f"tell of a {self.predict.on.entity}"
                raise DeclarationError(f"{self.name}: {event.name} asks for predictions and does not {what}")
        for name in self.slices:
            if name not in announced or announced[name].kind != "text":
                raise DeclarationError(f"{self.name}: slice {name!r} is no str field of {self.predict.on.name}")
        if len(set(view.name for view in self.views)) != len(self.views):
            raise DeclarationError(f"{self.name}: two feature views have the same event, field and key; merge them")
        if len(set(feature.name for feature in self.inputs)) != len(self.inputs):
            raise DeclarationError(f"{self.name}: two features have the same name")
        duration_us(self.retention)
        duration_us(self.future)

    @cached_property
    def event_types(self) -> Mapping[str, Event]:
        """Events by name."""
        return {event.name: event for event in self.events}

    @cached_property
    def views(self) -> tuple[View, ...]:
        """Feature views in declared order."""
        return tuple(item for item in self.features if isinstance(item, Window | Latest | Since))

    @cached_property
    def request_transforms(self) -> tuple[RequestTransform, ...]:
        """Request features in declared order; a plain field is the identity."""
        found: list[RequestTransform] = []
        for item in self.features:
            if isinstance(item, Request):
                for feature in item.features:
                    found.append(
                        feature if isinstance(feature, RequestTransform) else RequestTransform(feature, feature, _same)
                    )
        return tuple(found)

    @cached_property
    def request_fields(self) -> Mapping[str, Field]:
        """The fields a predict request carries: those of request features and the join keys of every view."""
        names = [t.of for t in self.request_transforms] + [name for view in self.views for name in view.by]
        announced = self.predict.on.fields
        missing = [name for name in names if name not in announced]
        if missing:
            raise DeclarationError(
                f"{self.name}: the request needs {missing}, which {self.predict.on.name} does not carry"
            )
        return {name: announced[name] for name in dict.fromkeys(names)}

    @cached_property
    def request_inputs(self) -> tuple[Feature, ...]:
        """The request features as model inputs, in declared order."""
        inputs = []
        for transform in self.request_transforms:
            numeric = transform.compute is not _same or self.predict.on.fields[transform.of].is_numeric
            inputs.append(Feature(transform.name, numeric, float("nan") if numeric else ""))
        return tuple(inputs)

    @cached_property
    def inputs(self) -> tuple[Feature, ...]:
        """All model inputs: request features, then each view's, in declared order."""
        return (*self.request_inputs, *(feature for view in self.views for feature in view.features))

    @cached_property
    def numeric_inputs(self) -> tuple[str, ...]:
        """Names of the numeric inputs, in the order of `Vector.numbers`."""
        return tuple(feature.name for feature in self.inputs if feature.numeric)

    @cached_property
    def text_inputs(self) -> tuple[str, ...]:
        """Names of the categorical inputs, in the order of `Vector.texts`."""
        return tuple(feature.name for feature in self.inputs if not feature.numeric)

    @cached_property
    def inputs_digest(self) -> str:
        """Digest of the model inputs' names, kinds and order: vectors and models must agree on it."""
        listing = json.dumps([[feature.name, feature.numeric] for feature in self.inputs])
        return hashlib.blake2b(listing.encode(), digest_size=8).hexdigest()

    @cached_property
    def _class_codes(self) -> Mapping[str, int]:
        return {name: code for code, name in enumerate(self.predict.classes)}

    def label_of(self, fields: Mapping[str, Any]) -> float:
        """The label of a labelling event's fields as a number: 0 or 1; the place in `classes`; the number itself.

        Raises LabelRefused where the declared function gives nothing that the task knows, or fails; KeyError where it asks for
        an optional field that the event leaves out. Either way there is no label.
        """
        task = self.predict.task
        try:
            found = self.label.value(fields)
        except KeyError:
            raise
        except Exception as error:  # an author's function: it must stop no service
            raise LabelRefused(f"the label cannot be told: {type(error).__name__}: {error}") from error
        if task == "multiclass":
            code = self._class_codes.get(found) if isinstance(found, str) else None
            if code is None:
                raise LabelRefused(f"the label is {found!r}, none of the declared classes")
            return float(code)
        if isinstance(found, str) or found is None:
            raise LabelRefused(
                f"the label is {found!r}, task {task} needs a {'bool' if task == 'binary' else 'number'}"
            )
        try:
            number = float(found)
        except (TypeError, ValueError, OverflowError) as error:
            raise LabelRefused(f"the label is {type(found).__name__}, no number: {error}") from error
        if task == "binary" and number not in (0.0, 1.0):
            raise LabelRefused(f"the label is {found!r}, neither true nor false")
        if not math.isfinite(number):
            raise LabelRefused(f"the label is {found!r}, no finite number")
        return number

    def prediction_time_us(self, fields: Fields) -> int:
        """The declared prediction time of an announced entity, floored to the step (what serving's clock can show)."""
        return floor_us(self.predict.at.at_us(fields), self.step_us)

    def request_of(self, fields: Fields) -> dict[str, FieldValue]:
        """The request's fields taken from the announcing event's."""
        return {name: fields[name] for name in self.request_fields if name in fields}

    def request_values(self, fields: Fields) -> list[float | str]:
        """Values of `request_inputs` for a request's fields; an absent field gives its stated default."""
        values: list[float | str] = []
        for transform, feature in zip(self.request_transforms, self.request_inputs, strict=True):
            raw = fields.get(transform.of)
            if raw is None:
                values.append(feature.default)
            else:
                value = transform.compute(raw)
                values.append(float(value) if feature.numeric else str(value))
        return values


def _same(value: FieldValue) -> FieldValue:
    return value
