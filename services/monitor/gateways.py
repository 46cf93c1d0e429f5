"""Monitor's ways out of the process: the broker and the artifact store, and its hearts hosted between them."""

from __future__ import annotations

import time
from collections.abc import Callable

from driftloop.artifacts import ArtifactStore
from driftloop.artifacts.checkpoints import CheckpointStore
from driftloop.messaging import KafkaProducer, KafkaSettings, Producer, await_topics
from driftloop.messaging.faust_worker import Stage
from driftloop.messaging.heart_host import HeartHost
from driftloop.messaging.hosting import HostSettings
from driftloop.telemetry import Instruments
from driftloop.usecase import UseCase
from services.monitor.errors import CannotStart
from services.monitor.handlers import JUDGING_TOPICS, MATCHING_TOPICS, JudgingHandlers, MatchingHandlers
from services.monitor.instruments import JudgingInstruments, MatchingInstruments
from services.monitor.judging import Judging
from services.monitor.matching import Matching
from services.monitor.settings import MonitorSettings

WRITTEN_TOPICS = ("drift", "decisions", "incidents", "retrain", "releases", "dead-letters")


def spread_of(settings: MonitorSettings, kafka: KafkaSettings) -> int:
    """Partitions that entities are spread over, once all topics exist. Blocks; TopicsMissing, CannotStart."""
    needed = sorted({*MATCHING_TOPICS, *JUDGING_TOPICS, *WRITTEN_TOPICS})
    found = await_topics(settings.kafka_bootstrap_servers, settings.use_case, needed, settings.topics_timeout_s, kafka)
    if found["events"] != found["predictions"]:
        raise CannotStart(
            f"events has {found['events']} partitions and predictions {found['predictions']}: "
            "an entity's events and predictions must meet in one partition"
        )
    return found["events"]


def open_producer(settings: MonitorSettings, kafka: KafkaSettings, declared: Instruments) -> KafkaProducer:
    """The producer of everything that monitor writes."""
    client_id = f"driftloop-monitor-{settings.replica}"
    return KafkaProducer(settings.kafka_bootstrap_servers, settings.use_case, client_id, kafka, declared)


def build_stages(
    use_case: UseCase,
    settings: MonitorSettings,
    kafka: KafkaSettings,
    spread: int,
    producer: KafkaProducer,
    declared: Instruments,
) -> list[Stage]:
    """The stages that this process runs; opens no connection but the producer's."""
    checkpoints = CheckpointStore(ArtifactStore(settings.artifacts_url), use_case.name)
    makers = {"matching": matching_stage, "judging": judging_stage}
    return [
        makers[name](use_case, settings, kafka, spread, producer, checkpoints, declared)
        for name in settings.stage_names
    ]


def matching_stage(
    use_case: UseCase,
    settings: MonitorSettings,
    kafka: KafkaSettings,
    spread: int,
    producer: KafkaProducer,
    checkpoints: CheckpointStore,
    declared: Instruments,
) -> Stage:
    """Matching: one heart for each partition, shared among the group's members."""
    host = matching_host(
        use_case,
        settings.serving_replicas,
        spread,
        producer,
        checkpoints,
        watcher=MatchingInstruments(declared, use_case.predict.task),
    )
    return Stage(
        host,
        MatchingHandlers(host).by_topic(),
        use_case=use_case.name,
        group=f"{use_case.name}-matching",
        instance_id=f"monitor-matching-{settings.replica}",
        bootstrap_servers=settings.kafka_bootstrap_servers,
        kafka=kafka,
    )


def judging_stage(
    use_case: UseCase,
    settings: MonitorSettings,
    kafka: KafkaSettings,
    spread: int,
    producer: KafkaProducer,
    checkpoints: CheckpointStore,
    declared: Instruments,
) -> Stage:
    """Judging: one heart for the use case; a second member of the group stands by."""
    host = judging_host(
        use_case, settings.serving_replicas, spread, producer, checkpoints, watcher=JudgingInstruments(declared)
    )
    return Stage(
        host,
        JudgingHandlers(host).by_topic(),
        use_case=use_case.name,
        group=f"{use_case.name}-judging",
        instance_id=f"monitor-judging-{settings.replica}",
        bootstrap_servers=settings.kafka_bootstrap_servers,
        kafka=kafka,
    )


def matching_host(
    use_case: UseCase,
    serving_replicas: int,
    spread: int,
    producer: Producer,
    checkpoints: CheckpointStore,
    *,
    watcher: MatchingInstruments | None = None,
    settings: HostSettings | None = None,
    cpu_s: Callable[[], float] = time.thread_time,
) -> HeartHost:
    """Hosts `Matching` on any bus."""
    return HeartHost(
        "matching",
        MATCHING_TOPICS,
        lambda partition: Matching(use_case, partition, spread, serving_replicas),
        producer,
        checkpoints,
        use_case=use_case.name,
        service="monitor",
        spread=spread,
        watcher=watcher,
        settings=settings,
        cpu_s=cpu_s,
    )


def judging_host(
    use_case: UseCase,
    serving_replicas: int,
    spread: int,
    producer: Producer,
    checkpoints: CheckpointStore,
    *,
    watcher: JudgingInstruments | None = None,
    settings: HostSettings | None = None,
    cpu_s: Callable[[], float] = time.thread_time,
) -> HeartHost:
    """Hosts `Judging` on any bus."""
    return HeartHost(
        "judging",
        JUDGING_TOPICS,
        lambda _: Judging(use_case, spread, serving_replicas),
        producer,
        checkpoints,
        use_case=use_case.name,
        service="monitor",
        spread=spread,
        single=True,
        watcher=watcher,
        settings=settings,
        cpu_s=cpu_s,
    )
