"""Every bound and timeout of a local loop, with its unit in its name; overridden by DRIFTLOOP_LOCAL_<NAME>."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from driftloop.settings import BootstrapServers

REPOSITORY_ROOT = Path(__file__).resolve().parents[2]


def _user_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "driftloop"


class LocalSettings(BaseSettings):
    """Settings of one local loop. Defaults fit a laptop with two cores and 4 GiB."""

    model_config = SettingsConfigDict(env_prefix="DRIFTLOOP_LOCAL_", extra="ignore", populate_by_name=True)

    # A broker of the user's own; then no Kafka is started here.
    kafka_bootstrap_servers: BootstrapServers | None = Field(default=None, validation_alias="KAFKA_BOOTSTRAP_SERVERS")

    # Services listen on base + 1 … 5 (HTTP: base + 21 … 25), Kafka on base + 92, its controller on base + 93.
    base_port: int = Field(default=7000, ge=1024, le=65000)
    # Where any ports will do: others are tried when a program takes one between looking and binding, which is rare.
    free_ports_attempts_max: int = Field(default=3, ge=1)
    state_dir: Path = REPOSITORY_ROOT / "build" / "local"
    # Of the topics that follow entities: two show every effect of partitioning, and two cores can carry them.
    partitions: int = Field(default=2, ge=1)
    cache_dir: Path = Field(default_factory=_user_cache)

    # A first run writes 44 MiB of jars, then logs, checkpoints and models; below this the disk fills within a replay.
    free_disk_bytes_min: int = Field(default=1 << 30, ge=0)

    # Downloading: Maven's repositories answer each of 46 small requests well within this.
    fetch_timeout_s: int = Field(default=30, ge=1)
    fetch_attempts_max: int = Field(default=3, ge=1)
    fetch_parallel_max: int = Field(default=6, ge=1)

    # 512 MiB carries hundreds of MB/s through one node; more would only be taken from the services.
    kafka_heap_mib_max: int = Field(default=512, ge=128)
    # Formatting and starting take 5 s on two idle cores; five services importing beside it can make that 30.
    kafka_ready_timeout_s: float = Field(default=90.0, gt=0)
    # A broker that someone else runs is up or it is not.
    broker_answer_timeout_s: float = Field(default=5.0, gt=0)
    kafka_stop_timeout_s: float = Field(default=20.0, gt=0)
    topics_timeout_s: float = Field(default=30.0, gt=0)
    java_version_timeout_s: float = Field(default=20.0, gt=0)

    # Importing Feast takes up to 20 s alone, and five services share the cores while they start.
    service_ready_timeout_s: float = Field(default=180.0, gt=0)
    health_check_timeout_s: float = Field(default=1.0, gt=0)
    # The contract gives a service 10 s to flush; the rest is for a loaded machine.
    service_stop_timeout_s: float = Field(default=12.0, gt=0)
    # A process that never got ready this often has a fault that restarting will not cure.
    deaths_before_ready_max: int = Field(default=3, ge=1)

    # Restarting: quick for one crash, rare enough not to eat the machine in a crash loop.
    restart_delay_s: float = Field(default=0.5, gt=0)
    restart_delay_s_max: float = Field(default=30.0, gt=0)
    # Ready for this long counts as cured: the next crash starts again from the short delay.
    restart_reset_after_s: float = Field(default=60.0, gt=0)

    # A log above this is moved to <name>.log.1 before its process starts; one older log is kept.
    log_bytes_max: int = Field(default=20 << 20, ge=1 << 10)
    memory_sample_every_s: float = Field(default=1.0, gt=0)
    # How often the supervisor looks at health checks and due restarts.
    tick_s: float = Field(default=0.2, gt=0)
    # `driftloop down` waits this long for an orderly stop of everything, then kills.
    down_timeout_s: float = Field(default=90.0, gt=0)
