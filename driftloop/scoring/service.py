"""The BentoML service of one model: over HTTP with `bentoml serve`, or in process; never which model answers.

Copied into every bundle as it is, beside model.py and the model's files; driftloop itself never imports it.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import bentoml

from .model import ScoringModel


@bentoml.service(name="driftloop_model")
class Model:
    """Answers with probabilities, or, regression, with values."""

    def __init__(self) -> None:
        folder = Path(__file__).parent
        spec = json.loads((folder / "spec.json").read_text())
        self.model_id: str = spec["model_id"]
        self.scoring = ScoringModel(
            (folder / "model.onnx").read_bytes(), spec, (folder / "model.safetensors").read_bytes()
        )

    @bentoml.api  # type: ignore[untyped-decorator]
    def predict(self, numbers: list[list[float | None]], texts: list[list[str]]) -> list[Any]:
        """One answer per row, multiclass a list of probabilities in the order of the spec's classes.

        Numbers in the order of the spec's numeric_inputs (null is missing), texts likewise.
        """
        rows = [[math.nan if value is None else value for value in row] for row in numbers]
        return list(self.scoring.predict(rows, texts).tolist())
