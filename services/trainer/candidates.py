"""Which ways to a model are tried for a request, on which rows, and which rows they are compared on; fits nothing.

A request that says when the world changed gets candidates for the rows since; any other gets one that adapts to the newest rows,
and a fresh one: on all rows of the regime where these have grown enough to teach more, on the newest where not.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from services.trainer.network import Pace

Places = npt.NDArray[np.int64]
BLOCK_ROWS = 40
GROWN = 1.5  # times the rows that the champion has learned from: fewer teach little more
WIDER = 1.5  # times the newest rows: fewer are nearly the same ones
EVIDENCE_ROWS_MAX = 2_000  # independent ones; more would only be kept from learning
HELD_OUT_SHARE, HELD_OUT_SHARE_MAX = 0.25, 0.4  # of the smallest candidate's rows


class Rates(Protocol):
    """The settings that candidates are made from; see `TrainingSettings`."""

    @property
    def rate(self) -> float: ...
    @property
    def tuning_rate(self) -> float: ...
    @property
    def heads_rate(self) -> float: ...
    @property
    def batch_rows(self) -> int: ...
    @property
    def tuning_batch_rows(self) -> int: ...
    @property
    def large_rows(self) -> int: ...
    @property
    def sampled_rows_max(self) -> int: ...


@dataclass(frozen=True)
class Asked:
    """What a request says about rows; 0: trainer's own choice.

    change         the rows since the request's time are few and new: something has just changed there
    recent_rows    newest rows to adapt on
    evidence_rows  newest rows that candidates are compared on, at the least
    block_rows     rows per independent piece of evidence
    rows_max       rows of all fits together
    """

    change: bool = False
    recent_rows: int = 0
    evidence_rows: int = 0
    block_rows: int = 0
    rows_max: int = 0


@dataclass(frozen=True)
class Candidate:
    """A way to a model: rows (ascending places), from scratch or from the champion; rows before `change` have other heads."""

    name: str
    rows: Places
    pace: Pace
    from_champion: bool = False
    change: int = 0


@dataclass(frozen=True)
class Setting:
    """What candidates are made for: `total` rows, of which those from `since` on are of the present regime.

    learned_rows: rows that the champion has learned from, 0 where there is none to go on from. newer_rows: the newest ones, that
    it has not learned from.
    """

    total: int
    since: int
    learned_rows: int
    seed: int
    rates: Rates
    newer_rows: int = 0

    def places(self, first: int) -> Places:
        """The rows from `first` on."""
        return np.arange(max(0, first), self.total, dtype=np.int64)

    def fresh(self, name: str, rows: Places, change: int = 0) -> Candidate:
        """From scratch."""
        rates = self.rates
        batch_rows = rates.batch_rows * _larger(len(rows), rates.large_rows)
        return Candidate(
            name, rows, Pace(rates.rate, rates.heads_rate if change else rates.rate, batch_rows), False, change
        )

    def tuned(self, rows: Places) -> Candidate:
        """The champion, trained further."""
        rates = self.rates
        return Candidate(
            "tuned", rows, Pace(rates.tuning_rate, rates.heads_rate, self._tuning_batch_rows(rows)), from_champion=True
        )

    def recalibrated(self, rows: Places) -> Candidate:
        """The champion with other gains and offsets."""
        pace = Pace(0.0, self.rates.heads_rate * 2, self._tuning_batch_rows(rows))
        return Candidate("recalibrated", rows, pace, from_champion=True)

    def _tuning_batch_rows(self, rows: Places) -> int:
        return self.rates.tuning_batch_rows * _larger(len(rows), self.rates.large_rows // 2)


def _larger(rows: int, large_rows: int) -> int:
    """By how many times a batch of so many rows is larger."""
    return 4 if rows >= 4 * large_rows else 2 if rows >= large_rows else 1


@dataclass(frozen=True)
class Plan:
    """What is tried for a request: candidates, all compared on the rows from the place `held` on.

    setting, asked: what they were made from, which is not what was given where rows since a change are of one class only.
    """

    candidates: list[Candidate]
    held: int
    setting: Setting
    asked: Asked


def planned(labels: npt.NDArray[np.float64], setting: Setting, asked: Asked) -> Plan:
    """The candidates whose rows hold more than one value of the label (n,): none where all of them are the same.

    Where rows since a change all are of one class, what is tried are the newest rows that are paid for, those from before it
    among them, and where these are of one class, too, a draw of all.
    """
    plan = _learnable(labels, setting, asked)
    if plan.candidates or not setting.since:
        return plan
    setting = replace(setting, since=0)
    for recent_rows in (asked.rows_max, setting.total):
        plan = _learnable(labels, setting, replace(asked, change=False, recent_rows=recent_rows))
        if plan.candidates:
            break
    return plan


def _learnable(labels: npt.NDArray[np.float64], setting: Setting, asked: Asked) -> Plan:
    found = candidates(setting, asked)
    held = setting.total - held_out_rows(found, asked)
    known = [one for one in found if np.unique(labels[one.rows[one.rows < held]]).size >= 2]
    return Plan(known, held, setting, asked)


def candidates(setting: Setting, asked: Asked) -> list[Candidate]:
    """What is tried whatever the labels are, within `rows_max`: the cheapest are kept, and one always is."""
    regime = setting.total - setting.since
    if asked.change and setting.since > 0:
        new = setting.places(setting.since)
        if asked.rows_max:  # a change of long ago has more rows than two candidates may cost
            new = new[-max(1, asked.rows_max // 2) :]
        found = [setting.fresh("since", new), setting.fresh("history", setting.places(0), setting.since)]
        if setting.learned_rows:
            found += [setting.recalibrated(new), setting.tuned(new)]
    elif not setting.learned_rows:
        found = [setting.fresh("all", setting.places(setting.since))]
    else:
        recent = setting.places(setting.total - min(regime, asked.recent_rows or regime))
        if regime >= GROWN * setting.learned_rows and regime >= WIDER * len(recent):
            found = [setting.fresh("all", sampled(setting, len(recent), setting.rates.sampled_rows_max))]
            if setting.since > 0:
                found.append(setting.fresh("history", with_earlier(setting), setting.since))
            if asked.rows_max and len(found[0].rows) + len(recent) > asked.rows_max:
                if len(found[0].rows) <= asked.rows_max:
                    return found[:1]
                found = [setting.fresh("recent", recent)]
        elif regime <= len(recent):
            most = asked.rows_max or setting.rates.sampled_rows_max
            found = [setting.fresh("all", sampled(setting, most // 4, most))]
        else:
            found = [setting.fresh("recent", recent)]
        found.append(setting.tuned(with_known(setting, recent)))
    return _affordable(found, asked.rows_max)


def sampled(setting: Setting, recent_rows: int, most: int) -> Places:
    """All rows of the regime, or, where they are more than `most`, the newest whole and a draw of those before."""
    rows = setting.places(setting.since)
    if len(rows) <= most:
        return rows
    kept = max(1, min(recent_rows, most // 2))
    drawn = np.random.default_rng(setting.seed).choice(rows[:-kept], most - kept, replace=False)
    return np.concatenate([np.sort(drawn), rows[-kept:]])


def with_earlier(setting: Setting) -> Places:
    """All rows of the regime, and a draw of as many from before it."""
    drawn = np.random.default_rng(setting.seed).choice(
        setting.since, min(setting.since, setting.total - setting.since), replace=False
    )
    return np.concatenate([np.sort(drawn), setting.places(setting.since)])


def with_known(setting: Setting, recent: Places) -> Places:
    """As many rows as the recent ones: those that the champion does not know, or half, the rest drawn from all of the regime.

    What the champion knows of other places must not be lost on the newest rows.
    """
    newest = recent[-max(setting.newer_rows, len(recent) // 2) :]
    before = setting.places(setting.since)[: -len(newest)]
    drawn = np.random.default_rng(setting.seed).choice(
        before, min(len(before), len(recent) - len(newest)), replace=False
    )
    return np.concatenate([np.sort(drawn), newest])


def _affordable(found: list[Candidate], rows_max: int) -> list[Candidate]:
    if not rows_max:
        return found
    left = rows_max
    kept: list[Candidate] = []
    # The order of equal ones is the order of the list: a fresh start goes before another try of what the champion knows.
    for candidate in sorted(found, key=lambda one: len(one.rows)):
        if not kept or len(candidate.rows) <= left:
            kept.append(candidate)
            left -= len(candidate.rows)
    return kept


def held_out_rows(found: list[Candidate], asked: Asked) -> int:
    """How many of the newest rows all candidates are compared on; at least one stays to learn from."""
    block_rows, smallest = asked.block_rows or BLOCK_ROWS, min(len(candidate.rows) for candidate in found)
    wanted = max(2 * block_rows, asked.evidence_rows, round(HELD_OUT_SHARE * smallest))
    most = EVIDENCE_ROWS_MAX * max(1, block_rows // BLOCK_ROWS)
    return max(1, min(wanted, most, int(HELD_OUT_SHARE_MAX * smallest), smallest - 1))
