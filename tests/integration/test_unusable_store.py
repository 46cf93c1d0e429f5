"""A service whose artifact store cannot be used ends with 1 and one line that says which, where, and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.service_world import START_PATIENCE_S, ServiceWorld

pytestmark = pytest.mark.timeout(START_PATIENCE_S + 60)


@pytest.mark.parametrize(
    ("service", "kind"),
    [
        ("ingest", "unknown"),
        ("features", "unknown"),
        ("features", "file"),
        ("serving", "unknown"),
        ("monitor", "unknown"),
        ("monitor", "file"),
        ("trainer", "unknown"),
        ("trainer", "file"),
        ("trainer", "no bucket"),
    ],
)
def test_an_artifact_store_that_cannot_be_ends_a_service_in_one_line(
    kafka_bootstrap_servers: str, tmp_path: Path, service: str, kind: str
) -> None:
    url = {"unknown": "nosuch://store", "file": str(tmp_path / "file"), "no bucket": "s3://"}[kind]
    (tmp_path / "file").write_text("")
    world = ServiceWorld(service, kafka_bootstrap_servers, tmp_path, 1, ["incidents"])
    try:
        world.create_topics()
        # No address that only a machine of Amazon's asks.
        settings = {"DRIFTLOOP_ARTIFACTS_URL": url, "INGEST_HTTP_ADDRESS": "", "AWS_EC2_METADATA_DISABLED": "true"}
        process = world.start(**settings)
        assert process.wait(START_PATIENCE_S) == 1
        said = [line for line in world.log().splitlines() if url in line]
        assert len(said) == 1, world.log()
        assert said[0].endswith("correct DRIFTLOOP_ARTIFACTS_URL")
        assert "Traceback" not in world.log()
        assert "ready on" not in world.log()
    finally:
        world.close()
