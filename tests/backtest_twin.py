"""A table with a known change, small models and an observer without a terminal: for tests of backtests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from driftloop.tables import InferenceOptions
from services.trainer.attempts import TrainingSettings
from simulation.backtest.outcome import Outcome
from simulation.backtest.run import Prepared
from simulation.backtest.sources import Opened, TableSource

QUICK = TrainingSettings(epochs=20, patience=4, hidden=32, rate=5e-3, category_rows_min=5)
ROWS = 4_500
CHANGED_FROM = 1_800


def returns(rows: int = ROWS, changed_from: int = CHANGED_FROM, flipped_from: int | None = None) -> pd.DataFrame:
    """Which orders come back: the odds follow price and colour, and the reverse from one row on; known three hours later.

    `flipped_from`: from this row on every label is its opposite, so that nothing that happened before may depend on them.
    """
    rng = np.random.default_rng(5)
    price, weight = rng.normal(size=(2, rows))
    colour = rng.choice(["blue", "green", "red"], rows)
    sign = np.where(np.arange(rows) < changed_from, 1.0, -1.0)
    odds = sign * (2.0 * price + np.where(colour == "red", 1.0, -0.5))
    returned = rng.random(rows) < 1.0 / (1.0 + np.exp(-odds))
    if flipped_from is not None:
        returned[flipped_from:] = ~returned[flipped_from:]
    at = pd.Timestamp("2024-01-01") + pd.to_timedelta(np.arange(rows) * 10, unit="min")
    return pd.DataFrame(
        {
            "ordered": at,
            "price": price.round(6),
            "weight": weight.round(6),
            "colour": colour,
            "returned": returned,
            "known": at + pd.Timedelta(hours=3),
        }
    )


def written(table: pd.DataFrame, folder: Path) -> TableSource:
    """The table as a file, and as a source."""
    path = folder / "returns.csv"
    table.to_csv(path, index=False)
    return TableSource(path, InferenceOptions(label="returned", time="ordered", label_time="known"))


class Quiet:
    """Observes nothing; interrupts, as Ctrl-C would, when the named policy makes progress."""

    def __init__(self, interrupting: str = "") -> None:
        self._interrupting = interrupting

    def opened(self, opened: Opened) -> None:
        pass

    def preparing(self, words: str, share: float) -> None:
        pass

    def prepared(self, prepared: Prepared) -> None:
        pass

    def progress(self, policy: str, row: int, words: str) -> None:
        if policy == self._interrupting:
            raise KeyboardInterrupt

    def finished(self, outcome: Outcome) -> None:
        pass
