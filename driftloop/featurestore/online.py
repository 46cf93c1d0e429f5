"""Feast's online store, written in batches behind the stream and read by key; an older value never replaces a newer one.

Feast's stores order rows of a key by event time, in seconds (SQLite not at all): updates of one key within a second would be
lost or would win by chance. Here the sequence decides. The owner of a key's partition writes it, and a backfill may: each looks
at what is there and writes while no other writer does.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from feast import FeatureStore, FeatureView
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value as FeastValue

from driftloop.contracts import Message, from_value
from driftloop.contracts.features.v1.features_pb2 import FeatureUpdate
from driftloop.featurestore.log import EVENT_TIME_US, KNOWN_AT_US, SEQUENCE, UPDATE_ID
from driftloop.usecase import FieldValue, UseCase, View

LOCK_S_MAX = 30.0  # a writer that died lets the others go on after this; a batch takes some 100 ms
REMEMBERED_KEYS_MAX = 1_000_000  # keys whose newest sequence is remembered: about 150 MB; others are asked of the store
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class OnlineEntry(NamedTuple):
    """The values of one feature entity, in the view's declared order; None: missing. Times in microseconds, UTC."""

    update_id: str
    sequence: int
    known_at_us: int
    event_time_us: int
    values: tuple[FieldValue | None, ...]


class _Views:
    """A use case's views as the online store knows them."""

    def __init__(self, store: FeatureStore, use_case: UseCase) -> None:
        self.config = store.config
        self.online = store._get_provider().online_store
        self.views: dict[str, View] = {view.name: view for view in use_case.views}
        self.feast: dict[str, FeatureView] = {name: store.get_feature_view(name) for name in self.views}

    def entity_key(self, view: str, key: str) -> EntityKey:
        join_key = self.feast[view].join_keys[0]
        return EntityKey(join_keys=[join_key], entity_values=[FeastValue(string_val=key)])

    @contextmanager
    def alone(self) -> Iterator[None]:
        """While it lasts no other writer writes: by SQLite's own lock, or by one in Redis."""
        kind = self.config.online_store.type
        if kind == "sqlite":
            connection = self.online._get_conn(self.config)
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield
            finally:
                if connection.in_transaction:  # Feast ends it when it has written
                    connection.rollback()
        elif kind == "redis":
            client = self.online._get_client(self.config.online_store)
            with client.lock(f"driftloop:{self.config.project}:writing", LOCK_S_MAX, blocking_timeout=LOCK_S_MAX):
                yield
        else:
            yield

    def read(self, view: str, keys: Sequence[str], names: list[str]) -> list[tuple[datetime | None, Any]]:
        found: list[tuple[datetime | None, Any]] = self.online.online_read(
            self.config, self.feast[view], [self.entity_key(view, key) for key in keys], names
        )
        return found


class OnlineWriter:
    """Writes feature updates. Not safe to share between threads."""

    def __init__(self, store: FeatureStore, use_case: UseCase, remembered_max: int = REMEMBERED_KEYS_MAX) -> None:
        self._views = _Views(store, use_case)
        self._remembered_max = remembered_max
        self._newest: OrderedDict[str, int] = OrderedDict()

    def write(self, updates: Sequence[Message[FeatureUpdate]]) -> int:
        """Writes the newest update of each key that is newer than what the store has; returns how many it wrote."""
        newest: dict[str, dict[str, Message[FeatureUpdate]]] = {}
        for message in updates:
            update = message.payload
            of_view = newest.setdefault(update.view, {})
            held = of_view.get(update.key)
            if held is None or update.sequence > held.payload.sequence:
                of_view[update.key] = message
        return sum(self._write_view(view, found) for view, found in newest.items())

    def _write_view(self, view: str, updates: dict[str, Message[FeatureUpdate]]) -> int:
        with self._views.alone():
            held = {key: self._newest[key] for key in updates if key in self._newest}
            held |= self._stored(view, [key for key in updates if key not in held])
            fresh = {k: m for k, m in updates.items() if k not in held or m.payload.sequence > held[k]}
            if fresh:
                rows = [self._row(view, message) for message in fresh.values()]
                self._views.online.online_write_batch(self._views.config, self._views.feast[view], rows, None)
        for key, message in fresh.items():
            self._remember(key, message.payload.sequence)
        return len(fresh)

    def _stored(self, view: str, keys: list[str]) -> dict[str, int]:
        """Sequences that the store has of keys that are not remembered."""
        found = zip(keys, self._views.read(view, keys, [SEQUENCE]), strict=True) if keys else ()
        return {
            key: values[SEQUENCE].int64_val
            for key, (_, values) in found
            if values and values[SEQUENCE].WhichOneof("val")
        }

    def _remember(self, key: str, sequence: int) -> None:
        self._newest[key] = sequence
        self._newest.move_to_end(key)
        while len(self._newest) > self._remembered_max:
            self._newest.popitem(last=False)

    def _row(self, view: str, message: Message[FeatureUpdate]) -> tuple[Any, ...]:
        update = message.payload
        declared = self._views.views[view].features
        values = {
            feature.name: _feast_value(from_value(value), feature.numeric)
            for feature, value in zip(declared, update.values, strict=True)
        }
        values[EVENT_TIME_US] = FeastValue(int64_val=update.event_time_us)
        values[KNOWN_AT_US] = FeastValue(int64_val=update.known_at_us)
        values[SEQUENCE] = FeastValue(int64_val=update.sequence)
        values[UPDATE_ID] = FeastValue(string_val=message.id)
        known_at = _EPOCH + timedelta(microseconds=update.known_at_us)
        return self._views.entity_key(view, update.key), values, known_at, None


class OnlineReader:
    """Reads feature entities. Not safe to share between threads."""

    def __init__(self, store: FeatureStore, use_case: UseCase) -> None:
        self._views = _Views(store, use_case)

    def read(self, view: str, keys: Sequence[str]) -> dict[str, OnlineEntry]:
        """Entries of those keys of a view that the store has."""
        features = [feature.name for feature in self._views.views[view].features]
        names = [*features, EVENT_TIME_US, KNOWN_AT_US, SEQUENCE, UPDATE_ID]
        found = {}
        for key, (_, values) in zip(keys, self._views.read(view, keys, names), strict=True):
            if values and values[SEQUENCE].WhichOneof("val"):
                found[key] = OnlineEntry(
                    update_id=values[UPDATE_ID].string_val,
                    sequence=values[SEQUENCE].int64_val,
                    known_at_us=values[KNOWN_AT_US].int64_val,
                    event_time_us=values[EVENT_TIME_US].int64_val,
                    values=tuple(_python_value(values.get(name)) for name in features),
                )
        return found


def online_writer(store: FeatureStore, use_case: UseCase) -> OnlineWriter:
    """Writes updates to the store's online side."""
    return OnlineWriter(store, use_case)


def online_reader(store: FeatureStore, use_case: UseCase) -> OnlineReader:
    """Reads entries from the store's online side."""
    return OnlineReader(store, use_case)


def _feast_value(value: FieldValue | None, numeric: bool) -> FeastValue:
    if value is None:
        return FeastValue()
    return FeastValue(double_val=float(value)) if numeric else FeastValue(string_val=str(value))


def _python_value(value: FeastValue | None) -> FieldValue | None:
    kind = None if value is None else value.WhichOneof("val")
    return None if kind is None else getattr(value, kind)
