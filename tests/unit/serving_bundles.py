"""Real signed bundles, a second each to build, whose models answer every row with one number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper

from driftloop.artifacts import ArtifactStore
from driftloop.artifacts.bundles import PublishedBundle, build_bundle, publish_bundle
from driftloop.artifacts.signing import SigningKey, ensure_keys
from driftloop.usecase import UseCase


def constant_graph(use_case: UseCase, score: float) -> bytes:
    """An ONNX graph that answers `score` for every row."""
    value = helper.make_tensor("value", TensorProto.DOUBLE, [1], [score])
    nodes = [
        helper.make_node("Shape", ["numbers"], ["rows"], start=0, end=1),
        helper.make_node("ConstantOfShape", ["rows"], ["probabilities"], value=value),
    ]
    inputs = [helper.make_tensor_value_info("numbers", TensorProto.DOUBLE, ["n", len(use_case.numeric_inputs)])]
    if use_case.text_inputs:
        nodes.append(helper.make_node("Identity", ["codes"], ["unused"]))
        inputs.append(helper.make_tensor_value_info("codes", TensorProto.INT64, ["n", len(use_case.text_inputs)]))
    outputs = [helper.make_tensor_value_info("probabilities", TensorProto.DOUBLE, ["n"])]
    graph = helper.make_graph(nodes, "constant", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return bytes(model.SerializeToString())


def publish(
    folder: Path,
    use_case: UseCase,
    model_id: str,
    score: float,
    key: SigningKey | None = None,
    inputs_digest: str = "",
    **spec_of_task: Any,
) -> PublishedBundle:
    """Publishes a bundle on the store in `folder`/artifacts; `key`: another than trainer's."""
    store = ArtifactStore(folder / "artifacts")
    spec = {
        "inputs_digest": inputs_digest or use_case.inputs_digest,
        "numeric_inputs": list(use_case.numeric_inputs),
        "text_inputs": list(use_case.text_inputs),
        "vocabularies": [[] for _ in use_case.text_inputs],
        **spec_of_task,
    }
    trainers = ensure_keys(store)
    graph = constant_graph(use_case, score)
    built = build_bundle(use_case.name, model_id, graph, b"", spec, folder / "built", folder / "bentoml")
    return publish_bundle(store, use_case.name, model_id, built, key or trainers)


NOT_A_PROBABILITY = float(np.nan)
