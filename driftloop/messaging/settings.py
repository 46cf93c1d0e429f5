"""How every client of the broker is set up: addresses, security and bounds, each with its reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeVar

from confluent_kafka import KafkaException
from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from driftloop.messaging.errors import ClientRefused

T = TypeVar("T")


def made(client: Callable[[dict[str, Any]], T], config: dict[str, Any]) -> T:
    """A client of confluent-kafka's; ClientRefused where its settings cannot be."""
    try:
        return client(config)
    except KafkaException as error:
        why = error.args[0].str()
        raise ClientRefused(f"Kafka's client refuses the settings KAFKA_…: {why}; correct them") from error


class KafkaSettings(BaseSettings):
    """Read from KAFKA_<NAME>. Secrets are never shown by repr or logs."""

    model_config = SettingsConfigDict(env_prefix="KAFKA_", extra="ignore")

    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    sasl_username: str = ""
    sasl_password: SecretStr = SecretStr("")
    ssl_ca_file: str = Field(
        default="", description="PEM file of the authority that signed the brokers' certificates; empty: the system's"
    )

    queue_messages_max: int = Field(
        default=100_000, gt=0, description="messages sent and not acknowledged: 100 MB at 1 KB each; then QueueFull"
    )
    queue_kbytes_max: int = Field(
        default=262_144, gt=0, description="bytes of the same queue: large messages must not eat the memory"
    )
    retry_after_s: float = Field(
        default=0.05, gt=0, description="what QueueFull tells the caller: a broker takes thousands of messages in it"
    )
    linger_ms: float = Field(
        default=0.25,
        ge=0,
        description="what one fold says leaves in one request: at 0 each message wakes its readers, a third more work",
    )
    requests_in_flight_max: int = Field(
        default=5,
        ge=1,
        le=5,
        description="requests sent to a broker and not answered: an idempotent producer may have 5",
    )
    delivery_timeout_s: float = Field(
        default=60.0, gt=0, description="a broker restart takes 5 to 30 s; past this a message counts as lost"
    )
    read_queue_kbytes_max: int = Field(
        default=16_384, gt=0, description="read ahead per reader: seconds of work, not the whole topic"
    )
    fetch_wait_ms_max: int = Field(
        default=250, gt=0, description="longest long poll: bounds the delay when a fetch left a partition out"
    )
    answer_timeout_s: float = Field(default=15.0, gt=0, description="one request for metadata, offsets or a commit")
    connect_timeout_s: float = Field(
        default=4.0,
        gt=0,
        description="a command's first answer from a broker: a person waits, and one that runs answers in milliseconds",
    )
    reconnect_ms_max: int = Field(default=1_000, gt=0, description="longest pause between two attempts to connect")
    close_timeout_s: float = Field(
        default=3.0, gt=0, description="for a reader to leave: librdkafka may wait for ever for a broker that is gone"
    )
    session_timeout_s: float = Field(
        default=10.0, gt=5, description="a dead member's partitions move after this; a restart within it moves none"
    )

    def client_config(self, bootstrap_servers: str, client_id: str) -> dict[str, Any]:
        """What every confluent-kafka client is given; holds the password in the clear, so never log it."""
        config: dict[str, Any] = {
            "bootstrap.servers": bootstrap_servers,
            "client.id": client_id,
            "security.protocol": self.security_protocol,
            "reconnect.backoff.ms": 50,
            "reconnect.backoff.max.ms": self.reconnect_ms_max,
            "socket.nagle.disable": True,
            "log_level": 2,  # what matters arrives as an error of a call; librdkafka repeats it at 20 lines a second
        }
        if self.security_protocol.startswith("SASL"):
            config["sasl.mechanism"] = self.sasl_mechanism
            config["sasl.username"] = self.sasl_username
            config["sasl.password"] = self.sasl_password.get_secret_value()
        if self.security_protocol.endswith("SSL") and self.ssl_ca_file:
            config["ssl.ca.location"] = self.ssl_ca_file
        return config
