"""The peer: Feast's own DuckDB offline store over one Parquet file, in an environment of its own.

`python join_peer.py FOLDER VIEW JOIN_KEY FEATURE…` prints "ready", then the seconds of its join. It imports nothing of ours.
"""

import sys
import time
from datetime import timedelta
from pathlib import Path

import pandas as pd
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.types import Float64, String


def main() -> None:
    folder, name, key, *features = sys.argv[1:]
    store = FeatureStore(
        config=RepoConfig(
            project="peer",
            provider="local",
            registry=str(Path(folder) / "peer-registry.db"),
            offline_store={"type": "duckdb"},
            online_store=None,
            entity_key_serialization_version=3,
        )
    )
    entity = Entity(name=key, join_keys=[key], value_type=ValueType.STRING)
    source = FileSource(
        path=str(Path(folder).resolve() / "peer.parquet"), timestamp_field="known_at", field_mapping={"key": key}
    )
    schema = [Field(name=key, dtype=String), *[Field(name=feature, dtype=Float64) for feature in features]]
    view = FeatureView(name=name, entities=[entity], ttl=timedelta(0), schema=schema, source=source)
    store.apply([entity, view])
    entities = pd.read_parquet(Path(folder) / "entities.parquet")
    print("ready", flush=True)
    started_s = time.perf_counter()
    store.get_historical_features(entity_df=entities, features=[f"{name}:{feature}" for feature in features]).to_df()
    print(time.perf_counter() - started_s, flush=True)


if __name__ == "__main__":
    main()
