"""Ingest's settings are refused where no call could be served by them."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from services.ingest.settings import IngestSettings


def test_fewer_events_in_flight_than_a_call_may_carry_are_refused_with_both_names() -> None:
    with pytest.raises(ValidationError, match="INGEST_IN_FLIGHT_MAX is 300, below INGEST_BATCH_EVENTS_MAX, 5000"):
        IngestSettings(in_flight_max=300)


def test_as_many_events_in_flight_as_a_call_may_carry_are_fine() -> None:
    assert IngestSettings(in_flight_max=300, batch_events_max=300).in_flight_max == 300
