"""Runs one seed and words what came of it, wherever a process is free; a module of its own, because workers import it by name."""

from __future__ import annotations

from simulation.faults import Faults, drawn, parsed

DRAWN = "drawn"


def faults_of(seed: int, text: str) -> Faults:
    """The faults that a text names for a seed; FaultsUnreadable."""
    return drawn(seed) if text == DRAWN else parsed(text)


def ran(seed: int, text: str) -> tuple[int, str]:
    """Runs a seed; what is to be said about it if an invariant broke, else nothing."""
    from simulation.simulate import command, simulate

    faults = faults_of(seed, text)
    outcome = simulate(seed, faults)
    if outcome.holds:
        return seed, ""
    return seed, "\n".join([f"seed {seed}: {command(seed, faults)}", *map(str, outcome.breaches)])
