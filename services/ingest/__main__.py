"""Wires ingest and runs it until SIGTERM or a lost message; nothing else."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import uvloop

from driftloop.artifacts import ArtifactError, ArtifactStore
from driftloop.artifacts.schemas import SchemaHistory
from driftloop.contracts.cloudevents import CloudEventsReader
from driftloop.contracts.ingest.v1 import ingest_pb2
from driftloop.messaging import KafkaProducer, KafkaReader, KafkaSettings, MessagingError, await_topics
from driftloop.settings import settings_from_environment
from driftloop.telemetry import (
    TelemetrySettings,
    add_health_and_reflection,
    instruments,
    setup_logging,
    setup_telemetry,
)
from driftloop.usecase import UseCase, UseCaseError, load_use_case
from services.ingest.admission import TOPIC, Admission
from services.ingest.errors import CannotStart, IngestError
from services.ingest.gateways import KafkaLog, Outbox, restore
from services.ingest.handlers import IngestHandlers, add_ingest_service
from services.ingest.http_door import HttpDoor
from services.ingest.inbox import TOPIC as INBOX
from services.ingest.inbox import Inbox
from services.ingest.instruments import IngestInstruments
from services.ingest.intake import Intake
from services.ingest.settings import IngestSettings

_log = logging.getLogger("services.ingest")
_OBSERVE_EVERY_S = 1.0
_TRY_AGAIN_S = 0.5


def _restored(use_case: UseCase, settings: IngestSettings, kafka: KafkaSettings) -> Admission:
    servers, deadline = settings.kafka_bootstrap_servers, time.monotonic() + settings.start_timeout_s
    _log.info("waiting for the topics of %s on %s", use_case.name, servers)
    wanted = [TOPIC, "dead-letters", "incidents", INBOX]
    spread = await_topics(servers, use_case.name, wanted, settings.start_timeout_s, kafka)[TOPIC]
    while True:
        admission = Admission(use_case, spread, settings.window_ids_max, settings.in_flight_max, settings.clock_mode)
        log = KafkaLog(servers, use_case.name, spread, kafka, settings.start_timeout_s)
        try:
            events = restore(admission, log, settings.restore_records_max)
        except CannotStart as error:
            # A broker that has just started, or just made the topics, may not lead them yet.
            if time.monotonic() > deadline:
                raise
            _log.info("trying again: %s", error)
            time.sleep(_TRY_AGAIN_S)
            continue
        finally:
            log.close()
        clock = f"clock {admission.clock_us} ({admission.mode})"
        _log.info("%s: %s, %d events remembered, %d partitions", use_case.name, clock, events, spread)
        return admission


async def _every(period_s: float, work: Callable[[], Awaitable[None]]) -> None:
    while True:
        await work()
        await asyncio.sleep(period_s)


async def serve(use_case: UseCase, settings: IngestSettings, kafka: KafkaSettings, admission: Admission) -> None:
    """Opens the door and serves; returns after SIGTERM or SIGINT, raises what makes it stop."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    # What is taken in is kept until the broker takes it, however long that takes: its ids then never become uncertain.
    batching = {"linger_ms": settings.linger_ms, "requests_in_flight_max": settings.requests_in_flight_max}
    patient = kafka.model_copy(update=batching | {"delivery_timeout_s": 0.0})
    outbox = Outbox(
        KafkaProducer(
            settings.kafka_bootstrap_servers,
            use_case.name,
            "driftloop-ingest",
            patient,
            instruments("ingest"),
            polled=True,
        ),
        settings.gather_ms / 1000,
    )
    inbox = KafkaReader(
        settings.kafka_bootstrap_servers,
        use_case.name,
        [INBOX],
        f"{use_case.name}.ingest",
        f"ingest-{settings.replica}",
        settings=kafka,
        client_id="driftloop-ingest-inbox",
    )
    try:
        await _serve(use_case, settings, admission, outbox, inbox, stop)
    finally:
        outbox.close(settings.flush_timeout_s)
        inbox.close()


async def _serve(
    use_case: UseCase,
    settings: IngestSettings,
    admission: Admission,
    outbox: Outbox,
    reader: KafkaReader,
    stop: asyncio.Event,
) -> None:
    measured = IngestInstruments()
    intake = Intake(use_case.name, admission, outbox, settings, measured, now_us=lambda: time.time_ns() // 1000)
    handlers = IngestHandlers(intake, admission, settings, measured)
    events = CloudEventsReader(use_case)
    inbox = Inbox(intake, events, settings, measured)
    http = HttpDoor(use_case, events, intake, admission, settings, measured)
    options = [
        ("grpc.max_receive_message_length", settings.call_bytes_max),
        ("grpc.max_send_message_length", settings.call_bytes_max),
        ("grpc.so_reuseport", 0),
    ]
    server = grpc.aio.server(options=options, maximum_concurrent_rpcs=settings.calls_max)
    add_ingest_service(handlers, server)
    named = ingest_pb2.DESCRIPTOR.services_by_name["IngestService"].full_name
    health = await add_health_and_reflection(server, "ingest", [named])
    try:
        server.add_insecure_port(settings.address)
    except RuntimeError as error:
        raise CannotStart(f"cannot listen on {settings.address}") from error
    if settings.http_address:
        await http.open(settings.http_address)
    await server.start()
    await health.set_serving(True)
    http.is_ready = True
    _log.info("serving %s on %s, HTTP on %s", use_case.name, settings.address, settings.http_address or "no address")

    async def observe() -> None:
        outbox.look()
        intake.observe()

    tasks: list[asyncio.Future[Any]] = [
        asyncio.create_task(_every(_OBSERVE_EVERY_S, observe)),
        asyncio.create_task(stop.wait()),
        asyncio.create_task(inbox.run(reader)),
    ]
    if admission.mode == "live":
        tasks.append(asyncio.create_task(_every(settings.tick_s, intake.tick)))
    failed: asyncio.Future[Any] = intake.failed
    try:
        done, _ = await asyncio.wait([*tasks, failed], return_when=asyncio.FIRST_COMPLETED)
    finally:
        http.is_ready = False
        await health.set_serving(False)
        await asyncio.gather(server.stop(settings.stop_grace_s), http.close())
        for task in tasks:
            task.cancel()
        # Their readers and producer are closed next, which must not happen while one of them is in a call.
        await asyncio.gather(*tasks, return_exceptions=True)
    if failed in done:
        raise failed.result()
    for ended in done:
        ended.result()


def main() -> int:
    """The process's exit status: 0 after SIGTERM, 1 after anything that a restart may cure; 2 where settings cannot be."""
    settings = settings_from_environment(IngestSettings, KafkaSettings, TelemetrySettings)
    kafka = KafkaSettings()
    setup_logging("ingest", settings.log_level)
    telemetry = setup_telemetry("ingest")
    # Until the loop runs there is nothing to flush; an exception, raised inside Kafka's C code, could get lost.
    signal.signal(signal.SIGTERM, lambda number, frame: os._exit(0))
    try:
        use_case = load_use_case(settings.use_case, settings.usecases)
        for change in SchemaHistory(ArtifactStore(settings.artifacts_url), use_case.name).accept(use_case).changes:
            _log.info("schema version %d, %s", use_case.schema_version, change)
        admission = _restored(use_case, settings, kafka)
        # Events are freed as soon as they are answered, and nothing in them refers to itself: looking for cycles after every
        # few of them found none and took a tenth of the time.
        gc.freeze()
        gc.set_threshold(settings.gc_allocations)
        uvloop.run(serve(use_case, settings, kafka, admission))
    except (IngestError, MessagingError, UseCaseError, ArtifactError) as error:
        _log.error("stopping: %s", error)
        return 1
    except Exception:
        _log.exception("stopping")
        return 1
    finally:
        telemetry.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
