"""Wires monitor and runs it until SIGTERM or a failure; nothing else."""

from __future__ import annotations

import asyncio
import logging

from driftloop.artifacts import ArtifactError
from driftloop.messaging import KafkaSettings, MessagingError
from driftloop.messaging.faust_worker import WorkerSettings, end_process, run_stages, stop_on_signals
from driftloop.messaging.hosting import HostSettings
from driftloop.settings import settings_from_environment
from driftloop.telemetry import HealthServer, TelemetrySettings, instruments, setup_logging, setup_telemetry
from driftloop.telemetry.health import AddressInUse
from driftloop.usecase import UseCaseError, load_use_case
from services.monitor.errors import MonitorError
from services.monitor.gateways import build_stages, open_producer, spread_of
from services.monitor.settings import MonitorSettings

_log = logging.getLogger("services.monitor")


async def serve(settings: MonitorSettings, kafka: KafkaSettings) -> None:
    """Runs both stages; returns after SIGTERM or SIGINT, raises what makes it stop."""
    stop = asyncio.Event()
    stop_on_signals(stop, settings.stop_timeout_s + settings.flush_timeout_s)
    use_case = load_use_case(settings.use_case, settings.usecases)
    health = HealthServer(settings.address, "monitor")
    await health.start()
    spread = await asyncio.to_thread(spread_of, settings, kafka)
    declared = instruments("monitor")
    producer = open_producer(settings, kafka, declared)
    stages = build_stages(use_case, settings, kafka, spread, producer, declared)

    async def ready() -> None:
        await health.set_serving(True)
        _log.info("%s: %s ready on %s", use_case.name, settings.stages, settings.address)

    try:
        await run_stages(stages, ready, stop, settings.stop_timeout_s)
    finally:
        await health.set_serving(False)
        await asyncio.to_thread(producer.close, settings.flush_timeout_s)
        await health.stop(0.1)


def main() -> None:
    """The process: exit code 0 after a signal, 1 after a failure, 2 where settings cannot be."""
    settings = settings_from_environment(
        MonitorSettings, KafkaSettings, HostSettings, WorkerSettings, TelemetrySettings
    )
    setup_logging("monitor", settings.log_level)
    telemetry = setup_telemetry("monitor")
    code = 0
    try:
        asyncio.run(serve(settings, KafkaSettings()))
    except (MonitorError, MessagingError, UseCaseError, ArtifactError, AddressInUse) as error:
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
