"""Bundles: what is loaded is what was signed; what is not is refused before anything of it is imported."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bentoml._internal.configuration import get_uv_command
from onnx import TensorProto, helper, numpy_helper
from starlette.testclient import TestClient

from driftloop.artifacts import ArtifactStore, BundleRefused
from driftloop.artifacts.bundles import PublishedBundle, build_bundle, fetch_bundle, load_bundle, publish_bundle
from driftloop.artifacts.signing import (
    SIGNING_KEY_PATH,
    VERIFY_KEY_PATH,
    KeyUnusable,
    SigningKey,
    ensure_keys,
    load_verify_key,
)

SPEC = {
    "inputs_digest": "d1",
    "numeric_inputs": ["a", "b"],
    "text_inputs": ["word"],
    "vocabularies": [["hello", "world"]],
}
BYTES_MAX = 1 << 20


def graph(bias: float) -> bytes:
    """sigmoid(a + b + code + bias)."""
    nodes = [
        helper.make_node("ReduceSum", ["numbers", "axis"], ["summed"], keepdims=0),
        helper.make_node("Cast", ["codes"], ["weights"], to=TensorProto.DOUBLE),
        helper.make_node("Squeeze", ["weights", "axis"], ["words"]),
        helper.make_node("Sum", ["summed", "words", "bias"], ["logits"]),
        helper.make_node("Sigmoid", ["logits"], ["probabilities"]),
    ]
    constants = [
        numpy_helper.from_array(np.array([1], np.int64), "axis"),
        numpy_helper.from_array(np.array(bias), "bias"),
    ]
    inputs = [
        helper.make_tensor_value_info("numbers", TensorProto.DOUBLE, ["rows", 2]),
        helper.make_tensor_value_info("codes", TensorProto.INT64, ["rows", 1]),
    ]
    outputs = [helper.make_tensor_value_info("probabilities", TensorProto.DOUBLE, ["rows"])]
    made = helper.make_graph(nodes, "test", inputs, outputs, constants)
    return bytes(helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9).SerializeToString())


def probability(logit: float) -> float:
    return float(1 / (1 + np.exp(-logit)))


class Shelf:
    """A store with keys, to publish on and to load from."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = ArtifactStore(folder / "artifacts")
        self.key = ensure_keys(self.store)

    def publish(self, model_id: str, bias: float = 0.0) -> PublishedBundle:
        built = build_bundle("words", model_id, graph(bias), b"w", SPEC, self.folder / "built", self.folder / "bentoml")
        return publish_bundle(self.store, "words", model_id, built, self.key)

    def fetch(self, bundle: PublishedBundle, **changes: Any) -> Path:
        arguments = {
            "url": bundle.url,
            "digest": bundle.digest,
            "verify_key": load_verify_key(self.store),
            "into": self.folder / "fetched",
            "max_bytes": BYTES_MAX,
        }
        return fetch_bundle(self.store, **{**arguments, **changes})


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


def refused(shelf: Shelf, bundle: PublishedBundle, **changes: Any) -> str:
    with pytest.raises(BundleRefused) as refusal:
        shelf.fetch(bundle, **changes)
    assert not (shelf.folder / "fetched").exists()
    return refusal.value.reason


def test_a_published_bundle_comes_back_as_the_same_model(shelf: Shelf) -> None:
    fetched = shelf.fetch(shelf.publish("roundtrip", bias=0.5))
    model = load_bundle(fetched, shelf.folder / "serving", "roundtrip")
    answers = model.predict([[1.0, 2.0], [0.0, -1.0]], [["world"], ["never seen"]])
    assert answers == pytest.approx([probability(5.5), probability(-0.5)])
    assert (model.model_id, model.inputs_digest) == ("roundtrip", "d1")


def test_two_versions_in_one_process_answer_differently(shelf: Shelf) -> None:
    loaded = []
    for model_id, bias in (("v1", 0.0), ("v2", 3.0)):
        fetched = shelf.fetch(shelf.publish(model_id, bias))
        loaded.append(load_bundle(fetched, shelf.folder / "serving", model_id))
    answers = [model.predict([[0.0, 0.0]], [["hello"]])[0] for model in loaded]
    assert answers == pytest.approx([probability(1.0), probability(4.0)])


def test_a_bundle_can_be_loaded_again_after_a_crash_left_it_half_imported(shelf: Shelf) -> None:
    fetched = shelf.fetch(shelf.publish("again"))
    for _ in range(2):
        assert load_bundle(fetched, shelf.folder / "serving", "again").model_id == "again"


def test_a_bundle_answers_over_http_with_null_for_missing(shelf: Shelf) -> None:
    load_bundle(shelf.fetch(shelf.publish("overhttp", bias=1.0)), shelf.folder / "serving", "overhttp")
    service = sys.modules["driftloop_model_overhttp.service"].Model
    with TestClient(service.to_asgi()) as client:
        answer = client.post("/predict", json={"numbers": [[1.0, 0.0]], "texts": [["hello"]]})
        missing = client.post("/predict", json={"numbers": [[None, 0.0]], "texts": [["hello"]]})
    assert answer.json() == pytest.approx([probability(3.0)])
    assert missing.status_code == 200


def test_a_bundle_imports_neither_driftloop_nor_torch(shelf: Shelf) -> None:
    load_bundle(shelf.fetch(shelf.publish("alone")), shelf.folder / "serving", "alone")
    modules = [module for name, module in sys.modules.items() if name.startswith("driftloop_model_alone.")]
    assert len(modules) == 2
    owners = {getattr(value, "__module__", None) or "" for module in modules for value in vars(module).values()}
    assert not [owner for owner in owners if owner.startswith(("driftloop.", "torch"))]


def test_a_changed_file_is_refused(shelf: Shelf) -> None:
    bundle = shelf.publish("changed")
    data = bytearray(shelf.store.get(bundle.url, BYTES_MAX))
    data[len(data) // 2] ^= 1
    shelf.store.put(bundle.url, bytes(data))
    assert refused(shelf, bundle) == "digest"
    assert refused(shelf, bundle, digest=hashlib.sha256(data).hexdigest()) == "signature"


def test_a_signature_by_another_key_is_refused(shelf: Shelf) -> None:
    bundle = shelf.publish("foreign")
    assert refused(shelf, bundle, verify_key=SigningKey.generate().verify_key) == "signature"


def test_a_signature_with_a_changed_statement_is_refused(shelf: Shelf) -> None:
    bundle = shelf.publish("forged")
    path = bundle.url.replace("model.bento", "signature.json")
    statement = json.loads(shelf.store.get(path, BYTES_MAX))
    shelf.store.put(path, json.dumps({**statement, "model_id": "other"}).encode())
    assert refused(shelf, bundle) == "signature"
    shelf.store.put(path, b"{}")
    assert refused(shelf, bundle) == "signature"


def test_a_signed_bundle_under_another_models_name_is_refused(shelf: Shelf) -> None:
    bundle = shelf.publish("original")
    for name in ("model.bento", "signature.json"):
        data = shelf.store.get(bundle.url.replace("model.bento", name), BYTES_MAX)
        shelf.store.put(f"words/bundles/impostor/{name}", data)
    assert refused(shelf, bundle, url="words/bundles/impostor/model.bento") == "name"


def test_a_bundle_beyond_the_bound_is_refused(shelf: Shelf) -> None:
    assert refused(shelf, shelf.publish("large"), max_bytes=10) == "size"


def test_a_missing_bundle_and_a_path_outside_the_store_are_refused(shelf: Shelf) -> None:
    bundle = shelf.publish("present")
    assert refused(shelf, bundle, url="words/bundles/absent/model.bento") == "missing"
    assert refused(shelf, bundle, url="../outside/model.bento") == "name"


def test_a_bundle_that_does_not_load_is_refused(shelf: Shelf) -> None:
    built = build_bundle("words", "broken", b"no graph", b"", SPEC, shelf.folder / "built", shelf.folder / "bentoml")
    bundle = publish_bundle(shelf.store, "words", "broken", built, shelf.key)
    with pytest.raises(BundleRefused) as refusal:
        load_bundle(shelf.fetch(bundle), shelf.folder / "serving", "broken")
    assert refusal.value.reason == "broken"


def test_a_model_id_that_is_no_module_name_is_refused(shelf: Shelf) -> None:
    with pytest.raises(ValueError, match="letters, digits"):
        shelf.publish("../escape")


def test_keys_are_made_once_and_the_public_half_heals(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    first = ensure_keys(store)
    store.delete(VERIFY_KEY_PATH)
    second = ensure_keys(store)
    assert load_verify_key(store).verifies(b"data", first.sign(b"data"))
    assert second.verify_key.to_pem() == first.verify_key.to_pem()


def test_a_file_that_holds_no_key_is_named(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    store.put(SIGNING_KEY_PATH, b"nonsense")
    store.put(VERIFY_KEY_PATH, b"nonsense")
    with pytest.raises(KeyUnusable, match=SIGNING_KEY_PATH):
        ensure_keys(store)
    with pytest.raises(KeyUnusable, match=VERIFY_KEY_PATH):
        load_verify_key(store)


def test_a_bundle_is_built_where_temporary_files_may_not_be_executed(tmp_path, monkeypatch):
    # Containers mount /tmp without the right to execute: os.access says so of every file that lies there itself.
    real = os.access

    def access(path, mode, **options):
        inside = str(path).startswith(tempfile.gettempdir()) and not os.path.islink(path) and os.path.isfile(path)
        return real(path, mode, **options) and not (inside and mode & os.X_OK)

    monkeypatch.setattr(os, "access", access)
    monkeypatch.setenv("PATH", os.defpath)
    get_uv_command.cache_clear()
    made = build_bundle("shop", "m1", graph(0.0), b"weights", SPEC, tmp_path / "into", tmp_path / "bentos")
    assert made.is_file()
