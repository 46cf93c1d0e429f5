"""Starts processes on request and ends every one of them when the process that asked is gone; decides nothing else.

Run as a program with one socket as file descriptor argument (see `processes.py`). One thread, standard library and
psutil only. Requests and events are JSON, one per line:

    {"op": "start", "name": …, "argv": […], "env": {…}, "cwd": …, "log": …}    → {"event": "started", "name", "pid"}
    {"op": "signal", "name": …, "signal": 15}
                                                                                {"event": "exited", "name", "pid", "code"}

Whatever ends the owner closes the socket, and everything started here is killed. Whatever ends this process kills its
children on Linux through PR_SET_PDEATHSIG (tied to the thread that forked: here there is only one); elsewhere the owner,
which sees the socket close, does it.
"""

from __future__ import annotations

import ctypes
import json
import os
import selectors
import signal
import socket
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NoReturn

import psutil

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
# The socket's end-of-file can be held back by a child that the owner forked without exec; its parent's id cannot.
_OWNER_CHECK_EVERY_S = 1.0
# A killed process vanishes at once unless it is inside the kernel; then nobody can do more.
_KILL_TIMEOUT_S = 10.0
_EXEC_FAILED = 127


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


@dataclass
class Keeper:
    """Children by name, and the one owner at the other end of the socket."""

    owner: socket.socket
    owner_pid: int
    children: dict[str, int] = field(default_factory=dict)
    _received: bytes = b""

    def run(self) -> None:
        """Serves until the owner is gone, then kills all that is left."""
        wake_read, wake_write = socket.socketpair()
        wake_read.setblocking(False)
        wake_write.setblocking(False)
        signal.set_wakeup_fd(wake_write.fileno(), warn_on_full_buffer=False)
        # Handlers, not SIG_IGN: what is ignored stays ignored in the programs started here.
        for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
            signal.signal(number, lambda *_: None)
        with selectors.DefaultSelector() as selector, wake_read, wake_write:
            selector.register(self.owner, selectors.EVENT_READ)
            selector.register(wake_read, selectors.EVENT_READ)
            try:
                while os.getppid() == self.owner_pid:
                    for key, _ in selector.select(_OWNER_CHECK_EVERY_S):
                        if key.fileobj is wake_read:
                            wake_read.recv(4096)
                        elif not self._serve():
                            return
                    self._reap()
            finally:
                signal.set_wakeup_fd(-1)

    def _serve(self) -> bool:
        data = self.owner.recv(1 << 16)
        self._received += data
        *lines, self._received = self._received.split(b"\n")
        for line in lines:
            self._handle(json.loads(line))
        return bool(data)

    def _handle(self, request: dict[str, Any]) -> None:
        name = request["name"]
        if request["op"] == "start":
            pid = _spawn(request["argv"], request["env"], request["cwd"], request["log"])
            self.children[name] = pid
            self._tell({"event": "started", "name": name, "pid": pid})
        elif name in self.children:
            _signal_group(self.children[name], request["signal"])

    def _reap(self) -> None:
        with suppress(ChildProcessError):
            while (reaped := os.waitpid(-1, os.WNOHANG))[0]:
                pid, status = reaped
                for name in [name for name, child in self.children.items() if child == pid]:
                    del self.children[name]
                    _signal_group(pid, signal.SIGKILL)  # what a dead service leaves behind would hold its port
                    self._tell({"event": "exited", "name": name, "pid": pid, "code": os.waitstatus_to_exitcode(status)})

    def _tell(self, event: dict[str, Any]) -> None:
        self.owner.sendall(json.dumps(event).encode() + b"\n")

    def kill_everything(self) -> None:
        """Kills the children's groups and every other descendant, until none is left or the bound is reached."""
        deadline = time.monotonic() + _KILL_TIMEOUT_S
        # Descendants in groups of their own too: as subreaper this process inherits them when their parents die.
        while (rest := psutil.Process().children(recursive=True)) and time.monotonic() < deadline:
            for process in rest:
                with suppress(psutil.Error):
                    process.kill()
            psutil.wait_procs(rest, timeout=0.5)
            with suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass


def _signal_group(leader: int, number: int) -> None:
    # The group, not the process: a service's helpers go with it.
    with suppress(ProcessLookupError, PermissionError):  # macOS refuses a group in which only zombies are left
        os.killpg(leader, number)


def _spawn(argv: list[str], env: dict[str, str], cwd: str, log: str) -> int:
    keeper_pid = os.getpid()
    ready_read, ready_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        _become(argv, env, cwd, log, keeper_pid)
    os.close(ready_write)
    os.read(ready_read, 1)  # ends when the child has become its program: from here on its group can be signalled
    os.close(ready_read)
    return pid


def _become(argv: list[str], env: dict[str, str], cwd: str, log: str, keeper_pid: int) -> NoReturn:
    try:
        os.setsid()
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != keeper_pid:  # died before the line above could take effect
            os._exit(_EXEC_FAILED)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644), 1)
        os.dup2(1, 2)
        os.chdir(cwd)
        os.execvpe(argv[0], argv, env)
    except OSError as error:
        os.write(2, f"cannot start {argv[0]}: {error}\n".encode())
    finally:
        os._exit(_EXEC_FAILED)


def main() -> None:
    owner_fd, owner_pid, *held = (int(argument) for argument in sys.argv[1:])
    for descriptor in (owner_fd, *held):
        os.set_inheritable(descriptor, False)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    keeper = Keeper(socket.socket(fileno=owner_fd), owner_pid)
    try:
        keeper.run()
    except (BrokenPipeError, ConnectionResetError):
        pass  # the owner is gone in the middle of a message: the same as its end
    finally:
        keeper.kill_everything()


if __name__ == "__main__":
    main()
