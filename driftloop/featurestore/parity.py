"""Compares the values that were served with those that the offline join gives for the same time, and names each difference.

A served value differs from the joined one because serving had not seen the newest update yet (`not yet visible`), because the past
was computed anew since (`correction`), in its last digits (`rounding`), or because inputs are declared or computed in another way
than when it was served (`code`). What none of these explains is `unexplained`: a fault.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from driftloop.contracts.serving.v1.serving_pb2 import Prediction, Reading
from driftloop.usecase import FieldValue, UseCase, View

Cause = Literal["not yet visible", "correction", "rounding", "code", "unexplained"]
CAUSES: tuple[Cause, ...] = ("not yet visible", "correction", "rounding", "code", "unexplained")
ROUNDING = 1e-9  # of the larger value: sums in another order differ by less, a wrong window by more
EXAMPLES_MAX = 20  # unexplained differences that are kept to be shown

Values = tuple[FieldValue | None, ...]


class Logged(NamedTuple):
    """An update of the offline log; values in the view's declared order, None: missing."""

    update_id: str
    known_at_us: int
    sequence: int
    values: Values


class Place(NamedTuple):
    """What is asked of the log: a view's key at a time."""

    view: str
    key: str
    at_us: int


@dataclass(frozen=True)
class Difference:
    """One value that was served otherwise than the log says."""

    prediction_id: str
    feature: str
    cause: Cause
    served: FieldValue
    joined: FieldValue
    served_update: str
    joined_update: str


@dataclass
class Parity:
    """What was compared and found; `mismatches` counts values by feature and cause."""

    predictions: int = 0
    values: int = 0
    mismatches: Counter[tuple[str, Cause]] = field(default_factory=Counter)
    examples: list[Difference] = field(default_factory=list)

    @property
    def unexplained(self) -> int:
        """Values that differ for no known reason."""
        return sum(count for (_, cause), count in self.mismatches.items() if cause == "unexplained")

    def add(self, difference: Difference) -> None:
        """Counts a difference."""
        self.mismatches[(difference.feature, difference.cause)] += 1
        if difference.cause == "unexplained" and len(self.examples) < EXAMPLES_MAX:
            self.examples.append(difference)


def place_of(prediction: Prediction, reading: Reading) -> Place:
    """Where the log is asked for what a reading says: at the prediction's time, or when what it saw became known, if later.

    Serving may apply an update before the watermark that completes its time.
    """
    return Place(reading.view, reading.key, max(prediction.as_of_us, reading.known_at_us if reading.found else 0))


def compare(
    use_case: UseCase,
    predictions: Iterable[Prediction],
    joined: Callable[[Sequence[Place]], Sequence[Logged | None]],
    by_id: Callable[[str, Sequence[str]], dict[str, Logged]],
) -> Parity:
    """Compares every feature of every view that the predictions read.

    `joined`: the newest update of each place that was known by its time, None: none. `by_id`: updates of a view by id, from the
    live log.
    """
    found = Parity()
    asked = list(predictions)
    comparable = [each for each in asked if each.vector.inputs_digest == use_case.inputs_digest]
    places = [place_of(each, reading) for each in comparable for reading in each.vector.readings]
    answers = iter(joined(places)) if places else iter(())
    differing: dict[str, list[tuple[Prediction, Reading, Logged | None, list[tuple[int, FieldValue, FieldValue]]]]] = {}
    views = {view.name: view for view in use_case.views}
    for prediction in asked:
        found.predictions += 1
        if prediction.vector.inputs_digest != use_case.inputs_digest:
            for name in (feature.name for view in use_case.views for feature in view.features):
                found.add(Difference(prediction.id, name, "code", "other inputs", "", "", ""))
            continue
        served = _served(use_case, prediction)
        for reading in prediction.vector.readings:
            view, logged = views[reading.view], next(answers)
            found.values += len(view.features)
            apart = _apart(view, served[view.name], logged)
            if apart:
                differing.setdefault(view.name, []).append((prediction, reading, logged, apart))
    for name, cases in differing.items():
        updates = by_id(name, sorted({reading.update_id for _, reading, _, _ in cases if reading.found}))
        for prediction, reading, logged, apart in cases:
            for position, was, is_now in apart:
                cause = _cause(views[name], position, reading, updates.get(reading.update_id), logged, was, is_now)
                joined_id = "" if logged is None else logged.update_id
                feature = views[name].features[position].name
                found.add(Difference(prediction.id, feature, cause, was, is_now, reading.update_id, joined_id))
    return found


def _served(use_case: UseCase, prediction: Prediction) -> dict[str, list[FieldValue]]:
    """The vector's values by view, in declared order."""
    numbers, texts = iter(prediction.vector.numbers), iter(prediction.vector.texts)
    for feature in use_case.request_inputs:
        next(numbers if feature.numeric else texts)
    return {
        view.name: [next(numbers) if feature.numeric else next(texts) for feature in view.features]
        for view in use_case.views
    }


def _apart(view: View, served: Sequence[FieldValue], logged: Logged | None) -> list[tuple[int, FieldValue, FieldValue]]:
    """Positions, served and logged values where these differ, the stated default standing in for what is missing."""
    values: Sequence[FieldValue | None] = (None,) * len(view.features) if logged is None else logged.values
    apart = []
    for position, (feature, was, value) in enumerate(zip(view.features, served, values, strict=True)):
        is_now: FieldValue = feature.default if value is None else value
        if not _same(was, is_now):
            apart.append((position, was, is_now))
    return apart


def _same(one: FieldValue, other: FieldValue) -> bool:
    return one == other or (one != one and other != other)


def _cause(
    view: View,
    position: int,
    reading: Reading,
    served_update: Logged | None,
    logged: Logged | None,
    was: FieldValue,
    is_now: FieldValue,
) -> Cause:
    if (
        not isinstance(was, str)
        and not isinstance(is_now, str)
        and abs(was - is_now) <= ROUNDING * max(abs(was), abs(is_now))
    ):
        return "rounding"
    if logged is not None and reading.found and logged.update_id == reading.update_id:
        return "code"
    if logged is not None and logged.sequence < 0:
        return "correction"  # a backfill's
    if not reading.found:
        return "unexplained" if logged is None else "not yet visible"
    if served_update is None:
        return "unexplained"
    default = view.features[position].default
    value = served_update.values[position]
    if not _same(was, default if value is None else value):
        return "code"
    if logged is None or (logged.known_at_us, logged.sequence) < (served_update.known_at_us, served_update.sequence):
        return "unexplained"
    return "correction" if logged.known_at_us == served_update.known_at_us else "not yet visible"
