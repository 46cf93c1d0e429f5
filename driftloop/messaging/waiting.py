"""Waits, within a bound, for the topics that a service needs."""

from __future__ import annotations

import time
from collections.abc import Sequence

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from driftloop.messaging.errors import TopicsMissing
from driftloop.messaging.settings import KafkaSettings, made

_LOOK_EVERY_S = 0.5


def await_topics(
    bootstrap_servers: str,
    use_case: str,
    topics: Sequence[str],
    timeout_s: float,
    settings: KafkaSettings | None = None,
) -> dict[str, int]:
    """Partition counts of topics (short names), once all of them exist. Blocks; TopicsMissing after `timeout_s`."""
    client = made(AdminClient, (settings or KafkaSettings()).client_config(bootstrap_servers, "driftloop-waiting"))
    deadline = time.monotonic() + timeout_s
    why = ""
    while True:
        try:
            found = client.list_topics(timeout=max(0.1, min(5.0, deadline - time.monotonic()))).topics
        except KafkaException as error:
            why = (
                f"the broker at {bootstrap_servers} does not answer: start it, or correct KAFKA_BOOTSTRAP_SERVERS "
                f"({error.args[0].str()})"
            )
        else:
            counts = {
                topic: len(found[name].partitions) for topic in topics if (name := f"{use_case}.{topic}") in found
            }
            if len(counts) == len(topics):
                return counts
            missing = [f"{use_case}.{topic}" for topic in topics if topic not in counts]
            why = f"the broker at {bootstrap_servers} has no topic {', '.join(missing)}: create them, or correct DRIFTLOOP_USE_CASE"
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise TopicsMissing(f"waited {timeout_s:.0f} s, but {why}")
        time.sleep(min(_LOOK_EVERY_S, left_s))
