"""What trainer measures; declared in `driftloop.telemetry.metrics`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from driftloop.contracts.monitor.v1.monitor_pb2 import RetrainReason
from driftloop.contracts.trainer.v1.trainer_pb2 import Model, Outcome
from driftloop.telemetry import Instruments, instruments


class TrainerInstruments:
    """Trainer's metrics, recorded by what happened."""

    def __init__(self, declared: Instruments | None = None) -> None:
        declared = declared or instruments("trainer")
        self._requests = declared.counter("requests")
        self._models = declared.counter("models")
        self._gates_failed = declared.counter("gates_failed")
        self._stage_seconds = declared.histogram("stage_seconds")
        self._row_epochs = declared.counter("row_epochs")
        self._dataset_rows = declared.gauge("dataset_rows")
        self._dead_letters = declared.counter("dead_letters")
        self._recordings = declared.counter("recordings")

    def taken(self, reason: RetrainReason) -> None:
        """A request was taken."""
        self._requests.add(1, {"reason": _short(RetrainReason.Name(reason), "RETRAIN_REASON_")})

    def assembled(self, rows: int) -> None:
        """A training set is there."""
        self._dataset_rows.set(rows)

    def answered(self, model: Model) -> None:
        """A request was answered."""
        self._models.add(1, {"outcome": _short(Outcome.Name(model.outcome), "OUTCOME_")})
        self._row_epochs.add(model.row_epochs)
        for gate in model.gates:
            if not gate.passed:
                self._gates_failed.add(1, {"gate": gate.name})

    def dead_letter(self, rule: str) -> None:
        """A record was set aside."""
        self._dead_letters.add(1, {"rule": rule})

    def recorded(self, where: str, outcome: str) -> None:
        """An answer was told to a recorder, or was not."""
        self._recordings.add(1, {"to": where, "outcome": outcome})

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Times a stage."""
        started_s = time.perf_counter()
        try:
            yield
        finally:
            self._stage_seconds.record(time.perf_counter() - started_s, {"stage": name})

    @contextmanager
    def stages(self) -> Iterator[Callable[[str], None]]:
        """Times stages that follow each other: each call of what is given begins the next one."""
        running: list[tuple[str, float]] = []

        def end() -> None:
            if running:
                name, started_s = running.pop()
                self._stage_seconds.record(time.perf_counter() - started_s, {"stage": name})

        def begin(name: str) -> None:
            if not running or running[0][0] != name:
                end()
                running.append((name, time.perf_counter()))

        try:
            yield begin
        finally:
            end()


def _short(name: str, prefix: str) -> str:
    return name.removeprefix(prefix).lower()
