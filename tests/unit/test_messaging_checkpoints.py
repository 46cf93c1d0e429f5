"""A checkpoint comes back whole, or is refused."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftloop.artifacts import ArtifactStore
from driftloop.artifacts.checkpoints import CheckpointStore, CheckpointUnreadable

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
