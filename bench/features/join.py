"""The point-in-time join of 100,000 rows with 1,000,000 updates, through Feast's door: our store and Feast's own on DuckDB.

The peer runs in an environment of its own, with a cap on its time: it pairs each row with all updates of its key before it, so that
its time grows as keys become fewer. Where it was stopped, the ratio is a lower bound.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
from feast import FeatureStore

from bench.features.events import NAME, START_US
from bench.features.processes import ROOT, declare
from driftloop.artifacts import ArtifactStore
from driftloop.featurestore.definitions import join_key, service_name
from driftloop.featurestore.log import view_schema
from driftloop.featurestore.manifest import STAGES, Manifest, Part, manifest_path, part_path
from driftloop.featurestore.store import FeatureStoreSettings, feature_store
from driftloop.usecase import load_use_case

PEER_PACKAGE = "feast[duckdb]==0.67.0"
SPAN_US = 30 * 86_400_000_000


@dataclass(frozen=True)
class Size:
    """Entity rows, updates, and the keys that both are spread over."""

    rows: int
    updates: int
    keys: int


SIZES = {
    "small": Size(5_000, 200_000, 1_000),
    "many keys": Size(100_000, 1_000_000, 10_000),
    "full": Size(100_000, 1_000_000, 1_000),
}


class Join:
    """Both stores over the same updates."""

    def __init__(self, folder: Path, size: Size) -> None:
        self._folder = folder / f"join{size.updates}x{size.keys}"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._use_case = load_use_case(NAME, str(declare(self._folder, NAME)))
        self._keys = size.keys
        draw = np.random.default_rng(7)
        self._write_log(draw, size.updates)
        view = self._use_case.views[0]
        self.entities = pd.DataFrame(
            {
                join_key(view): self._drawn(draw, size.rows),
                "event_timestamp": pd.to_datetime(START_US + draw.integers(0, SPAN_US, size.rows), unit="us", utc=True),
            }
        )
        self.entities.to_parquet(self._folder / "entities.parquet")
        places = FeatureStoreSettings(
            self._folder / "registry.db", str(self._folder / "artifacts"), self._folder / "online.db", join_threads=2
        )
        self._store: FeatureStore = feature_store(self._use_case, places)

    def _write_log(self, draw: np.random.Generator, updates: int) -> None:
        store, view = ArtifactStore(self._folder / "artifacts"), self._use_case.views[0]
        known_us = np.sort(START_US + draw.integers(0, SPAN_US, updates))
        at_us = known_us - draw.integers(0, 3_600_000_000, updates)
        columns = [self._drawn(draw, updates), at_us, known_us, np.arange(updates)]
        columns += [np.array([f"u{n}" for n in range(updates)]), *[draw.random(updates) for _ in view.features]]
        schema = view_schema(view)
        arrays = [pa.array(column).cast(each.type) for column, each in zip(columns, schema, strict=True)]
        path = part_path(NAME, "features", view.name, 0, 0, updates - 1)
        table = pa.Table.from_arrays(arrays, schema=schema)
        for file in (self._folder / "peer.parquet", Path(store.full_path(path))):
            file.parent.mkdir(parents=True, exist_ok=True)
            pyarrow.parquet.write_table(table, file)
        clock_us = int(known_us[-1])
        for stage in STAGES:
            parts = (Part(path, view.name, 0, updates - 1, updates),) if stage == "features" else ()
            store.put(manifest_path(NAME, stage, 0), Manifest(stage, 0, 1, clock_us, parts).to_json())

    def _drawn(self, draw: np.random.Generator, count: int) -> np.ndarray:
        view = self._use_case.views[0].name
        return np.array([f"{view}|s{n}" for n in draw.integers(0, self._keys, count)], dtype=object)

    def ours(self) -> tuple[float, pd.DataFrame]:
        """Seconds of `get_historical_features`, and what it found."""
        service = self._store.get_feature_service(service_name(self._use_case))
        started_s = time.perf_counter()
        found = self._store.get_historical_features(entity_df=self.entities, features=service).to_df()
        return time.perf_counter() - started_s, found

    def peer(self, python: Path, cap_s: float) -> float | None:
        """The same seconds of Feast's DuckDB store; None where it was stopped after `cap_s` seconds."""
        view = self._use_case.views[0]
        argv: Sequence[str | Path] = [
            python,
            ROOT / "bench" / "features" / "join_peer.py",
            self._folder,
            view.name,
            join_key(view),
            *[feature.name for feature in view.features],
        ]
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            out, _ = process.communicate(timeout=cap_s)
        except subprocess.TimeoutExpired:
            return None
        finally:
            process.kill()
            process.wait()
        return float(out)
