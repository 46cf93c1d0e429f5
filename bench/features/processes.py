"""The processes of the benchmark."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.features.events import NAME, USE_CASES
from bench.ingest.machine import SERVER_CORES
from deploy.local import create_topics, free_base_port

ROOT = Path(__file__).resolve().parents[2]
SESSION_S = 45  # how long a group waits for a process that is held still; the peer's default


def environment(folder: Path, package: str) -> Path:
    """The Python of an environment that has a peer; made from the package registry where it is missing."""
    made = folder / "peers" / package
    python = made / "bin" / "python"
    if not (made / "made").exists():
        uv = ROOT / "build" / "uv" / "bin" / "uv"
        subprocess.run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, made], check=True)
        subprocess.run([uv, "pip", "install", "--quiet", "--python", python, package], check=True)
        (made / "made").touch()
    return python


@contextmanager
def started(
    argv: Sequence[str | Path],
    environment: Mapping[str, str],
    cores: Sequence[int] | None = None,
    stdout: int | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """A process, killed at the end."""

    def pin() -> None:
        os.sched_setaffinity(0, cores or range(os.cpu_count() or 1))

    process = subprocess.Popen(list(argv), cwd=ROOT, env=os.environ | dict(environment), stdout=stdout, preexec_fn=pin)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def declare(
    folder: Path, name: str, over: Sequence[str] = ("1h",), kind: str = "tumbling", clock: str = "replay"
) -> Path:
    """The benchmark's use case under a name, with windows as asked; returns the folder of use cases."""
    usecases = folder / "usecases"
    (usecases / name).mkdir(parents=True, exist_ok=True)
    text = (USE_CASES / NAME / "usecase.py").read_text().replace(f'name="{NAME}"', f'name="{name}"')
    text = text.replace('over=["1h"]', f"over={list(over)!r}").replace('kind="tumbling"', f'kind="{kind}"')
    (usecases / name / "usecase.py").write_text(text.replace('clock="replay"', f'clock="{clock}"'))
    return usecases


@contextmanager
def features_process(
    servers: str,
    folder: Path,
    name: str,
    over: Sequence[str] = ("1h",),
    kind: str = "tumbling",
    clock: str = "replay",
    cores: Sequence[int] | None = SERVER_CORES,
) -> Iterator[subprocess.Popen[bytes]]:
    """`services.features` of a use case, with its topics; state and log stay in the folder. `cores`: None for any."""
    usecases = declare(folder, name, over, kind, clock)
    create_topics(servers, name, 30.0, 1)
    environment = {
        "KAFKA_BOOTSTRAP_SERVERS": servers,
        "KAFKA_SESSION_TIMEOUT_S": str(SESSION_S),
        "DRIFTLOOP_USE_CASE": name,
        "DRIFTLOOP_USECASES": str(usecases),
        "DRIFTLOOP_STATE_DIR": str(folder / name / "state"),
        "DRIFTLOOP_ARTIFACTS_URL": str(folder / name / "artifacts"),
        "DRIFTLOOP_LOG_LEVEL": "WARNING",
        "FEATURES_ADDRESS": f"127.0.0.1:{free_base_port()}",
    }
    own = ROOT / ".venvs" / "features" / "bin" / "python"  # as it runs in production: with nothing of the others'
    python = own if own.exists() else sys.executable
    with started([python, "-m", "services.features"], environment, cores) as process:
        yield process
