"""Puts a handler together behind the process's way to ready: torch, Feast and BentoML take twenty seconds to import."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

import numpy as np

from driftloop.artifacts import ArtifactStore
from driftloop.artifacts.archive import ARCHIVE_TOPICS
from driftloop.messaging import KafkaReader, KafkaSettings, Producer
from driftloop.usecase import UseCase, duration_us
from services.trainer.archive import BundleArchive
from services.trainer.errors import NoGpu
from services.trainer.gateways import OfflineData, Outbox, SignedBundles
from services.trainer.handlers import Bounds, RetrainHandler
from services.trainer.instruments import TrainerInstruments
from services.trainer.recording import LineageRecorder, MlflowRecorder, Recorder, Recording, RecordingBounds
from services.trainer.settings import TrainerSettings

_log = logging.getLogger(__name__)
_TRIAL_ROWS = 400


def open_handler(
    use_case: UseCase,
    settings: TrainerSettings,
    producer: Producer,
    measured: TrainerInstruments,
    stop: threading.Event,
) -> RetrainHandler:
    """The handler with its gateways, after everything slow was imported and tried once."""
    started_s = time.monotonic()
    import bentoml
    import torch

    from services.trainer.attempts import Device, TrainingSettings
    from services.trainer.gates import GateSettings

    device: Device = "cuda" if settings.device == "auto" and torch.cuda.is_available() else "cpu"
    if settings.device != "auto":
        device = settings.device
    if device == "cuda" and not torch.cuda.is_available():
        raise NoGpu(
            "TRAINER_DEVICE is cuda and torch finds no GPU: give the container one (compose.gpu.yaml and NVIDIA's "
            "container toolkit on the host), or leave compose.gpu.yaml away to train on the CPU"
        )
    training = TrainingSettings(threads=settings.threads, device=device)
    _try_out(use_case, training)
    # BentoML imports most of itself only when its decorator is first asked for.
    _log.debug("%s is there", bentoml.service.__module__)
    store = ArtifactStore(settings.artifacts_url)
    data = OfflineData(
        use_case,
        store,
        store.url,
        settings.folder / "feast",
        settings.data_timeout_s,
        settings.join_threads,
        stop,
        settings.join,
        round(settings.visible_after_s * 1e6),
    )
    data.warm_up()
    bundles = SignedBundles(use_case, store, settings.folder / "bundles", settings.bundle_bytes_max)
    _log.info("warm after %.1f s, trains on %s", time.monotonic() - started_s, device)
    return RetrainHandler(
        use_case=use_case,
        data=data,
        bundles=bundles,
        outgoing=Outbox(producer, stop),
        bounds=Bounds(settings.rows_max, settings.rows_min),
        training=training,
        gates=GateSettings(size_bytes_max=settings.bundle_bytes_max // 2, leak=settings.leak_share),
        measured=measured,
        stopping=stop.is_set,
    )


def open_recording(
    use_case: UseCase, settings: TrainerSettings, kafka: KafkaSettings, measured: TrainerInstruments
) -> Recording:
    """Who is told of answers, by the settings: by default the archive of bundles alone."""
    servers, name = settings.kafka_bootstrap_servers, use_case.name

    def read() -> KafkaReader:
        return KafkaReader(servers, name, ARCHIVE_TOPICS, settings=kafka, client_id="trainer-archive")

    def answers() -> KafkaReader:
        client = f"trainer-{settings.replica}-recording"
        return KafkaReader(
            servers, name, ["models"], f"{name}-trainer-recording", client, settings=kafka, client_id=client
        )

    def requests() -> KafkaReader:
        return KafkaReader(servers, name, ["retrain"], settings=kafka, client_id="trainer-requests")

    recorders: list[Callable[[], Recorder]] = []
    if settings.bundles_kept:
        recorders.append(
            lambda: BundleArchive(
                ArtifactStore(settings.artifacts_url),
                read,
                settings.bundles_kept,
                duration_us(settings.bundles_kept_for),
                settings.recording_timeout_s,
            )
        )
    if settings.mlflow_uri:
        recorders.append(lambda: MlflowRecorder(settings.mlflow_uri, settings.recording_timeout_s))
    if settings.lineage:
        recorders.append(
            lambda: LineageRecorder(settings.lineage, settings.artifacts_url, settings.recording_timeout_s)
        )
    bounds = RecordingBounds(
        settings.recording_requests_max,
        settings.recording_attempts_max,
        settings.recording_retry_s,
        settings.recording_timeout_s,
        settings.poll_s,
    )
    return Recording(recorders, answers, requests, bounds, measured)


def _try_out(use_case: UseCase, settings: object) -> None:
    """Fits a model on noise: the first fit of a process takes seconds longer than any other."""
    from dataclasses import replace

    from services.trainer.attempts import TrainingSet, TrainingSettings
    from services.trainer.training import train

    assert isinstance(settings, TrainingSettings)
    draws = np.random.default_rng(0)
    rows = TrainingSet(
        entities=[str(row) for row in range(_TRIAL_ROWS)],
        at_us=np.arange(_TRIAL_ROWS, dtype=np.int64),
        numbers=draws.normal(size=(_TRIAL_ROWS, len(use_case.numeric_inputs))),
        texts=draws.choice(["a", "b"], size=(_TRIAL_ROWS, len(use_case.text_inputs))),
        labels=(np.arange(_TRIAL_ROWS) % 2).astype(np.float64),
        known_at_us=np.arange(_TRIAL_ROWS, dtype=np.int64),
    )
    train(use_case, rows, 0, None, 0, replace(settings, epochs=1), lambda detail: None)
