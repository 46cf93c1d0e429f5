"""The network and its fit: encoded rows in, weights out; never which rows, nor whether the result is good enough.

An output (the logit of true, of each class, or the standardised value) is a core's, scaled and shifted per category:
(1 + gain) · core + offset. A change that turns the meaning of a category over (or makes one worse than it was) is then a
change of a few numbers, learned from a few hundred rows.
"""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from driftloop.usecase.losses import MAX_LOSS, Task
from services.trainer.steps import Step, recorded

_EVALUATION_ROWS = 16_384
# Huber's loss turns linear where the bounded squared error, by which models are judged, stops growing: beyond as many
# deviations a label is an extreme that no fit should be bent for (Huber, "Robust estimation of a location parameter", 1964).
_HUBER_DEVIATIONS = math.sqrt(MAX_LOSS)


class Core(nn.Module):  # type: ignore[misc]
    """Two layers with a residual over encoded numbers and embedded texts, and a linear way past them; shape (rows, outputs)."""

    def __init__(
        self, width: int, cardinalities: Sequence[int], hidden: int, embedding: int, dropout: float, outputs: int
    ) -> None:
        super().__init__()
        self.embeddings = nn.ModuleList([nn.Embedding(size, embedding) for size in cardinalities])
        for table in self.embeddings:
            assert isinstance(table, nn.Embedding)
            nn.init.normal_(table.weight, 0.0, 0.05)
        self.first = nn.Linear(width + embedding * len(cardinalities), hidden)
        self.second = nn.Linear(hidden, hidden)
        self.last = nn.Linear(hidden, outputs)
        self.skip = nn.Linear(width + embedding * len(cardinalities), outputs, bias=False)
        nn.init.zeros_(self.skip.weight)
        self.dropout = nn.Dropout(dropout)

    def forward(self, encoded: Tensor, codes: Tensor) -> Tensor:
        embedded = [table(codes[:, column]) for column, table in enumerate(self.embeddings)]
        inputs = torch.cat([encoded, *embedded], dim=1)
        hidden = self.dropout(torch.relu(self.first(inputs)))
        hidden = hidden + self.dropout(torch.relu(self.second(hidden)))
        raw: Tensor = self.last(hidden) + self.skip(inputs)
        return raw


class Heads(nn.Module):  # type: ignore[misc]
    """Gain and offset of each output, of all rows and per category; zero, so without effect, until they are trained.

    A table's row: the outputs' gains, then their offsets.
    """

    def __init__(self, cardinalities: Sequence[int], outputs: int) -> None:
        super().__init__()
        self.outputs = outputs
        self.common = nn.Parameter(torch.zeros(2 * outputs))
        self.tables = nn.ModuleList([nn.Embedding(size, 2 * outputs) for size in cardinalities])
        for table in self.tables:
            assert isinstance(table, nn.Embedding)
            nn.init.zeros_(table.weight)

    def forward(self, raw: Tensor, codes: Tensor) -> Tensor:
        total = self.common.expand(len(raw), 2 * self.outputs)
        for column, table in enumerate(self.tables):
            total = total + table(codes[:, column])
        return raw * (1.0 + total[:, : self.outputs]) + total[:, self.outputs :]


class Network(nn.Module):  # type: ignore[misc]
    """Core and heads, and a second set of heads for rows from before a change, which only training uses.

    Binary: the logit of true, (rows,). Multiclass: a logit per class, (rows, classes). Regression: the value in deviations
    from the target's centre, (rows,).
    """

    def __init__(self, task: Task, core: Core, heads: Heads, earlier: Heads) -> None:
        super().__init__()
        self.task = task
        self.core = core
        self.heads = heads
        self.earlier = earlier

    def forward(self, batch: Rows) -> Tensor:
        raw = self.core(batch.encoded, batch.codes)
        now = self.heads(raw, batch.codes)
        found: Tensor = torch.where(batch.earlier[:, None], self.earlier(raw, batch.codes), now)
        return found if self.task == "multiclass" else found[:, 0]

    def loss(self, batch: Rows, reduction: str = "mean") -> Tensor:
        """The loss that is trained on: log loss, or Huber's."""
        found = self(batch)
        if self.task == "binary":
            return nn.functional.binary_cross_entropy_with_logits(found, batch.labels, reduction=reduction)
        if self.task == "multiclass":
            return nn.functional.cross_entropy(found, batch.labels, reduction=reduction)
        return nn.functional.huber_loss(found, batch.labels, reduction=reduction, delta=_HUBER_DEVIATIONS)


@dataclass(frozen=True)
class Rows:
    """Encoded rows on one device: encoded float32 (n, width), codes int64 (n, texts), earlier bool (n,).

    labels (n,): float32 0 or 1; int64 classes; float32 deviations from the target's centre.
    """

    encoded: Tensor
    codes: Tensor
    labels: Tensor
    earlier: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: Tensor | slice) -> Rows:
        """The rows of an index."""
        return Rows(self.encoded[index], self.codes[index], self.labels[index], self.earlier[index])


@dataclass(frozen=True)
class Pace:
    """How fast a fit goes: learning rates of core and heads (0: frozen), and the batch in rows."""

    core_rate: float
    heads_rate: float
    batch_rows: int


@dataclass(frozen=True)
class Limits:
    """When a fit ends: after `epochs`, or, with validation rows, after a time without a better loss.

    That time is `patience` epochs, or where an epoch has many steps the fewer that hold `patience_steps`, two at the least: what
    steps have not found an epoch more does not find.
    """

    epochs: int
    patience: int
    patience_steps: int = 0

    def patience_of(self, steps: int) -> int:
        """Epochs without a better loss after which a fit of so many steps an epoch ends."""
        return (
            min(self.patience, max(2, math.ceil(self.patience_steps / steps))) if self.patience_steps else self.patience
        )


@dataclass(frozen=True)
class Fitted:
    """What a fit came to. `loss`: validation loss of the best epoch (NaN without validation rows); `epochs`: that epoch."""

    loss: float
    epochs: int
    row_epochs: int


@contextmanager
def repeatable(seed: int, threads: int, device: str) -> Iterator[None]:
    """Seeded draws, deterministic kernels and a bounded number of threads; what was set before comes back afterwards."""
    # cuBLAS reads it when CUDA begins: without it matrix products on a GPU do not repeat.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    threads_before, strict_before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if device == "cuda" else []):
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(True)
        torch.manual_seed(seed)
        try:
            yield
        finally:
            torch.set_num_threads(threads_before)
            torch.use_deterministic_algorithms(strict_before)


def fit(
    network: Network, rows: Rows, validation: Rows | None, pace: Pace, limits: Limits, weight_decay: float
) -> Fitted:
    """Trains in place with AdamW on the network's loss; with validation rows it keeps the best epoch's weights.

    Epoch 0 counts: what begins as a good model stays one where its rows have nothing to teach it.
    """
    on_gpu = rows.labels.is_cuda
    optimiser = torch.optim.AdamW(_groups(network, pace, weight_decay), fused=True, capturable=on_gpu)
    best_loss, best_epoch, best_state, epoch = math.inf, 0, None, 0
    if validation is not None:
        best_loss, best_state = mean_loss(network, validation), copy.deepcopy(network.state_dict())
    patience = limits.patience_of(len(range(0, len(rows), pace.batch_rows)))

    def learn(index: Tensor) -> None:
        optimiser.zero_grad()
        network.loss(rows.take(index)).backward()
        optimiser.step()

    step: Step = learn
    if on_gpu and len(rows) >= pace.batch_rows:
        network.train()
        step = recorded(learn, network, optimiser, torch.arange(pace.batch_rows, device=rows.labels.device))
    while epoch < limits.epochs and (validation is None or epoch - best_epoch < patience):
        epoch += 1
        _epoch(network, rows, step, pace.batch_rows)
        if validation is not None:
            loss = mean_loss(network, validation)
            if loss < best_loss:
                best_loss, best_epoch, best_state = loss, epoch, copy.deepcopy(network.state_dict())
    if validation is None:
        return Fitted(math.nan, epoch, epoch * len(rows))
    if best_state is not None:
        network.load_state_dict(best_state)
    return Fitted(best_loss, best_epoch, epoch * len(rows))


def mean_loss(network: Network, rows: Rows) -> float:
    """Mean loss of the network on rows."""
    network.eval()
    total = 0.0
    with torch.no_grad():
        for first in range(0, len(rows), _EVALUATION_ROWS):
            part = rows.take(slice(first, first + _EVALUATION_ROWS))
            total += network.loss(part, reduction="sum").item()
    return total / len(rows)


def _groups(network: Network, pace: Pace, weight_decay: float) -> list[dict[str, object]]:
    heads = [*network.heads.parameters(), *network.earlier.parameters()]
    groups: list[dict[str, object]] = []
    if pace.core_rate:
        groups.append({"params": list(network.core.parameters()), "lr": pace.core_rate, "weight_decay": weight_decay})
    if pace.heads_rate:
        groups.append({"params": heads, "lr": pace.heads_rate, "weight_decay": 0.01})
    return groups


def _epoch(network: Network, rows: Rows, step: Step, batch_rows: int) -> None:
    network.train()
    order = torch.randperm(len(rows)).to(rows.labels.device)
    for first in range(0, len(rows), batch_rows):
        step(order[first : first + batch_rows])
