"""Wires trainer and runs it until SIGTERM or a failure; nothing else."""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable

from driftloop.artifacts import ArtifactError, ArtifactStore
from driftloop.featurestore.errors import FeatureStoreError
from driftloop.featurestore.shared import SharedStores
from driftloop.messaging import (
    DeliveryFailed,
    KafkaProducer,
    KafkaReader,
    KafkaSettings,
    Malformed,
    MessagingError,
    await_topics,
    dead_letter,
)
from driftloop.settings import settings_from_environment
from driftloop.telemetry import TelemetrySettings, instruments, serve_health_in_thread, setup_logging, setup_telemetry
from driftloop.telemetry.health import AddressInUse
from driftloop.usecase import UseCase, UseCaseError, load_use_case
from services.trainer.bootstrap import open_handler, open_recording
from services.trainer.device import observe_device
from services.trainer.errors import TrainerError
from services.trainer.gateways import Outbox, answered_requests
from services.trainer.instruments import TrainerInstruments
from services.trainer.settings import TrainerSettings
from services.trainer.worker import Consumption, Worker

_log = logging.getLogger("services.trainer")
_STOP_SLACK_S = 2.0  # for health, telemetry, and what lies between the bounds of a stop
TOPICS = ("retrain", "models", "progress", "dead-letters")


def serve(use_case: UseCase, settings: TrainerSettings, kafka: KafkaSettings) -> None:
    """Answers requests until SIGTERM or SIGINT; raises what it cannot recover from."""
    servers, name = settings.kafka_bootstrap_servers, f"trainer-{settings.replica}"
    health = serve_health_in_thread(settings.address, "trainer")
    await_topics(servers, use_case.name, TOPICS, settings.start_timeout_s, kafka)
    # The worker opens the store on its own thread, behind the way to ready.
    ArtifactStore(settings.artifacts_url).require()
    measured = TrainerInstruments()
    answered = answered_requests(
        lambda: KafkaReader(servers, use_case.name, ["models"], settings=kafka, client_id=f"{name}-answers"),
        settings.start_timeout_s,
    )
    stop = threading.Event()
    _on_signal(stop.set)
    reader = KafkaReader(
        servers, use_case.name, ["retrain"], f"{use_case.name}-trainer", name, settings=kafka, client_id=name
    )
    producer = KafkaProducer(servers, use_case.name, name, kafka, instruments("trainer"))
    recording = open_recording(use_case, settings, kafka, measured)
    worker = Worker(lambda: open_handler(use_case, settings, producer, measured, stop), settings.open_requests_max)
    outbox = Outbox(producer, stop)

    def refuse(malformed: Malformed) -> None:
        measured.dead_letter(malformed.rule)
        outbox.deliver(dead_letter(malformed, "trainer", use_case.name))

    consumption = Consumption(reader, worker, answered, refuse)
    declared = instruments("trainer")
    observe_device(declared, settings.device)
    declared.observed("requests_open", lambda: [(consumption.open_requests, {})])
    worker.start()
    recording.start()
    health.set_serving(True)
    _log.info("%s: ready on %s, %d requests answered so far", use_case.name, settings.address, len(answered))
    try:
        while not stop.is_set():
            consumption.turn(settings.poll_s)
    except DeliveryFailed:
        if not stop.is_set():  # else the broker may have gone before us: what is not acknowledged is done again
            raise
    finally:
        end_within(settings.stop_timeout_s + settings.recording_stop_s + settings.flush_timeout_s + _STOP_SLACK_S)
        health.set_serving(False)
        stop.set()
        worker.stop(settings.stop_timeout_s)
        recording.close(settings.recording_stop_s)
        producer.close(settings.flush_timeout_s)
        # The reader is not closed: commits are done, a static member does not leave its group, and the call has hung.
        health.stop(0.1)


def _quiet() -> None:
    """Feast and BentoML report their every step, and warn of what they themselves use that is deprecated."""
    warnings.simplefilter("ignore", DeprecationWarning)
    for library in ("feast", "bentoml"):
        logging.getLogger(library).setLevel(logging.WARNING)


def end_within(timeout_s: float) -> None:
    """Ends the process with 1, saying where every thread stands, if it is still there then; what was not answered is done again.

    By a thread that needs nothing of the interpreter: a library that keeps its lock would keep any other bound, too.
    """
    faulthandler.dump_traceback_later(timeout_s, exit=True)


def _on_signal(act: Callable[[], None]) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: act())


def main() -> int:
    """The process's exit status: 0 after SIGTERM, 1 after anything that a restart may cure; 2 where settings cannot be."""
    settings = settings_from_environment(TrainerSettings, KafkaSettings, TelemetrySettings, SharedStores)
    kafka = KafkaSettings()
    setup_logging("trainer", settings.log_level)
    _quiet()
    telemetry = setup_telemetry("trainer")
    # Until requests are read there is nothing to finish.
    _on_signal(lambda: os._exit(0))
    try:
        serve(load_use_case(settings.use_case, settings.usecases), settings, kafka)
    except (TrainerError, MessagingError, UseCaseError, ArtifactError, FeatureStoreError, AddressInUse) as error:
        _log.error("stopped: %s: %s", type(error).__name__, error)
        return 1
    except Exception:
        _log.exception("stopped by a failure that has no name yet")
        return 1
    finally:
        telemetry.shutdown()
    return 0


if __name__ == "__main__":
    status = main()
    # A fit or a long import on the worker's thread would hold the exit up; everything is flushed by now.
    logging.shutdown()
    sys.stdout.flush()
    os._exit(status)
