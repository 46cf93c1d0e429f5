"""Exit status 0 as soon as the service of this container says SERVING: the standard gRPC health watch, nothing imported but grpc.

Docker looks every ten seconds, also while a service starts: that waits here for its turn, so that what stands on it need not.
"""

from __future__ import annotations

import os
import sys

import grpc

SERVING = b"\x08\x01"  # grpc.health.v1.HealthCheckResponse with status SERVING
WAIT_S = 25.0  # Docker ends the check after 30
_OPTIONS = [
    ("grpc.enable_http_proxy", 0),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 500),
]


def check(address: str, wait_s: float) -> str:
    """ "" once the door at host:port says SERVING; after `wait_s` seconds what it said instead."""
    answer = b""
    with grpc.insecure_channel(address, options=_OPTIONS) as channel:
        watch = channel.unary_stream(
            "/grpc.health.v1.Health/Watch", request_serializer=bytes, response_deserializer=bytes
        )
        try:
            for answer in watch(b"", timeout=wait_s, wait_for_ready=True):
                if answer == SERVING:
                    return ""
        except grpc.RpcError as error:
            if not answer:
                return f"does not answer: {error.code().name}"
    return f"not serving in {wait_s:g} s"


def main() -> int:
    """The exit status that Docker reads; the reason on standard output, which `docker inspect` shows."""
    name = os.environ["DRIFTLOOP_SERVICE"].upper()
    port = os.environ[f"{name}_ADDRESS"].rpartition(":")[2]
    found = check(f"127.0.0.1:{port}", WAIT_S)
    print(f"{name} on port {port}: {found or 'SERVING'}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
