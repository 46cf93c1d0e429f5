"""Asks whether a process is ready: a service by the standard gRPC health check, Kafka by its own metadata."""

from __future__ import annotations

import grpc
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from grpc_health.v1 import health_pb2, health_pb2_grpc


class ServiceHealth:
    """Whether the gRPC server at `address` (host:port) says SERVING for the service name ""."""

    def __init__(self, address: str, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._channel = grpc.insecure_channel(
            address,
            options=[
                # A service that restarts is looked at again at once, not after gRPC's growing pauses of up to 2 min.
                ("grpc.initial_reconnect_backoff_ms", 100),
                ("grpc.min_reconnect_backoff_ms", 100),
                ("grpc.max_reconnect_backoff_ms", 300),
                ("grpc.enable_http_proxy", 0),
            ],
        )
        self._stub = health_pb2_grpc.HealthStub(self._channel)

    def __call__(self) -> bool:
        try:
            answer = self._stub.Check(health_pb2.HealthCheckRequest(service=""), timeout=self._timeout_s)
        except grpc.RpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    def close(self) -> None:
        self._channel.close()


class BrokerHealth:
    """Whether the brokers at `bootstrap_servers` answer and at least one takes part (a fenced one lists none)."""

    def __init__(self, bootstrap_servers: str, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._client: AdminClient | None = None
        self._configuration: dict[str, str | int | float | bool] = {
            "bootstrap.servers": bootstrap_servers,
            "reconnect.backoff.ms": 50,
            "reconnect.backoff.max.ms": 200,
            "log_level": 0,  # a refused connection is the answer here, not news
        }

    def __call__(self) -> bool:
        if self._client is None:
            self._client = AdminClient(self._configuration)
        try:
            return bool(self._client.list_topics(timeout=self._timeout_s).brokers)
        except KafkaException:
            return False

    def close(self) -> None:
        self._client = None
