"""The owner's side of the keeper: starts and signals processes through it and hears of their ends; restarts nothing."""

from __future__ import annotations

import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from deploy.local.errors import StartAgain

_KEEPER = Path(__file__).with_name("keeper.py")
# The keeper answers a request in milliseconds; its last act, killing what is left, is bounded by 10 s of its own.
_ANSWER_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Exit:
    """The end of a process: `code` as subprocess gives it (negative: the signal that killed it)."""

    name: str
    pid: int
    code: int

    def __str__(self) -> str:
        return f"killed by {signal.Signals(-self.code).name}" if self.code < 0 else f"exit code {self.code}"


class Processes:
    """Processes by name, none of which outlives this object's process. Threads may share one."""

    def __init__(self, hold: Sequence[int] = ()) -> None:
        """Starts the keeper. `hold`: file descriptors (a lock) that stay open until everything has ended."""
        ours, its = socket.socketpair()
        with its:
            self._keeper = subprocess.Popen(
                # -EP: the keeper's imports depend on nothing around it, and this folder's modules shadow none.
                [sys.executable, "-EP", str(_KEEPER), str(its.fileno()), str(os.getpid()), *map(str, hold)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[its.fileno(), *hold],
                start_new_session=True,  # Ctrl-C is for the owner, which then stops things in order
            )
        self.exits: queue.SimpleQueue[Exit | None] = queue.SimpleQueue()
        """Every end as it happens; None when the keeper itself is gone and all processes with it."""
        self._socket = ours
        self._starting = threading.Lock()
        self._sending = threading.Lock()
        self._started: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._changed = threading.Condition()
        self._running: dict[str, psutil.Process | None] = {}
        self._codes: dict[str, int] = {}
        self._reader = threading.Thread(target=self._read, name="keeper-events", daemon=True)
        self._reader.start()

    def start(self, name: str, argv: Sequence[str], env: Mapping[str, str], cwd: Path, log: Path) -> int:
        """Starts a process in a group of its own, its output appended to `log`; returns its pid. Raises StartAgain."""
        with self._starting:
            self._send({"op": "start", "name": name, "argv": [*argv], "env": {**env}, "cwd": str(cwd), "log": str(log)})
            try:
                pid = self._started.get(timeout=_ANSWER_TIMEOUT_S)
            except queue.Empty:
                pid = None
            if pid is None:
                raise StartAgain(_KEEPER_LOST)
            return pid

    def signal(self, name: str, number: int) -> None:
        """Sends a signal to a process and its group; nothing happens when it has ended."""
        self._send({"op": "signal", "name": name, "signal": int(number)})

    def pids(self) -> dict[str, int]:
        """Running processes."""
        with self._changed:
            return {name: process.pid for name, process in self._running.items() if process is not None}

    def wait_exit(self, name: str, timeout_s: float) -> int | None:
        """Exit code of a process that ends within the bound, else None."""
        with self._changed:
            self._changed.wait_for(lambda: name not in self._running, timeout_s)
            return None if name in self._running else self._codes.get(name)

    def stop(self, name: str, timeout_s: float) -> bool:
        """SIGTERM, and SIGKILL after `timeout_s`; whether it ended by itself."""
        self.signal(name, signal.SIGTERM)
        if self.wait_exit(name, timeout_s) is not None or name not in self._running:
            return True
        self.signal(name, signal.SIGKILL)
        self.wait_exit(name, _ANSWER_TIMEOUT_S)
        return False

    def resident_bytes(self) -> int:
        """Resident memory of the keeper and all that it started, shared pages counted in each."""
        total_bytes = 0
        with suppress(psutil.Error):
            keeper = psutil.Process(self._keeper.pid)
            for process in (keeper, *keeper.children(recursive=True)):
                with suppress(psutil.Error):
                    total_bytes += process.memory_info().rss
        return total_bytes

    def close(self) -> None:
        """Kills what still runs and returns when it is gone. May be called again."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
        with suppress(subprocess.TimeoutExpired):
            self._keeper.wait(_ANSWER_TIMEOUT_S)
        self._keeper.kill()
        self._keeper.wait()
        self._reader.join()
        self._socket.close()

    def _send(self, request: dict[str, Any]) -> None:
        try:
            with self._sending:
                self._socket.sendall(json.dumps(request).encode() + b"\n")
        except OSError as error:
            raise StartAgain(_KEEPER_LOST) from error

    def _read(self) -> None:
        with suppress(OSError), self._socket.makefile("rb") as lines:
            for line in lines:
                self._observe(json.loads(line))
        self._bury()
        self._started.put(None)
        self.exits.put(None)

    def _observe(self, event: dict[str, Any]) -> None:
        name, pid = event["name"], event["pid"]
        if event["event"] == "started":
            with self._changed:
                self._running[name] = _process(pid)
                self._codes.pop(name, None)
            self._started.put(pid)
            return
        with self._changed:
            self._running.pop(name, None)
            self._codes[name] = event["code"]
            self._changed.notify_all()
        self.exits.put(Exit(name, pid, event["code"]))

    def _bury(self) -> None:
        """The keeper is gone: where it was killed and the system did not end its children with it, this does."""
        with self._changed:
            for process in self._running.values():
                if process is not None and process.is_running():
                    with suppress(ProcessLookupError, PermissionError):
                        os.killpg(process.pid, signal.SIGKILL)
            self._running.clear()
            self._changed.notify_all()


def _process(pid: int) -> psutil.Process | None:
    try:
        return psutil.Process(pid)
    except psutil.NoSuchProcess:
        return None  # ended already; its exit is the next event


_KEEPER_LOST = (
    "The process that holds driftloop's services together was killed, and all of them with it: run driftloop up again."
)
