"""The artifact store: whole files under relative paths on any fsspec file system; never their meaning."""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import fsspec
from fsspec.implementations.local import LocalFileSystem

from driftloop.artifacts.errors import (
    ArtifactError,
    ArtifactNotFound,
    ArtifactTooLarge,
    NoStore,
    StoreFull,
    StoreUnavailable,
)

_COPY_BYTES = 1 << 20
_UNFINISHED = ".unfinished"


class ArtifactStore:
    """Files under one root, given as a path or an fsspec URL ("file:///…", "s3://bucket/prefix").

    Paths are relative and use "/". A reader never sees half a file: local files are written beside and renamed,
    object stores show an object only when it is complete. NoStore where nothing can be kept at such a URL; every method raises
    StoreUnavailable where the store does not let itself be used: no credentials, no such bucket, no answer, no permission.
    """

    def __init__(self, url: str | Path, **storage_options: Any) -> None:
        self.url = str(url)
        if not self.url:
            raise NoStore("an empty URL is no artifact store: correct DRIFTLOOP_ARTIFACTS_URL")
        try:
            self.filesystem, root = fsspec.core.url_to_fs(self.url, **storage_options)
        except (ValueError, ImportError) as error:
            raise NoStore(f"{self.url} is no artifact store: {error}; correct DRIFTLOOP_ARTIFACTS_URL") from error
        self.root = root.rstrip("/")
        self.is_local = isinstance(self.filesystem, LocalFileSystem)

    def full_path(self, path: str) -> str:
        """Where `path` lies on the file system; ValueError if it leaves the root."""
        parts = path.split("/")
        if path.startswith("/") or ".." in parts or "" in parts:
            raise ValueError(f"{path!r} is no path inside the artifact store")
        return f"{self.root}/{path}"

    def require(self) -> None:
        """Returns if files can be asked for: to be told of a store that does not let itself be used before work ends in it."""
        with suppress(ArtifactNotFound, ArtifactTooLarge):
            self.get("any/file", 0)

    def put(self, path: str, data: bytes, *, private: bool = False) -> None:
        """Writes a whole file, replacing what was there; StoreFull. `private`: readable by its owner only (local files)."""
        full = self.full_path(path)
        with self._available():
            if not self.is_local:
                self.filesystem.pipe_file(full, data)
                return
            with _written_beside(full, private=private) as beside:
                beside.write(data)

    def put_file(self, path: str, source: Path) -> None:
        """Copies a local file in, in pieces of 1 MiB; StoreFull."""
        full = self.full_path(path)
        with self._available():
            if not self.is_local:
                self.filesystem.put_file(str(source), full)
                return
            with source.open("rb") as origin, _written_beside(full, private=False) as beside:
                while piece := origin.read(_COPY_BYTES):
                    beside.write(piece)

    def get(self, path: str, max_bytes: int) -> bytes:
        """The file's bytes; ArtifactNotFound, or ArtifactTooLarge if it has more than `max_bytes`."""
        full = self.full_path(path)
        with self._available():
            try:
                with self.filesystem.open(full, "rb") as file:
                    data: bytes = file.read(max_bytes + 1)
            except FileNotFoundError as error:
                raise ArtifactNotFound(f"{path} is not in {self.url}") from error
        if len(data) > max_bytes:
            raise ArtifactTooLarge(f"{path} in {self.url} has more than {max_bytes} bytes")
        return data

    def exists(self, path: str) -> bool:
        """Whether a file lies at `path`."""
        full = self.full_path(path)
        with self._available():
            self.filesystem.invalidate_cache()
            return bool(self.filesystem.isfile(full))

    def list(self, prefix: str) -> Iterator[str]:
        """Paths of the files below folder `prefix`, sorted; none where the folder does not exist."""
        full = self.full_path(prefix.rstrip("/"))
        with self._available():
            self.filesystem.invalidate_cache()
            files = sorted(self.filesystem.find(full))
        for found in files:
            path = found[len(self.root) + 1 :]
            if not path.endswith(_UNFINISHED):
                yield path

    def size_bytes(self, path: str) -> int:
        """The file's size; ArtifactNotFound."""
        full = self.full_path(path)
        with self._available():
            self.filesystem.invalidate_cache()
            try:
                return int(self.filesystem.size(full))
            except FileNotFoundError as error:
                raise ArtifactNotFound(f"{path} is not in {self.url}") from error

    def delete(self, path: str) -> None:
        """Removes a file; nothing happens where there is none."""
        full = self.full_path(path)
        with self._available(), suppress(FileNotFoundError):
            self.filesystem.rm_file(full)

    @contextmanager
    def _available(self) -> Iterator[None]:
        # Each object store's client raises errors of its own, with no base that they share.
        faults = OSError if self.is_local else Exception
        try:
            yield
        except ArtifactError:
            raise
        except faults as error:
            raise StoreUnavailable(
                f"the artifact store {self.url} cannot be used: {type(error).__name__}: {error}; give what it asks for "
                "(credentials, address, permissions), or correct DRIFTLOOP_ARTIFACTS_URL"
            ) from error


@contextmanager
def _written_beside(full: str, *, private: bool) -> Iterator[BinaryIO]:
    """A local file written under another name, synced, and renamed into place once it is complete."""
    place = Path(full)
    beside = place.with_name(f"{place.name}.{uuid.uuid4().hex}{_UNFINISHED}")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if private else 0o644)
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, place)
    except BaseException as error:
        with suppress(OSError):
            beside.unlink()
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreFull(
                f"the disk of {place.parent} is full: {place.name} was not written and nothing else is changed; free some "
                "space, and work goes on where it stopped"
            ) from error
        raise
