"""A use case's Feast store: its configuration, and its definitions applied; never values."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from feast import FeatureStore
from feast.infra.registry.sql import SqlRegistryConfig
from feast.repo_config import RegistryConfig, RepoConfig
from sqlalchemy.exc import SQLAlchemyError

from driftloop.featurestore.definitions import definitions, project_name
from driftloop.featurestore.request_view import transformed, with_request_view
from driftloop.featurestore.shared import SharedStores
from driftloop.usecase import UseCase

_ENTITY_KEY_VERSION = 3
_APPLY_AGAIN_S = 0.5


@dataclass(frozen=True)
class FeatureStoreSettings:
    """Where a use case's Feast store lives.

    registry_path   the registry's file, one per process: it follows from the declaration, so it need not be shared
    shared          a registry in a database that is used instead, for whoever wants to look at it, and its password
    artifacts_url   the artifact store that holds the offline log
    online_sqlite   the online store's file, shared by the process that writes and those that read
    online_redis    "host:port" (and options as Feast takes them) of a Redis online store; used instead of SQLite if set
    join_threads    threads of the point-in-time join
    join, visible_after_us   see `KnownTimeOfflineStoreConfig`
    request_view    whether transforms of request fields are an on-demand view, and part of a service with every feature: Feast tries
                    their code with values of its own making, and no service of ours needs it
    """

    registry_path: Path
    artifacts_url: str
    online_sqlite: Path
    online_redis: str = ""
    join_threads: int = 2
    join: Literal["known", "visible"] = "known"
    visible_after_us: int = 0
    request_view: bool = False
    shared: SharedStores = field(default_factory=SharedStores)


def feature_store(use_case: UseCase, settings: FeatureStoreSettings) -> FeatureStore:
    """The use case's store, with its definitions applied: doing it again changes nothing but what the declaration changed."""
    online: dict[str, Any]
    if settings.online_redis:
        # Its own check of timestamps drops the later of two updates of one microsecond; OnlineWriter orders by sequence.
        online = {
            "type": "redis",
            "connection_string": settings.shared.redis(settings.online_redis),
            "skip_dedup": True,
        }
    else:
        path = settings.online_sqlite.resolve()
        path.parent.mkdir(parents=True, exist_ok=True)
        _allow_reading_while_writing(path)
        online = {"type": "sqlite", "path": str(path)}
    found = definitions(use_case, settings.artifacts_url)
    applied = [*found.entities, *found.views, found.service]
    if settings.request_view and transformed(use_case):
        applied += with_request_view(use_case, found)
    for attempt in range(1, settings.shared.apply_attempts_max + 1):
        try:
            store = FeatureStore(
                config=RepoConfig(
                    project=project_name(use_case),
                    provider="local",
                    registry=_registry(settings),
                    offline_store={
                        "type": "driftloop.featurestore.offline.KnownTimeOfflineStore",
                        "threads": settings.join_threads,
                        "join": settings.join,
                        "visible_after_us": settings.visible_after_us,
                    },
                    online_store=online,
                    entity_key_serialization_version=_ENTITY_KEY_VERSION,
                )
            )
            store.apply(applied)
            return store
        except SQLAlchemyError:
            # Of processes that write the same definitions at the same time one comes first; the others find them there.
            if attempt == settings.shared.apply_attempts_max:
                raise
            time.sleep(_APPLY_AGAIN_S * attempt)
    raise AssertionError("the last attempt returns or raises")


def _registry(settings: FeatureStoreSettings) -> RegistryConfig:
    # Every process applies the same declaration, so it is never read again: a refresh would block a request.
    if settings.shared.registry_url:
        return SqlRegistryConfig(path=settings.shared.registry(), cache_ttl_seconds=0)
    path = settings.registry_path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    return RegistryConfig(path=str(path), cache_ttl_seconds=0)


def _allow_reading_while_writing(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
