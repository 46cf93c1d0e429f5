"""Which port belongs to what: everything counts from one base, so that two loops fit on one machine."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from deploy.local.errors import FreeThePort
from deploy.local.machine import port_is_free

_SPAN = 100
_SERVICES_MAX = 20


@dataclass(frozen=True)
class Ports:
    """gRPC doors take base + 1, 2, … in the order of the services' table, HTTP doors base + 21, 22, …; Kafka base + 92."""

    base: int

    @property
    def kafka(self) -> int:
        return self.base + 92

    @property
    def controller(self) -> int:
        return self.base + 93

    def services(self, names: Iterable[str]) -> dict[str, int]:
        return {name: self.base + offset for offset, name in enumerate(names, start=1)}

    def http(self, names: Iterable[str]) -> dict[str, int]:
        return {name: self.base + offset for offset, name in enumerate(names, start=1 + _SERVICES_MAX)}


def free_base_port() -> int:
    """A base whose ports are all free now; below the range from which systems take ports for outgoing connections."""
    bases = list(range(20_000, 32_000, _SPAN))
    random.shuffle(bases)
    for base in bases:
        ports = Ports(base)
        if all(map(port_is_free, (*range(base, base + 1 + 2 * _SERVICES_MAX), ports.kafka, ports.controller))):
            return base
    raise OSError("no free range of ports between 20000 and 32000")


def start_on_free_ports(
    start: Callable[[], None], move: Callable[[Ports], None], attempts_max: int, report: Callable[[str], None]
) -> None:
    """Starts what takes any ports, and again on others where another program has bound one meanwhile.

    start: raises FreeThePort, with nothing left running; the last attempt's goes on to the caller. move: makes the next `start`
    use these ports. report: takes a line for people on each further attempt.
    """
    for attempts_left in reversed(range(attempts_max)):
        try:
            start()
        except FreeThePort as error:
            if not attempts_left:
                raise
            report(f"{error} Trying other ports.")
            move(Ports(free_base_port()))
        else:
            return
