"""Features as they are declared: request fields, windows and latest values; never their computation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from driftloop.usecase.durations import HOUR_US, duration_us
from driftloop.usecase.errors import DeclarationError
from driftloop.usecase.schema import Event, Fields, FieldValue

Stat = Literal["mean", "count", "sum", "min", "max", "variance", "std", "p50", "p90", "p99", "distinct"]
STATS: tuple[Stat, ...] = (
    "mean",
    "count",
    "sum",
    "min",
    "max",
    "variance",
    "std",
    "p50",
    "p90",
    "p99",
    "distinct",
)
WindowKind = Literal["sliding", "tumbling", "decayed"]
DECAYED_STATS: tuple[Stat, ...] = ("mean", "count", "sum")
HALF_LIVES = 10  # after which an event no longer counts in a decayed statistic: it would weigh a thousandth
SINCE_STEPS_MAX = 100  # values of one event, each an update of its entity
SKETCH_PANES_MAX = 100  # of a window: each costs memory, and all of them are merged when one leaves
_OF_NOTHING_ZERO = ("count", "sum", "distinct")
KEY_SEPARATOR = "|"


def entity_key(view: str, values: Sequence[str]) -> str:
    """The feature entity's key on the wire: the view's name and its key values, separated by '|' (escaped inside)."""
    return KEY_SEPARATOR.join([view, *map(_escaped, values)])


def _escaped(value: str) -> str:
    if KEY_SEPARATOR not in value and "\\" not in value:
        return value
    return value.replace("\\", "\\\\").replace(KEY_SEPARATOR, "\\" + KEY_SEPARATOR)


@dataclass(frozen=True)
class Feature:
    """One input of the model. `default` stands in where no value is known: NaN for numbers, "" for texts."""

    name: str
    numeric: bool
    default: float | str


@dataclass(frozen=True)
class RequestTransform:
    """A feature computed from one request field at request time, the same way online and offline."""

    name: str
    of: str
    compute: Callable[[FieldValue], FieldValue]


def hour_of(of: str) -> RequestTransform:
    """Hour of day, UTC, with its fraction (0 ≤ hour < 24), of a time field."""
    return RequestTransform(f"hour_of_{of}", of, lambda value: int(value) % (24 * HOUR_US) / HOUR_US)


def weekday_of(of: str) -> RequestTransform:
    """Day of week, UTC, of a time field: 0 is Monday."""
    return RequestTransform(f"weekday_of_{of}", of, lambda value: float((int(value) // (24 * HOUR_US) + 3) % 7))


class Request:
    """Features that come with the request: names of fields of the predicted event, or transforms of them."""

    def __init__(self, *features: str | RequestTransform) -> None:
        self.features = features


def _names(of: str | Sequence[str]) -> tuple[str, ...]:
    return (of,) if isinstance(of, str) else tuple(of)


@dataclass(frozen=True, init=False)
class View:
    """Features of one key, computed from one event type: what a record of the `features` topic holds.

    `name` is unique in the use case; `by` are the fields that form the key, in the event and in the request alike.
    """

    event: Event
    by: tuple[str, ...]
    of: tuple[str, ...]

    def __init__(self, event: Event, by: str | Sequence[str], of: str | Sequence[str]) -> None:
        object.__setattr__(self, "event", event)
        object.__setattr__(self, "by", _names(by))
        object.__setattr__(self, "of", _names(of))
        for name in (*self.by, *self.of):
            if name not in event.fields:
                raise DeclarationError(f"feature over {event.name}: it has no field {name!r}")
        for name in self.by:
            if event.fields[name].kind != "text":
                raise DeclarationError(f"feature over {event.name}: key field {name!r} must be a str")

    @cached_property
    def name(self) -> str:
        """Unique in the use case, made from event, field and key."""
        raise DeclarationError("a View is declared as Window or Latest")

    @cached_property
    def features(self) -> tuple[Feature, ...]:
        """The view's features in declared order."""
        raise DeclarationError("a View is declared as Window or Latest")

    @cached_property
    def ages_us(self) -> tuple[int, ...]:
        """Ages, ascending, in microseconds, at which an event stops counting in some of the values."""
        raise DeclarationError("a View is declared as Window or Latest")

    @property
    def held_us(self) -> int:
        """How old an event that counts in some value can be, in microseconds."""
        return self.ages_us[-1]

    def key_values(self, fields: Fields) -> tuple[str, ...] | None:
        """The key's values in these fields, or None where one is absent."""
        values = tuple(fields.get(name) for name in self.by)
        return None if any(v is None for v in values) else tuple(str(v) for v in values)

    def key(self, fields: Fields) -> str | None:
        """The feature entity's key for these fields, or None where a key field is absent."""
        key = self.name
        for name in self.by:
            value = fields.get(name)
            if value is None:
                return None
            key = f"{key}{KEY_SEPARATOR}{_escaped(str(value))}"
        return key


@dataclass(frozen=True)
class Sketch:
    """How a window is summed up where its events would not fit: in bounded memory, however many they are.

    pane            the window holds whole panes, cut at multiples of this from 1970 UTC: its far edge moves by a pane at a time,
                    so that it is up to one pane longer than its duration; every duration is a multiple, of at most 100
    quantile_error  how far a quantile may be from a value of its rank, as a share of that value (DDSketch)
    distinct_error  standard error of the count of different values, as a share of it (CPC)

    All other statistics stay exact.
    """

    pane: str
    quantile_error: float = 0.01
    distinct_error: float = 0.02

    def __post_init__(self) -> None:
        if not 0.001 <= self.quantile_error <= 0.1 or not 0.003 <= self.distinct_error <= 0.1:
            raise DeclarationError(
                f"sketch: quantile_error must be 0.001 to 0.1 and distinct_error 0.003 to 0.1, not {self.quantile_error} "
                f"and {self.distinct_error}"
            )

    @cached_property
    def pane_us(self) -> int:
        """How long a pane is, in microseconds."""
        return duration_us(self.pane)


@dataclass(frozen=True, init=False)
class Window(View):
    """Statistics of one field over windows of event time that end at the clock.

    `stats`: of mean, count, sum, min, max, variance (of a sample), std, p50, p90, p99 (nearest-rank quantiles), distinct (how
    many different values); of a text only count and distinct. `over`: durations, by `kind`:

    sliding   the last so long: (clock − duration, clock]
    tumbling  since the clock last passed a multiple of the duration, counted from 1970 UTC
    decayed   half-lives: an event weighs 2 ** (−age / half-life), age counted from the entity's newest event, so that values
              change with events only; mean, count and sum

    Values are exact, from the events that the window holds: at most 100,000 of a key, about 15 MB. `sketch`: for windows that
    hold more; sliding and tumbling ones.
    """

    over: tuple[str, ...]
    stats: tuple[Stat, ...]
    kind: WindowKind
    sketch: Sketch | None

    def __init__(
        self,
        event: Event,
        by: str | Sequence[str],
        of: str,
        over: Sequence[str],
        stats: Sequence[Stat],
        kind: WindowKind = "sliding",
        sketch: Sketch | None = None,
    ) -> None:
        super().__init__(event, by, of)
        object.__setattr__(self, "over", tuple(sorted(over, key=duration_us)))
        object.__setattr__(self, "stats", tuple(stats))
        object.__setattr__(self, "kind", kind)
        object.__setattr__(self, "sketch", sketch)
        allowed = (
            DECAYED_STATS if kind == "decayed" else STATS if event.fields[of].is_numeric else ("count", "distinct")
        )
        unknown = [stat for stat in stats if stat not in allowed]
        if unknown or not over or not stats:
            raise DeclarationError(
                f"{kind} window over {event.name}.{of}: give durations and stats of {', '.join(allowed)}; got {unknown}"
            )
        if not event.fields[of].is_numeric and kind == "decayed":
            raise DeclarationError(f"decayed window over {event.name}.{of}: the field must be a number")
        if sketch is not None:
            self._check(sketch)

    def _check(self, sketch: Sketch) -> None:
        if self.kind == "decayed":
            raise DeclarationError(f"decayed window over {self.event.name}.{self.of[0]}: it has nothing to sketch")
        for window in self.over:
            panes, rest = divmod(duration_us(window), sketch.pane_us)
            if rest or not 1 <= panes <= SKETCH_PANES_MAX:
                raise DeclarationError(
                    f"sketched window over {self.event.name}.{self.of[0]}: {window} must be a multiple of the pane "
                    f"{sketch.pane}, of at most {SKETCH_PANES_MAX}"
                )

    @cached_property
    def name(self) -> str:
        kind = "" if self.kind == "sliding" else f"_{self.kind}"
        kind += "" if self.sketch is None else "_sketched"
        return f"{self.event.name}_{self.of[0]}{kind}_by_{'_'.join(self.by)}"

    @cached_property
    def ages_us(self) -> tuple[int, ...]:
        """How long each window is, ascending, in microseconds; half-lives count ten times."""
        return tuple(duration_us(w) * (HALF_LIVES if self.kind == "decayed" else 1) for w in self.over)

    def edge_us(self, clock_us: Any, age_us: int) -> Any:
        """The newest event time that is before the window of an age at a clock; clocks may be a column."""
        if self.kind == "tumbling":
            return clock_us // age_us * age_us - 1
        if self.sketch is not None:
            return clock_us // self.sketch.pane_us * self.sketch.pane_us - age_us - 1
        return clock_us - age_us

    def leaves_us(self, event_time_us: Any, age_us: int) -> Any:
        """The clock at which an event leaves the window of an age; times may be a column."""
        if self.kind == "tumbling":
            return (event_time_us // age_us + 1) * age_us
        if self.sketch is not None:
            return (event_time_us // self.sketch.pane_us + 1) * self.sketch.pane_us + age_us
        return event_time_us + age_us

    @property
    def held_us(self) -> int:
        return self.ages_us[-1] + (0 if self.sketch is None else self.sketch.pane_us)

    @cached_property
    def features(self) -> tuple[Feature, ...]:
        return tuple(
            Feature(f"{self.name}__{stat}_{window}", True, 0.0 if stat in _OF_NOTHING_ZERO else float("nan"))
            for window in self.over
            for stat in self.stats
        )


@dataclass(frozen=True, init=False)
class Latest(View):
    """The newest values, by event time, of some fields; missing once they are older than `max_age`."""

    max_age: str

    def __init__(self, event: Event, by: str | Sequence[str], of: str | Sequence[str], max_age: str) -> None:
        super().__init__(event, by, of)
        object.__setattr__(self, "max_age", max_age)
        duration_us(max_age)

    @cached_property
    def name(self) -> str:
        return f"{self.event.name}_latest_by_{'_'.join(self.by)}"

    @cached_property
    def ages_us(self) -> tuple[int, ...]:
        """The age at which the values become missing, in microseconds."""
        return (duration_us(self.max_age),)

    @cached_property
    def features(self) -> tuple[Feature, ...]:
        fields = self.event.fields
        return tuple(
            Feature(f"{self.name}__{name}", fields[name].is_numeric, float("nan") if fields[name].is_numeric else "")
            for name in self.of
        )


@dataclass(frozen=True, init=False)
class Since(View):
    """Seconds since the newest event, by event time; missing once it is older than `max_age`.

    The value is rounded down to `every`: like any other it is emitted when it changes. `max_age` is a multiple of `every`, of at
    most 100.
    """

    every: str
    max_age: str

    def __init__(self, event: Event, by: str | Sequence[str], every: str, max_age: str) -> None:
        super().__init__(event, by, ())
        object.__setattr__(self, "every", every)
        object.__setattr__(self, "max_age", max_age)
        steps, rest = divmod(duration_us(max_age), self.every_us)
        if rest or not 1 <= steps <= SINCE_STEPS_MAX:
            raise DeclarationError(
                f"time since {event.name}: max_age {max_age} must be a multiple of every {every}, of at most "
                f"{SINCE_STEPS_MAX}"
            )

    @cached_property
    def every_us(self) -> int:
        """What values are rounded down to, in microseconds."""
        return duration_us(self.every)

    @cached_property
    def name(self) -> str:
        return f"{self.event.name}_since_by_{'_'.join(self.by)}"

    @cached_property
    def ages_us(self) -> tuple[int, ...]:
        """The ages at which the value rises, in microseconds; at the last it becomes missing."""
        return tuple(range(self.every_us, duration_us(self.max_age) + 1, self.every_us))

    @cached_property
    def features(self) -> tuple[Feature, ...]:
        return (Feature(f"{self.name}__seconds", True, float("nan")),)
