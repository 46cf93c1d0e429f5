"""Set-ups that are in trouble, on a project that begins afresh: a full disk, and what cannot work at all, each said in a sentence."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from driftloop.cli.replay import Played, Replay, steps_of
from driftloop.usecase import ReplayStep, load_replay
from tests.compose.inside import COUNT
from tests.compose.stages import FLIGHTS
from tests.compose.system import PROJECT, System, hold

Found = dict[str, Any]
FULL = "ERROR   features services.features: stopped: StoreFull: the disk of"
HOLDER = f"{PROJECT}_holder"


def full_disk(system: System) -> Found:
    """A full disk is said in one sentence, nothing is lost, and work goes on when space returns."""
    system.compose("down", "--volumes")
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
        system.compose("down", "--volumes")
        system.environment.clear()
        system.environment.update(before)


def refusals(system: System) -> Found:
    """What cannot work is refused, each in one sentence: memory, disk, partitions, layout, secrets, clocks, use case, port, GPU."""
    system.compose("down", "--volumes")
    system.compose("up", "-d", "--no-build", "prepare")
    system.until(lambda: system.inspect("prepare", ".State.Status") == "exited", "preparation does not end")
    hold(system.inspect("prepare", ".State.ExitCode") == "0", f"preparation failed: {system.log('prepare')[-400:]}")
    prepare = ["run", "--rm", "--no-deps"]
    artifacts, secrets = "/var/lib/driftloop/artifacts", "/run/secrets"
    broken = f"echo '{{}}' >{artifacts}/driftloop-layout.json"
    cases: dict[str, tuple[list[str], str]] = {
        "memory": (
            [*prepare, "-e", "DRIFTLOOP_MEMORY_GIB_MIN=4000", "prepare"],
            "of memory and driftloop needs 4000 GiB",
        ),
        "disk": ([*prepare, "-e", "DRIFTLOOP_DISK_GIB_MIN=900000", "prepare"], "free and driftloop needs 900000 GiB"),
        "partitions": ([*prepare, "-e", "DRIFTLOOP_PARTITIONS=3", "prepare"], "spread over 2 partitions"),
        "use case": ([*prepare, "-e", "DRIFTLOOP_USE_CASE=nobody", "prepare"], "nobody"),
        "secret": (
            [*prepare, "-e", f"DRIFTLOOP_FEAST_REDIS_PASSWORD_FILE={secrets}/gone", "prepare"],
            f"{secrets}/gone",
        ),
        "own secret": (
            ["run", "--rm", "-e", "SECRETS_DIR=./mine", "-v", f"/var/empty:{secrets}", "secrets"],
            "./mine/",
        ),
        "gpu": (
            ["run", "--rm", "--no-deps", "-e", "TRAINER_DEVICE=cuda", "trainer"],
            "TRAINER_DEVICE",
        ),
    }
    found = {name: _refused(system, arguments, text) for name, (arguments, text) in cases.items()}
    system.compose(*prepare, "--entrypoint", "sh", "prepare", "-c", broken)
    found["volume"] = _refused(system, [*prepare, "prepare"], "was written by a driftloop with layout")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        checked = subprocess.run(
            ["python3", "deploy/compose/check.py"], env={**system.environment, "SERVING_PORT": str(port)},
            capture_output=True, text=True,
        )  # fmt: skip
        found["port"] = checked.stderr.strip()
        hold(checked.returncode == 1 and found["port"].startswith(f"Port {port} is taken"), f"port: {found['port']}")
    return found


def _refused(system: System, arguments: list[str], text: str) -> str:
    """The last line of what a container said that had to refuse its set-up."""
    done = system.tried(*arguments)
    said = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    hold(done.returncode != 0, f"{' '.join(arguments)} did not fail")
    hold(any(text in line for line in said), f"{' '.join(arguments)} does not say {text!r}: {said[-3:]}")
    hold(not any("Traceback" in line for line in said), f"a stack trace instead of a sentence: {said[-3:]}")
    return next(line for line in said if text in line)
