"""A trained network as an ONNX graph, built node by node; never trains.

The general exporter takes 3 to 11 s and traces what is known here: this graph is built in milliseconds, and depends on the
weights alone. Embeddings are multiplied into the first layer, so that a text input costs one look-up. Of several networks each has
its own part of the graph, under a prefix; codes are of one vocabulary, by which their tables are put in order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import TensorProto, checker, helper, numpy_helper

from driftloop.scoring.model import ONNX_CODES, ONNX_NUMBERS, ONNX_PROBABILITIES, ONNX_VALUES
from services.trainer.blend import Member
from services.trainer.network import Network
from services.trainer.preprocessing import Preprocessing

OPSET = 18
IR_VERSION = 9


class _Graph:
    """Nodes and constants; all names but those of the graph's inputs and output are under `prefix`."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.prefix = ""

    def constant(self, name: str, value: npt.NDArray[Any]) -> str:
        self.constants.append(numpy_helper.from_array(np.asarray(value, order="C"), self._named(name)))
        return name

    def node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes_of(kind, inputs, [output], **attributes)
        return output

    def nodes_of(self, kind: str, inputs: list[str], outputs: list[str], **attributes: Any) -> None:
        found = [[self._named(name) for name in names] for names in (inputs, outputs)]
        self.nodes.append(helper.make_node(kind, *found, **attributes))

    def _named(self, name: str) -> str:
        return name if name in (ONNX_NUMBERS, ONNX_CODES) else self.prefix + name


def to_onnx(members: Sequence[Member], vocabularies: Sequence[Sequence[str]]) -> bytes:
    """The graph: `numbers` float64 (rows, numeric inputs) and `codes` int64 (rows, text inputs) to one output.

    vocabularies: that codes are of, per text input; each lists all that a member's own does. Binary: `probabilities` float32
    (rows,). Multiclass: the same, (rows, classes). Regression: `values` float64 (rows,).
    """
    graph, inputs = _Graph(), []
    numbers = len(members[0].preprocessing.edges)
    if numbers:
        inputs.append(helper.make_tensor_value_info(ONNX_NUMBERS, TensorProto.DOUBLE, ["rows", numbers]))
    if vocabularies:
        inputs.append(helper.make_tensor_value_info(ONNX_CODES, TensorProto.INT64, ["rows", len(vocabularies)]))
    parts = []
    for place, member in enumerate(members):
        graph.prefix = f"member_{place}_" if len(members) > 1 else ""
        _logits(graph, member, vocabularies)
        parts.append(graph.prefix + _weighted(graph, member))
    graph.prefix = ""
    mean = graph.node("Sum", parts, "mean") if len(parts) > 1 else parts[0]
    output = _answered(graph, members[0].network, mean)
    model = helper.make_model(
        helper.make_graph(graph.nodes, "driftloop", inputs, [output], graph.constants),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="driftloop",
    )
    checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))


def _logits(graph: _Graph, member: Member, vocabularies: Sequence[Sequence[str]]) -> None:
    """From the inputs to `logits`, (rows, outputs)."""
    network, preprocessing = member.network, member.preprocessing
    outputs = network.heads.outputs
    # More columns travel with the first layer's output, three for each output: the linear way past the layers, and the sums of
    # gains and offsets.
    weight = np.concatenate([_array(network.core.first.weight), _array(network.core.skip.weight)])
    bias = _array(network.core.first.bias)
    hidden = len(bias)
    start = np.concatenate([bias, np.zeros(outputs, np.float32), _array(network.heads.common)])
    parts = [graph.constant("first_bias", start[None, :])]
    if preprocessing.edges:
        parts.append(_encoded(graph, preprocessing, weight[:, : preprocessing.width], 2 * outputs))
    if preprocessing.vocabularies:
        places = [_places(own, words) for own, words in zip(preprocessing.vocabularies, vocabularies, strict=True)]
        parts.extend(_looked_up(graph, network, weight[:, preprocessing.width :], places))
    graph.node("Sum", parts, "summed")
    graph.constant("split", np.array([hidden, outputs, outputs, outputs], dtype=np.int64))
    graph.nodes_of("Split", ["summed", "split"], ["first", "skip", "gain", "offset"], axis=1)
    graph.node("Relu", ["first"], "first_active")
    _linear(graph, "second", "first_active", _array(network.core.second.weight), _array(network.core.second.bias))
    graph.node("Relu", ["second"], "second_active")
    graph.node("Add", ["first_active", "second_active"], "residual")
    _linear(graph, "deep", "residual", _array(network.core.last.weight), _array(network.core.last.bias))
    graph.node("Add", ["deep", "skip"], "core")
    graph.node("Add", ["gain", graph.constant("one", np.ones((1, 1), np.float32))], "scale")
    graph.node("Mul", ["core", "scale"], "scaled")
    graph.node("Add", ["scaled", "offset"], "logits")


def _weighted(graph: _Graph, member: Member) -> str:
    """From `logits` to what is summed over members: they, or a regression's value, times the member's weight."""
    weight, target = member.weight, member.target
    if member.network.task == "regression":
        # In double precision: a value may be large beside its deviation.
        graph.node("Cast", ["logits"], "deviations", to=TensorProto.DOUBLE)
        deviation = graph.constant("deviation", np.array(weight * target.deviation))
        graph.node("Mul", ["deviations", deviation], "from_centre")
        return graph.node("Add", ["from_centre", graph.constant("centre", np.array(weight * target.centre))], "part")
    if weight == 1.0:
        return "logits"
    return graph.node("Mul", ["logits", graph.constant("weight", np.array(weight, np.float32))], "part")


def _answered(graph: _Graph, network: Network, mean: str) -> Any:
    """From the members' mean to the graph's output."""
    if network.task == "multiclass":
        graph.node("Softmax", [mean], ONNX_PROBABILITIES, axis=1)
        return helper.make_tensor_value_info(ONNX_PROBABILITIES, TensorProto.FLOAT, ["rows", network.heads.outputs])
    second_axis = graph.constant("second_axis", np.array([1], np.int64))
    if network.task == "binary":
        graph.node("Sigmoid", [mean], "column")
        graph.node("Squeeze", ["column", second_axis], ONNX_PROBABILITIES)
        return helper.make_tensor_value_info(ONNX_PROBABILITIES, TensorProto.FLOAT, ["rows"])
    graph.node("Squeeze", [mean, second_axis], ONNX_VALUES)
    return helper.make_tensor_value_info(ONNX_VALUES, TensorProto.DOUBLE, ["rows"])


def _places(own: Sequence[str], words: Sequence[str]) -> npt.NDArray[np.int64]:
    """A member's code of each code of the graph's vocabulary; 0 where the member does not list the text."""
    code_of = {word: code for code, word in enumerate(own, start=1)}
    return np.array([0, *(code_of.get(word, 0) for word in words)], dtype=np.int64)


def _encoded(graph: _Graph, preprocessing: Preprocessing, weight: npt.NDArray[np.float32], more: int) -> str:
    """Piecewise-linear shares, missing flags and standardised values times their part of the first layer.

    Inputs lie in rows here, requests in columns: so the values of an input are copied to each of its bins in one piece.
    """
    by_input = graph.node("Transpose", [ONNX_NUMBERS], "by_input", perm=[1, 0])
    graph.node("IsNaN", [by_input], "missing")
    graph.node("Cast", ["missing"], "missing_flags", to=TensorProto.FLOAT)
    graph.node("Where", ["missing", _down(graph, "input_means", preprocessing.means), by_input], "known")
    graph.node("Sub", ["known", "input_means"], "from_mean")
    graph.node("Max", ["from_mean", _down(graph, "farthest_below", -preprocessing.farthest)], "not_too_low")
    graph.node("Min", ["not_too_low", _down(graph, "farthest_above", preprocessing.farthest)], "bounded")
    graph.node("Mul", ["bounded", _down(graph, "slopes", preprocessing.slopes)], "wide_standardised")
    graph.node("Cast", ["wide_standardised"], "standardised", to=TensorProto.FLOAT)
    parts = ["missing_flags", "standardised"]
    if len(preprocessing.columns):
        # A missing value is put at the lower edge, where its share of every bin is nothing.
        lowest = _down(graph, "lowest", [edges[0] for edges in preprocessing.edges])
        graph.node("Where", ["missing", lowest, by_input], "present")
        graph.node("Gather", ["present", graph.constant("columns", preprocessing.columns)], "binned", axis=0)
        graph.node("Sub", ["binned", _down(graph, "lows", preprocessing.lows)], "above")
        graph.node("Div", ["above", _down(graph, "widths", preprocessing.widths)], "unbounded")
        bounds = [graph.constant("zero", np.array(0.0)), graph.constant("whole", np.array(1.0))]
        graph.node("Clip", ["unbounded", *bounds], "wide_shares")
        graph.node("Cast", ["wide_shares"], "shares", to=TensorProto.FLOAT)
        parts.insert(0, "shares")
    encoded = graph.node("Concat", parts, "encoded", axis=0)
    padded = np.concatenate([weight.T, np.zeros((preprocessing.width, more), np.float32)], axis=1)
    return graph.node("Gemm", [encoded, graph.constant("first_numbers", padded)], "from_numbers", transA=1)


def _down(graph: _Graph, name: str, values: npt.ArrayLike) -> str:
    """A constant of one double for each row."""
    return graph.constant(name, np.array(values, dtype=np.float64)[:, None])


def _looked_up(
    graph: _Graph, network: Network, weight: npt.NDArray[np.float32], places: Sequence[npt.NDArray[np.int64]]
) -> list[str]:
    """For each text input one table: its embedding times its part of the first layer, then its gain and offset."""
    found = []
    start = 0
    for column, (embedding, head) in enumerate(zip(network.core.embeddings, network.heads.tables, strict=True)):
        embedded = _array(embedding.weight)
        part = weight[:, start : start + embedded.shape[1]]
        start += embedded.shape[1]
        table = np.concatenate([embedded @ part.T, _array(head.weight)], axis=1)[places[column]]
        graph.node(
            "Gather",
            [ONNX_CODES, graph.constant(f"column_{column}", np.array(column, np.int64))],
            f"code_{column}",
            axis=1,
        )
        found.append(
            graph.node("Gather", [graph.constant(f"table_{column}", table), f"code_{column}"], f"text_{column}", axis=0)
        )
    return found


def _linear(
    graph: _Graph, name: str, source: str, weight: npt.NDArray[np.float32], bias: npt.NDArray[np.float32]
) -> None:
    names = [graph.constant(f"{name}_weight", weight), graph.constant(f"{name}_bias", bias)]
    graph.node("Gemm", [source, *names], name, transB=1)


def _array(tensor: Any) -> npt.NDArray[np.float32]:
    array: npt.NDArray[np.float32] = tensor.detach().cpu().numpy()
    return array
