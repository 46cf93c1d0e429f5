"""What an operator may set, from the environment; every bound with its unit and its reason."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import AliasChoices, Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from driftloop.settings import BootstrapServers

StageName = Literal["matching", "judging"]


def _named(name: str) -> AliasChoices:
    return AliasChoices(name.upper(), name.removeprefix("driftloop_"))


class MonitorSettings(BaseSettings):
    """Shared names first, then MONITOR_<NAME>. The bounds of hosting are in `HostSettings` and `WorkerSettings`."""

    model_config = SettingsConfigDict(env_prefix="MONITOR_", extra="ignore", populate_by_name=True)

    kafka_bootstrap_servers: BootstrapServers = Field(
        default="127.0.0.1:7092", validation_alias=_named("kafka_bootstrap_servers")
    )
    use_case: str = Field(default="flights", validation_alias=_named("driftloop_use_case"))
    usecases: str = Field(
        default="", validation_alias=_named("driftloop_usecases"), description="folders that hold use cases"
    )
    artifacts_url: str = Field(default="build/local/artifacts", validation_alias=_named("driftloop_artifacts_url"))
    replica: int = Field(default=0, ge=0, validation_alias=_named("driftloop_replica"))
    log_level: str = Field(default="INFO", validation_alias=_named("driftloop_log_level"))
    serving_replicas: int = Field(
        default=1,
        gt=0,
        validation_alias=_named("driftloop_serving_replicas"),
        description="how many servings there are: the clock waits for the watermark of each",
    )

    address: str = Field(default="127.0.0.1:7004", description="host:port of health and reflection")
    stages: str = Field(
        default="matching,judging", description="which of the two stages this process runs: both, or one to split them"
    )
    topics_timeout_s: float = Field(
        default=60.0, gt=0, description="waiting for the broker and its topics; then the supervisor retries"
    )
    stop_timeout_s: float = Field(
        default=7.0, gt=0, description="last checkpoints and leaving Faust; with the flush it stays under 10 s"
    )
    flush_timeout_s: float = Field(default=2.0, gt=0, description="sending what is queued at the end")

    @field_validator("stages")
    @classmethod
    def _known_stages(cls, value: str) -> str:
        known = get_args(StageName)
        names = [name.strip() for name in value.split(",") if name.strip()]
        if not names or set(names) - set(known) or len(set(names)) != len(names):
            raise ValueError(f"stages is a list of {', '.join(known)}, each at most once; got {value!r}")
        return ",".join(names)

    @property
    def stage_names(self) -> tuple[str, ...]:
        """The stages of this process."""
        return tuple(self.stages.split(","))
