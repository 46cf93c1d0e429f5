"""Bundles as the simulation packs them: production's signatures, digests and checks around parts that need no BentoML."""

from __future__ import annotations

import asyncio
import json
import random
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgpack

from driftloop.artifacts import ArtifactStore, BundleRefused
from driftloop.artifacts.bundles import BUNDLE_BYTES_MAX, PublishedBundle, fetch_bundle, publish_bundle
from driftloop.artifacts.signing import ensure_keys, load_verify_key
from driftloop.contracts.monitor.v1.monitor_pb2 import Arm
from driftloop.scoring import ScoringModel
from driftloop.usecase import UseCase
from services.serving.gateways.bundles import try_out
from services.trainer.training import Trained
from simulation.faults import Faults

LOAD_S = 0.2


class Corruption:
    """Which published bundles are damaged: by the model's id, so that it is the same model in every run of a seed."""

    def __init__(self, seed: int, faults: Faults) -> None:
        self._seed, self._likely = seed, faults.corrupt

    def strikes(self, model_id: str) -> bool:
        """Whether the bundle of a model is damaged."""
        return random.Random(f"bundle {model_id} of {self._seed}").random() < self._likely


class SimulatedBundles:
    """Where trainer publishes; see `services.trainer.gateways.Bundles`."""

    def __init__(self, use_case: UseCase, store: ArtifactStore, corruption: Corruption) -> None:
        self._use_case, self._store, self._corruption = use_case, store, corruption
        self._key = ensure_keys(store)

    def model(self, model_id: str, url: str, digest: str) -> ScoringModel:
        """See `Bundles.model`."""
        del model_id
        with tempfile.TemporaryDirectory() as folder:
            file = fetch_bundle(self._store, url, digest, self._key.verify_key, Path(folder))
            return _unpacked(file)

    def publish(self, model_id: str, trained: Trained) -> PublishedBundle:
        """See `Bundles.publish`."""
        spec = json.dumps(trained.spec, sort_keys=True)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "bundle")
            file.write_bytes(msgpack.packb([trained.onnx, trained.weights, spec]))
            published = publish_bundle(self._store, self._use_case.name, model_id, file, self._key)
        if self._corruption.strikes(model_id):
            data = bytearray(self._store.get(published.url, BUNDLE_BYTES_MAX))
            data[len(data) // 2] ^= 1
            self._store.put(published.url, bytes(data))
        return published


class SimulatedLoader:
    """Where serving's models come from; see `services.serving.releases.Loader`."""

    def __init__(self, use_case: UseCase, store: ArtifactStore, pause_s: Callable[[float], float]) -> None:
        self._use_case, self._store, self._pause_s = use_case, store, pause_s

    async def load(self, arm: Arm) -> ScoringModel:
        """The arm's model, tried out; BundleRefused."""
        await asyncio.sleep(self._pause_s(LOAD_S))
        with tempfile.TemporaryDirectory() as folder:
            key = load_verify_key(self._store)
            model = _unpacked(fetch_bundle(self._store, arm.bundle_url, arm.bundle_digest, key, Path(folder)))
        if model.inputs_digest != self._use_case.inputs_digest:
            raise BundleRefused("inputs", f"model {arm.model_id} takes other inputs")
        try_out(model, self._use_case)
        return model


def _unpacked(file: Path) -> ScoringModel:
    onnx, weights, spec = msgpack.unpackb(file.read_bytes())
    return ScoringModel(onnx, json.loads(spec), weights)
