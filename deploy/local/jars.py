"""Brings Kafka's jars, exactly those of kafka.lock, into the user's cache; never runs or keeps one whose sha256 differs."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from deploy.local.errors import ConnectToNetwork, DistrustJar, FreeDiskSpace, InstallTheExtra
from deploy.local.settings import LocalSettings

LOCK_PATH = Path(__file__).with_name("kafka.lock")
_LINE = re.compile(r"(?P<group>[\w.-]+):(?P<artifact>[\w.-]+):(?P<version>[\w.-]+) (?P<sha256>[0-9a-f]{64})")


@dataclass(frozen=True)
class Jar:
    """One locked coordinate; `sha256` is in lower-case hex."""

    group: str
    artifact: str
    version: str
    sha256: str

    @property
    def coordinate(self) -> str:
        return f"{self.group}:{self.artifact}:{self.version}"

    @property
    def file_name(self) -> str:
        # Two groups may hold artifacts of one name, so the group is part of the file's.
        return f"{self.group}.{self.artifact}-{self.version}.jar"

    def __str__(self) -> str:
        return self.coordinate


def read_lock(text: str) -> list[Jar]:
    """Jars of a lock's text, in its order. Raises DistrustJar on a line that is not `group:artifact:version sha256`."""
    jars: list[Jar] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line.strip())
        if match is None:
            raise DistrustJar(f"Line {number} of kafka.lock is not 'group:artifact:version sha256': {line!r}.")
        jars.append(Jar(**match.groupdict()))
    if len({jar.file_name for jar in jars}) != len(jars):
        raise DistrustJar("kafka.lock names one jar twice.")
    return jars


def verify(jar: Jar, path: Path) -> None:
    """Raises DistrustJar when the file's sha256 is not the locked one."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != jar.sha256:
        raise DistrustJar(f"{path} is not the {jar.coordinate} of kafka.lock (sha256 {found}, expected {jar.sha256}).")


def kafka_version(jars: Iterable[Jar]) -> str:
    """Version of the broker's own jar in the lock."""
    return next(jar.version for jar in jars if jar.artifact.startswith("kafka_"))


def missing(jars: Iterable[Jar], folder: Path) -> list[Jar]:
    """Jars whose file is not in the folder, or is not what the lock says (such a file is removed)."""
    absent: list[Jar] = []
    for jar in jars:
        path = folder / jar.file_name
        try:
            verify(jar, path)
        except FileNotFoundError:
            absent.append(jar)
        except DistrustJar:
            path.unlink()
            absent.append(jar)
    return absent


def ensure_jars(
    settings: LocalSettings,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    lock_text: str | None = None,
) -> list[Path]:
    """Paths of all locked jars, fetched first where the cache lacks them; `on_progress(done, total)` counts jars.

    Raises ConnectToNetwork, DistrustJar, FreeDiskSpace or InstallTheExtra; a raised error leaves no partial file behind.
    """
    jars = read_lock(LOCK_PATH.read_text() if lock_text is None else lock_text)
    folder = settings.cache_dir / f"kafka-{kafka_version(jars)}"
    folder.mkdir(parents=True, exist_ok=True)
    if missing(jars, folder):
        with (folder / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # several starts at once fetch once
            if absent := missing(jars, folder):
                _fetch_all(absent, folder, settings, on_progress)
    return [folder / jar.file_name for jar in jars]


def _fetch_all(jars: list[Jar], folder: Path, settings: LocalSettings, on_progress: Callable[[int, int], None]) -> None:
    # Staged inside the cache: os.replace is atomic only within one file system, and ~/.m2 stays untouched.
    staging = folder / ".fetching"
    shutil.rmtree(staging, ignore_errors=True)  # of a fetch that was killed
    staging.mkdir()
    pool = ThreadPoolExecutor(settings.fetch_parallel_max)
    try:
        for done, _ in enumerate(pool.map(lambda jar: _fetch(jar, folder, staging, settings), jars), start=1):
            on_progress(done, len(jars))
    finally:
        pool.shutdown(cancel_futures=True)
        shutil.rmtree(staging)


def _fetch(jar: Jar, folder: Path, staging: Path, settings: LocalSettings) -> None:
    try:
        import requests
        from jgo.maven import MavenContext
    except ImportError as error:
        raise InstallTheExtra(
            f"Fetching Kafka needs the 'local' extra ({error.name} is missing): pip install 'driftloop[local]'."
        ) from error
    for attempt in range(1, settings.fetch_attempts_max + 1):
        # A repository of its own per attempt: the resolver trusts whatever an interrupted download left there.
        repository = staging / f"{jar.artifact}-{attempt}"
        context = MavenContext(repo_cache=repository, timeout=settings.fetch_timeout_s)
        try:
            path = context.project(jar.group, jar.artifact).at_version(jar.version).artifact().resolve()
            verify(jar, path)
            os.replace(path, folder / jar.file_name)
            shutil.rmtree(repository)
            return
        except OSError as error:  # requests' exceptions are OSErrors too
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise FreeDiskSpace(
                    f"The disk that holds {folder} is full; free some space and start again."
                ) from error
            if attempt == settings.fetch_attempts_max:
                if not isinstance(error, requests.RequestException):
                    raise
                raise ConnectToNetwork(_no_network(jar, folder, type(error).__name__)) from error
        except RuntimeError as error:  # what the resolver raises for an answer other than 200, or a bad checksum
            if attempt == settings.fetch_attempts_max:
                raise ConnectToNetwork(_no_network(jar, folder, "no repository has it")) from error


def _no_network(jar: Jar, folder: Path, why: str) -> str:
    return (
        f"Kafka's jar {jar.coordinate} is not in {folder} and could not be fetched ({why}); "
        "connect to the network or set KAFKA_BOOTSTRAP_SERVERS to a broker that runs."
    )
