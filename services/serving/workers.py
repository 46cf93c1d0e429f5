"""Runs as many replicas as there are workers on one address, and starts one that has ended again; serves nothing itself."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import FrameType

from services.serving.settings import ServingSettings

_BACKOFF_S = (0.5, 1.0, 2.0, 4.0, 8.0)
_STEADY_S = 30.0  # a worker that has lived so long begins again with the shortest pause
_LOOK_S = 0.1
_KILL_AFTER_S = 15.0  # a worker ends within 10 s of SIGTERM, its drain included
_logger = logging.getLogger(__name__)


@dataclass
class _Worker:
    number: int
    process: subprocess.Popen[bytes] | None = None
    started_s: float = 0.0
    due_s: float = 0.0
    failures: int = 0


class Workers:
    """Worker i is replica `settings.replica` × `settings.workers` + i: each has a spool and a watermark of its own.

    The kernel spreads connections over them, so a client needs several to use them all.
    """

    def __init__(self, argv: Sequence[str], settings: ServingSettings) -> None:
        self._argv = list(argv)
        self._settings = settings
        self._stopping = False
        self._workers = [_Worker(number) for number in range(settings.workers)]

    def run(self) -> int:
        """Keeps them alive until SIGTERM or SIGINT; the exit status."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        while not self._stopping:
            for worker in self._workers:
                self._look_after(worker)
            time.sleep(_LOOK_S)
        return self._end()

    def _look_after(self, worker: _Worker) -> None:
        now_s = time.monotonic()
        if worker.process is not None:
            status = worker.process.poll()
            if status is None:
                return
            worker.failures = 0 if now_s - worker.started_s > _STEADY_S else worker.failures + 1
            pause_s = _BACKOFF_S[min(worker.failures, len(_BACKOFF_S) - 1)]
            _logger.error("worker %d ended with %d and is started again in %g s", worker.number, status, pause_s)
            worker.process, worker.due_s = None, now_s + pause_s
        if now_s >= worker.due_s and not self._stopping:
            replica = self._settings.replica * self._settings.workers + worker.number
            environment = {
                **os.environ,
                "SERVING_WORKERS": "1",
                "SERVING_SHARE_PORT": "1",
                "SERVING_PARENT": str(os.getpid()),
                "DRIFTLOOP_REPLICA": str(replica),
            }
            worker.process, worker.started_s = subprocess.Popen(self._argv, env=environment), now_s

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._stopping = True

    def _end(self) -> int:
        running = [worker.process for worker in self._workers if worker.process is not None]
        for process in running:
            process.terminate()
        until_s = time.monotonic() + _KILL_AFTER_S
        status = 0
        for process in running:
            try:
                status = max(status, abs(process.wait(max(0.1, until_s - time.monotonic()))))
            except subprocess.TimeoutExpired:
                process.kill()
                status = 1
        return status
