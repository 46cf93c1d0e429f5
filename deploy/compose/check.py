"""`make compose-check`: says before anything is started, one sentence each, what of this host docker compose could not work with.

Needs Python alone. What only the containers can tell, `prepare` says.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PORTS = {
    "INGEST_PORT": "7001",
    "INGEST_HTTP_PORT": "7021",
    "SERVING_PORT": "7003",
    "SERVING_HTTP_PORT": "7023",
    "OPERATOR_PORT": "7004",
    "GRAFANA_PORT": "3000",
}
SECRETS = ("postgres_password", "redis_password", "grafana_password")
GIB = 1 << 30
_DOCKER_TIMEOUT_S = 20


def settings(root: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """What compose reads: .env, and the environment before it."""
    found = {}
    for line in (root / ".env").read_text().splitlines():
        name, equals, value = line.partition("=")
        if equals and not name.startswith("#"):
            found[name.strip()] = value.strip()
    return {**found, **environment}


def engine() -> dict[str, Any] | None:
    """What `docker info` says; None if no engine answers."""
    try:
        done = subprocess.run(
            ["docker", "info", "--format", "{{json .}}"], capture_output=True, text=True, timeout=_DOCKER_TIMEOUT_S
        )
        found = json.loads(done.stdout) if done.returncode == 0 else {}
    except (OSError, subprocess.TimeoutExpired, ValueError):
        return None
    return found if found.get("ServerVersion") else None


def published(project: str) -> set[int]:
    """Ports that this project's own containers hold."""
    listed = subprocess.run(
        ["docker", "ps", "--filter", f"label=com.docker.compose.project={project}", "--format", "{{.Ports}}"],
        capture_output=True,
        text=True,
        timeout=_DOCKER_TIMEOUT_S,
    ).stdout
    ends = (part.split("->")[0].rpartition(":")[2] for part in listed.replace("\n", ",").split(",") if "->" in part)
    return {int(end) for end in ends if end.isdigit()}


def is_free(host: str, port: int) -> bool:
    """Whether the port can be bound."""
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind((host, port))
        except OSError:
            return False
    return True


def problems(
    found: Mapping[str, str], info: dict[str, Any] | None, own: set[int], gpu: bool, root: Path
) -> Iterator[str]:
    """One sentence for each thing that will not work. `own`: ports that the project itself holds."""
    if info is None:
        yield "No Docker engine answers: start it, or let your user reach it (docker info says why)."
    else:
        wanted = float(found.get("DRIFTLOOP_MEMORY_GIB_MIN") or 5)
        has = int(info.get("MemTotal", 0)) / GIB
        if has < wanted:
            yield (
                f"Docker's machine has {has:.1f} GiB of memory and driftloop needs {wanted:g} GiB: give it more, or set "
                "DRIFTLOOP_MEMORY_GIB_MIN in .env to try with less."
            )
        if gpu and "nvidia" not in info.get("Runtimes", {}) and not info.get("DiscoveredDevices"):
            yield (
                "compose.gpu.yaml needs a GPU and Docker knows none: install NVIDIA's driver and container toolkit on this "
                "host, or leave compose.gpu.yaml away to train on the CPU."
            )
    for name, default in PORTS.items():
        port = int(found.get(name) or default)
        if port not in own and not is_free(found.get("DOORS") or "127.0.0.1", port):
            yield f"Port {port} is taken by another program: stop that, or set {name} in .env to a free one."
    if folder := found.get("SECRETS_DIR"):
        for name in SECRETS:
            file = (root / folder).expanduser() / name
            if not file.is_file() or not file.read_text().strip():
                yield f"The secret {folder}/{name} is missing: write it there, one line."
    use_cases = (root / (found.get("USECASES_DIR") or "./usecases")).expanduser()
    name = found.get("USECASE") or "flights"
    if not (use_cases / name / "usecase.py").is_file():
        yield f"There is no {use_cases / name / 'usecase.py'}: correct USECASE or USECASES_DIR in .env."


def main() -> int:
    """The exit status: 1 if something will not work."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gpu", action="store_true", help="also for compose.gpu.yaml")
    gpu = parser.parse_args().gpu
    found, info = settings(ROOT, os.environ), engine()
    own = published(found.get("COMPOSE_PROJECT_NAME", "driftloop")) if info else set()
    said = list(problems(found, info, own, gpu, ROOT))
    for sentence in said:
        print(sentence, file=sys.stderr)
    if not said:
        print("docker compose up will find what it needs here")
    return 1 if said else 0


if __name__ == "__main__":
    sys.exit(main())
