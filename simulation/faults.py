"""Which faults a run has and how likely each is, and the draws that follow from a seed; makes no fault itself."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TypeVar

T = TypeVar("T")


class FaultsUnreadable(ValueError):
    """A text that names no faults: correct it."""


@dataclass(frozen=True)
class Faults:
    """Probabilities, each of what its line says.

    Faults of the machines and the network; none of them may change what the loop decides:
    duplicate    a producer's batch is written twice; a caller repeats a call that was answered
    delay        a batch, a poll or a thread takes a hundred times as long
    reorder      what has no order is shuffled: partitions against each other, events of one step
    crash        a service is killed in a step: at any moment, or in the middle of writing a checkpoint or a bundle
    stop         a service is told to stop in a step, and started again
    rebalance    a stage's partitions are taken away and given back in a step
    outage       the broker is gone for a while in a step: half a second to a minute and a half
    slow         one consumer takes nothing for a while in a step
    store        the online store refuses a batch
    hurry        callers do not wait for the loop at the end of a step: the clock runs ahead of it, so decisions may come later

    Faults of the world; the undisturbed run has them too:
    never        an entity's label never comes
    corrected    an entity's label is corrected later
    corrupt      a published bundle is damaged in the store before anybody loads it
    """

    duplicate: float = 0.0
    delay: float = 0.0
    reorder: float = 0.0
    crash: float = 0.0
    stop: float = 0.0
    rebalance: float = 0.0
    outage: float = 0.0
    slow: float = 0.0
    store: float = 0.0
    hurry: float = 0.0
    never: float = 0.03
    corrected: float = 0.03
    corrupt: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            if not 0.0 <= getattr(self, field.name) <= 1.0:
                raise FaultsUnreadable(f"{field.name}={getattr(self, field.name)}: a probability lies between 0 and 1")

    @property
    def of_the_world(self) -> Faults:
        """The undisturbed run: only what is true of the world."""
        return Faults(never=self.never, corrected=self.corrected, corrupt=self.corrupt)

    def __str__(self) -> str:
        """As `parsed` reads it."""
        return ",".join(f"{f.name}={getattr(self, f.name):g}" for f in fields(self) if getattr(self, f.name)) or "none"


MOST = Faults(0.1, 0.02, 1.0, 0.03, 0.01, 0.02, 0.03, 0.05, 0.3, 0.4, 0.1, 0.1, 0.3)
"""The strongest of each fault that `drawn` gives."""
DRAWN = 0.5
HURRY_DRAWN = 0.25
"""Of the seeds; in those with `hurry` the two runs' decisions cannot be compared."""


def parsed(text: str) -> Faults:
    """`none`, `most`, or a list such as `crash=0.1,outage=0.05`; what is not named does not happen. FaultsUnreadable."""
    if text == "most":
        return MOST
    nothing = {field.name: 0.0 for field in fields(Faults)}
    if text == "none":
        return Faults(**nothing)
    named: dict[str, float] = {}
    for part in text.split(","):
        name, _, value = part.strip().partition("=")
        if name not in nothing:
            raise FaultsUnreadable(f"{name!r} is no fault: there are {', '.join(nothing)}, or none, most and drawn")
        try:
            named[name] = float(value)
        except ValueError as error:
            raise FaultsUnreadable(f"{part.strip()!r} has no probability, as in crash=0.1") from error
    return Faults(**{**nothing, **named})


def drawn(seed: int) -> Faults:
    """A seed's own faults: each is left out in every second seed or more, so that none hides behind another.

    (Swarm testing: Groce, Zhang, Eide, Chen, Regehr, ISSTA 2012.)
    """
    draws = random.Random(f"faults of {seed}")
    chosen: dict[str, float] = {}
    for field in fields(Faults):
        here = draws.random() < (HURRY_DRAWN if field.name == "hurry" else DRAWN)
        strength = draws.uniform(0.2, 1.0)
        chosen[field.name] = round(getattr(MOST, field.name) * strength, 3) if here else 0.0
    return Faults(**chosen)


class Chance:
    """Draws of a run, each kind from a sequence of its own: a fault more of one kind leaves the others where they were."""

    def __init__(self, seed: int, faults: Faults) -> None:
        self.faults = faults
        self.struck: Counter[str] = Counter()
        """How often each fault has struck so far."""
        self._seed = seed
        self._draws: dict[str, random.Random] = {}

    def of(self, kind: str) -> random.Random:
        """The sequence of one kind of draws."""
        if kind not in self._draws:
            self._draws[kind] = random.Random(f"{kind} of {self._seed}")
        return self._draws[kind]

    def happens(self, fault: str) -> bool:
        """Whether a fault strikes this time."""
        likely = getattr(self.faults, fault)
        strikes = likely > 0.0 and self.of(fault).random() < likely
        self.struck[fault] += strikes
        return strikes

    def pause_s(self, mean_s: float) -> float:
        """How long something takes on the virtual clock: about `mean_s`, or a hundred times that where it is delayed."""
        return self.of("pause").uniform(0.2, 1.8) * mean_s * (100.0 if self.happens("delay") else 1.0)

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """The items, in another order where order is disturbed."""
        found = list(items)
        if self.happens("reorder"):
            self.of("order").shuffle(found)
        return found

    def share(self, count: int) -> int:
        """How many of `count` are taken at once: all of them undisturbed, any number from 1 where order is disturbed."""
        return self.of("order").randint(1, count) if count > 1 and self.faults.reorder else count
