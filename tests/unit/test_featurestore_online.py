"""The online store: a reader sees the newest value of a key, in whatever order and however often updates were written."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import pytest
from feast import FeatureStore
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from driftloop.featurestore.online import OnlineEntry, OnlineWriter, online_reader, online_writer
from driftloop.featurestore.store import FeatureStoreSettings, feature_store
from tests.featurestore_twin import SEEN, SOLD, shop, update
from tests.redis_server import redis_server

Places = Callable[[], FeatureStoreSettings]

KEY = f"{SOLD.name}|a"
cases = count()  # every example has keys of its own


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """host:port of a Redis server of this module's own."""
    with redis_server(tmp_path_factory.mktemp("redis")) as address:
        yield address


@pytest.fixture(scope="module", params=["sqlite", "redis"])
def places(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Places:
    """Where a store lies, each time it is opened with a registry of its own: the online side is shared."""
    folder = tmp_path_factory.mktemp("online")
    address = request.getfixturevalue("redis") if request.param == "redis" else ""

    def opened() -> FeatureStoreSettings:
        registry = folder / f"registry-{next(cases)}.db"
        return FeatureStoreSettings(registry, str(folder), folder / "online.db", online_redis=address)

    return opened


@pytest.fixture(scope="module")
def store(places: Places) -> FeatureStore:
    return feature_store(shop, places())


def sold(key: str, sequence: int, value: float | None, known_at_us: int = 1) -> Any:
    return update(SOLD.name, key, known_at_us, sequence, [value, 1.0], event_time_us=7)


def test_an_entry_is_read_as_it_was_written(store: FeatureStore) -> None:
    key = f"{SEEN.name}|round trip"
    known_at_us = 1_363_800_000_123_456
    online_writer(store, shop).write([update(SEEN.name, key, known_at_us, 5, ["blue", None], event_time_us=9)])
    found = online_reader(store, shop).read(SEEN.name, [key, f"{SEEN.name}|nobody"])
    assert found == {key: OnlineEntry(f"{key}@5", 5, known_at_us, 9, ("blue", None))}


def test_an_older_update_never_replaces_a_newer_one_even_after_a_restart(store: FeatureStore) -> None:
    key = f"{SOLD.name}|restart"
    assert online_writer(store, shop).write([sold(key, 8, 8.0)]) == 1
    assert online_writer(store, shop).write([sold(key, 7, 7.0), sold(key, 8, 0.0)]) == 0
    assert online_reader(store, shop).read(SOLD.name, [key])[key].values == (8.0, 1.0)


def test_updates_known_at_one_time_are_ordered_by_sequence(store: FeatureStore) -> None:
    key = f"{SOLD.name}|tie"
    writer = online_writer(store, shop)
    writer.write([sold(key, 2, 2.0), sold(key, 1, 1.0)])
    writer.write([sold(key, 3, None)])
    assert online_reader(store, shop).read(SOLD.name, [key])[key].values == (None, 1.0)


def test_the_store_can_be_opened_again_with_what_it_holds(places: Places) -> None:
    online_writer(feature_store(shop, places()), shop).write([sold(KEY, 1, 1.5)])
    assert online_reader(feature_store(shop, places()), shop).read(SOLD.name, [KEY])[KEY].values == (1.5, 1.0)


class _LookedAt(OnlineWriter):
    """A writer that lets another one try to write between its look and its writing."""

    def __init__(self, store: FeatureStore, between: Callable[[], None]) -> None:
        super().__init__(store, shop)
        self._between = between

    def _stored(self, view: str, keys: list[str]) -> dict[str, int]:
        found = super()._stored(view, keys)
        self._between()
        return found


def test_a_writer_that_comes_between_anothers_look_and_its_writing_is_not_overwritten(places: Places) -> None:
    key = f"{SOLD.name}|between{next(cases)}"
    live = online_writer(feature_store(shop, places()), shop)
    thread = threading.Thread(target=lambda: live.write([sold(key, 5, 5.0)]))

    def between() -> None:
        thread.start()
        thread.join(0.5)  # it is done by then if nothing keeps it

    _LookedAt(feature_store(shop, places()), between).write([sold(key, -7, -7.0)])
    thread.join(60)
    found = online_reader(feature_store(shop, places()), shop).read(SOLD.name, [key])
    assert found[key].values == (5.0, 1.0)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    batches=st.lists(
        st.lists(st.tuples(st.sampled_from("xyz"), st.integers(1, 30)), min_size=1, max_size=6), min_size=1, max_size=6
    ),
)
def test_the_highest_sequence_wins_whatever_the_order(
    store: FeatureStore, batches: list[list[tuple[str, int]]]
) -> None:
    case = next(cases)
    writer = OnlineWriter(store, shop, remembered_max=1)  # nearly everything is asked of the store
    for batch in batches:
        writer.write([sold(f"{SOLD.name}|{case}{key}", sequence, float(sequence)) for key, sequence in batch])
    written = [each for batch in batches for each in batch]
    keys = {f"{SOLD.name}|{case}{key}": max(s for k, s in written if k == key) for key, _ in written}
    found = online_reader(store, shop).read(SOLD.name, list(keys))
    assert {key: entry.sequence for key, entry in found.items()} == keys
