"""A use case's schema changes under running producers: old and new ones go on side by side, and what would break is not started."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from driftloop.client import EventsClient
from tests.integration.ingest_process import NOON_US, ROOT, Ingest, event

DUE = datetime(2013, 3, 1, 13, tzinfo=UTC)
pytestmark = pytest.mark.timeout(120)
NEW_FIELDS = '"price": Field(float, ge=0, le=900), "colour": Field(str, optional=True),'


def changed(ingest: Ingest, version: int, old: str, new: str) -> None:
    """Rewrites the use case's declaration."""
    text = ingest.declaration.read_text()
    assert old in text
    text = text.replace(old, new)
    if "schema_version" not in text:
        text = text.replace("clock=", "schema_version=1, clock=")
    ingest.declaration.write_text(text.replace(f"schema_version={version - 1}", f"schema_version={version}"))


def test_old_and_new_producers_run_side_by_side_and_what_breaks_them_is_refused(
    start_ingest: Callable[..., Ingest],
) -> None:
    ingest = start_ingest()
    folder = str(ingest.declaration.parents[1])

    def schema(command: str, *options: str) -> tuple[int, str]:
        told = ["--use-case", ingest.name, "--artifacts", str(ingest.artifacts), *options]
        found = subprocess.run(
            [sys.executable, "-m", "driftloop.cli", "schema", command, *told],
            cwd=ROOT,
            env=os.environ | {"DRIFTLOOP_USECASES": folder},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return found.returncode, found.stdout

    with ingest.client() as old_producer:
        old_producer.advance(NOON_US)
        assert old_producer.send(event(1)).outcome == "accepted"
        changed(ingest, 2, '"price": Field(float, ge=0, le=500),', NEW_FIELDS)
        code, said = schema("check")
        assert (code, "announced.colour: is a new optional field" in said) == (0, True)
        ingest.end(9)
        ingest.start()
        with EventsClient(ingest.address, ingest.name) as new_producer:
            for number in range(2, 20, 2):
                assert old_producer.send(event(number)).outcome == "accepted"
                newer = event(number + 1, price=800.0, colour="red", due=DUE)
                assert new_producer.send(newer).outcome == "accepted"
    assert len(ingest.events()) == 19
    changed(ingest, 3, NEW_FIELDS, '"price": Field(float, ge=0, le=100),')
    code, said = schema("check")
    assert code == 1
    assert "announced.price: le=100 instead of le=900; breaks producers" in said
    assert "announced.colour: the field is gone: deprecate it for a version first; breaks producers" in said
    ingest.end(9)
    refused = ingest.start(subprocess.PIPE)
    assert refused.stderr is not None
    log = refused.stderr.read().decode()
    assert refused.wait(30) == 1
    assert "le=100 instead of le=900" in log
    assert schema("accept", "--why", "all of them are ours")[0] == 0
    assert schema("check")[0] == 0
    assert "version 3" in schema("history")[1]
