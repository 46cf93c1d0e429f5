"""The artifact store: whole files, bounded reads, nothing outside its root, on local disk and elsewhere alike."""

from __future__ import annotations

import errno
import os
import stat
import uuid
from pathlib import Path

import pytest

from driftloop.artifacts import ArtifactNotFound, ArtifactStore, ArtifactTooLarge, StoreFull, StoreUnavailable


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path if request.param == "local" else f"memory://{uuid.uuid4().hex}")


def test_what_was_put_is_read_back_and_a_second_put_replaces_it(store: ArtifactStore) -> None:
    store.put("a/b.bin", b"first")
    store.put("a/b.bin", b"second")
    assert store.get("a/b.bin", max_bytes=6) == b"second"
    assert store.size_bytes("a/b.bin") == 6


def test_a_file_beyond_the_bound_is_refused_unread(store: ArtifactStore) -> None:
    store.put("big", b"12345")
    with pytest.raises(ArtifactTooLarge):
        store.get("big", max_bytes=4)


def test_a_missing_file_is_told_apart(store: ArtifactStore) -> None:
    assert not store.exists("nothing")
    with pytest.raises(ArtifactNotFound):
        store.get("nothing", max_bytes=1)
    with pytest.raises(ArtifactNotFound):
        store.size_bytes("nothing")


def test_files_are_listed_sorted_below_a_folder_only(store: ArtifactStore) -> None:
    for path in ("x/2", "x/1/deep", "y/3"):
        store.put(path, b"")
    assert list(store.list("x")) == ["x/1/deep", "x/2"]
    assert list(store.list("z")) == []


def test_a_removed_file_is_gone_and_removing_it_again_does_nothing(store: ArtifactStore) -> None:
    store.put("once", b"1")
    store.delete("once")
    store.delete("once")
    assert not store.exists("once")


def test_a_local_file_is_copied_in(store: ArtifactStore, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"abc")
    store.put_file("copied/here", source)
    assert store.get("copied/here", max_bytes=3) == b"abc"


@pytest.mark.parametrize("path", ["/etc/passwd", "../outside", "a/../../b", "a//b", ""])
def test_a_path_that_leaves_the_root_is_refused(store: ArtifactStore, path: str) -> None:
    with pytest.raises(ValueError, match="no path inside"):
        store.put(path, b"")


def test_a_write_that_fails_leaves_the_old_file_and_no_remains(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    store.put("kept", b"old")
    with pytest.raises(TypeError):
        store.put("kept", 7)  # type: ignore[arg-type]
    assert store.get("kept", max_bytes=3) == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_a_private_file_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    ArtifactStore(tmp_path).put("keys/secret", b"s", private=True)
    assert stat.S_IMODE((tmp_path / "keys" / "secret").stat().st_mode) == 0o600


def test_a_full_disk_is_said_and_leaves_the_former_file_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ArtifactStore(tmp_path)
    store.put("a/checkpoint", b"former")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreFull, match=rf"^the disk of {tmp_path}/a is full: checkpoint was not written"):
        store.put("a/checkpoint", b"newer")
    assert store.get("a/checkpoint", max_bytes=6) == b"former"
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["checkpoint"]


def test_a_place_that_is_no_folder_is_said_with_its_address_and_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = ArtifactStore(tmp_path / "file")
    with pytest.raises(StoreUnavailable, match=rf"^the artifact store {tmp_path}/file cannot be used"):
        store.require()
    with pytest.raises(
        StoreUnavailable, match=rf"^the artifact store {tmp_path}/file cannot be used: .*DRIFTLOOP_ARTIFACTS_URL$"
    ):
        store.put("a/b", b"1")
