"""Runs Kafka and the five services on one machine: `driftloop up`, and the same as a context manager."""

from deploy.local.claim import stop_holder
from deploy.local.errors import LocalError
from deploy.local.kafka import LocalKafka
from deploy.local.loop import SERVICES, LocalLoop
from deploy.local.ports import Ports, free_base_port
from deploy.local.settings import LocalSettings
from deploy.local.topics import create_topics

__all__ = [
    "SERVICES",
    "LocalError",
    "LocalKafka",
    "LocalLoop",
    "LocalSettings",
    "Ports",
    "create_topics",
    "free_base_port",
    "stop_holder",
]
