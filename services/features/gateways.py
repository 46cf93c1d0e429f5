"""Features' ways out of the process: the broker, the artifact store, the online store, and its hearts hosted between them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from driftloop.artifacts import ArtifactStore
from driftloop.artifacts.checkpoints import CheckpointStore
from driftloop.contracts import Record
from driftloop.featurestore.log import EventLogWriter, FeatureLogWriter, LogCut, OfflineLogWriter
from driftloop.messaging import (
    KafkaProducer,
    KafkaReader,
    KafkaSettings,
    Malformed,
    Producer,
    await_topics,
    dead_letter,
)
from driftloop.messaging.faust_worker import Stage
from driftloop.messaging.heart_host import HeartHost
from driftloop.messaging.hosting import Heart, HostSettings, Sink
from driftloop.telemetry import Instruments
from driftloop.usecase import UseCase
from services.features.aggregation import Aggregation
from services.features.errors import CannotStart
from services.features.handlers import AggregationHandlers, RekeyingHandlers
from services.features.instruments import AggregationInstruments, OnlineInstruments, RekeyingInstruments
from services.features.online import OnlineBounds, OnlineWriteBehind
from services.features.online_process import OnlineProcess
from services.features.rekeying import Rekeying
from services.features.settings import FeaturesSettings

TOPICS = ("events", "keyed", "features", "retrain", "dead-letters")
# 60 ms of rekeying at the most, and half of it where ingest writes ten watermarks a second, at which folds end: the more events
# go into one record of `keyed`, the fewer messages of `features`, each of which costs as much as three events.
_EVENTS_PER_FOLD = 10_000
_EVENTS_PER_CHECKPOINT = 50_000  # a restart folds them again within two seconds; each has its share of a file's cost
_PACKS_PER_FOLD = 4  # each of up to 5,000 parts of events, 40 ms
_REQUESTS_PER_POLL = 100
_POLL_S = 0.5


def spread_of(settings: FeaturesSettings, kafka: KafkaSettings) -> int:
    """Partitions that entities are spread over, once all topics exist. Blocks; TopicsMissing, CannotStart."""
    found = await_topics(settings.kafka_bootstrap_servers, settings.use_case, TOPICS, settings.topics_timeout_s, kafka)
    if not found["events"] == found["keyed"] == found["features"]:
        raise CannotStart(
            f"events, keyed and features have {found['events']}, {found['keyed']} and {found['features']} partitions: "
            "a watermark of one goes to every partition of the next, so they must agree"
        )
    return found["events"]


def open_producer(settings: FeaturesSettings, kafka: KafkaSettings, declared: Instruments) -> KafkaProducer:
    """The producer of everything that features writes."""
    client_id = f"driftloop-features-{settings.replica}"
    return KafkaProducer(settings.kafka_bootstrap_servers, settings.use_case, client_id, kafka, declared)


def open_online(settings: FeaturesSettings, declared: Instruments) -> OnlineWriteBehind:
    """The write-behind into Feast's online store, which a process of its own writes."""
    bounds = OnlineBounds(
        settings.online_every_s,
        settings.online_batch_rows_max,
        settings.online_rows_max,
        settings.online_retry_s_max,
    )
    return OnlineWriteBehind(OnlineProcess, bounds, OnlineInstruments(declared))


@dataclass(frozen=True)
class _CountedCut:
    """A cut of the offline log whose rows are counted once they count."""

    inner: LogCut
    log: CountedLog

    @property
    def state(self) -> Any:
        """See `Cut.state`."""
        return self.inner.state

    def write(self) -> None:
        """See `Cut.write`."""
        self.inner.write()

    def publish(self) -> None:
        """See `Cut.publish`."""
        self.inner.publish()
        for part, *_ in self.inner.fresh:
            self.log.rows.add(part.rows, {"table": part.table or "events"})


class CountedLog:
    """A `Sink`: the offline log of one stage, with its rows counted when a manifest names them."""

    def __init__(self, writer: OfflineLogWriter, declared: Instruments) -> None:
        self._writer = writer
        self.rows = declared.counter("offline_rows")

    @property
    def name(self) -> str:
        """See `Sink.name`."""
        return self._writer.name

    def restore(self, group: int, heart: Heart, state: Any) -> None:
        """See `Sink.restore`."""
        self._writer.restore(group, heart, state)

    def take(self, group: int, heart: Heart, outputs: Any) -> None:
        """See `Sink.take`."""
        self._writer.take(group, heart, outputs)  # type: ignore[attr-defined]  # each writer knows its own heart

    def cut(self, group: int, heart: Heart) -> _CountedCut:
        """See `Sink.cut`."""
        return _CountedCut(self._writer.cut(group, heart), self)

    def release(self, group: int) -> None:
        """See `Sink.release`: `restore` comes before the group is written again, and forgets what is left."""


def build_hosts(
    use_case: UseCase,
    spread: int,
    producer: Producer,
    store: ArtifactStore,
    declared: Instruments,
    online: Sink,
    host_settings: HostSettings | None = None,
    cpu_s: Callable[[], float] = time.thread_time,
) -> tuple[HeartHost, HeartHost]:
    """Rekeying's and aggregation's hosts, on any bus."""
    checkpoints = CheckpointStore(store, use_case.name)
    settings = host_settings or HostSettings()

    def bounded(**bounds: int) -> HostSettings:
        """The settings, with these bounds where nobody asked for others."""
        asked = settings.model_fields_set
        return settings.model_copy(update={name: bound for name, bound in bounds.items() if name not in asked})

    rekeying = HeartHost(
        "rekeying",
        ["events"],
        lambda partition: Rekeying(use_case, partition, spread),
        producer,
        checkpoints,
        use_case=use_case.name,
        service="features",
        spread=spread,
        sinks=[CountedLog(EventLogWriter(store, use_case, spread), declared)],
        watcher=RekeyingInstruments(declared),
        settings=bounded(fold_records_max=_EVENTS_PER_FOLD, checkpoint_records=_EVENTS_PER_CHECKPOINT),
        cpu_s=cpu_s,
    )
    aggregation = HeartHost(
        "aggregation",
        ["keyed"],
        lambda partition: Aggregation(use_case, partition, spread),
        producer,
        checkpoints,
        use_case=use_case.name,
        service="features",
        spread=spread,
        sinks=[CountedLog(FeatureLogWriter(store, use_case, spread), declared), online],
        watcher=AggregationInstruments(declared),
        settings=bounded(fold_records_max=_PACKS_PER_FOLD),
        cpu_s=cpu_s,
    )
    return rekeying, aggregation


def build_stages(
    settings: FeaturesSettings,
    kafka: KafkaSettings,
    hosts: tuple[HeartHost, HeartHost],
) -> list[Stage]:
    """Both stages, each a consumer group of its own."""
    rekeying, aggregation = hosts
    handlers = {
        rekeying: RekeyingHandlers(rekeying).by_topic(),
        aggregation: AggregationHandlers(aggregation).by_topic(),
    }
    return [
        Stage(
            host,
            handlers[host],
            use_case=settings.use_case,
            group=f"{settings.use_case}-{host.name}",
            instance_id=f"features-{host.name}-{settings.replica}",
            bootstrap_servers=settings.kafka_bootstrap_servers,
            kafka=kafka,
        )
        for host in hosts
    ]


class RetrainFeed:
    """Reads `retrain` on a thread of its own and hands each request to a handler on the event loop."""

    def __init__(
        self,
        settings: FeaturesSettings,
        kafka: KafkaSettings,
        producer: Producer,
        handler: Callable[[Record], Awaitable[None]],
    ) -> None:
        self._use_case = settings.use_case
        self._producer = producer
        self._handler = handler
        self._reader = KafkaReader(
            settings.kafka_bootstrap_servers,
            settings.use_case,
            ["retrain"],
            settings=kafka,
            client_id=f"driftloop-features-retrain-{settings.replica}",
        )

    async def run(self) -> None:
        """Reads until it is cancelled; raises ReadFailed."""
        polling: asyncio.Future[list[Record | Malformed]] | None = None
        try:
            while True:
                polling = asyncio.ensure_future(asyncio.to_thread(self._reader.poll, _POLL_S, _REQUESTS_PER_POLL))
                for record in await asyncio.shield(polling):
                    if isinstance(record, Malformed):
                        self._producer.send(dead_letter(record, "features", self._use_case))
                    else:
                        await self._handler(record)
        finally:
            if polling is not None:
                await asyncio.gather(polling, return_exceptions=True)  # a reader is not closed under a poll
            self._reader.close()
