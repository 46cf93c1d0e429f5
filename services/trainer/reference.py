"""What a model is compared with when it is explained or cannot answer: rows and labels of those that it learned from; pure."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from driftloop.usecase import Prediction

BACKGROUND_ROWS = (
    32  # explanations rest on them: their mean answer differs from that of all rows by a fifth of a deviation
)


def reference(
    predict: Prediction, numbers: npt.NDArray[np.float64], texts: npt.NDArray[Any], labels: npt.NDArray[np.float64]
) -> dict[str, Any]:
    """Additions to a model's spec, from its training rows in order of time.

    prior: the mean label in a list, or the frequency of each class. background: rows spread evenly over time, as `numbers`
    (null is missing) and `texts` in declared order.
    """
    if predict.task == "multiclass":
        counts = np.bincount(labels.astype(np.int64), minlength=len(predict.classes))
        prior = (counts / len(labels)).tolist()
    else:
        prior = [float(np.mean(labels))]
    taken = np.unique(np.linspace(0, len(labels) - 1, BACKGROUND_ROWS).round().astype(np.int64))
    background = {
        "numbers": [[None if np.isnan(value) else float(value) for value in row] for row in numbers[taken]],
        "texts": [[str(value) for value in row] for row in texts[taken]],
    }
    return {"prior": prior, "background": background}
