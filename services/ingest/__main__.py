"""Wires ingest and runs it until SIGTERM or a lost message; nothing else."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import uvloop

from driftloop.contracts.ingest.v1 import ingest_pb2
from driftloop.contracts.ingest.v1.ingest_pb2_grpc import add_IngestServiceServicer_to_server
from driftloop.messaging import (
    KafkaProducer,
    KafkaReader,
    KafkaSettings,
    MessagingError,
    Producer,
    ReadFailed,
    await_topics,
)
from driftloop.telemetry import add_health_and_reflection, instruments, setup_logging, setup_telemetry
from driftloop.usecase import UseCase, UseCaseError, load_use_case
from services.ingest.admission import TOPIC, Admission
from services.ingest.errors import CannotStart, IngestError
from services.ingest.gateways import Outbox, oldest_offsets, restore
from services.ingest.handlers import IngestHandlers
from services.ingest.instruments import IngestInstruments
from services.ingest.settings import IngestSettings

_log = logging.getLogger("services.ingest")
_OBSERVE_EVERY_S = 1.0
_TRY_AGAIN_S = 0.5


def _restored(use_case: UseCase, settings: IngestSettings, kafka: KafkaSettings) -> Admission:
    servers, deadline = settings.kafka_bootstrap_servers, time.monotonic() + settings.start_timeout_s
    _log.info("waiting for the topics of %s on %s", use_case.name, servers)
    spread = await_topics(servers, use_case.name, [TOPIC, "dead-letters"], settings.start_timeout_s, kafka)[TOPIC]
    while True:
        admission = Admission(use_case, spread, settings.window_ids_max, settings.in_flight_max, settings.clock_mode)
        try:
            events = _read_log(admission, use_case.name, spread, settings, kafka)
        except (ReadFailed, CannotStart) as error:
            # A broker that has just started, or just made the topics, may not lead them yet.
            if time.monotonic() > deadline:
                raise
            _log.info("trying again: %s", error)
            time.sleep(_TRY_AGAIN_S)
            continue
        clock = f"clock {admission.clock_us} ({admission.mode})"
        _log.info("%s: %s, %d events remembered, %d partitions", use_case.name, clock, events, spread)
        return admission


def _read_log(admission: Admission, use_case: str, spread: int, settings: IngestSettings, kafka: KafkaSettings) -> int:
    servers = settings.kafka_bootstrap_servers
    oldest = oldest_offsets(servers, use_case, spread, kafka)
    reader = KafkaReader(servers, use_case, [TOPIC], settings=kafka, client_id="driftloop-ingest-restore")
    try:
        return restore(admission, reader, oldest, settings.restore_records_max, settings.start_timeout_s)
    finally:
        reader.close()


async def _every(period_s: float, work: Callable[[], Awaitable[None]]) -> None:
    while True:
        await work()
        await asyncio.sleep(period_s)


async def serve(use_case: UseCase, settings: IngestSettings, kafka: KafkaSettings, admission: Admission) -> None:
    """Opens the door and serves; returns after SIGTERM or SIGINT, raises what makes it stop."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    lingering = kafka.model_copy(update={"linger_ms": settings.linger_ms})
    producer: Producer = KafkaProducer(
        settings.kafka_bootstrap_servers, use_case.name, "driftloop-ingest", lingering, instruments("ingest")
    )
    try:
        await _serve(use_case, settings, admission, producer, stop)
    finally:
        await asyncio.to_thread(producer.close, settings.flush_timeout_s)


async def _serve(
    use_case: UseCase, settings: IngestSettings, admission: Admission, producer: Producer, stop: asyncio.Event
) -> None:
    handlers = IngestHandlers(
        use_case.name, admission, Outbox(producer), settings, IngestInstruments(), now_us=lambda: time.time_ns() // 1000
    )
    options = [
        ("grpc.max_receive_message_length", settings.call_bytes_max),
        ("grpc.max_send_message_length", settings.call_bytes_max),
        ("grpc.so_reuseport", 0),
    ]
    server = grpc.aio.server(options=options, maximum_concurrent_rpcs=settings.calls_max)
    add_IngestServiceServicer_to_server(handlers, server)
    named = ingest_pb2.DESCRIPTOR.services_by_name["IngestService"].full_name
    health = await add_health_and_reflection(server, "ingest", [named])
    try:
        server.add_insecure_port(settings.address)
    except RuntimeError as error:
        raise CannotStart(f"cannot listen on {settings.address}") from error
    await server.start()
    await health.set_serving(True)
    _log.info("serving %s on %s", use_case.name, settings.address)

    async def observe() -> None:
        handlers.observe()

    tasks: list[asyncio.Future[Any]] = [
        asyncio.create_task(_every(_OBSERVE_EVERY_S, observe)),
        asyncio.create_task(stop.wait()),
    ]
    if admission.mode == "live":
        tasks.append(asyncio.create_task(_every(settings.tick_s, handlers.tick)))
    failed: asyncio.Future[Any] = handlers.failed
    try:
        done, _ = await asyncio.wait([*tasks, failed], return_when=asyncio.FIRST_COMPLETED)
    finally:
        await health.set_serving(False)
        await server.stop(settings.stop_grace_s)
        for task in tasks:
            task.cancel()
    if failed in done:
        raise failed.result()
    for ended in done:
        ended.result()


def main() -> int:
    """The process's exit status: 0 after SIGTERM, 1 after anything that a restart may cure."""
    settings, kafka = IngestSettings(), KafkaSettings()
    setup_logging("ingest", settings.log_level)
    telemetry = setup_telemetry("ingest")
    # Until the loop runs there is nothing to flush; an exception, raised inside Kafka's C code, could get lost.
    signal.signal(signal.SIGTERM, lambda number, frame: os._exit(0))
    try:
        use_case = load_use_case(settings.use_case, settings.usecases)
        admission = _restored(use_case, settings, kafka)
        uvloop.run(serve(use_case, settings, kafka, admission))
    except (IngestError, MessagingError, UseCaseError) as error:
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
