"""Keeps processes running: starts them, sees that they get ready, starts again what dies, and stops all in reverse order."""

from __future__ import annotations

import queue
import signal
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path
from typing import Protocol

from deploy.local.backoff import Backoff
from deploy.local.errors import LocalError, ReadTheLog, StartAgain
from deploy.local.machine import last_words, rotate_log
from deploy.local.processes import Exit, Processes
from deploy.local.settings import LocalSettings

Reporter = Callable[[str], None]


class ReadyCheck(Protocol):
    """Whether a process is ready for work; called from the supervisor's thread about five times a second."""

    def __call__(self) -> bool: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Command:
    """One process to keep running."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str]
    cwd: Path
    log: Path
    is_ready: ReadyCheck
    ready_timeout_s: float
    stop_timeout_s: float


class _Phase(Enum):
    STARTING = auto()
    READY = auto()
    RESTARTING = auto()
    GIVEN_UP = auto()


@dataclass
class _Entry:
    command: Command
    backoff: Backoff
    phase: _Phase = _Phase.STARTING
    since_s: float = field(default_factory=time.monotonic)
    due_s: float = 0.0
    restarts: int = 0
    deaths: int = 0
    was_ever_ready: bool = False
    last_exit: Exit | None = None


class Supervisor:
    """Owns the commands added to it. Its thread alone reacts to ends and health; callers wait on what it finds."""

    def __init__(self, processes: Processes, settings: LocalSettings, reporter: Reporter) -> None:
        self._processes = processes
        self._settings = settings
        self._report = reporter
        self._entries: dict[str, _Entry] = {}
        self._changed = threading.Condition()
        self._stopping = False
        self._failure: LocalError | None = None
        self._thread = threading.Thread(target=self._run, name="supervisor", daemon=True)
        self._thread.start()

    def add(self, command: Command) -> None:
        """Starts a command and keeps it running from here on."""
        backoff = Backoff(
            self._settings.restart_delay_s, self._settings.restart_delay_s_max, self._settings.restart_reset_after_s
        )
        with self._changed:
            entry = _Entry(command, backoff)
            self._start(entry)
            self._entries[command.name] = entry

    def wait_ready(self, names: Iterable[str] | None = None) -> None:
        """Returns when the named (or all) processes are ready. Raises ReadTheLog for one that does not get there."""
        with self._changed:
            waited = [self._entries[name] for name in (self._entries if names is None else names)]
            start_s = time.monotonic()
            while not all(entry.phase is _Phase.READY for entry in waited):
                self._raise_failure()
                for entry in waited:
                    left_s = start_s + entry.command.ready_timeout_s - time.monotonic()
                    if entry.phase is _Phase.GIVEN_UP or (entry.phase is not _Phase.READY and left_s <= 0):
                        raise ReadTheLog(self._not_ready(entry))
                # Woken by every change of phase; the bound lets the timeouts above be seen.
                self._changed.wait(self._settings.tick_s)

    def wait_failure(self) -> None:
        """Returns when `stop` is called; raises what the supervisor itself fails with."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopping or self._failure is not None)
            self._raise_failure()

    def kill(self, name: str) -> None:
        """SIGKILL to one process; returns when its end has been seen, so that `wait_ready` then waits for its restart."""
        with self._changed:
            entry = self._entries[name]
            deaths = entry.deaths
            self._processes.signal(name, signal.SIGKILL)
            self._changed.wait_for(
                lambda: entry.deaths > deaths or self._failure is not None, entry.command.stop_timeout_s
            )
            self._raise_failure()

    def restarts(self, name: str) -> int:
        """How often a process was started again."""
        with self._changed:
            return self._entries[name].restarts

    def stop(self) -> None:
        """Ends supervision, then every process in reverse order of starting: SIGTERM, SIGKILL after its bound."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._processes.exits.put(None)
        self._thread.join()
        for entry in reversed(self._entries.values()):
            with suppress(StartAgain):  # the keeper is gone, and the process with it
                name = entry.command.name
                if name in self._processes.pids() and not self._processes.stop(name, entry.command.stop_timeout_s):
                    self._report(f"{name} did not stop within {entry.command.stop_timeout_s:.0f} s and was killed")
            entry.command.is_ready.close()

    def _run(self) -> None:
        try:
            while not self._stopping:
                self._tick()
        except LocalError as error:
            self._fail(error)
        finally:
            if (
                not self._stopping and self._failure is None
            ):  # a caller that waits must hear of whatever ends this thread
                self._fail(StartAgain("Supervision ended with the error above: run driftloop up again."))

    def _tick(self) -> None:
        try:
            ended = self._processes.exits.get(timeout=self._settings.tick_s)
        except queue.Empty:
            pass
        else:
            if ended is None:
                if not self._stopping:
                    raise StartAgain(
                        "The keeper of driftloop's processes was killed, and all of them with it: run driftloop up again."
                    )
                return
            with self._changed:
                self._on_exit(ended)
                self._changed.notify_all()
        for entry in list(self._entries.values()):
            self._look_at(entry)

    def _look_at(self, entry: _Entry) -> None:
        if entry.phase is _Phase.STARTING:
            # Outside the lock: a check may take a second, and callers ask for pids meanwhile.
            ready = entry.command.is_ready()
            with self._changed:
                if ready:
                    self._on_ready(entry)
                elif entry.was_ever_ready and time.monotonic() - entry.since_s > entry.command.ready_timeout_s:
                    entry.since_s = time.monotonic()
                    self._report(f"{entry.command.name} did not get ready again; killing it")
                    self._processes.signal(entry.command.name, signal.SIGKILL)
                self._changed.notify_all()
        elif entry.phase is _Phase.RESTARTING and time.monotonic() >= entry.due_s:
            with self._changed:
                entry.restarts += 1
                self._start(entry)

    def _start(self, entry: _Entry) -> None:
        command = entry.command
        rotate_log(command.log, self._settings.log_bytes_max)
        entry.phase, entry.since_s = _Phase.STARTING, time.monotonic()
        self._processes.start(command.name, command.argv, command.env, command.cwd, command.log)

    def _on_ready(self, entry: _Entry) -> None:
        took_s = time.monotonic() - entry.since_s
        again = f" again (restart {entry.restarts})" if entry.restarts else ""
        entry.phase, entry.since_s, entry.was_ever_ready = _Phase.READY, time.monotonic(), True
        self._report(f"{entry.command.name} is ready{again} after {took_s:.1f} s")

    def _on_exit(self, ended: Exit) -> None:
        entry = self._entries.get(ended.name)
        if entry is None:
            return
        ready_for_s = time.monotonic() - entry.since_s if entry.phase is _Phase.READY else 0.0
        entry.deaths += 1
        entry.last_exit = ended
        if not entry.was_ever_ready and entry.deaths >= self._settings.deaths_before_ready_max:
            entry.phase = _Phase.GIVEN_UP
            return
        delay_s = entry.backoff.delay_s(ready_for_s)
        entry.phase, entry.due_s = _Phase.RESTARTING, time.monotonic() + delay_s
        self._report(f"{ended.name} died ({ended}); starting it again in {delay_s:.1f} s; its log: {entry.command.log}")

    def _not_ready(self, entry: _Entry) -> str:
        command = entry.command
        if entry.last_exit is not None:
            said = f'; its log ends with "{words}"' if (words := last_words(command.log)) else ""
            died = f"{command.name} died {entry.deaths} times before it was ready ({entry.last_exit})"
            return f"{died}{said}: read {command.log}."
        return f"{command.name} was not ready within {command.ready_timeout_s:.0f} s: read {command.log}."

    def _fail(self, error: LocalError) -> None:
        with self._changed:
            self._failure = error
            self._changed.notify_all()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure
