"""A Feast offline store on DuckDB's ASOF join over the offline log: what was known by a row's time, never what came later.

Of several updates of one key that became known at the same time the one with the highest sequence holds, as online.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Literal

import duckdb
import pandas as pd
import pyarrow as pa
from feast import FeatureView, RepoConfig
from feast.infra.offline_stores.offline_store import OfflineStore, RetrievalJob, RetrievalMetadata
from feast.infra.offline_stores.offline_utils import infer_event_timestamp_from_entity_df
from feast.infra.registry.base_registry import BaseRegistry
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.repo_config import FeastConfigBaseModel
from feast.saved_dataset import SavedDatasetStorage

from driftloop.artifacts.store import ArtifactStore
from driftloop.featurestore.backfills import Span, backfills, owners
from driftloop.featurestore.errors import FeatureStoreError, PartUnreadable
from driftloop.featurestore.log import (
    EVENT_TIME,
    EVENT_TIME_US,
    KNOWN_AT,
    KNOWN_AT_US,
    SEQUENCE,
    OfflineLogReader,
    PartsRows,
)
from driftloop.featurestore.source import OfflineLogSource

_ROW = "__driftloop_row"
_ORDER = "__driftloop_order"
_SEQUENCE_MAX = str((1 << 63) - 1)
_FILTERED_ROWS_MAX = (
    10_000  # of an entity frame; with more, most keys are asked for, and sorting them out costs half a join
)
_UTC = "TIMESTAMP WITH TIME ZONE"


class NotOffered(FeatureStoreError):
    """Feast asks for something that this offline store does not do: use another way, named in the message."""


class KnownTimeOfflineStoreConfig(FeastConfigBaseModel):  # type: ignore[misc]
    """The log may lie anywhere that fsspec reaches: DuckDB reads it through Arrow.

    threads           those of DuckDB for one join
    join              "known": what was known by a row's time, backfilled values included; "visible": what serving could have seen,
                      of the live log alone
    visible_after_us  how long after it became known serving sees a value; for "visible"
    """

    type: Literal["driftloop.featurestore.offline.KnownTimeOfflineStore"] = (
        "driftloop.featurestore.offline.KnownTimeOfflineStore"
    )
    threads: int = 2
    join: Literal["known", "visible"] = "known"
    visible_after_us: int = 0


class KnownTimeRetrievalJob(RetrievalJob):  # type: ignore[misc]
    """A query that runs when its result is asked for."""

    def __init__(
        self,
        run: Any,
        metadata: RetrievalMetadata | None,
        full_feature_names: bool,
        on_demand: Sequence[OnDemandFeatureView] = (),
    ) -> None:
        self._run = run
        self._on_demand = list(on_demand)
        self._metadata = metadata
        self._full_feature_names = full_feature_names

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:
        return self._run()

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:
        return self._run().to_pandas()

    @property
    def full_feature_names(self) -> bool:
        return self._full_feature_names

    @property
    def on_demand_feature_views(self) -> list[OnDemandFeatureView]:
        return self._on_demand

    @property
    def metadata(self) -> RetrievalMetadata | None:
        return self._metadata

    def persist(self, storage: SavedDatasetStorage, allow_overwrite: bool = False, timeout: int | None = None) -> None:
        raise NotOffered("saved datasets: take the result and write it where it is to lie")


class KnownTimeOfflineStore(OfflineStore):  # type: ignore[misc]
    """Joins entity frames with the views' updates as known at each row's time; sources are OfflineLogSource only."""

    @staticmethod
    def get_historical_features(
        config: RepoConfig,
        feature_views: list[FeatureView],
        feature_refs: list[str],
        entity_df: pd.DataFrame | str | None,
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,
        **kwargs: Any,
    ) -> RetrievalJob:
        if not isinstance(entity_df, pd.DataFrame):
            raise NotOffered("entity rows by query or by time range: give a data frame")
        time_column = infer_event_timestamp_from_entity_df(dict(entity_df.dtypes))
        times = pd.to_datetime(entity_df[time_column], utc=True)

        def run() -> pa.Table:
            rows = entity_df.assign(**{time_column: times.astype("datetime64[us, UTC]"), _ROW: range(len(entity_df))})
            entities = pa.Table.from_pandas(rows, preserve_index=False)
            with _connected(config.offline_store.threads) as connection:
                connection.register("entities", entities)
                joins = [
                    _Join(
                        position, view, feature_refs, time_column, full_feature_names, config.offline_store, len(rows)
                    )
                    for position, view in enumerate(feature_views)
                ]
                for join in joins:
                    join.register(connection)
                chosen = [f"entities.{_quoted(name)}" for name in entity_df.columns]
                chosen += [expression for join in joins for expression in join.selected()]
                sql = (
                    f"SELECT {', '.join(chosen)} FROM entities {' '.join(join.clause() for join in joins)} "
                    f"ORDER BY entities.{_ROW}"
                )
                return connection.sql(sql).to_arrow_table()

        metadata = RetrievalMetadata(
            features=feature_refs,
            keys=[name for name in entity_df.columns if name != time_column],
            min_event_timestamp=times.min(),
            max_event_timestamp=times.max(),
        )
        on_demand = OnDemandFeatureView.get_requested_odfvs(feature_refs, project, registry)
        return KnownTimeRetrievalJob(run, metadata, full_feature_names, on_demand)

    @staticmethod
    def pull_latest_from_table_or_query(
        config: RepoConfig,
        data_source: OfflineLogSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None,
        start_date: datetime,
        end_date: datetime,
    ) -> RetrievalJob:
        keys = ", ".join(_quoted(name) for name in join_key_columns)
        latest = f"QUALIFY row_number() OVER (PARTITION BY {keys} ORDER BY {KNOWN_AT} DESC, {SEQUENCE} DESC) = 1"
        columns = [*join_key_columns, *feature_name_columns, timestamp_field]
        return _pull(config, data_source, columns, latest, start_date, end_date)

    @staticmethod
    def pull_all_from_table_or_query(
        config: RepoConfig,
        data_source: OfflineLogSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None = None,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> RetrievalJob:
        # What another update replaced at the very time that it became known was never seen by anybody.
        keys = ", ".join(_quoted(name) for name in join_key_columns)
        seen = f"QUALIFY row_number() OVER (PARTITION BY {keys}, {KNOWN_AT} ORDER BY {SEQUENCE} DESC) = 1"
        columns = [*join_key_columns, *feature_name_columns, timestamp_field]
        return _pull(config, data_source, columns, seen, start_date, end_date)


class _Join:
    """One view's part of the query."""

    def __init__(
        self,
        position: int,
        view: FeatureView,
        feature_refs: Sequence[str],
        time_column: str,
        full_names: bool,
        config: KnownTimeOfflineStoreConfig,
        rows: int,
    ) -> None:
        self.table = f"updates_{position}"
        self._view = view
        self._source: OfflineLogSource = view.batch_source
        if not isinstance(self._source, OfflineLogSource):
            raise NotOffered(f"view {view.name} does not read the offline log")
        self._backfilled = config.join == "known"
        self._is_filtered = rows <= _FILTERED_ROWS_MAX
        self._time = f"entities.{_quoted(time_column)}"
        if config.join == "visible" and config.visible_after_us:
            self._time = f"({self._time} - INTERVAL {config.visible_after_us} MICROSECONDS)"
        prefix = f"{view.projection.name_to_use()}:"
        self._features = [ref.removeprefix(prefix) for ref in feature_refs if ref.startswith(prefix)]
        self._full = f"{view.projection.name_alias or view.name}__" if full_names else ""
        mapped = view.projection.join_key_map
        in_source = {new: old for old, new in self._source.field_mapping.items()}
        # Pairs of a column in the source and the column of the entity frame that it is compared with.
        self._keys = [(in_source.get(e.name, e.name), mapped.get(e.name, e.name)) for e in view.entity_columns]

    def register(self, connection: Any) -> None:
        self._relation = _register(connection, self.table, self._source, self._backfilled)

    def selected(self) -> list[str]:
        return [self._value(name) for name in self._features]

    def _value(self, name: str) -> str:
        value = f"{self.table}_known.{_quoted(name)}"
        if self._view.ttl:
            age = f"INTERVAL {int(self._view.ttl.total_seconds() * 1_000_000)} MICROSECONDS"
            value = f"CASE WHEN {self.table}_known.{KNOWN_AT} >= {self._time} - {age} THEN {value} END"
        return f"{value} AS {_quoted(self._full + name)}"

    def clause(self) -> str:
        keys = ", ".join(_quoted(source) for source, _ in self._keys)
        columns = ", ".join([keys, KNOWN_AT, *(_column(name) for name in self._features)])
        needed = " AND ".join(
            f"{_quoted(source)} IN (SELECT {_quoted(column)} FROM entities)" for source, column in self._keys
        )
        where = f" WHERE {needed}" if self._is_filtered else ""
        same = " AND ".join(
            f"entities.{_quoted(column)} = {self.table}_known.{_quoted(source)}" for source, column in self._keys
        )
        return (
            f"ASOF LEFT JOIN (SELECT {columns}, {_order(KNOWN_AT, SEQUENCE)} AS {_ORDER} FROM {self._relation}{where}) "
            f"AS {self.table}_known ON {same} AND {_order(self._time, _SEQUENCE_MAX)} >= {self.table}_known.{_ORDER}"
        )


def _order(time: str, sequence: str) -> str:
    """Known time, then sequence, as one number: an ASOF join compares one, and groups of ties would cost as much as the join."""
    return f"(epoch_us({time})::HUGEINT * {1 << 64} + {sequence})"


def _pull(
    config: RepoConfig,
    source: OfflineLogSource,
    columns: list[str],
    qualify: str,
    start: datetime | None,
    end: datetime | None,
) -> RetrievalJob:
    bounds = [(">=", start), ("<=", end)]
    known = [f"{KNOWN_AT} {sign} ?::{_UTC}" for sign, bound in bounds if bound is not None]
    where = f"WHERE {' AND '.join(known)}" if known else ""

    def run() -> pa.Table:
        with _connected(config.offline_store.threads) as connection:
            relation = _register(connection, "updates", source, config.offline_store.join == "known")
            chosen = ", ".join(_column(name) for name in columns)
            sql = f"SELECT {chosen} FROM {relation} {where} {qualify}"
            return connection.sql(sql, params=[bound for _, bound in bounds if bound is not None]).to_arrow_table()

    return KnownTimeRetrievalJob(run, None, False)


def _register(connection: Any, name: str, source: OfflineLogSource, backfilled: bool) -> str:
    """Lets a connection read the updates of a source's view; returns what stands for them in SQL.

    `backfilled`: where a backfill owns a stretch of known time, it is that one's updates, and not the live ones.
    """
    store = ArtifactStore(source.artifacts_url)
    updates = OfflineLogReader(store, source.use_case).snapshot().updates(source.view, source.schema())
    connection.register(name, updates.dataset)
    owning = owners(backfills(store, source.use_case), source.view) if backfilled else []
    if not owning:
        return name
    everyone = [span for _, spans in owning for span in spans]
    parts = [f"SELECT * FROM {name} WHERE NOT ({_within(everyone)})"]
    for backfill, spans in owning:
        table = f"{name}_{backfill.generation}"
        connection.register(table, PartsRows(store, backfill.parts[source.view], source.schema()).dataset)
        parts.append(f"SELECT * FROM {table} WHERE {_within(spans)}")
    return f"({' UNION ALL BY NAME '.join(parts)})"


def _within(spans: Sequence[Span]) -> str:
    return " OR ".join(
        f"({KNOWN_AT} >= make_timestamptz({begin}) AND {KNOWN_AT} < make_timestamptz({end}))" for begin, end in spans
    )


@contextmanager
def _connected(threads: int) -> Iterator[Any]:
    """DuckDB, for queries of the log; PartUnreadable."""
    connection = duckdb.connect(f":memory:{uuid.uuid4().hex}")
    try:
        connection.execute(f"SET TimeZone = 'UTC'; SET threads = {int(threads)}")
        yield connection
    except (
        duckdb.InvalidInputException,
        pa.ArrowException,
        OSError,
    ) as error:  # of what is registered, by what reads it
        raise PartUnreadable("", error) from error
    finally:
        connection.close()


def _expression(name: str) -> str:
    """What a column of the log is by its name in Feast."""
    computed = {EVENT_TIME_US: f"epoch_us({EVENT_TIME})", KNOWN_AT_US: f"epoch_us({KNOWN_AT})"}
    return computed.get(name) or _quoted(name)


def _column(name: str) -> str:
    return f"{_expression(name)} AS {_quoted(name)}"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
