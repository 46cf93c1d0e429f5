"""Exit status 0 if the service of this container says SERVING: the standard gRPC health check, with nothing imported but grpc."""

from __future__ import annotations

import os
import sys

import grpc

SERVING = b"\x08\x01"  # grpc.health.v1.HealthCheckResponse with status SERVING


def main() -> int:
    """The exit status that Docker reads; the reason on standard output, which `docker inspect` shows."""
    name = os.environ["DRIFTLOOP_SERVICE"].upper()
    port = os.environ[f"{name}_ADDRESS"].rpartition(":")[2]
    with grpc.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.enable_http_proxy", 0)]) as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check", request_serializer=bytes, response_deserializer=bytes
        )
        try:
            answer = check(b"", timeout=3.0)
        except grpc.RpcError as error:
            print(f"{name} does not answer on port {port}: {error.code().name}")
            return 1
    print("SERVING" if answer == SERVING else "not serving yet")
    return 0 if answer == SERVING else 1


if __name__ == "__main__":
    sys.exit(main())
