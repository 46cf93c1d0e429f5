"""One gRPC channel: retries, deadlines and reconnection, all bounded; gRPC itself does them, so that futures have them too."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import grpc

from driftloop.telemetry import current_traceparent

_INGEST = "driftloop.ingest.v1.IngestService"
_SERVICES = (_INGEST, "driftloop.serving.v1.PredictionService")
Metadata = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """Bounds of every call.

    deadline_s            for a call with all its retries: a killed server is back in 5 to 15 s
    retries               after UNAVAILABLE and RESOURCE_EXHAUSTED only; gRPC allows 4 at most
    backoff_initial_s     before the first retry, give or take a fifth, unless the server names a delay; it then waits to connect
    backoff_multiplier    from one retry to the next
    backoff_max_s         between two retries: 1 + 3 + 9 + 10 s outlast a server that is back but still restoring itself
    reconnect_initial_s   before the first attempt to connect again
    reconnect_max_s       between two attempts: how long a server that is back goes unnoticed
    message_bytes_max     one request or response; ingest takes 8 MiB
    batch_events_max      events in one call of `send_batch`
    stream_events_max     events in one call of `stream`: as many may have to be sent again
    """

    deadline_s: float = 30.0
    retries: int = 4
    backoff_initial_s: float = 1.0
    backoff_multiplier: float = 3.0
    backoff_max_s: float = 10.0
    reconnect_initial_s: float = 0.1
    reconnect_max_s: float = 1.0
    message_bytes_max: int = 8_388_608
    batch_events_max: int = 1_000
    stream_events_max: int = 2_000

    def __post_init__(self) -> None:
        if (
            not 0 <= self.retries <= 4
            or self.deadline_s <= 0
            or self.batch_events_max < 1
            or self.stream_events_max < 1
        ):
            raise ValueError("client settings: 0 to 4 retries, a positive deadline, at least one event in a call")

    def options(self) -> list[tuple[str, Any]]:
        """gRPC's channel options."""
        method: dict[str, Any] = {"name": [{"service": service} for service in _SERVICES], "waitForReady": True}
        if self.retries:
            method["retryPolicy"] = {
                "maxAttempts": self.retries + 1,
                "initialBackoff": f"{self.backoff_initial_s}s",
                "maxBackoff": f"{self.backoff_max_s}s",
                "backoffMultiplier": self.backoff_multiplier,
                "retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED"],
            }
        # A broken stream goes on behind its last answer, which only `EventsClient.stream` knows: gRPC must not begin it anew.
        stream = {"name": [{"service": _INGEST, "method": "IngestStream"}], "waitForReady": True}
        return [
            ("grpc.service_config", json.dumps({"methodConfig": [method, stream]})),
            ("grpc.enable_retries", 1),
            # Beyond this a request is not kept for a retry; gRPC's default of 256 KiB would lose large batches.
            ("grpc.per_rpc_retry_buffer_size", self.message_bytes_max + 65_536),
            ("grpc.initial_reconnect_backoff_ms", int(self.reconnect_initial_s * 1000)),
            ("grpc.min_reconnect_backoff_ms", int(self.reconnect_max_s * 1000)),
            ("grpc.max_reconnect_backoff_ms", int(self.reconnect_max_s * 1000)),
            ("grpc.max_send_message_length", self.message_bytes_max),
            ("grpc.max_receive_message_length", self.message_bytes_max),
        ]


def open_channel(address: str, settings: ClientSettings, credentials: grpc.ChannelCredentials | None) -> grpc.Channel:
    """A channel to host:port; it connects with the first call."""
    if credentials is None:
        return grpc.insecure_channel(address, settings.options())
    return grpc.secure_channel(address, credentials, settings.options())


def metadata() -> Metadata:
    """The trace context that goes along with a call."""
    traceparent = current_traceparent()
    return (("traceparent", traceparent),) if traceparent else ()
