"""The live trace: every stage's span leads to the next one's, from an event to the release that follows from it."""

from __future__ import annotations

from collections import Counter

from simulation.faults import parsed
from simulation.simulate import simulate
from tests.spans import ROUND, edges, recorded_spans


def test_spans_lead_from_an_events_arrival_around_the_loop_to_the_release() -> None:
    with recorded_spans() as exporter:
        outcome = simulate(6, parsed("none"))
    assert outcome.holds
    found = Counter(edges(exporter.get_finished_spans()))
    assert [edge for edge in ROUND if not found[edge]] == []
    assert [edge for edge in found if "" in edge] == []
