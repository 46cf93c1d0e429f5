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

from driftloop.artifacts.errors import ArtifactNotFound, ArtifactTooLarge, NoStore, StoreFull

_COPY_BYTES = 1 << 20
_UNFINISHED = ".unfinished"


class ArtifactStore:
    """Files under one root, given as a path or an fsspec URL ("file:///…", "s3://bucket/prefix").

    Paths are relative and use "/". A reader never sees half a file: local files are written beside and renamed,
    object stores show an object only when it is complete. NoStore where nothing can be kept at such a URL.
    """

    def __init__(self, url: str | Path, **storage_options: Any) -> None:
        self.url = str(url)
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

    def put(self, path: str, data: bytes, *, private: bool = False) -> None:
        """Writes a whole file, replacing what was there; StoreFull. `private`: readable by its owner only (local files)."""
        full = self.full_path(path)
        if not self.is_local:
            self.filesystem.pipe_file(full, data)
            return
        with _written_beside(full, private=private) as beside:
            beside.write(data)

    def put_file(self, path: str, source: Path) -> None:
        """Copies a local file in, in pieces of 1 MiB; StoreFull."""
        full = self.full_path(path)
        if not self.is_local:
            self.filesystem.put_file(str(source), full)
            return
        with source.open("rb") as origin, _written_beside(full, private=False) as beside:
            while piece := origin.read(_COPY_BYTES):
                beside.write(piece)

    def get(self, path: str, max_bytes: int) -> bytes:
        """The file's bytes; ArtifactNotFound, or ArtifactTooLarge if it has more than `max_bytes`."""
        full = self.full_path(path)
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
        self.filesystem.invalidate_cache()
        return bool(self.filesystem.isfile(self.full_path(path)))

    def list(self, prefix: str) -> Iterator[str]:
        """Paths of the files below folder `prefix`, sorted; none where the folder does not exist."""
        self.filesystem.invalidate_cache()
        full = self.full_path(prefix.rstrip("/"))
        for found in sorted(self.filesystem.find(full)):
            path = found[len(self.root) + 1 :]
            if not path.endswith(_UNFINISHED):
                yield path

    def size_bytes(self, path: str) -> int:
        """The file's size; ArtifactNotFound."""
        self.filesystem.invalidate_cache()
        try:
            return int(self.filesystem.size(self.full_path(path)))
        except FileNotFoundError as error:
            raise ArtifactNotFound(f"{path} is not in {self.url}") from error

    def delete(self, path: str) -> None:
        """Removes a file; nothing happens where there is none."""
        try:
            self.filesystem.rm_file(self.full_path(path))
        except FileNotFoundError:
            return


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
