"""What integration tests stand on: one real broker per test session."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deploy.local import LocalKafka
from tests.integration.ingest_process import Ingest


@pytest.fixture(scope="session")
def kafka_bootstrap_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """host:port of a broker: the one in KAFKA_BOOTSTRAP_SERVERS, else one started for this session.

    It outlives a test: use topics and groups of your own (a use-case name of your own is enough). It makes no topic by
    itself: `deploy.local.create_topics` or an AdminClient does.
    """
    if given := os.environ.get("KAFKA_BOOTSTRAP_SERVERS"):
        yield given
        return
    with LocalKafka(tmp_path_factory.mktemp("kafka")) as kafka:
        yield kafka.bootstrap_servers


@pytest.fixture
def start_ingest(kafka_bootstrap_servers: str, tmp_path: Path) -> Iterator[Callable[..., Ingest]]:
    """Starts ingest for a use case of its own, in a clock mode; killed at the end."""
    with contextlib.ExitStack() as stack:

        def started(clock: str = "replay") -> Ingest:
            ingest = Ingest(kafka_bootstrap_servers, tmp_path, clock)
            stack.callback(ingest.end, signal.SIGKILL)
            return ingest

        yield started
