"""What integration tests stand on: one real broker per test session."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from deploy.local import LocalKafka, Ports, free_base_port


@pytest.fixture(scope="session")
def kafka_bootstrap_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """host:port of a broker: the one in KAFKA_BOOTSTRAP_SERVERS, else one started for this session.

    It outlives a test: use topics and groups of your own (a use-case name of your own is enough). It makes no topic by
    itself: `deploy.local.create_topics` or an AdminClient does.
    """
    if given := os.environ.get("KAFKA_BOOTSTRAP_SERVERS"):
        yield given
        return
    ports = Ports(free_base_port())
    with LocalKafka(tmp_path_factory.mktemp("kafka"), ports.kafka, ports.controller) as kafka:
        yield kafka.bootstrap_servers
