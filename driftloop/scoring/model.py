"""What a published model computes: inputs in, answers out; never where they come from.

This file is copied into every bundle as it is, so it imports nothing of driftloop and no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

Floats = npt.NDArray[np.float64]
Texts = Sequence[Sequence[str]] | npt.NDArray[Any]
ONNX_NUMBERS, ONNX_CODES = "numbers", "codes"
ONNX_PROBABILITIES, ONNX_VALUES = "probabilities", "values"  # the one output of a graph; values: regression
UNKNOWN_CODE = 0  # of a text that no vocabulary lists


class ScoringModel:
    """A model as it is published: an ONNX graph, the vocabularies of its text inputs, and the weights to go on training from.

    One thread and sequential execution: the same inputs give the same bits, and concurrent calls do not fight for cores.
    """

    def __init__(self, onnx: bytes, spec: Mapping[str, Any], weights: bytes = b"") -> None:
        self.onnx = onnx
        self.spec = spec
        self.weights = weights
        self.inputs_digest: str = spec["inputs_digest"]
        self.numeric_inputs: tuple[str, ...] = tuple(spec["numeric_inputs"])
        self.text_inputs: tuple[str, ...] = tuple(spec["text_inputs"])
        self._codes = [
            {text: code for code, text in enumerate(words, start=UNKNOWN_CODE + 1)} for words in spec["vocabularies"]
        ]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
        self._outputs = [output.name for output in self._session.get_outputs()]

    def predict(self, numbers: npt.ArrayLike, texts: Texts) -> Floats:
        """Answers for numbers (rows, numeric inputs; NaN is missing) and texts (rows, text inputs).

        Binary: the probability that the label is true, (rows,). Multiclass: of each class, (rows, classes). Regression: the
        value, (rows,).
        """
        values = np.asarray(numbers, dtype=np.float64).reshape(len(texts), len(self.numeric_inputs))
        return self.score(values, self.codes(texts))

    def score(self, numbers: Floats, codes: npt.NDArray[np.int64]) -> Floats:
        """As `predict`, for texts that are codes already, (rows, text inputs)."""
        feed: dict[str, npt.NDArray[Any]] = {}
        if self.numeric_inputs:
            feed[ONNX_NUMBERS] = numbers
        if self.text_inputs:
            feed[ONNX_CODES] = codes
        return np.asarray(self._session.run(self._outputs, feed)[0], dtype=np.float64)

    def codes(self, texts: Texts) -> npt.NDArray[np.int64]:
        """Vocabulary codes, shape (rows, text inputs); 0 for what the vocabulary does not list."""
        codes = np.empty((len(texts), len(self._codes)), dtype=np.int64)
        for column, words in enumerate(self._codes):
            code = words.get
            codes[:, column] = [code(row[column], UNKNOWN_CODE) for row in texts]
        return codes
