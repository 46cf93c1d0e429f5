"""Set-ups that are in trouble, on a project that begins afresh: a full disk, and what cannot work at all, each said in a sentence."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from driftloop.cli.replay import Played, Replay, steps_of
from driftloop.usecase import ReplayStep, load_replay
from tests.compose.inside import COUNT
from tests.compose.stages import FLIGHTS
from tests.compose.system import PROJECT, ROOT, System, hold

Found = dict[str, Any]
FULL = "ERROR   features services.features: stopped: StoreFull: the disk of"
HOLDER = f"{PROJECT}_holder"


def full_disk(system: System) -> Found:
    """A full disk is said in one sentence, nothing is lost, and work goes on when space returns."""
    system.down("--volumes")
    with _small_disk(system):
        system.compose("up", "-d", "--no-build")
        image = system.inspect("ingest", ".Config.Image")
        holder = [
            "run",
            "-d",
            "--name",
            HOLDER,
            "-v",
            f"{PROJECT}_artifacts:/a",
            "--entrypoint",
            "sleep",
            image,
            "1200",
        ]
        system.docker(*holder)
        system.await_healthy()
        full = threading.Event()
        failed: list[BaseException] = []

        def fill_and_empty() -> None:
            try:
                system.docker("exec", HOLDER, "sh", "-c", "head -c 100m /dev/zero >/a/filler 2>/dev/null; true")
                full.set()
                system.until(lambda: FULL in system.log("features"), "features does not say that the disk is full")
            except BaseException as error:
                failed.append(error)
            finally:
                full.set()
                system.docker("exec", HOLDER, "rm", "-f", "/a/filler")

        beside = threading.Thread(target=fill_and_empty)

        def after_step(done: ReplayStep, played: Played) -> None:
            if played.steps == 10:
                beside.start()
                full.wait(60)

        replay = Replay(FLIGHTS, f"127.0.0.1:{system.ports['ingest']}", f"127.0.0.1:{system.ports['serving']}")
        try:
            played = replay.run(steps_of(FLIGHTS, load_replay("flights").stretch(days=2)), after_step)
        finally:
            replay.close()
            if beside.ident is not None:
                beside.join()
        if failed:
            raise failed[0]
        said = [line for line in system.log("features").splitlines() if "space left" in line or "StoreFull" in line]
        hold(not [line for line in said if "Traceback" in line], f"a full disk is a stack trace: {said[0][-400:]}")
        kept = system.asked("serving", COUNT)["ids"]["events"]
        hold(kept == played.events["sent"], f"{played.events['sent']} events were sent and {kept} are in the log")
        system.await_healthy()
        return {"events": kept, "said": said[0].split("stopped: ")[-1]}


@contextmanager
def _small_disk(system: System) -> Iterator[None]:
    """The volume of artifacts is 64 MiB, and preparation is content with little."""
    before = dict(system.environment)
    system.environment["COMPOSE_FILE"] = f"compose.yaml{os.pathsep}tests/compose/small-disk.yaml"
    system.environment["DRIFTLOOP_DISK_GIB_MIN"] = "0.01"
    try:
        yield
    finally:
        subprocess.run(["docker", "rm", "-f", HOLDER], capture_output=True)
        system.down("--volumes")
        system.environment.clear()
        system.environment.update(before)


AHEAD = """
import socket, time
listening = socket.create_server(("", 6379))
while True:
    caller, _ = listening.accept()
    caller.recv(4096)
    seconds = str(int(time.time()) + 3610).encode()
    caller.sendall(b"+OK\\r\\n*2\\r\\n$%d\\r\\n%s\\r\\n$1\\r\\n0\\r\\n" % (len(seconds), seconds))
    caller.close()
"""  # what a Redis answers whose clock is an hour ahead


def refusals(system: System) -> Found:
    """What cannot work is refused, each in one sentence: memory, disk, volumes, secrets, clocks, use case, a port, no GPU."""
    system.down("--volumes")
    system.compose("up", "-d", "--no-build", "prepare")
    system.until(lambda: system.inspect("prepare", ".State.Status") == "exited", "preparation does not end")
    hold(system.inspect("prepare", ".State.ExitCode") == "0", f"preparation failed: {system.log('prepare')[-400:]}")
    ahead = ["--network", f"{PROJECT}_backend", "--network-alias", "ahead", "--entrypoint", "python"]
    system.docker("run", "-d", "--name", HOLDER, *ahead, system.inspect("prepare", ".Config.Image"), "-c", AHEAD)
    prepare = ["run", "-T", "--rm", "--no-deps"]
    changed = {
        "memory": ("DRIFTLOOP_MEMORY_GIB_MIN=4000", "of memory and driftloop needs 4000 GiB"),
        "disk": ("DRIFTLOOP_DISK_GIB_MIN=900000", "free and driftloop needs 900000 GiB"),
        "partitions": ("DRIFTLOOP_PARTITIONS=3", "are spread over 2 partitions"),
        "use case": ("DRIFTLOOP_USE_CASE=nobody", "nobody"),
        "secret": (
            "DRIFTLOOP_FEAST_REDIS_PASSWORD_FILE=/run/secrets/gone",
            "the secret /run/secrets/gone cannot be read",
        ),
        "clocks": ("DRIFTLOOP_REDIS_ADDRESS=ahead:6379", "The clocks of two containers differ by 36"),
    }
    try:
        found = {
            name: _refused(system, [*prepare, "-e", setting, "prepare"], text)
            for name, (setting, text) in changed.items()
        }
    finally:
        subprocess.run(["docker", "rm", "-f", HOLDER], capture_output=True)
    found["gpu"] = _refused(system, [*prepare, "-e", "TRAINER_DEVICE=cuda", "trainer"], "torch finds no GPU")
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        own = {"SECRETS_SOURCE": folder, "SECRETS_DIR": folder}
        found["own secret"] = _refused(system, ["run", "-T", "--rm", "secrets"], f"the secret {folder}/", **own)
    unreadable = "echo '{}' >/var/lib/driftloop/artifacts/driftloop-layout.json"
    system.compose(*prepare, "--entrypoint", "sh", "prepare", "-c", unreadable)
    found["volume"] = _refused(system, [*prepare, "prepare"], "was written by a driftloop with layout")
    found["port"] = _taken_port(system)
    system.down("--volumes")
    return found


def _taken_port(system: System) -> str:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        environment = {**system.environment, "SERVING_PORT": port}
        check = [sys.executable, "deploy/compose/check.py"]
        done = subprocess.run(check, cwd=ROOT, env=environment, capture_output=True, text=True)
    said = done.stderr.strip()
    hold(done.returncode == 1 and said.startswith(f"Port {port} is taken"), f"a taken port: {said}")
    return said


def _refused(system: System, arguments: list[str], text: str, **environment: str) -> str:
    """The sentence of a container that had to refuse its set-up."""
    done = system.tried(*arguments, **environment)
    said = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    hold(done.returncode != 0, f"{' '.join(arguments)} did not fail")
    hold(any(text in line for line in said), f"{' '.join(arguments)} does not say {text!r}: {said[-3:]}")
    hold(not any("Traceback" in line for line in said), f"a stack trace instead of a sentence: {said[-3:]}")
    return next(line for line in said if text in line)
