"""The supervised loop with stand-in services: it gets ready, heals, says so, and leaves nothing behind however it ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import psutil
import pytest

from deploy.local import LocalLoop, LocalSettings, free_base_port, stop_holder
from deploy.local.deadline import wait_until
from deploy.local.errors import FreeThePort, ReadTheLog, StartAgain, StopTheOther
from deploy.local.settings import REPOSITORY_ROOT

SERVICE = str(Path(__file__).with_name("health_service.py"))


def command(name: str, *manner: str) -> list[str]:
    return [sys.executable, SERVICE, name, *manner]


def loop_on(
    bootstrap_servers: str, state_dir: Path, reporter: Callable[[str], None] = print, **manners: str
) -> LocalLoop:
    """A loop of stand-in services on the session's broker; `manners`: service name → manner."""
    return LocalLoop(
        "flights",
        state_dir,
        free_base_port(),
        reporter=reporter,
        commands={name: command(name, *manner.split()) for name, manner in manners.items()},
        settings=LocalSettings(kafka_bootstrap_servers=bootstrap_servers, service_stop_timeout_s=2),
    )


def gone(pids: list[int]) -> Callable[[], bool]:
    return lambda: not any(psutil.pid_exists(pid) for pid in pids)


def test_services_get_ready_with_a_log_each_and_stop(kafka_bootstrap_servers: str, tmp_path: Path) -> None:
    with loop_on(kafka_bootstrap_servers, tmp_path, ingest="", serving="") as loop:
        pids = [*loop.pids().values()]
        assert set(loop.pids()) == {"ingest", "serving"}
        assert (loop.log_dir / "serving.log").read_text() == "serving is up\n"
        assert wait_until(lambda: loop.peak_memory_bytes > 10_000_000, timeout_s=10)
    assert gone(pids)()
    assert loop.pids() == {}


def test_a_killed_service_is_started_again_and_that_is_said(kafka_bootstrap_servers: str, tmp_path: Path) -> None:
    told: list[str] = []
    with loop_on(kafka_bootstrap_servers, tmp_path, told.append, ingest="", serving="") as loop:
        before = loop.pids()
        loop.kill("serving")
        loop.wait_ready("serving")
        after = loop.pids()
        assert (loop.restarts("ingest"), loop.restarts("serving")) == (0, 1)
    assert before["ingest"] == after["ingest"]
    assert before["serving"] != after["serving"]
    assert any(line.startswith("serving died (killed by SIGKILL); starting it again in 0.5 s") for line in told)
    assert any(line.startswith("serving is ready again (restart 1)") for line in told)


def test_a_service_that_never_gets_ready_ends_the_start_with_its_last_words_and_its_log(
    kafka_bootstrap_servers: str, tmp_path: Path
) -> None:
    loop = loop_on(kafka_bootstrap_servers, tmp_path, ingest="", trainer="dies")
    said = r'trainer died 3 times before it was ready \(exit code 3\); its log ends with "trainer cannot live": read .*trainer\.log'
    with pytest.raises(ReadTheLog, match=said):
        loop.start()
    assert loop.pids() == {}


@pytest.mark.parametrize("base_port", ["free", "given"])
def test_a_port_that_is_taken_before_it_is_bound_is_named_or_another_is_tried(
    base_port: Literal["free", "given"], kafka_bootstrap_servers: str, tmp_path: Path
) -> None:
    taken: list[socket.socket] = []

    def take_once(line: str) -> None:
        if line.startswith("using the broker") and not taken:
            host, _, port = loop.addresses["ingest"].partition(":")
            taken.append(socket.create_server((host, int(port))))

    loop = LocalLoop(
        "flights",
        tmp_path,
        "free" if base_port == "free" else free_base_port(),
        reporter=take_once,
        commands={"ingest": command("ingest")},
        settings=LocalSettings(kafka_bootstrap_servers=kafka_bootstrap_servers),
    )
    refused = loop.addresses["ingest"]
    try:
        if base_port == "free":
            with loop:
                assert loop.addresses["ingest"] != refused
        else:
            with pytest.raises(
                FreeThePort, match=rf"^Port {refused.rpartition(':')[2]}, which ingest needs, is in use"
            ):
                loop.start()
    finally:
        taken.pop().close()
    assert loop.pids() == {}


def test_a_service_that_ignores_sigterm_is_killed_after_its_bound(kafka_bootstrap_servers: str, tmp_path: Path) -> None:
    told: list[str] = []
    with loop_on(kafka_bootstrap_servers, tmp_path, told.append, ingest="lingers") as loop:
        pids = [*loop.pids().values()]
    assert gone(pids)()
    assert "ingest did not stop within 2 s and was killed" in told


def test_a_second_loop_in_the_same_folder_is_refused(kafka_bootstrap_servers: str, tmp_path: Path) -> None:
    with loop_on(kafka_bootstrap_servers, tmp_path, ingest="") as loop:
        with pytest.raises(StopTheOther, match=f"process {os.getpid()}"):
            loop_on(kafka_bootstrap_servers, tmp_path, ingest="").start()
        loop.wait_ready()


def test_a_fresh_start_removes_what_a_loop_wrote_and_nothing_else(kafka_bootstrap_servers: str, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "old").touch()
    (tmp_path / "mine").touch()
    loop = LocalLoop(
        "flights",
        tmp_path,
        free_base_port(),
        fresh=True,
        commands={"ingest": command("ingest")},
        settings=LocalSettings(kafka_bootstrap_servers=kafka_bootstrap_servers),
    )
    with loop:
        assert not (tmp_path / "state" / "old").exists()
        assert (tmp_path / "mine").exists()


def test_when_the_keeper_is_killed_the_services_go_and_the_waiting_caller_hears(
    kafka_bootstrap_servers: str, tmp_path: Path
) -> None:
    loop = loop_on(kafka_bootstrap_servers, tmp_path, ingest="", serving="").start()
    try:
        pids = [*loop.pids().values()]
        for child in psutil.Process().children():
            if "keeper.py" in " ".join(child.cmdline()) and set(pids) <= {c.pid for c in child.children()}:
                child.kill()
        with pytest.raises(StartAgain, match="run driftloop up again"):
            loop.wait()
        assert wait_until(gone(pids), timeout_s=10)
    finally:
        loop.stop()


_UP = """
import json, pathlib, sys
from deploy.local import LocalLoop
service, state, port, helper = sys.argv[1:]
commands = {"ingest": [sys.executable, service, "ingest", "breeds", helper], "serving": [sys.executable, service, "serving"]}
with LocalLoop("flights", pathlib.Path(state), int(port), commands=commands) as loop:
    print(json.dumps(loop.pids()), flush=True)
    loop.wait()
"""


@pytest.fixture
def supervisor(tmp_path: Path) -> subprocess.Popen[str]:
    """A process with a whole loop, Kafka included; its first line of output holds the pids."""
    environment = {name: value for name, value in os.environ.items() if name != "KAFKA_BOOTSTRAP_SERVERS"}
    arguments = [SERVICE, str(tmp_path), str(free_base_port()), str(tmp_path / "helper.pid")]
    return subprocess.Popen(
        [sys.executable, "-c", _UP, *arguments], cwd=REPOSITORY_ROOT, env=environment, stdout=subprocess.PIPE, text=True
    )


def everything_of(supervisor: subprocess.Popen[str], state_dir: Path) -> list[int]:
    assert supervisor.stdout is not None
    pids = json.loads(supervisor.stdout.readline())
    assert set(pids) == {"kafka", "ingest", "serving"}
    descendants = [child.pid for child in psutil.Process(supervisor.pid).children(recursive=True)]
    helper = int((state_dir / "helper.pid").read_text())
    assert {*pids.values(), helper} <= set(descendants)
    return descendants


def test_a_supervisor_killed_with_sigkill_leaves_no_process_and_a_free_folder(
    supervisor: subprocess.Popen[str], tmp_path: Path
) -> None:
    pids = everything_of(supervisor, tmp_path)
    supervisor.kill()
    supervisor.wait()
    assert wait_until(gone(pids), timeout_s=10), [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]
    assert stop_holder(tmp_path, timeout_s=1) is False


def test_supervisor_and_keeper_killed_at_once_leave_no_service(
    supervisor: subprocess.Popen[str], tmp_path: Path
) -> None:
    everything_of(supervisor, tmp_path)
    keeper = psutil.Process(supervisor.pid).children()[0]
    services = [child.pid for child in keeper.children()]
    supervisor.send_signal(signal.SIGSTOP)  # so that it cannot clean up between the two
    keeper.kill()
    supervisor.kill()
    supervisor.wait()
    assert wait_until(gone(services), timeout_s=10)


def test_ctrl_c_while_up_is_starting_stops_everything_and_exits_with_0(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "KAFKA_BOOTSTRAP_SERVERS"}
    process = subprocess.Popen(
        [sys.executable, "-c", "from driftloop.cli.local import up; up()", "--state", str(tmp_path)],
        cwd=REPOSITORY_ROOT,
        env={**environment, "DRIFTLOOP_LOCAL_BASE_PORT": str(free_base_port())},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    while not process.stdout.readline().startswith("kafka is ready"):
        assert process.poll() is None
    pids = [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    rest = process.stdout.read()
    assert (process.wait(), rest.splitlines()[-2:]) == (0, ["stopping", "Stopped."])
    assert wait_until(gone(pids), timeout_s=10)


def test_down_stops_everything_from_another_process(supervisor: subprocess.Popen[str], tmp_path: Path) -> None:
    pids = everything_of(supervisor, tmp_path)
    result = subprocess.run(
        [sys.executable, "-c", "from driftloop.cli.local import down; down()", "--state", str(tmp_path)],
        check=False,
        cwd=REPOSITORY_ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (result.returncode, result.stdout) == (0, "Stopped.\n")
    supervisor.wait()
    assert wait_until(gone(pids), timeout_s=10)
