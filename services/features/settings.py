"""What an operator may set, from the environment; every bound with its unit and its reason."""

from __future__ import annotations

from pathlib import Path

from pydantic import AliasChoices, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from driftloop.settings import BootstrapServers


def _named(name: str) -> AliasChoices:
    return AliasChoices(name.upper(), name.removeprefix("driftloop_"))


class FeaturesSettings(BaseSettings):
    """Shared names first, then FEATURES_<NAME>. The bounds of hosting are in `HostSettings` and `WorkerSettings`."""

    model_config = SettingsConfigDict(env_prefix="FEATURES_", extra="ignore", populate_by_name=True)

    kafka_bootstrap_servers: BootstrapServers = Field(
        default="127.0.0.1:7092", validation_alias=_named("kafka_bootstrap_servers")
    )
    use_case: str = Field(default="flights", validation_alias=_named("driftloop_use_case"))
    usecases: str = Field(
        default="", validation_alias=_named("driftloop_usecases"), description="folders that hold use cases"
    )
    state_dir: Path = Field(default=Path("build/local/state"), validation_alias=_named("driftloop_state_dir"))
    artifacts_url: str = Field(default="build/local/artifacts", validation_alias=_named("driftloop_artifacts_url"))
    replica: int = Field(default=0, ge=0, validation_alias=_named("driftloop_replica"))
    log_level: str = Field(default="INFO", validation_alias=_named("driftloop_log_level"))

    address: str = Field(default="127.0.0.1:7002", description="host:port of health and reflection")
    topics_timeout_s: float = Field(
        default=60.0, gt=0, description="waiting for the broker and its topics; then the supervisor retries"
    )
    stop_timeout_s: float = Field(
        default=6.0, gt=0, description="last checkpoints and leaving Faust; with both flushes it stays under 10 s"
    )
    flush_timeout_s: float = Field(default=2.0, gt=0, description="sending what is queued at the end")

    online_redis: str = Field(
        default="", description="host:port of Feast's online store on Redis; empty: SQLite in the state folder"
    )
    online_every_s: float = Field(
        default=1.0, gt=0, description="between two batches: serving's own view is fresher, this store is its fallback"
    )
    online_batch_rows_max: int = Field(
        default=2_000, gt=0, description="rows in one batch: 0.3 s of SQLite, during which readers wait"
    )
    online_rows_max: int = Field(
        default=200_000,
        gt=0,
        description="entities waiting to be written: 200 MB; past it they are taken from the hearts, and only the last values "
        "of those that the hearts no longer hold wait too: 1 KB each, in place of what the entity took",
    )
    online_retry_s_max: float = Field(
        default=30.0, gt=0, description="longest pause after a failed batch: a store that is back is found soon"
    )
    online_stop_s: float = Field(
        default=1.0, gt=0, description="a last batch at the end; what is left is in the checkpoint"
    )
