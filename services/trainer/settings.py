"""What an operator may set, from the environment; every bound with its unit and its reason."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import AliasChoices, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from driftloop.settings import BootstrapServers


def _named(name: str) -> AliasChoices:
    return AliasChoices(name.upper(), name.removeprefix("driftloop_"))


class TrainerSettings(BaseSettings):
    """Shared names first, then TRAINER_<NAME>."""

    model_config = SettingsConfigDict(env_prefix="TRAINER_", extra="ignore", populate_by_name=True)

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

    address: str = Field(default="127.0.0.1:7005", description="host:port of health and reflection")
    start_timeout_s: float = Field(default=300.0, gt=0, description="for the broker and its topics to be there")
    poll_s: float = Field(
        default=0.2, gt=0, description="one poll of `retrain`: bounds how long a stop is noticed late"
    )
    open_requests_max: int = Field(default=64, gt=0, description="a policy has one request open at a time")
    data_timeout_s: float = Field(
        default=120.0,
        gt=0,
        description="for the offline log to reach a request's clock: checkpoints come within seconds",
    )
    rows_max: int = Field(default=200_000, gt=0, description="newest examples used: 1 KB each while they are encoded")
    rows_min: int = Field(default=200, gt=0, description="fewer cannot even be split into training and validation")
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="auto: the GPU where there is one; a model's digest depends on the device class"
    )
    threads: int = Field(
        default=1, gt=0, description="CPU threads of a fit; more than one makes its sums depend on the machine"
    )
    join: Literal["known", "visible"] = Field(
        default="known",
        description="known: what was known at a row's time, backfilled values too; visible: what serving could have seen",
    )
    visible_after_s: float = Field(
        default=0.0, ge=0, description="for visible: how long after it is known serving sees a value; 0 with watermarks"
    )
    join_threads: int = Field(default=2, gt=0, description="CPU threads of the point-in-time join")
    leak_share: float = Field(
        default=0.995,
        gt=0.5,
        le=1,
        description="of the label that one input may tell alone before it is taken for a leak",
    )
    bundle_bytes_max: int = Field(default=64 << 20, gt=0, description="a champion's bundle beyond this is not ours")
    stop_timeout_s: float = Field(
        default=3.0, gt=0, description="for the step at hand when the process ends; a fit is left and done again"
    )
    flush_timeout_s: float = Field(default=5.0, gt=0, description="for the last messages when the process ends")

    mlflow_uri: str = Field(default="", description="http(s)://host:port of an MLflow server; empty: none is told")
    lineage: str = Field(
        default="", description="http(s)://host:port of an OpenLineage collector, or file:///path; empty: none is told"
    )
    bundles_kept: int = Field(
        default=50, ge=0, description="newest bundles that stay whatever becomes of them: 1 MB each; 0: none is removed"
    )
    bundles_kept_for: str = Field(
        default="30d",
        description="younger bundles stay, too, on the use case's clock; older ones that are needed as well",
    )
    recording_requests_max: int = Field(
        default=1_000, gt=0, description="newest requests remembered until their answers are recorded: some KB each"
    )
    recording_attempts_max: int = Field(default=4, gt=0, description="with the pauses 15 s: a server that restarts")
    recording_retry_s: float = Field(default=2.0, gt=0, description="first pause between two attempts; it doubles")
    recording_timeout_s: float = Field(default=10.0, gt=0, description="one request to MLflow or OpenLineage")
    recording_stop_s: float = Field(
        default=1.0,
        gt=0,
        description="for the answer being recorded when the process ends; the next start records the rest",
    )

    @property
    def folder(self) -> Path:
        """This replica's own folder, absolute: BentoML changes the working folder while it loads."""
        return (self.state_dir / "trainer" / str(self.replica)).resolve()
