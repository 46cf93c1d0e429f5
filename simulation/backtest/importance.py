"""How much a model leans on each input: permutation importance on the newest rows before it came to answer."""

from __future__ import annotations

import numpy as np

from driftloop.scoring import ScoringModel
from simulation.backtest.quality import Quality
from simulation.history import History

NEWEST_ROWS = 2_000  # rows that the inputs are shuffled on: enough for an order of the inputs, cheap for every model


def importance_of(history: History, quality: Quality, model: ScoringModel, clock_us: int) -> dict[str, float]:
    """The rise of the mean loss when an input's values are shuffled among the newest labelled rows at a clock, by input.

    Breiman, "Random forests", 2001. The rows are partly those that the model was trained on: it says what the model uses.
    """
    rows = history.arrived(clock_us)[-NEWEST_ROWS:]
    labels, numbers, texts = history.labels[rows], history.numbers[rows], history.texts[rows]
    before = float(quality.losses(labels, model.predict(numbers, texts)).mean())
    order = np.random.default_rng(0).permutation(len(rows))
    found: dict[str, float] = {}
    for names, columns in ((model.numeric_inputs, numbers), (model.text_inputs, texts)):
        for place, name in enumerate(names):
            kept = columns[:, place].copy()
            columns[:, place] = kept[order]
            found[name] = float(quality.losses(labels, model.predict(numbers, texts)).mean()) - before
            columns[:, place] = kept
    return found
