"""What candidate and champion said about rows that neither has learned from, and what that is worth; decides nothing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from driftloop.usecase import LOSS_METRICS, Task, UseCase
from services.trainer.measures import compared_losses, measures, row_losses

Floats = npt.NDArray[np.float64]
Times = npt.NDArray[np.int64]


@dataclass(frozen=True)
class HeldOut:
    """What the chosen candidate and the champion said about the newest rows before it was finished on them.

    base: what is answered without any input, from the labels before them: the rate of true ones or their mean, (); the
    classes' frequencies, (classes,). scale: the variance of the label that squared errors are counted in.
    """

    at_us: Times
    labels: Floats
    challenger: Floats
    base: Floats
    champion: Floats | None
    unseen_by_champion: npt.NDArray[np.bool_]
    scale: float = 1.0

    def gains(self, task: Task, block_rows: int) -> tuple[list[float], int]:
        """By how much the champion's loss exceeds the challenger's, in block means in time order, and the rows behind them.

        Only rows that the champion has not learned from; blocks of `block_rows`, of a quarter of it where rows are few. Losses
        are bounded as production's, whose evidence these gains are put before.
        """
        if self.champion is None:
            return [], 0
        unseen = self.unseen_by_champion
        labels = self.labels[unseen]
        ours, theirs = (
            row_losses(task, found[unseen], labels, self.scale) for found in (self.challenger, self.champion)
        )
        blocks = len(labels) // min(block_rows, max(block_rows // 4, len(labels) // 8))
        if blocks == 0:
            return [], 0
        return [float(np.mean(part)) for part in np.array_split(theirs - ours, blocks)], len(labels)

    def champion_record(self, task: Task) -> tuple[int, int, float]:
        """First and last prediction time of the rows behind `gains`, and the champion's mean loss on them; zeros without any."""
        unseen = self.unseen_by_champion
        if self.champion is None or not unseen.any():
            return 0, 0, 0.0
        losses = row_losses(task, self.champion[unseen], self.labels[unseen], self.scale)
        at_us = self.at_us[unseen]
        return int(at_us[0]), int(at_us[-1]), float(np.mean(losses))

    @property
    def base_answers(self) -> Floats:
        """`base` for every row."""
        return np.broadcast_to(self.base, self.challenger.shape)


def base_of(use_case: UseCase, labels: Floats) -> Floats:
    """See `HeldOut.base`; a class that has not been seen has the frequency that Laplace's rule of succession gives it."""
    classes = len(use_case.predict.classes)
    if not classes:
        return np.array(np.mean(labels))
    return (np.bincount(labels.astype(np.int64), minlength=classes) + 1.0) / (len(labels) + classes)


def metrics_of(task: Task, held_out: HeldOut) -> dict[str, float]:
    """What the chosen candidate, the champion and the labels alone are worth on these rows, by name."""
    labels, loss = held_out.labels, LOSS_METRICS[task]

    def found(answers: Floats) -> dict[str, float]:
        value = float(np.mean(compared_losses(task, answers, labels, held_out.scale)))
        return measures(task, answers, labels) | {loss: value}

    metrics = {"held_out_rows": float(len(labels))} | found(held_out.challenger)
    metrics[f"base_{loss}"] = found(held_out.base_answers)[loss]
    if held_out.champion is not None:
        metrics |= {f"champion_{name}": value for name, value in found(held_out.champion).items()}
    return metrics
