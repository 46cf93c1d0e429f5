"""Runs policies in this process or in several, and says how far each has come; what a policy does does not depend on where."""

from __future__ import annotations

import multiprocessing
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from typing import Any

from driftloop.contracts.trainer.v1.trainer_pb2 import Model
from driftloop.scoring import ScoringModel
from simulation.backtest.loop_policy import Answered
from simulation.backtest.outcome import Outcome
from simulation.backtest.policies import LOOP
from simulation.backtest.run import Prepared, run_policy
from simulation.backtest.sources import Opened, Source
from simulation.history import History

TOLD_EVERY_S = 0.2
Progress = Callable[[str, int, str], None]
"""Takes a policy, the rows that it has answered and what it is at, in words."""


class WorkerLost(RuntimeError):
    """A process ended before its policy did: most likely memory ran out; run fewer at a time."""


def run_all(
    source: Source, opened: Opened, prepared: Prepared, policies: Sequence[str], jobs: int, progress: Progress
) -> Iterator[Outcome]:
    """The outcome of each policy as it is done, at most `jobs` at a time. Leaves no process behind, however it ends."""
    ordered = sorted(policies, key=lambda policy: policy != LOOP)  # the longest first
    if min(jobs, len(ordered)) > 1:
        yield from _in_processes(source, prepared, ordered, min(jobs, len(ordered)), progress)
        return
    for policy in ordered:
        yield run_policy(prepared, opened.stretch, policy, _seldom(policy, progress))


def _seldom(policy: str, progress: Progress) -> Callable[[int, str], None]:
    last = 0.0

    def told(rows: int, words: str) -> None:
        nonlocal last
        now = time.monotonic()
        if words or now - last >= TOLD_EVERY_S:
            last = now
            progress(policy, rows, words)

    return told


@dataclass(frozen=True)
class _Shipped:
    """`Prepared` as plain values: a use case holds functions, and a model a session, that cannot be sent."""

    source: Source
    prepared: Prepared
    bootstrap_rows: int
    message: bytes
    model: tuple[bytes, Any, bytes]

    @classmethod
    def of(cls, source: Source, prepared: Prepared) -> _Shipped:
        first = prepared.first
        model = prepared.setting.first
        plain = replace(
            prepared,
            history=replace(prepared.history, use_case=None),  # type: ignore[arg-type]
            first=replace(first, message=None, model=None),  # type: ignore[arg-type]
        )
        rows = prepared.history.use_case.policy.bootstrap_rows
        return cls(source, plain, rows, first.message.SerializeToString(), (model.onnx, model.spec, model.weights))

    def unpack(self) -> tuple[Opened, Prepared]:
        opened = self.source.open()
        use_case = replace(opened.use_case, policy=replace(opened.use_case.policy, bootstrap_rows=self.bootstrap_rows))
        history: History = replace(self.prepared.history, use_case=use_case)
        message = Model.FromString(self.message)
        first: Answered = replace(self.prepared.first, message=message, model=ScoringModel(*self.model))
        return opened, replace(self.prepared, history=history, first=first)


def _in_processes(
    source: Source, prepared: Prepared, policies: list[str], jobs: int, progress: Progress
) -> Iterator[Outcome]:
    context = multiprocessing.get_context("spawn")  # a fork would copy the locks of torch's and ONNX Runtime's threads
    shipped, waiting = _Shipped.of(source, prepared), list(policies)
    at_work: dict[Connection, str] = {}
    processes = []
    try:
        for _ in range(jobs):
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(theirs, shipped), daemon=True)
            process.start()
            theirs.close()
            processes.append(process)
            at_work[ours] = _hand_out(ours, waiting)
        while at_work:
            for connection in wait(list(at_work)):
                assert isinstance(connection, Connection)
                try:
                    told = connection.recv()
                except EOFError:
                    raise WorkerLost(f"the process of policy {at_work[connection]} ended") from None
                if isinstance(told, Outcome):
                    yield told
                    if waiting:
                        at_work[connection] = _hand_out(connection, waiting)
                    else:
                        del at_work[connection]
                        connection.close()
                elif isinstance(told, str):
                    raise WorkerLost(f"policy {at_work[connection]} failed:\n{told}")
                else:
                    progress(*told)
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()


def _hand_out(connection: Connection, waiting: list[str]) -> str:
    policy = waiting.pop(0)
    connection.send(policy)
    return policy


def _work(connection: Connection, shipped: _Shipped) -> None:
    """Runs the policies that it is handed, until the other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the parent ends its workers itself
    try:
        opened, prepared = shipped.unpack()

        def progress(policy: str, rows: int, words: str) -> None:
            connection.send((policy, rows, words))

        while True:
            policy = connection.recv()
            connection.send(run_policy(prepared, opened.stretch, policy, _seldom(policy, progress)))
    except EOFError:
        return
    except Exception:
        connection.send(traceback.format_exc())
