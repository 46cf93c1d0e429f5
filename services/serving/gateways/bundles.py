"""Turns an arm of a release into a model in this process, or says why not; a thread of its own, so that no call waits.

Nothing of a bundle is imported before its size, digest and signature have been found right.
"""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from driftloop.artifacts import ArtifactStore, BundleRefused
from driftloop.artifacts.bundles import fetch_bundle, load_bundle
from driftloop.artifacts.signing import load_verify_key
from driftloop.contracts.monitor.v1.monitor_pb2 import Arm
from driftloop.usecase import UseCase
from services.serving.routing import Model
from services.serving.scores import usable
from services.serving.settings import ServingSettings

_logger = logging.getLogger(__name__)


class BundleLoader:
    """Fetches, checks and loads bundles, one at a time."""

    def __init__(self, use_case: UseCase, settings: ServingSettings, store: ArtifactStore) -> None:
        self._use_case = use_case
        self._settings = settings
        self._store = store
        self._home = settings.folder_of(use_case.name) / "bundles"
        self._thread = ThreadPoolExecutor(1, "serving-bundles")

    def open_ahead(self) -> None:
        """Imports what loading needs, which takes a second, before the first release is read."""
        self._thread.submit(_import_ahead)

    async def load(self, arm: Arm) -> Model:
        """The arm's model, tried out on a row without values; BundleRefused says why it must not answer."""
        loop = asyncio.get_running_loop()
        attempt = 1
        while True:
            try:
                return await loop.run_in_executor(self._thread, self._load, arm)
            except BundleRefused:
                raise
            except Exception as error:  # a store that does not answer; what its client raises is its own affair
                _logger.warning("bundle %s, attempt %d: %s: %s", arm.bundle_url, attempt, type(error).__name__, error)
                if attempt >= self._settings.bundle_attempts_max:
                    raise BundleRefused("unreachable", f"{arm.bundle_url}: {type(error).__name__}: {error}") from error
            attempt += 1
            await asyncio.sleep(self._settings.bundle_retry_s)

    def _load(self, arm: Arm) -> Model:
        most, key = self._settings.bundle_bytes_max, load_verify_key(self._store)
        file = fetch_bundle(self._store, arm.bundle_url, arm.bundle_digest, key, self._home / "fetched", most)
        try:
            model = load_bundle(file, self._home / "bentoml", arm.model_id)
        finally:
            file.unlink(missing_ok=True)
        if model.inputs_digest != self._use_case.inputs_digest:
            given = self._use_case.inputs_digest
            raise BundleRefused(
                "inputs", f"model {arm.model_id} takes inputs {model.inputs_digest}, requests have {given}"
            )
        declared = self._use_case.predict
        if (model.task, model.classes) != (declared.task, declared.classes):
            learned = f"{model.task} {', '.join(model.classes)}".strip()
            raise BundleRefused("task", f"model {arm.model_id} answers {learned}, which is not the task declared now")
        try_out(model, self._use_case)
        return model


def _import_ahead() -> None:
    import bentoml
    import onnxruntime

    # BentoML imports most of itself only when its decorator is first asked for.
    _logger.debug("imported %s and ONNX Runtime %s", bentoml.service.__module__, onnxruntime.__version__)


def try_out(model: Model, use_case: UseCase) -> None:
    """Asks a model once, for a row in which everything is missing; BundleRefused if it gives no usable answer.

    Any entity may be like that row, and the first call of a model is its slowest.
    """
    numbers = np.full((1, len(use_case.numeric_inputs)), np.nan)
    try:
        found = np.asarray(model.predict(numbers, [[""] * len(use_case.text_inputs)]), dtype=np.float64)
    except Exception as error:  # foreign code: whatever it raises is the reason to refuse it
        raise BundleRefused("trial", f"the model raised {type(error).__name__}: {error}") from error
    _, why = usable(use_case.predict, found, 1)
    if why:
        raise BundleRefused("trial", f"the model {why}, for a row without values")
