"""From a release's arm to a model in this process: what is wrong with a bundle is found before it answers anybody."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from driftloop.artifacts import ArtifactStore, BundleRefused
from driftloop.artifacts.bundles import PublishedBundle
from driftloop.artifacts.signing import SigningKey
from driftloop.contracts.monitor.v1.monitor_pb2 import Arm
from driftloop.usecase import load_use_case
from services.serving.gateways.bundles import BundleLoader
from services.serving.settings import ServingSettings
from tests.unit.serving_bundles import NOT_A_PROBABILITY, publish

FLIGHTS = load_use_case("flights")
ROW = np.zeros((3, len(FLIGHTS.numeric_inputs))), [[""] * len(FLIGHTS.text_inputs)] * 3


def loader(folder: Path, store: ArtifactStore | None = None) -> BundleLoader:
    settings = ServingSettings(state_dir=folder / "state", bundle_retry_s=0.01, bundle_bytes_max=100_000)
    return BundleLoader(FLIGHTS, settings, store or ArtifactStore(folder / "artifacts"))


def arm(model_id: str, bundle: PublishedBundle, digest: str = "") -> Arm:
    return Arm(model_id=model_id, bundle_url=bundle.url, bundle_digest=digest or bundle.digest)


async def refused(folder: Path, wanted: Arm) -> str:
    with pytest.raises(BundleRefused) as error:
        await loader(folder).load(wanted)
    return error.value.reason


async def test_versions_loaded_one_after_the_other_each_answer_for_themselves(tmp_path: Path) -> None:
    bundles = {f"m{n}": publish(tmp_path, FLIGHTS, f"m{n}", n / 10) for n in (1, 2)}
    one_loader = loader(tmp_path)
    models = {model_id: await one_loader.load(arm(model_id, bundle)) for model_id, bundle in bundles.items()}
    assert {model_id: model.predict(*ROW).tolist() for model_id, model in models.items()} == {
        "m1": [0.1] * 3,
        "m2": [0.2] * 3,
    }


async def test_a_corrupt_bundle_is_refused(tmp_path: Path) -> None:
    bundle = publish(tmp_path, FLIGHTS, "m1", 0.1)
    store = ArtifactStore(tmp_path / "artifacts")
    data = bytearray(store.get(bundle.url, 1 << 20))
    data[len(data) // 2] ^= 1
    store.put(bundle.url, bytes(data))
    assert await refused(tmp_path, arm("m1", bundle)) == "digest"


async def test_a_bundle_signed_by_another_key_is_refused(tmp_path: Path) -> None:
    bundle = publish(tmp_path, FLIGHTS, "m1", 0.1, key=SigningKey.generate())
    assert await refused(tmp_path, arm("m1", bundle)) == "signature"


async def test_a_bundle_that_takes_other_inputs_is_refused(tmp_path: Path) -> None:
    assert await refused(tmp_path, arm("m1", publish(tmp_path, FLIGHTS, "m1", 0.1, inputs_digest="other"))) == "inputs"


@pytest.mark.parametrize("score", [NOT_A_PROBABILITY, 1.5])
async def test_a_bundle_whose_model_gives_no_probability_is_refused(tmp_path: Path, score: float) -> None:
    assert await refused(tmp_path, arm("m1", publish(tmp_path, FLIGHTS, "m1", score))) == "trial"


@pytest.mark.parametrize("spec", [{"task": "regression"}, {"task": "multiclass", "classes": ["a", "b"]}])
async def test_a_bundle_that_answers_another_task_is_refused(tmp_path: Path, spec: dict[str, object]) -> None:
    assert await refused(tmp_path, arm("m1", publish(tmp_path, FLIGHTS, "m1", 0.1, **spec))) == "task"


async def test_a_bundle_that_was_removed_is_refused(tmp_path: Path) -> None:
    bundle = publish(tmp_path, FLIGHTS, "m1", 0.1)
    ArtifactStore(tmp_path / "artifacts").delete(bundle.url)
    assert await refused(tmp_path, arm("m1", bundle)) == "missing"


async def test_a_bundle_above_the_bound_is_refused_unread(tmp_path: Path) -> None:
    bundle = publish(tmp_path, FLIGHTS, "m1", 0.1)
    ArtifactStore(tmp_path / "artifacts").put(bundle.url, b"x" * 100_001)
    assert await refused(tmp_path, arm("m1", bundle)) == "size"


class Unreachable(ArtifactStore):
    """A store that no call reaches."""

    calls = 0

    def get(self, path: str, max_bytes: int) -> bytes:
        self.calls += 1
        raise ConnectionError("no route")


async def test_a_store_that_does_not_answer_is_asked_again_and_then_given_up(tmp_path: Path) -> None:
    store = Unreachable(tmp_path)
    with pytest.raises(BundleRefused) as error:
        await loader(tmp_path, store).load(Arm(model_id="m1", bundle_url="flights/bundles/m1/model.bento"))
    assert (error.value.reason, store.calls) == ("unreachable", 3)
