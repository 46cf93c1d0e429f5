"""Gives a replica of serving its gateways and runs it until SIGTERM, or as many as there are workers; decides nothing."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial

import uvloop

from driftloop.artifacts import ArtifactError, ArtifactStore
from driftloop.messaging import KafkaProducer, KafkaReader, KafkaSettings, LoopProducer, MessagingError, await_topics
from driftloop.settings import settings_from_environment
from driftloop.telemetry import TelemetrySettings, instruments, setup_logging, setup_telemetry
from driftloop.usecase import UseCase, UseCaseError, load_use_case
from services.serving.bootstrap import Replica
from services.serving.desk import ASKING, READ, WRITTEN, Outside
from services.serving.errors import ServingError
from services.serving.gateways.bundles import BundleLoader
from services.serving.gateways.online import OnlineReader
from services.serving.settings import ServingSettings
from services.serving.workers import Workers

_PARENT_EVERY_S = 1.0
_logger = logging.getLogger("services.serving")


async def serve(settings: ServingSettings, use_cases: list[UseCase]) -> None:
    """Runs one replica until SIGTERM or SIGINT; raises what it cannot recover from."""
    loop, stopped = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    stop = asyncio.create_task(stopped.wait())
    opened = []
    for use_case in use_cases:
        partitions = await _topics_of(settings, use_case, stop)
        if partitions is None:
            return
        opened.append((use_case, _outside(settings, use_case, partitions)))
    stop.cancel()
    orphaned = asyncio.create_task(_stop_with_parent(settings.parent, stopped))
    await Replica(settings, opened).run(stopped)
    orphaned.cancel()


async def _stop_with_parent(parent: int, stopped: asyncio.Event) -> None:
    while parent and os.getppid() == parent:
        await asyncio.sleep(_PARENT_EVERY_S)
    if parent:
        _logger.error("its parent has gone: stops")
        stopped.set()


async def _topics_of(settings: ServingSettings, use_case: UseCase, stop: asyncio.Task[bool]) -> dict[str, int] | None:
    """Partitions of the use case's topics, once they are there; None if the replica is told to stop before."""
    servers = settings.kafka_bootstrap_servers
    needed = (*READ, *WRITTEN) if use_case.predict.asked_by is None else (*READ, ASKING, *WRITTEN)
    wait = partial(await_topics, servers, use_case.name, needed, settings.start_timeout_s)
    found = asyncio.get_running_loop().run_in_executor(ThreadPoolExecutor(1, "serving-waiting"), wait)
    _logger.info("waits for the topics of %s on %s", use_case.name, servers)
    await asyncio.wait((found, stop), return_when=asyncio.FIRST_COMPLETED)
    return dict(found.result()) if found.done() else None


def _outside(settings: ServingSettings, use_case: UseCase, partitions: dict[str, int]) -> Outside:
    servers, name = settings.kafka_bootstrap_servers, f"serving-{settings.replica}"
    loader = BundleLoader(use_case, settings, ArtifactStore(settings.artifacts_url))
    loader.open_ahead()
    kafka = KafkaSettings().model_copy(update={"linger_ms": settings.linger_ms})
    return Outside(
        partitions=partitions,
        producer=LoopProducer(
            KafkaProducer(servers, use_case.name, name, kafka, instruments("serving"), polled=True),
            settings.answer_pause_s,
        ),
        open_reader=lambda: KafkaReader(servers, use_case.name, READ, client_id=name),
        open_event_reader=lambda: KafkaReader(
            servers, use_case.name, [ASKING], f"{use_case.name}-asking", f"{use_case.name}-asking-{settings.replica}"
        ),
        loader=loader,
        open_online_reader=lambda: _online_reader(settings, use_case),
    )


def _online_reader(settings: ServingSettings, use_case: UseCase) -> OnlineReader:
    # Imported here: Feast takes ten seconds, and only a replica whose view overflows needs it.
    from services.serving.gateways.feast import open_online_reader

    return open_online_reader(settings, use_case)


def _let_threads_finish() -> None:
    """Has threads of this process wake each other without taking the core at once, so that gRPC's read all there is to read.

    Each waking is one switch of threads less, and calls come together. It is no lower priority: see sched(7), SCHED_BATCH.
    """
    if sys.platform == "linux":
        with suppress(PermissionError):  # a sandbox forbids it: calls are only dearer
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def main() -> int:
    """The process's exit status."""
    settings = settings_from_environment(ServingSettings, KafkaSettings, TelemetrySettings)
    setup_logging("serving", settings.log_level)
    if settings.workers > 1:
        return Workers([sys.executable, "-m", "services.serving"], settings).run()
    telemetry = setup_telemetry("serving")
    sys.setswitchinterval(settings.switch_interval_s)
    _let_threads_finish()
    try:
        uvloop.run(serve(settings, [load_use_case(name, settings.usecases) for name in settings.use_cases]))
    except (ServingError, MessagingError, UseCaseError, ArtifactError, OSError) as error:
        _logger.critical("stops: %s: %s", type(error).__name__, error)
        return 1
    except Exception:  # a defect: its trace is needed, in the one line that a stop may have
        _logger.critical("stops", exc_info=True)
        return 1
    finally:
        telemetry.shutdown()
    return 0


if __name__ == "__main__":
    status = main()
    # A thread in the middle of a long import would hold the exit up; everything is flushed by now.
    logging.shutdown()
    os._exit(status)
