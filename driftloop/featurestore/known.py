"""What the offline log knew of feature entities at given times, and updates by their ids: for parity; through Feast's join."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
import pyarrow.compute as pc
from feast import FeatureStore

from driftloop.artifacts import ArtifactStore
from driftloop.featurestore.definitions import join_key
from driftloop.featurestore.log import KNOWN_AT_US, SEQUENCE, UPDATE_ID, OfflineLogReader, view_schema
from driftloop.featurestore.parity import Logged, Place
from driftloop.usecase import UseCase, View


class KnownValues:
    """The log of one use case, as Feast's historical join reads it."""

    def __init__(self, use_case: UseCase, store: FeatureStore, artifacts: ArtifactStore) -> None:
        self._views = {view.name: view for view in use_case.views}
        self._store = store
        self._reader = OfflineLogReader(artifacts, use_case.name)

    def joined(self, places: Sequence[Place]) -> list[Logged | None]:
        """The newest update of each place that was known by its time."""
        found: list[Logged | None] = [None] * len(places)
        by_view: dict[str, list[int]] = {}
        for number, place in enumerate(places):
            by_view.setdefault(place.view, []).append(number)
        for name, numbers in by_view.items():
            view = self._views[name]
            frame = pd.DataFrame(
                {
                    "event_timestamp": pd.to_datetime([places[n].at_us for n in numbers], unit="us", utc=True),
                    join_key(view): pd.Series([places[n].key or None for n in numbers], dtype=object),
                }
            )
            wanted = [UPDATE_ID, KNOWN_AT_US, SEQUENCE, *[feature.name for feature in view.features]]
            table = self._store.get_historical_features(
                entity_df=frame, features=[f"{name}:{each}" for each in wanted]
            ).to_arrow()
            for number, row in zip(numbers, table.select(wanted).to_pylist(), strict=True):
                found[number] = _logged(view, row)
        return found

    def by_id(self, view: str, ids: Sequence[str]) -> dict[str, Logged]:
        """Updates of the live log by id."""
        if not ids:
            return {}
        declared = self._views[view]
        updates = self._reader.snapshot().updates(view, view_schema(declared))
        table = updates.to_table(filter=pc.field(UPDATE_ID).isin(list(ids)))
        known_us = pc.cast(table["known_at"], "int64").to_pylist()
        rows = (row | {KNOWN_AT_US: us} for row, us in zip(table.to_pylist(), known_us, strict=True))
        return {logged.update_id: logged for row in rows if (logged := _logged(declared, row)) is not None}


def _logged(view: View, row: dict[str, Any]) -> Logged | None:
    if row[UPDATE_ID] is None:
        return None
    values = tuple(row[feature.name] for feature in view.features)
    return Logged(row[UPDATE_ID], row[KNOWN_AT_US], row[SEQUENCE], values)
