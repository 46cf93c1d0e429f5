"""Wires features and runs it until SIGTERM or a failure; nothing else."""

from __future__ import annotations

import asyncio
import logging

from driftloop.artifacts import ArtifactError, ArtifactStore
from driftloop.featurestore.errors import FeatureStoreError
from driftloop.messaging import KafkaSettings, MessagingError
from driftloop.messaging.faust_worker import (
    WorkerSettings,
    end_process,
    run_stages,
    spare_the_collector,
    stop_on_signals,
)
from driftloop.messaging.hosting import HostSettings
from driftloop.settings import settings_from_environment
from driftloop.telemetry import HealthServer, TelemetrySettings, instruments, setup_logging, setup_telemetry
from driftloop.telemetry.health import AddressInUse
from driftloop.usecase import UseCaseError, load_use_case
from services.features.errors import FeaturesError
from services.features.gateways import RetrainFeed, build_hosts, build_stages, open_online, open_producer, spread_of
from services.features.handlers import RetrainHandler
from services.features.settings import FeaturesSettings

_log = logging.getLogger("services.features")


async def serve(settings: FeaturesSettings, kafka: KafkaSettings) -> None:
    """Runs both stages; returns after SIGTERM or SIGINT, raises what makes it stop."""
    stop = asyncio.Event()
    stop_on_signals(stop, settings.stop_timeout_s + settings.online_stop_s + settings.flush_timeout_s)
    spare_the_collector()  # what is restored is millions of objects, and none of them is garbage
    use_case = load_use_case(settings.use_case, settings.usecases)
    health = HealthServer(settings.address, "features")
    await health.start()
    spread = await asyncio.to_thread(spread_of, settings, kafka)
    declared = instruments("features")
    producer = open_producer(settings, kafka, declared)
    online = open_online(settings, declared)
    hosts = build_hosts(use_case, spread, producer, ArtifactStore(settings.artifacts_url), declared, online)
    feed = RetrainFeed(settings, kafka, producer, RetrainHandler(hosts).retrain)

    async def ready() -> None:
        await health.set_serving(True)
        _log.info("%s: ready on %s, %d partitions", use_case.name, settings.address, spread)
        spare_the_collector()
        online.start()  # only now: its process takes ten seconds of a core to import Feast

    try:
        await run_stages(build_stages(settings, kafka, hosts), ready, stop, settings.stop_timeout_s, [feed.run()])
    finally:
        await health.set_serving(False)
        await asyncio.to_thread(online.close, settings.online_stop_s)
        await asyncio.to_thread(producer.close, settings.flush_timeout_s)
        await health.stop(0.1)


def main() -> None:
    """The process: exit code 0 after a signal, 1 after a failure, 2 where settings cannot be."""
    settings = settings_from_environment(
        FeaturesSettings, KafkaSettings, HostSettings, WorkerSettings, TelemetrySettings
    )
    setup_logging("features", settings.log_level)
    telemetry = setup_telemetry("features")
    code = 0
    try:
        asyncio.run(serve(settings, KafkaSettings()))
    except (FeaturesError, MessagingError, UseCaseError, ArtifactError, FeatureStoreError, AddressInUse) as error:
        _log.error("stopped: %s: %s", type(error).__name__, error)
        code = 1
    except Exception:
        _log.exception("stopped by a failure that has no name yet")
        code = 1
    finally:
        telemetry.shutdown()
        end_process(code)


if __name__ == "__main__":
    main()
