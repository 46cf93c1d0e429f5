"""How one candidate is fitted on its rows, finished on the newest, and asked about them; chooses nothing, no I/O."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from driftloop.scoring.model import ScoringModel
from driftloop.usecase import Task, UseCase
from services.trainer.blend import Member
from services.trainer.candidates import Candidate, Places
from services.trainer.measures import compared_losses
from services.trainer.network import Fitted, Limits, Pace, Rows, fit
from services.trainer.preprocessing import Target, fit_preprocessing, fit_target
from services.trainer.published import members_of, new_network

Floats = npt.NDArray[np.float64]
Times = npt.NDArray[np.int64]
Device = Literal["cpu", "cuda"]
FINISHING_RATE, FINISHING_EPOCHS = 5e-4, 3  # gentle: what was found must not be lost on the rows that it was found by


@dataclass(frozen=True)
class TrainingSet:
    """Labelled rows, sorted by `at_us`, the declared prediction times.

    numbers: float64 (n, numeric inputs), NaN is missing; texts: object (n, text inputs); labels: float64 (n,), as
    `UseCase.label_of` gives them.
    """

    entities: list[str]
    at_us: Times
    numbers: Floats
    texts: npt.NDArray[Any]
    labels: Floats
    known_at_us: Times

    def __post_init__(self) -> None:
        texts = np.asarray(self.texts, dtype=object).reshape(len(self.entities), -1)
        object.__setattr__(self, "texts", texts)
        if np.any(np.diff(self.at_us) < 0):
            raise ValueError("training rows must be sorted by at_us")

    def __len__(self) -> int:
        return len(self.entities)


@dataclass(frozen=True)
class TrainingSettings:
    """How much is tried, and how hard.

    bins                 quantile bins per number: more find finer shapes and need more rows
    category_rows_min    rows below which a text counts as "not listed"
    dropout, weight_decay  what keeps a network from learning rows by heart
    rate, tuning_rate    learning rates from scratch, and of a champion that is trained further
    heads_rate           learning rate of gains and offsets when a champion is adapted: few numbers, few rows, large steps
    large_rows           rows from which batches are twice as large, to save time, and from four times as many four times; half of it
                         where a champion is adapted
    patience             epochs without a better validation loss after which a fit ends
    patience_steps       the same in steps, where an epoch has many: see `Limits`
    since_rows_min       rows since a change below which all history is taken for one regime
    sampled_rows_max     rows that one fit takes at the most: of older ones a draw does as well
    threads              CPU threads; more than one makes sums, and so digests, depend on the machine
    """

    bins: int = 8
    category_rows_min: int = 20
    hidden: int = 64
    embedding: int = 4
    dropout: float = 0.1
    weight_decay: float = 0.1
    rate: float = 3e-3
    tuning_rate: float = 1e-3
    heads_rate: float = 1e-2
    batch_rows: int = 256
    tuning_batch_rows: int = 128
    large_rows: int = 12_000
    epochs: int = 120
    patience: int = 12
    patience_steps: int = 200
    since_rows_min: int = 100
    sampled_rows_max: int = 200_000
    threads: int = 1
    device: Device = "cpu"


@dataclass
class Attempts:
    """Fits of one request: each candidate's on its part of `rows`, and what they cost together.

    champion: what candidates `from_champion` start with. scale: see `HeldOut`. fitted_rows: the rows of all fits and finishes;
    row_epochs: these times the epochs of each.
    """

    use_case: UseCase
    rows: TrainingSet
    champion: ScoringModel | None
    seed: int
    settings: TrainingSettings
    progress: Callable[[str], None]
    scale: float
    fitted_rows: int = 0
    row_epochs: int = 0

    @property
    def task(self) -> Task:
        """What the models are for."""
        return self.use_case.predict.task

    def fit(self, candidate: Candidate, held: int) -> Member:
        """A candidate's network, fitted on its rows before `held`; the rows from there on end the fit."""
        settings, rows = self.settings, self.rows
        torch.manual_seed(self.seed)
        places = candidate.rows[candidate.rows < held]
        if candidate.from_champion:
            assert self.champion is not None
            newest = members_of(self.champion, settings.dropout)[-1]
            network, preprocessing, target = newest.network, newest.preprocessing, newest.target
        else:
            preprocessing = fit_preprocessing(
                rows.numbers[places], rows.texts[places], settings.bins, settings.category_rows_min
            )
            outputs = len(self.use_case.predict.classes) or 1
            network = new_network(
                self.task, outputs, preprocessing, settings.hidden, settings.embedding, settings.dropout
            )
            target = fit_target(rows.labels[places]) if self.task == "regression" else Target()
        network.to(settings.device)
        found = Member(network, preprocessing, target)
        encoded = self._encoded(found, places, candidate.change)
        validation = self._encoded(found, np.arange(held, len(rows)), 0)
        limits = Limits(settings.epochs, settings.patience, settings.patience_steps)
        fitted = fit(network, encoded, validation, candidate.pace, limits, settings.weight_decay)
        self._count(encoded, fitted)
        rows_told = f"after {fitted.epochs} epochs of {len(encoded)} rows"
        self.progress(f"{candidate.name}: validation loss {fitted.loss:.4f} {rows_told}")
        network.eval()
        return found

    def finish(self, candidate: Candidate, found: Member, held: int) -> None:
        """Lets a fitted candidate learn the rows from `held` on, too, beside as many of its own, so that these are not forgotten."""
        torch.manual_seed(self.seed)
        known, newest = candidate.rows[candidate.rows < held], np.arange(held, len(self.rows))
        drawn = np.random.default_rng(self.seed).choice(known, min(len(newest), len(known)), replace=False)
        places = np.concatenate([np.sort(drawn), newest])
        encoded = self._encoded(found, places, candidate.change)
        core_rate = FINISHING_RATE if candidate.pace.core_rate else 0.0
        pace = Pace(core_rate, FINISHING_RATE, candidate.pace.batch_rows)
        fitted = fit(found.network, encoded, None, pace, Limits(FINISHING_EPOCHS, 0), self.settings.weight_decay)
        self._count(encoded, fitted)
        found.network.eval()

    def answers(self, member: Member, first: int) -> Floats:
        """A network's answers to the rows from `first` on: probabilities (n,) or (n, classes), or values (n,)."""
        with torch.no_grad():
            found = member.network.to(self.settings.device)(self._encoded(member, np.arange(first, len(self.rows)), 0))
        if self.task == "binary":
            return np.asarray(torch.sigmoid(found).cpu().numpy(), dtype=np.float64)
        if self.task == "multiclass":
            return np.asarray(torch.softmax(found, dim=1).cpu().numpy(), dtype=np.float64)
        return member.target.restored(found.cpu().numpy().astype(np.float64))

    def unseen(self, first: int) -> npt.NDArray[np.bool_]:
        """Which rows (n,) from `first` on the champion has not learned from."""
        assert self.champion is not None
        return self.rows.at_us[first:] > int(self.champion.spec.get("newest_row_us", 0))

    def losses(self, answers: Floats, first: int) -> Floats:
        """Losses (n,) of answers to the rows from `first` on, as models are compared by."""
        return compared_losses(self.task, answers, self.rows.labels[first:], self.scale)

    def _encoded(self, found: Member, places: Places, change: int) -> Rows:
        rows, device, preprocessing = self.rows, self.settings.device, found.preprocessing
        labels = found.target.standardised(rows.labels[places])
        return Rows(
            encoded=torch.from_numpy(preprocessing.encode(rows.numbers[places])).to(device),
            codes=torch.from_numpy(preprocessing.codes(rows.texts[places])).to(device),
            labels=torch.from_numpy(labels.astype(np.int64 if self.task == "multiclass" else np.float32)).to(device),
            earlier=torch.from_numpy(places < change).to(device),
        )

    def _count(self, encoded: Rows, fitted: Fitted) -> None:
        self.fitted_rows += len(encoded)
        self.row_epochs += fitted.row_epochs
