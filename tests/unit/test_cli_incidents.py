"""Incidents as people see them: one line each, with its end once it has one."""

from __future__ import annotations

from driftloop.cli.incidents import listed
from driftloop.contracts import Message
from driftloop.contracts.monitor.v1.monitor_pb2 import Incident


def told(incident_id: str, clock_us: int, **fields) -> Message:
    payload = Incident(use_case="flights", id=incident_id, source="monitor", clock_us=clock_us, **fields)
    return Message("incidents", "flights", payload, incident_id, "t", clock_us, clock_us)


def test_the_end_of_an_incident_is_told_with_its_beginning():
    fault = {"rule": "stuck", "event_type": "weather_observed", "field": "wind_speed", "entity": "JFK", "from_us": 5}
    (row,) = listed([told("b", 9, to_us=8, what="over", **fault), told("a", 6, what="begins", **fault)])
    assert (row["id"], row["what"], row["entity"]) == ("a", "begins", "JFK")
    assert row["to"] > row["from"]


def test_what_has_no_stretch_of_time_is_an_incident_of_its_own():
    rows = listed([told("a", 1, what="bundle refused"), told("b", 2, what="bundle refused")])
    assert [row["id"] for row in rows] == ["a", "b"]
    assert all("from" not in row for row in rows)
