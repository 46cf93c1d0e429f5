"""A service that does nothing but be healthy: `python health_service.py NAME [dies|lingers|breeds FILE]`.

dies      ends with exit code 3 before it is ready
lingers   ignores SIGTERM
breeds    starts a helper in a session of its own and writes its pid to FILE
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc


def main() -> None:
    name, manner = sys.argv[1], sys.argv[2:]
    if manner[:1] == ["dies"]:
        sys.stderr.write(f"{name} cannot live\n")
        sys.exit(3)
    if manner[:1] == ["breeds"]:
        helper = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True)
        Path(manner[1]).write_text(str(helper.pid))
    server = grpc.server(ThreadPoolExecutor(2))
    servicer = health.HealthServicer()
    servicer.set("", health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    server.add_insecure_port(os.environ[f"{name.upper()}_ADDRESS"])
    signal.signal(signal.SIGTERM, signal.SIG_IGN if manner[:1] == ["lingers"] else lambda *_: server.stop(0))
    sys.stdout.write(f"{name} is up\n")
    sys.stdout.flush()
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    main()
