"""Runs before the services: refuses a set-up that cannot work, in one sentence, and creates the topics; then ends."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from deploy.local.errors import CheckTheBroker
from deploy.local.topics import create_topics
from driftloop.featurestore.errors import SecretMissing
from driftloop.featurestore.shared import read_secret
from driftloop.settings import BootstrapServers, settings_from_environment
from driftloop.usecase import UseCaseError, load_use_case

LAYOUT_VERSION = (
    1  # of what is kept on the volumes; raised when an older driftloop could not read what a newer one wrote
)
LAYOUT_FILE = "driftloop-layout.json"
GIB = 1 << 30


class CannotWork(Exception):
    """The set-up is refused; the text is one sentence that says what to do."""


class PrepareSettings(BaseSettings):
    """Read from DRIFTLOOP_<NAME>, as compose.yaml sets it."""

    model_config = SettingsConfigDict(env_prefix="DRIFTLOOP_", extra="ignore")

    use_case: str = "flights"
    usecases: str = ""
    artifacts_url: Path = Path("/var/lib/driftloop/artifacts")
    bootstrap_servers: BootstrapServers = Field(default="kafka:9092", validation_alias="KAFKA_BOOTSTRAP_SERVERS")
    partitions: int = Field(
        default=2, ge=1, description="of the topics that follow entities; fixed once they are there"
    )
    topics_timeout_s: float = Field(
        default=60.0, gt=0, description="a broker that has just become healthy answers in 5 s"
    )
    redis_address: str = "redis:6379"
    redis_password_file: Path = Field(
        default=Path("/run/secrets/redis_password"), validation_alias="DRIFTLOOP_FEAST_REDIS_PASSWORD_FILE"
    )
    registry_password_file: Path = Field(
        default=Path("/run/secrets/postgres_password"), validation_alias="DRIFTLOOP_FEAST_REGISTRY_PASSWORD_FILE"
    )
    memory_gib_min: float = Field(
        default=5.0, gt=0, description="the core at work takes 4 GiB, and the host needs some"
    )
    disk_gib_min: float = Field(default=2.0, gt=0, description="below it the volumes are full within a replay")
    clock_skew_s_max: float = Field(default=5.0, gt=0, description="live events may lie a minute ahead at the most")
    answer_timeout_s: float = Field(default=5.0, gt=0, description="for Redis, which is healthy by now")


def require_memory(gib_min: float, meminfo: str) -> None:
    """CannotWork if the machine that runs the containers has too little; `meminfo` is the text of /proc/meminfo."""
    kib = int(next(line for line in meminfo.splitlines() if line.startswith("MemTotal:")).split()[1])
    if kib * 1024 < gib_min * GIB:
        raise CannotWork(
            f"Docker's machine has {kib * 1024 / GIB:.1f} GiB of memory and driftloop needs {gib_min:g} GiB: give it more "
            "(Docker Desktop: Settings, Resources), or set DRIFTLOOP_MEMORY_GIB_MIN in .env to try with less."
        )


def require_disk(gib_min: float, folder: Path) -> None:
    """CannotWork if the volume of the artifacts is nearly full."""
    found = os.statvfs(folder)
    free = found.f_bavail * found.f_frsize
    if free < gib_min * GIB:
        raise CannotWork(
            f"Docker's disk has {free / GIB:.1f} GiB free and driftloop needs {gib_min:g} GiB: free some space "
            "(docker system df shows what uses it)."
        )


def require_layout(folder: Path, partitions: int) -> None:
    """CannotWork if the volume was written by a driftloop that this one does not understand; a new one is marked as ours."""
    mark = folder / LAYOUT_FILE
    mine = {"version": LAYOUT_VERSION, "partitions": partitions}
    if not mark.exists():
        beside = mark.with_suffix(".unfinished")
        beside.write_text(json.dumps(mine))
        beside.replace(mark)
        return
    try:
        found = json.loads(mark.read_text())
        version, spread = found["version"], found["partitions"]
    except (ValueError, KeyError, TypeError):
        version, spread = "unknown", partitions
    if version != LAYOUT_VERSION:
        raise CannotWork(
            f"The volume artifacts was written by a driftloop with layout {version}, and this one reads layout "
            f"{LAYOUT_VERSION}: run the version that wrote it, or remove all data with docker compose down --volumes."
        )
    if spread != partitions:
        raise CannotWork(
            f"The data on the volumes are spread over {spread} partitions and PARTITIONS is {partitions}: set it back, or "
            "remove all data with docker compose down --volumes."
        )


def require_secrets(*files: Path) -> None:
    """CannotWork if a password's file is not there."""
    for file in files:
        try:
            read_secret(file)
        except SecretMissing as error:
            raise CannotWork(f"{error}; without SECRETS_DIR in .env secrets are made by themselves.") from error


def redis_clock_s(address: str, password: str, timeout_s: float) -> float:
    """What Redis takes for the time, seconds since the epoch; CannotWork if it does not say."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout_s) as connection, connection.makefile("rb") as lines:
            secret = password.encode()
            connection.sendall(b"*2\r\n$4\r\nAUTH\r\n$%d\r\n%s\r\n*1\r\n$4\r\nTIME\r\n" % (len(secret), secret))
            answer = [lines.readline().strip() for _ in range(6)]
        return int(answer[3]) + int(answer[5]) / 1e6
    except (OSError, ValueError, IndexError) as error:
        raise CannotWork(
            f"Redis at {address} does not tell its time: it may have been started with another password; "
            "remove the volume redis-data, features writes it again."
        ) from error


def require_one_clock(own_s: float, other_s: float, skew_s_max: float) -> None:
    """CannotWork if two containers disagree about the time."""
    if abs(own_s - other_s) > skew_s_max:
        raise CannotWork(
            f"The clocks of two containers differ by {abs(own_s - other_s):.0f} s and at most {skew_s_max:g} s are allowed: "
            "set the hosts' clocks by NTP, and remove what shifts time inside a container."
        )


def prepare(settings: PrepareSettings) -> list[str]:
    """All checks, then the topics, whose names are returned. CannotWork, CheckTheBroker, UseCaseError."""
    require_memory(settings.memory_gib_min, Path("/proc/meminfo").read_text())
    require_disk(settings.disk_gib_min, settings.artifacts_url)
    require_secrets(settings.redis_password_file, settings.registry_password_file)
    require_layout(settings.artifacts_url, settings.partitions)
    password = read_secret(settings.redis_password_file)
    other_s = redis_clock_s(settings.redis_address, password, settings.answer_timeout_s)
    require_one_clock(time.time(), other_s, settings.clock_skew_s_max)
    load_use_case(settings.use_case, settings.usecases)
    return create_topics(settings.bootstrap_servers, settings.use_case, settings.topics_timeout_s, settings.partitions)


def main() -> int:
    """The exit status: 1 with one sentence where the set-up cannot work; 2 where settings cannot be."""
    settings = settings_from_environment(PrepareSettings)
    try:
        names = prepare(settings)
    except (CannotWork, CheckTheBroker, UseCaseError) as error:
        print(f"driftloop cannot start: {error}", file=sys.stderr)
        return 1
    print(f"ready for {settings.use_case}: {len(names)} topics")
    return 0


if __name__ == "__main__":
    sys.exit(main())
