"""When rows are asked and their labels known, and the durations that follow from how often rows come; no I/O."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import pandas as pd
from pandas.tseries.api import guess_datetime_format

from driftloop.tables.errors import UnfitTimes
from driftloop.tables.reading import Mask, Table, Times
from driftloop.usecase import DAY_US, HOUR_US, MINUTE_US, SECOND_US, Policy

EPOCH_2020_US = 1_577_836_800_000_000
ROWS_APART_US = MINUTE_US  # where there is no time column
# Numbers that can be times since 1970, by their size: (least, most, microseconds per unit, unit).
EPOCH_UNITS = (
    (1e8, 1e10, 1_000_000.0, "s"),
    (1e11, 1e13, 1_000.0, "ms"),
    (1e14, 1e16, 1.0, "µs"),
    (1e17, 1e19, 1e-3, "ns"),
)
RESOLUTIONS_US = (DAY_US, HOUR_US, MINUTE_US, SECOND_US, 1_000)
# What a step may last: people read "15m", not "13m", and steps meet the hours and days.
STEPS_US = tuple(
    unit * count
    for unit, counts in (
        (SECOND_US, (1, 2, 5, 10, 15, 20, 30)),
        (MINUTE_US, (1, 2, 5, 10, 15, 20, 30)),
        (HOUR_US, (1, 2, 3, 4, 6, 8, 12)),
        (DAY_US, (1, 2, 5, 10, 20, 50, 100, 200, 500)),
    )
    for count in counts
)
STEP_ROWS = 10
COHORT_STEPS = 4
COOLDOWN_ROWS = 100
BUDGET_PER_ROW = 10 / 1_000
QUIET_MOST = 5  # how many times the median gap the mean gap may be: quiet stretches cost steps in which nothing happens
LATE_TAIL = 10  # a label that takes so many times as long as 99 % of them is not waited for
BOOTSTRAP_SHARE = 10  # the first model is asked for at a tenth of the table
BOOTSTRAP_ROWS_MIN = 300  # of which a fifth is held out to judge it


@dataclass(frozen=True)
class Clock:
    """The rows' times, all in microseconds UTC, shape (rows,).

    at_us           when each row is asked, strictly ascending
    known_at_us     when its label is known, after at_us; -1: never
    is_recorded     whether the table says when (otherwise one row a minute)
    resolution_us   what the recorded times are multiples of
    spread          whether rows of one time were moved apart
    """

    at_us: Times
    known_at_us: Times
    is_recorded: bool
    resolution_us: int
    spread: bool

    @property
    def gap_us(self) -> int:
        """The typical time between two rows: the median, but where rows come in bursts no less than a fifth of the mean."""
        gaps = np.diff(self.at_us)
        return max(1, int(np.median(gaps)), int(gaps.mean() / QUIET_MOST))

    @property
    def span_us(self) -> int:
        """From the first row to the last."""
        return int(self.at_us[-1] - self.at_us[0])

    @property
    def delays_us(self) -> Times:
        """How long the labels took that became known."""
        known = self.known_at_us >= 0
        return self.known_at_us[known] - self.at_us[known]


@dataclass(frozen=True)
class Durations:
    """What the policy of a table is measured in. `step_us` in microseconds; the rest as a declaration writes it."""

    step_us: int
    cohort: str
    cooldown: str
    budget: str
    matures_after: str
    lateness: str
    bootstrap_rows: int


def clock_of(table: Table, time: str | None, label_time: str | None, label_delay: int, labelled: Mask) -> Clock:
    """When each row is asked and its label known. Raises UnfitTimes, with the row, if the columns contradict each other."""
    if label_time is not None and time is None:
        raise UnfitTimes(
            f"--label-time {label_time} needs --time: say which column tells when the row's prediction is asked"
        )
    rows = table.rows
    if time is None:
        at_us = EPOCH_2020_US + np.arange(rows, dtype=np.int64) * ROWS_APART_US
        raw_us, resolution_us = at_us, ROWS_APART_US
    else:
        raw_us, absent = read_times(table, time)
        _complete(time, absent)
        _in_range(time, raw_us)
        _sorted(table, time, raw_us)
        resolution_us = _resolution_us(raw_us)
        at_us = _apart(raw_us, resolution_us)
    if label_time is None:
        known_at_us = _after_rows(at_us, label_delay)
    else:
        known_at_us = _label_times(table, label_time, raw_us, at_us, labelled)
    return Clock(at_us, known_at_us, time is not None, resolution_us, bool(np.any(at_us != raw_us)))


def read_times(table: Table, name: str) -> tuple[Times, Mask]:
    """A column as microseconds UTC, and where it has no value: timestamps, ISO 8601 texts, or numbers since 1970.

    Raises UnfitTimes if it holds something else.
    """
    absent = table.missing(name)
    kind = table.kind(name)
    if kind == "time":
        return _micros(table.arrow.column(name).to_pandas()), absent
    if kind == "text":
        texts = pd.Series(table.texts(name), dtype=object)
        parsed = pd.to_datetime(texts, utc=True, errors="coerce", format="ISO8601")
        if parsed.isna().sum() > absent.sum():
            parsed = _as_the_first(texts, parsed)
        wrong = np.flatnonzero(parsed.isna().to_numpy() & ~absent)
        if len(wrong):
            raise UnfitTimes(
                f"column {name!r} has times that cannot be read, the first in row {wrong[0] + 1}: "
                f"{texts.iloc[wrong[0]]!r}; write all of them as 2024-05-31T14:00:00Z (ISO 8601)"
            )
        return _micros(parsed), absent
    if kind == "number":
        numbers = table.numbers(name)
        middle = float(np.nanmedian(np.abs(numbers)))
        for least, most, unit_us, _ in EPOCH_UNITS:
            if least <= middle < most and np.all(np.isfinite(numbers[~absent])):
                return np.rint(np.where(absent, 0.0, numbers) * unit_us).astype(np.int64), absent
        raise UnfitTimes(
            f"column {name!r} holds numbers around {middle:g}, which are no times since 1970 in s, ms, µs or ns: write "
            "ISO 8601, or leave the option out and rows are taken in the file's order, one a minute"
        )
    raise UnfitTimes(
        f"column {name!r} holds no times that can be read: write 2024-05-31T14:00:00Z (ISO 8601) or seconds since 1970"
    )


def durations_of(clock: Clock, labelled_rows: int) -> Durations:
    """The policy's durations for rows that come as these do."""
    gap_us = clock.gap_us
    step_us = next((step for step in STEPS_US if step >= 0.75 * STEP_ROWS * gap_us), STEPS_US[-1])
    delays_us = clock.delays_us
    slowest_us = int(delays_us.max()) if len(delays_us) else gap_us
    usual_us = int(np.quantile(delays_us, 0.99)) if len(delays_us) else gap_us
    return Durations(
        step_us=step_us,
        cohort=duration(COHORT_STEPS * step_us),
        cooldown=duration(max(step_us, COOLDOWN_ROWS * gap_us)),
        budget=_budget(gap_us),
        # Maturity counts from the beginning of the step in which a row is asked.
        matures_after=duration(step_us + min(slowest_us, LATE_TAIL * usual_us)),
        lateness=Policy().lateness if 2 * step_us <= DAY_US else duration(2 * step_us),
        bootstrap_rows=min(Policy().bootstrap_rows, max(BOOTSTRAP_ROWS_MIN, labelled_rows // BOOTSTRAP_SHARE)),
    )


def duration(us: float) -> str:
    """A duration of at least so many microseconds as people write it, rounded up to about two figures."""
    for unit_us, letter in ((DAY_US, "d"), (HOUR_US, "h"), (MINUTE_US, "m")):
        if (us % unit_us == 0 and us >= unit_us) or us >= 10 * unit_us:
            return f"{-int(-us // unit_us)}{letter}"
    return f"{max(1, -int(-us // SECOND_US))}s"


def words(us: int) -> str:
    """A time as a person reads it."""
    return datetime.fromtimestamp(us / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _as_the_first(texts: pd.Series, otherwise: pd.Series) -> pd.Series:
    """Parsed in the format of the first text, if that reads more of them."""
    style = guess_datetime_format(str(texts.dropna().iloc[0]))
    if style is None:
        return otherwise
    parsed = pd.to_datetime(texts, utc=True, errors="coerce", format=style)
    return parsed if parsed.notna().sum() > otherwise.notna().sum() else otherwise


def _micros(times: pd.Series) -> Times:
    naive = times.dt.tz_convert("UTC").dt.tz_localize(None)
    micros = naive.to_numpy(dtype="datetime64[us]").astype(np.int64)
    return np.where(naive.isna().to_numpy(), 0, micros)


def _complete(name: str, absent: Mask) -> None:
    if absent.any():
        row = int(np.flatnonzero(absent)[0]) + 1
        raise UnfitTimes(
            f"{int(absent.sum()):,} rows have no time in {name!r}, the first is row {row}: remove them or fill it in"
        )


def _in_range(name: str, at_us: Times) -> None:
    if at_us.min() <= 0 or at_us.max() >= 253_402_300_799_999_999:
        raise UnfitTimes(
            f"column {name!r} has times from {words(max(int(at_us.min()), -62_135_596_800_000_000))} on: "
            "only those after 1970-01-01 and before the year 10000 can be replayed; shift them"
        )


def _sorted(table: Table, name: str, at_us: Times) -> None:
    back = np.flatnonzero(np.diff(at_us) < 0)
    if not len(back):
        return
    row = int(back[0])
    if np.all(np.diff(at_us) <= 0):
        how = "the newest row comes first"
    else:
        how = (
            f"{len(back):,} rows are earlier than the row before them, the first is row {row + 2} "
            f"({words(int(at_us[row + 1]))} after {words(int(at_us[row]))})"
        )
    raise UnfitTimes(
        f"{table.source} is not sorted by time {name!r}: {how}; sort the rows by that column, oldest first"
    )


def _resolution_us(at_us: Times) -> int:
    return next((unit for unit in RESOLUTIONS_US if not np.any(at_us % unit)), 1)


def _apart(at_us: Times, resolution_us: int) -> Times:
    """Rows of one time spread evenly over what it can stand for: up to the next one, and within its hour, minute or second.

    A date stands for all time up to the next date, since days of one table are often those of a week or a month.
    """
    starts = np.flatnonzero(np.diff(at_us, prepend=at_us[0] - 1))
    sizes = np.diff(starts, append=len(at_us))
    if np.all(sizes == 1):
        return at_us
    firsts = at_us[starts]
    gaps = np.diff(firsts)
    room = np.append(gaps, int(np.median(gaps)) if len(gaps) else ROWS_APART_US * sizes[-1])
    if resolution_us < DAY_US and len(gaps):
        room = np.minimum(room, resolution_us)
    place = np.arange(len(at_us)) - np.repeat(starts, sizes)
    spread = at_us + (np.repeat(room, sizes) * place) // np.repeat(sizes, sizes)
    # Two microseconds between any two, so that a label fits between a row and the next one.
    twice = 2 * np.arange(len(at_us), dtype=np.int64)
    return np.maximum.accumulate(spread - twice) + twice


def _after_rows(at_us: Times, rows: int) -> Times:
    """Just before the row that comes `rows` later; after the last one as if rows went on coming."""
    gap_us = max(2, int(np.median(np.diff(at_us))))
    tail = at_us[-1] + gap_us * np.arange(1, rows + 1, dtype=np.int64)
    return np.concatenate([at_us, tail])[rows:][: len(at_us)] - 1


def _label_times(table: Table, name: str, raw_us: Times, at_us: Times, labelled: Mask) -> Times:
    if np.all(table.missing(name) | ~labelled):
        raise UnfitTimes(f"no labelled row has a label time in {name!r}: give another column, or --label-delay")
    label_us, absent = read_times(table, name)
    present = ~absent
    coarse = not np.any(label_us[present] % DAY_US)
    # The same day is not before: a date stands for its whole day.
    early = present & (label_us + (DAY_US - 1 if coarse else 0) < raw_us)
    if early.any():
        row = int(np.flatnonzero(early)[0])
        raise UnfitTimes(
            f"{int(early.sum()):,} rows have their label before their prediction, the first is row {row + 1}: label at "
            f"{words(int(label_us[row]))}, prediction at {words(int(raw_us[row]))}; correct the times, or give another "
            "column"
        )
    known_us = label_us + (DAY_US - 1 if coarse else 0)
    return np.where(absent, -1, np.maximum(known_us, at_us + 1))


def _budget(gap_us: int) -> str:
    for period, period_us in (("hour", HOUR_US), ("day", DAY_US), ("week", 7 * DAY_US)):
        retrains = BUDGET_PER_ROW * period_us / gap_us
        if retrains >= 4 or period == "week":
            count = max(1, round(retrains))
            return f"{count} retrain{'s' if count > 1 else ''}/{period}"
    raise AssertionError("the week ends the search")


def useful_hours(at_us: Times, absent: Mask) -> bool:
    """Whether a time column tells hours of the day apart."""
    present = at_us[~absent]
    return bool(len(present)) and bool(np.any(present % DAY_US)) and len(np.unique(present // HOUR_US % 24)) > 1


def useful_weekdays(at_us: Times, absent: Mask) -> bool:
    """Whether a time column tells days of the week apart, and shows each more than once."""
    days = at_us[~absent] // DAY_US
    return bool(len(days)) and len(np.unique(days % 7)) > 1 and int(days.max() - days.min()) >= 14
