"""Lets one loop at a time have a state folder, and finds the one that has it so that it can be stopped.

The claim is a lock that the system drops when its last holder ends, however it ends. The supervisor and its keeper hold
it, so a folder is free only when nothing that was started for it is left.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Self

import psutil

from deploy.local.deadline import wait_until
from deploy.local.errors import StopTheOther

_FILE = "loop.lock"
# A killed supervisor's keeper needs about a second to end what is left, at most 10.
_KEEPER_TIMEOUT_S = 15.0


class Claim:
    """A held claim; `descriptor` may be given to processes that should hold it too."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    @classmethod
    def take(cls, state_dir: Path) -> Self:
        """Claims the folder for this process. Raises StopTheOther when a running loop has it."""
        state_dir.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(state_dir / _FILE, os.O_RDWR | os.O_CREAT, 0o644)
        # When the holder is dead its keeper is still ending things: worth waiting for.
        if not (
            _lock(descriptor)
            or (holder(state_dir) is None and wait_until(lambda: _lock(descriptor), _KEEPER_TIMEOUT_S))
        ):
            os.close(descriptor)
            running = holder(state_dir)
            who = f" (process {running.pid})" if running else ""
            raise StopTheOther(
                f"driftloop already runs in {state_dir}{who}: stop it with driftloop down, or choose another folder with --state."
            )
        me = psutil.Process()
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps({"pid": me.pid, "create_time": me.create_time()}).encode(), 0)
        return cls(descriptor)

    def release(self) -> None:
        """Gives the folder back; it is free when every other holder has ended too."""
        os.ftruncate(self.descriptor, 0)
        os.close(self.descriptor)


def holder(state_dir: Path) -> psutil.Process | None:
    """The living process that claimed the folder; a pid that now belongs to another process does not count."""
    with suppress(OSError, ValueError, KeyError, psutil.NoSuchProcess):
        claimed = json.loads((state_dir / _FILE).read_text())
        process = psutil.Process(claimed["pid"])
        if process.create_time() == claimed["create_time"] and process.status() != psutil.STATUS_ZOMBIE:
            return process
    return None


def stop_holder(state_dir: Path, timeout_s: float) -> bool:
    """Stops the loop that has the folder and waits until nothing of it is left; False when there is none.

    SIGTERM first, SIGKILL after `timeout_s`. Raises StopTheOther when even then something is left.
    """
    try:
        descriptor = os.open(state_dir / _FILE, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        if _lock(descriptor):
            return False
        for number, wait_s in ((signal.SIGTERM, timeout_s), (signal.SIGKILL, _KEEPER_TIMEOUT_S)):
            if (running := holder(state_dir)) is not None:
                running.send_signal(number)
            if wait_until(lambda: _lock(descriptor), wait_s):
                return True
        raise StopTheOther(f"Something that driftloop started in {state_dir} does not end, even when killed.")
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
