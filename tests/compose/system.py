"""The project's containers: compose and docker commands, waiting for a state, and what is asked inside of them."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from grpc import RpcError, insecure_channel
from grpc_health.v1 import health_pb2, health_pb2_grpc

from deploy.local import free_base_port

ROOT = Path(__file__).resolve().parents[2]
PROJECT = "driftlooptest"
SERVICES = ("ingest", "features", "serving", "monitor", "trainer")
CORE = ("kafka", "redis", "postgres", *SERVICES)
HEALTHY_TIMEOUT_S = 240.0  # the target is 60 s on an idle machine; here others may be at work, too
RECOVERY_TIMEOUT_S = 120.0
_TRACES_SAMPLED = "0.3"  # so many that one event's trace goes all the way around


class Broken(Exception):
    """A step does not hold; the text says which and why."""


def hold(condition: bool, otherwise: str) -> None:
    """Ends the run unless the condition holds."""
    if not condition:
        raise Broken(otherwise)


def chosen_compose() -> list[str]:
    """The compose command: COMPOSE, else v2, else 1.29."""
    if given := os.environ.get("COMPOSE"):
        return given.split()
    plugin = subprocess.run(["docker", "compose", "version"], capture_output=True)
    return ["docker", "compose"] if plugin.returncode == 0 else ["docker-compose"]


def revision() -> str:
    """The commit of the checkout, as images are labelled; what compose.yaml says by itself where there is none."""
    found = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    return found.stdout.strip() or "unknown"


class System:
    """The project's containers, on ports that are free, or on those of an earlier run (`base`)."""

    def __init__(self, compose: list[str], base: int | None = None) -> None:
        self.base = base or free_base_port()
        self.ports = {"ingest": self.base + 1, "serving": self.base + 3, "monitor": self.base + 4}
        self._compose = compose
        self.environment = {
            **os.environ,
            "COMPOSE_PROJECT_NAME": PROJECT,
            "COMPOSE_PROFILES": "",
            "INGEST_PORT": str(self.base + 1),
            "SERVING_PORT": str(self.base + 3),
            "OPERATOR_PORT": str(self.base + 4),
            "INGEST_HTTP_PORT": str(self.base + 21),
            "SERVING_HTTP_PORT": str(self.base + 23),
            "GRAFANA_PORT": str(self.base + 30),
            "TRACES_SAMPLED": _TRACES_SAMPLED,
            "DRIFTLOOP_REVISION": revision(),
        }
        self.killed: list[str] = []

    def tried(self, *arguments: str, stdin: str | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
        """Runs the compose command, however it ends."""
        return subprocess.run(
            [*self._compose, *arguments],
            cwd=ROOT,
            env={**self.environment, **environment},
            input=stdin,
            capture_output=True,
            text=True,
        )

    def compose(self, *arguments: str, stdin: str | None = None) -> str:
        """Runs the compose command; Broken with the end of what it said if it fails."""
        done = self.tried(*arguments, stdin=stdin)
        if done.returncode:
            raise Broken(f"{' '.join([*self._compose, *arguments])}: {done.stderr[-1500:]}")
        return done.stdout

    def down(self, *options: str) -> str:
        """Stops and removes every container, whatever profile it belongs to."""
        profiles = [word for name in ("tracking", "observability", "demo") for word in ("--profile", name)]
        return self.compose(*profiles, "down", "--remove-orphans", *options)

    def asked(self, service: str, script: str) -> Any:
        """What a Python script prints as JSON inside a container."""
        return json.loads(self.compose("exec", "-T", service, "python", "-", stdin=script))

    def container(self, service: str) -> str:
        """The id of a service's container, also of one that does not run."""
        # Compose v2 labels images, too, and a container started by hand inherits that: only one of Compose's own has the last.
        listed = self.docker(
            "ps", "-aq", "--filter", f"label=com.docker.compose.project={PROJECT}",
            "--filter", f"label=com.docker.compose.service={service}",
            "--filter", "label=com.docker.compose.oneoff=False",
        )  # fmt: skip
        hold(bool(listed.split()), f"there is no container of {service}")
        return listed.split()[0]

    def docker(self, *arguments: str) -> str:
        """Runs docker; Broken if it fails."""
        done = subprocess.run(["docker", *arguments], capture_output=True, text=True)
        if done.returncode:
            raise Broken(f"docker {' '.join(arguments)}: {done.stderr[-800:]}")
        return done.stdout

    def inspect(self, service: str, what: str) -> str:
        """One field of a container's state."""
        return self.docker("inspect", "--format", f"{{{{{what}}}}}", self.container(service)).strip()

    def process(self, service: str) -> int:
        """The host's number of the service itself, below the init process of its container."""
        pid = int(self.inspect(service, ".State.Pid"))
        return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])

    def await_healthy(
        self, services: tuple[str, ...] = SERVICES, timeout_s: float = HEALTHY_TIMEOUT_S
    ) -> dict[str, float]:
        """Seconds until Docker calls each of them healthy, from now."""
        started_s = time.monotonic()
        waiting, healthy = list(services), {}
        while waiting:
            for service in list(waiting):
                if self.inspect(service, ".State.Health.Status") == "healthy":
                    waiting.remove(service)
                    healthy[service] = round(time.monotonic() - started_s, 1)
            late = time.monotonic() - started_s > timeout_s
            hold(not (waiting and late), f"after {timeout_s:.0f} s not healthy: {self._last_said(waiting)}")
            time.sleep(0.25)
        return healthy

    def until(self, true: Callable[[], bool], otherwise: str, timeout_s: float = RECOVERY_TIMEOUT_S) -> None:
        """Looks every half second; Broken after the bound."""
        deadline_s = time.monotonic() + timeout_s
        while not true():
            hold(time.monotonic() < deadline_s, f"after {timeout_s:.0f} s: {otherwise}")
            time.sleep(0.5)

    def log(self, service: str) -> str:
        """What a container has said."""
        done = subprocess.run(["docker", "logs", self.container(service)], capture_output=True, text=True)
        return done.stdout + done.stderr

    def kill(self, service: str) -> None:
        """docker kill, and started again as an operator would."""
        self.docker("kill", self.container(service))
        self.killed.append(service)
        self.docker("start", self.container(service))

    def restart(self, service: str) -> None:
        """docker restart: asked to stop, and started again."""
        self.docker("restart", self.container(service))

    def serving_answers(self) -> bool:
        """Whether serving's door says SERVING on its published port."""
        with insecure_channel(f"127.0.0.1:{self.ports['serving']}") as channel:
            try:
                answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=2)
            except RpcError:
                return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    def _last_said(self, services: list[str]) -> Mapping[str, str]:
        return {service: self.log(service)[-400:] for service in services}
