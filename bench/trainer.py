"""`make bench-trainer`: what a fit takes on the CPU and, where there is one, on a GPU, and whether it repeats; into build/bench/trainer.json."""

from __future__ import annotations

import argparse
import statistics
import threading
import time
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from bench.results import Result, write
from driftloop.usecase import MINUTE_US, UseCase, load_use_case
from services.trainer.attempts import Device, TrainingSet, TrainingSettings
from services.trainer.device import training_device
from services.trainer.training import Trained, train

ROWS = (2_000, 20_000, 200_000)
REPETITIONS = 3
SAMPLED_EVERY_S = 0.05
# Sums on another device come in another order, and so do the epochs that a fit ends by.
LOSSES_APART = 0.01


def rows_of(use_case: UseCase, count: int, seed: int = 0) -> TrainingSet:
    """Rows of the use case's inputs whose odds follow some numbers, one of them bent, and a text."""
    draws = np.random.default_rng(seed)
    numbers = draws.normal(size=(count, len(use_case.numeric_inputs)))
    texts = draws.choice([f"text {n}" for n in range(30)], size=(count, len(use_case.text_inputs)))
    logit = numbers[:, 0] + 1.5 * np.abs(numbers[:, 1]) - 1.5 + 0.5 * numbers[:, 2] * numbers[:, 3]
    logit += np.where(texts[:, 0] < "text 2", 0.8, 0.0)
    at_us = np.arange(count, dtype=np.int64) * MINUTE_US
    labels = (draws.random(count) < 1.0 / (1.0 + np.exp(-logit))).astype(np.float64)
    return TrainingSet([str(row) for row in range(count)], at_us, numbers, texts, labels, at_us)


class Watched:
    """The device while something runs on it: the mean of its utilisation and the most memory seen."""

    def __init__(self, device: Device) -> None:
        self._looked_at = training_device(device)
        self._done = threading.Event()
        self._seen: list[tuple[float, float]] = []
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        while not self._done.wait(SAMPLED_EVERY_S):
            used = [value for value, _ in self._looked_at.utilisation()]
            self._seen.append((used[0], next(iter(self._looked_at.memory()))[0]))

    def __enter__(self) -> Watched:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    @property
    def utilisation(self) -> float | None:
        """Share, 0 to 1; of the CPU: cores."""
        return statistics.fmean(used for used, _ in self._seen) if self._seen else None

    @property
    def memory_bytes(self) -> float | None:
        """Bytes."""
        return max(held for _, held in self._seen) if self._seen else None


def fitted(use_case: UseCase, rows: TrainingSet, device: Device) -> tuple[float, Trained]:
    """Seconds, and the model."""
    started_s = time.perf_counter()
    found = train(use_case, rows, 0, None, 1, TrainingSettings(device=device), lambda detail: None)
    return time.perf_counter() - started_s, found


def measured(use_case: UseCase, count: int, devices: Sequence[Device], repetitions: int) -> Iterator[Result]:
    """One number of rows on every device, in turns."""
    rows, case = rows_of(use_case, count), f"{count} rows"
    runs: dict[Device, list[tuple[float, Trained]]] = {device: [] for device in devices}
    watched: dict[Device, Watched] = {}
    for _ in range(repetitions):
        for device in devices:
            with Watched(device) as watched[device]:
                runs[device].append(fitted(use_case, rows, device))
    cpu_s = statistics.median(seconds for seconds, _ in runs["cpu"])
    for device, found in runs.items():
        seconds, model = statistics.median(took for took, _ in found), found[0][1]
        loss = model.metrics["log_loss"]
        yield Result(case, f"{device}: duration", seconds, "s", "cpu", cpu_s)
        yield Result(case, f"{device}: row epochs", model.row_epochs / seconds, "1/s")
        digests = len({one.model_digest for _, one in found})
        yield Result(case, f"{device}: models of the same rows and seed", digests, "", target=1)
        yield Result(case, f"{device}: log loss", loss, "")
        yield Result(
            case, f"{device}: utilisation", watched[device].utilisation, "cores" if device == "cpu" else "share"
        )
        yield Result(case, f"{device}: memory, most", watched[device].memory_bytes, "byte")
        if device != "cpu":
            apart = abs(loss / runs["cpu"][0][1].metrics["log_loss"] - 1.0)
            yield Result(case, f"{device}: log loss, from the CPU's", apart, "share", target=LOSSES_APART)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and writes build/bench/trainer.json."""
    options = argparse.ArgumentParser(prog="python -m bench.trainer", description=__doc__)
    options.add_argument("--rows", type=int, nargs="+", default=ROWS, help="rows of a fit")
    options.add_argument("--repetitions", type=int, default=REPETITIONS, help="fits of each")
    given = options.parse_args(arguments)
    devices: list[Device] = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    use_case, results = load_use_case("flights"), list[Result]()
    for device in devices:
        fitted(use_case, rows_of(use_case, 1_000), device)  # a process's first fit takes seconds longer
    for count in given.rows:
        results += measured(use_case, count, devices, given.repetitions)
        print(f"{count} rows: done", flush=True)
    if len(devices) == 1:
        print("no GPU here: measured on the CPU alone", flush=True)
    write("trainer", results)


if __name__ == "__main__":
    main()
