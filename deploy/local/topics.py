"""Creates a use case's topics as the registry declares them; never deletes or changes one that exists."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Future

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, ClusterMetadata, NewTopic

from deploy.local.deadline import wait_until
from deploy.local.errors import CheckTheBroker
from driftloop.contracts import Topic, topics


def create_topics(bootstrap_servers: str, use_case: str, timeout_s: float, spread: int = 2) -> list[str]:
    """Creates what is missing of the use case's topics and returns Kafka's names of all of them.

    `spread` is the partition count of the topics that follow the use case's entities. Doing it again changes nothing.
    Raises CheckTheBroker when the broker does not answer or an existing topic has another partition count.
    """
    client = AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": 0})
    wanted = {topic.kafka_name(use_case): _new_topic(topic, use_case, spread) for topic in topics().values()}
    try:
        # All at once: a loop over single requests costs a round trip through the controller each.
        futures = client.create_topics([*wanted.values()], operation_timeout=timeout_s, request_timeout=timeout_s)
        for name, future in futures.items():
            _wait(name, future, timeout_s)
        # Acknowledged means in the controller's log; the broker that clients ask learns of it a moment later.
        listings: list[ClusterMetadata] = []

        def all_led() -> bool:
            listings.append(client.list_topics(timeout=timeout_s))
            return _all_led(listings[-1], wanted)

        if not wait_until(all_led, timeout_s):
            raise CheckTheBroker(
                f"The broker at {bootstrap_servers} gave its topics no leaders within {timeout_s:.0f} s."
            )
        found = listings[-1].topics
    except KafkaException as error:
        raise CheckTheBroker(
            f"The broker at {bootstrap_servers} did not create the topics: {error.args[0].str()}."
        ) from error
    for name, topic in wanted.items():
        has = len(found[name].partitions)
        if has != topic.num_partitions:
            raise CheckTheBroker(
                f"Topic {name} on {bootstrap_servers} has {has} partitions and driftloop needs {topic.num_partitions}: "
                "delete the topic or use another broker."
            )
    return [*wanted]


def _all_led(cluster: ClusterMetadata, names: Iterable[str]) -> bool:
    return all(
        name in cluster.topics
        and cluster.topics[name].partitions
        and all(partition.leader >= 0 for partition in cluster.topics[name].partitions.values())
        for name in names
    )


def _wait(name: str, future: Future[None], timeout_s: float) -> None:
    try:
        future.result(timeout_s)
    except KafkaException as error:
        if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
            raise
    except TimeoutError as error:
        raise CheckTheBroker(f"The broker did not create topic {name} within {timeout_s:.0f} s.") from error


def _new_topic(topic: Topic, use_case: str, spread: int) -> NewTopic:
    return NewTopic(
        topic.kafka_name(use_case),
        num_partitions=topic.partition_count(spread),
        replication_factor=-1,  # the broker's default: 1 on the local node, the operator's choice elsewhere
        config={
            # With event times of 2013 as record time, retention deleted records within 30 s of their arrival.
            "message.timestamp.type": "LogAppendTime",
            "retention.ms": str(topic.retention_ms),
            "cleanup.policy": "compact" if topic.compacted else "delete",
        },
    )
