"""What an operator may set, from the environment; every bound with its unit and its reason."""

from __future__ import annotations

from pathlib import Path

from pydantic import AliasChoices, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from driftloop.settings import BootstrapServers


def _named(name: str) -> AliasChoices:
    return AliasChoices(name.upper(), name.removeprefix("driftloop_"))


class ServingSettings(BaseSettings):
    """Shared names first, then SERVING_<NAME>."""

    model_config = SettingsConfigDict(env_prefix="SERVING_", extra="ignore", populate_by_name=True)

    kafka_bootstrap_servers: BootstrapServers = Field(
        default="127.0.0.1:7092", validation_alias=_named("kafka_bootstrap_servers")
    )
    use_case: str = Field(
        default="flights", validation_alias=_named("driftloop_use_case"), description="one, or several with commas"
    )
    usecases: str = Field(
        default="", validation_alias=_named("driftloop_usecases"), description="folders that hold use cases"
    )
    state_dir: Path = Field(default=Path("build/local/state"), validation_alias=_named("driftloop_state_dir"))
    artifacts_url: str = Field(default="build/local/artifacts", validation_alias=_named("driftloop_artifacts_url"))
    replica: int = Field(default=0, ge=0, validation_alias=_named("driftloop_replica"))
    log_level: str = Field(default="INFO", validation_alias=_named("driftloop_log_level"))

    address: str = Field(default="127.0.0.1:7003", description="host:port of the gRPC door")
    http_address: str = Field(default="", description="host:port of the HTTP/JSON door; empty: none")
    http_body_timeout_s: float = Field(
        default=10.0,
        gt=0,
        description="a body of 4 MiB at .5 MB/s; a sender that dribbles must not hold one of the calls",
    )
    workers: int = Field(
        default=1,
        ge=1,
        le=64,
        description="processes that share the address, one for each core: worker i is replica `replica` × `workers` + i",
    )
    parent: int = Field(default=0, ge=0, description="process with which this one ends; 0: it lives by itself")
    share_port: bool = Field(default=False, description="whether other processes may listen on the address, too")
    calls_max: int = Field(
        default=1_024, gt=0, description="calls served at once, long polls included; more are RESOURCE_EXHAUSTED"
    )
    call_bytes_max: int = Field(
        default=4_194_304, gt=0, description="one call: a full batch of requests with room to spare"
    )
    batch_requests_max: int = Field(
        default=512, gt=0, description="requests in a call: 15 ms during which no other call is served"
    )
    waiting_requests_max: int = Field(
        default=4_096,
        gt=0,
        description="requests in batches that wait for their turn: 0.2 s; behind so many the next is RESOURCE_EXHAUSTED",
    )
    together_requests_max: int = Field(
        default=128,
        gt=0,
        description="requests in waiting batches that are answered as one: 4 ms, during which nothing else is read or refused",
    )
    pending_calls_max: int = Field(
        default=512,
        gt=0,
        description="calls that gRPC itself may keep waiting, from half of it on some are CANCELLED: too many even to refuse",
    )
    gathered_calls_max: int = Field(
        default=32,
        gt=0,
        description="calls that are scored together: more would make the first of them wait for a millisecond",
    )
    explained_answers_max: int = Field(
        default=10_000,
        gt=0,
        description="newest answers that can be explained by id: 1 KB each; older ones by their vector",
    )
    explanations_max: int = Field(
        default=16, gt=0, description="explanations that wait at once: a few milliseconds each, one after another"
    )
    wait_timeout_s: float = Field(default=60.0, gt=0, description="a long poll whose caller gave no deadline")
    answer_margin_s: float = Field(
        default=0.05, gt=0, description="a long poll ends this much early, so that it can still say what is behind"
    )

    view_entities_max: int = Field(
        default=1_000_000, gt=0, description="feature entities in memory: about 0.6 KB each; the rest is looked up"
    )
    lookup_timeout_s: float = Field(
        default=0.25, gt=0, description="one look-up in the online store; past it defaults answer, and are named"
    )
    lookups_max: int = Field(
        default=256,
        gt=0,
        description="look-ups that may wait for the store's one thread; more are answered by defaults",
    )
    online_redis: str = Field(
        default="",
        description="host:port of Feast's online store on Redis; empty: SQLite",
    )
    online_sqlite: Path | None = Field(
        default=None,
        description="Feast's online store on SQLite, as features writes it; by default where features puts it",
    )

    read_batch_records: int = Field(
        default=500, gt=0, description="records taken in at once: 3 ms during which no call is served"
    )
    read_poll_s: float = Field(default=0.5, gt=0, description="longest wait for a record: bounds how long a stop takes")

    asking_age_s_max: float = Field(
        default=86_400.0,
        gt=0,
        description="events that ask and became known longer ago, on the use case's clock: nobody waits for them any more",
    )
    asking_events_remembered_max: int = Field(
        default=65_536, gt=0, description="newest events that have asked: the same one asks once; 0.1 KB each"
    )
    asking_commit_s: float = Field(
        default=1.0, gt=0, description="how much is asked again after a kill, under the same ids"
    )

    bundle_bytes_max: int = Field(
        default=67_108_864, gt=0, description="one bundle: many times the largest useful tabular model"
    )
    bundle_attempts_max: int = Field(
        default=3, gt=0, description="an artifact store that does not answer is asked this often"
    )
    bundle_retry_s: float = Field(
        default=0.5, gt=0, description="pause between two attempts; readiness and WaitForClock wait for it"
    )
    model_call_s_max: float = Field(
        default=0.05,
        gt=0,
        description="one call of a model for up to 64 rows; where a quarter of 200 calls takes longer, monitor is told",
    )
    unusable_scores_max: int = Field(
        default=20, gt=0, description="answers that are unusable, per model and release, before monitor is told"
    )

    spool_bytes_max: int = Field(
        default=268_435_456,
        gt=0,
        description="answers waiting for the broker: 2 min at 1,500/s; then RESOURCE_EXHAUSTED",
    )
    spool_segment_bytes: int = Field(
        default=8_388_608, gt=1_048_576, description="one spool file: removed when all of it is with the broker"
    )
    spool_fsync: bool = Field(
        default=False, description="also survive the machine's death; costs a disk write per call"
    )

    log_pause_s: float = Field(
        default=0.1,
        ge=0,
        description="between two sends of answers to the broker: what comes in it shares one request and one wake-up",
    )
    answer_pause_s: float = Field(
        default=0.002,
        gt=0,
        description="between two looks for the broker's answers: a watermark waits for them, and a look costs 10 µs",
    )
    linger_ms: float = Field(
        default=2.0,
        ge=0,
        description="what a turn of the log sends leaves in one request; librdkafka spins through a wait of less than 1 ms",
    )

    start_timeout_s: float = Field(
        default=30.0, gt=0, description="waiting for the broker and its topics; then the supervisor retries"
    )
    stop_grace_s: float = Field(
        default=3.0, gt=0, description="calls may end after SIGTERM; with the drain it stays under 10 s"
    )
    drain_timeout_s: float = Field(
        default=4.0, gt=0, description="sending what is spooled at the end; the rest follows after the restart"
    )
    switch_interval_s: float = Field(
        default=0.0005, gt=0, description="how long a reading thread may keep an answer waiting (Python's own: 5 ms)"
    )

    @property
    def use_cases(self) -> tuple[str, ...]:
        """Names of the use cases that are served."""
        return tuple(dict.fromkeys(name.strip() for name in self.use_case.split(",") if name.strip()))

    def folder_of(self, use_case: str) -> Path:
        """This replica's own folder for a use case.

        Absolute, because importing a bundle moves the process's working folder for a moment.
        """
        return self.state_dir.resolve() / "serving" / str(self.replica) / use_case

    @property
    def online_file(self) -> Path:
        """The file of Feast's online store on SQLite, shared with features on the same machine."""
        return (self.online_sqlite or self.state_dir / "feast" / "online.db").resolve()
