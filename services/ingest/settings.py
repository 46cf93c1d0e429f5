"""What an operator may set, from the environment; every bound with its unit and its reason."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import AliasChoices, Field, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from driftloop.settings import BootstrapServers


def _named(name: str) -> AliasChoices:
    return AliasChoices(name.upper(), name.removeprefix("driftloop_"))


class IngestSettings(BaseSettings):
    """Shared names first, then INGEST_<NAME>."""

    model_config = SettingsConfigDict(env_prefix="INGEST_", extra="ignore", populate_by_name=True)

    kafka_bootstrap_servers: BootstrapServers = Field(
        default="127.0.0.1:7092", validation_alias=_named("kafka_bootstrap_servers")
    )
    use_case: str = Field(default="flights", validation_alias=_named("driftloop_use_case"))
    usecases: str = Field(
        default="", validation_alias=_named("driftloop_usecases"), description="folders that hold use cases"
    )
    artifacts_url: str = Field(default="build/local/artifacts", validation_alias=_named("driftloop_artifacts_url"))
    clock_mode: Literal["live", "replay"] | None = Field(default=None, validation_alias=_named("driftloop_clock_mode"))
    replica: int = Field(default=0, ge=0, validation_alias=_named("driftloop_replica"))
    log_level: str = Field(default="INFO", validation_alias=_named("driftloop_log_level"))

    address: str = Field(default="127.0.0.1:7001", description="host:port of the gRPC door")
    http_address: str = Field(default="127.0.0.1:7021", description="host:port of the HTTP door; empty: none")
    http_body_timeout_s: float = Field(
        default=10.0,
        gt=0,
        description="a body of 8 MiB at 1 MB/s; a sender that dribbles must not hold one of the calls",
    )
    http_idle_s: float = Field(default=75.0, gt=0, description="an idle connection is kept so long for its next call")
    window_ids_max: int = Field(default=200_000, gt=0, description="ids remembered: 40 MB; retries come within seconds")
    restore_records_max: int = Field(
        default=200_000, gt=0, description="newest records read at a start, over all partitions: at most 2 s of it"
    )
    in_flight_max: int = Field(
        default=10_000, gt=0, description="events sent and not acknowledged: a second of full load"
    )
    batch_events_max: int = Field(
        default=5_000, gt=0, description="events in a call: 0.3 s during which no other call is served"
    )
    inbox_records_max: int = Field(
        default=1_000, gt=0, description="records of the inbox taken in at once: 50 ms during which no call is served"
    )
    inbox_wait_s: float = Field(default=0.5, gt=0, description="how long the inbox's reader waits in a quiet time")
    stream_in_flight_max: int = Field(
        default=500, gt=0, description="unanswered events of one stream; then it is not read further"
    )
    stream_batches_in_flight_max: int = Field(
        default=8, gt=0, description="unanswered batches of one stream: enough that neither side ever waits"
    )
    incidents_max: int = Field(
        default=1_000, gt=0, description="incidents that wait for room in the queue to the broker; the oldest give way"
    )
    call_bytes_max: int = Field(
        default=8_388_608, gt=1_048_576, description="one call; above 1 MiB so that we, not gRPC, refuse an event"
    )
    calls_max: int = Field(
        default=256, gt=0, description="calls served at once, more are RESOURCE_EXHAUSTED: memory = calls x bytes"
    )
    retry_after_s: float = Field(
        default=0.1, gt=0, description="what a refused caller is told: the broker answers in milliseconds"
    )
    acknowledge_timeout_s: float = Field(
        default=20.0,
        gt=0,
        description="a caller waits so long for the broker, then is told to call again: under the client's 30 s",
    )
    linger_ms: float = Field(
        default=0.0,
        ge=0,
        description="librdkafka spins through any wait of less than 1 ms, which cost two fifths of a single event's CPU",
    )
    gather_ms: float = Field(
        default=2.0,
        ge=0,
        description="events that come singly while others are on their way leave together: with it goes a fifth of their CPU",
    )
    requests_in_flight_max: int = Field(
        default=1, ge=1, le=5, description="what comes while a broker answers leaves together: batches without a wait"
    )
    gc_allocations: int = Field(
        default=200_000,
        gt=0,
        description="objects made between two searches for cycles: some ten calls of 1,000 events",
    )
    tick_s: float = Field(
        default=1.0, gt=0, description="how often a live clock writes watermarks: the delay of quiet times"
    )
    start_timeout_s: float = Field(
        default=30.0, gt=0, description="waiting for the broker and its topics; then the supervisor retries"
    )
    stop_grace_s: float = Field(
        default=4.0, gt=0, description="calls may end after SIGTERM; with the flush it stays under 10 s"
    )
    flush_timeout_s: float = Field(default=4.0, gt=0, description="sending what is queued at the end")

    @field_validator("clock_mode", mode="before")
    @classmethod
    def _empty_is_unset(cls, value: object) -> object:
        return value or None

    @model_validator(mode="after")
    def _largest_call_finds_room(self) -> Self:
        if self.in_flight_max < self.batch_events_max:
            raise ValueError(
                f"INGEST_IN_FLIGHT_MAX is {self.in_flight_max}, below INGEST_BATCH_EVENTS_MAX, {self.batch_events_max}: a call "
                "of so many events would never find room; raise the one or lower the other"
            )
        return self
