"""A checkpoint comes back whole, or is refused."""

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftloop.artifacts import ArtifactStore
from driftloop.artifacts.checkpoints import CheckpointStore, CheckpointUnreadable, Packing

_plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False)
    | st.text(max_size=20)
    | st.binary(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5) | st.integers(-9, 9), inner, max_size=5)
    ),
    max_leaves=20,
)


@pytest.fixture
def checkpoints(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(ArtifactStore(tmp_path), "flights")


def test_there_is_none_at_first(checkpoints: CheckpointStore) -> None:
    assert checkpoints.load("rekeying", 0) is None


@given(state=st.dictionaries(st.text(max_size=5), _plain, max_size=5))
def test_plain_state_comes_back_as_it_was(tmp_path_factory: pytest.TempPathFactory, state: dict[str, object]) -> None:
    checkpoints = CheckpointStore(ArtifactStore(tmp_path_factory.mktemp("store")), "flights")
    assert checkpoints.save("rekeying", 3, state) > 0
    assert checkpoints.load("rekeying", 3) == state


@given(items=st.lists(_plain, max_size=40), others=st.lists(_plain, max_size=40), rest=_plain)
def test_a_long_list_packed_in_slices_comes_back_as_a_list(
    tmp_path_factory: pytest.TempPathFactory, items: list[object], others: list[object], rest: object
) -> None:
    checkpoints = CheckpointStore(ArtifactStore(tmp_path_factory.mktemp("store")), "flights")
    packing = Packing({"heart": {"seen": (iter(items), iter(others)), "rest": rest, "empty": iter(())}, "offsets": [1]})
    while packing.pack_more():
        pass
    checkpoints.save_packed("rekeying", 3, packing.packed())
    expected = {"heart": {"seen": [items, others], "rest": rest, "empty": []}, "offsets": [1]}
    assert checkpoints.load("rekeying", 3) == expected


@pytest.mark.parametrize(("size", "slices_max"), [(20, 100), (20_000, 520)])
def test_a_slice_is_small_whatever_the_size_of_items(size: int, slices_max: int) -> None:
    left = [b"x" * size] * 500
    packing = Packing({"items": iter(left)})
    taken, slices = [0], 0
    while packing.pack_more():
        slices += 1
        taken.append(sum(map(len, packing.packed())))
    assert max(after - before for before, after in pairwise(taken)) <= 2 * max(32_768, size)
    assert slices <= slices_max


def test_the_newest_replaces_the_one_before_and_leaves_others(checkpoints: CheckpointStore) -> None:
    checkpoints.save("rekeying", 0, {"n": 1})
    checkpoints.save("rekeying", 1, {"n": 10})
    checkpoints.save("rekeying", 0, {"n": 2})
    assert checkpoints.load("rekeying", 0) == {"n": 2}
    assert checkpoints.load("rekeying", 1) == {"n": 10}


@pytest.mark.parametrize("at", [0, 20, 21, 40, 60])
def test_one_changed_byte_is_found(tmp_path: Path, checkpoints: CheckpointStore, at: int) -> None:
    checkpoints.save("rekeying", 0, {"n": list(range(100))})
    path = tmp_path / checkpoints.path("rekeying", 0)
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointUnreadable):
        checkpoints.load("rekeying", 0)


def test_half_a_file_is_found(tmp_path: Path, checkpoints: CheckpointStore) -> None:
    checkpoints.save("rekeying", 0, {"n": list(range(100))})
    path = tmp_path / checkpoints.path("rekeying", 0)
    for kept in (0, 10, path.stat().st_size // 2):
        path.write_bytes(path.read_bytes()[:kept])
        with pytest.raises(CheckpointUnreadable):
            checkpoints.load("rekeying", 0)
