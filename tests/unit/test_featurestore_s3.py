"""The offline log, its join and checkpoints on object storage: over the real S3 protocol, spoken by a server on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
import s3fs
from moto.server import ThreadedMotoServer

from driftloop.artifacts import ArtifactNotFound, ArtifactStore, StoreUnavailable
from driftloop.artifacts.checkpoints import CheckpointStore
from driftloop.contracts import Message
from driftloop.featurestore.definitions import join_key, service_name
from driftloop.featurestore.errors import PartUnreadable
from driftloop.featurestore.log import (
    PARTS_PER_MERGE,
    EventLogWriter,
    FeatureLogWriter,
    OfflineLogReader,
    PartsRows,
    view_schema,
    write_part,
)
from driftloop.featurestore.store import FeatureStoreSettings, feature_store
from tests.featurestore_twin import SEEN, SOLD, Writer, shop, update

URL = "s3://driftloop/artifacts"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def store(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[ArtifactStore]:
    """A store that is given nothing but its URL, as the services are: the rest is in the environment."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "driftloop")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    s3fs.S3FileSystem.clear_instance_cache()
    filesystem = s3fs.S3FileSystem()
    filesystem.mkdir("driftloop")
    yield ArtifactStore(URL)
    filesystem.rm("driftloop", recursive=True)
    s3fs.S3FileSystem.clear_instance_cache()


def _known(number: int) -> Message[Any]:
    return update(SOLD.name, f"{SOLD.name}|a", number * 100, number, [float(number), 1.0])


def test_files_are_put_replaced_listed_and_removed(store: ArtifactStore, tmp_path: Path) -> None:
    store.put("a/b.bin", b"old")
    store.put("a/b.bin", b"new")
    (tmp_path / "c").write_bytes(b"from a file")
    store.put_file("a/c.bin", tmp_path / "c")
    assert store.get("a/b.bin", 100) == b"new"
    assert store.size_bytes("a/c.bin") == 11
    assert sorted(store.list("a")) == ["a/b.bin", "a/c.bin"]
    store.delete("a/b.bin")
    with pytest.raises(ArtifactNotFound):
        store.get("a/b.bin", 100)


def test_the_log_is_cut_merged_and_joined(store: ArtifactStore, tmp_path: Path) -> None:
    events, features = EventLogWriter(store, shop, 1), FeatureLogWriter(store, shop, 1)
    events.restore(0, Writer(), None)
    events.cut(0, Writer()).publish()
    features.restore(0, Writer(), None)
    for number in range(1, PARTS_PER_MERGE + 3):
        features.take(0, Writer(updates=[_known(number)]), [])
        cut = features.cut(0, Writer())
        cut.write()
        cut.publish()
    snapshot = OfflineLogReader(store, shop.name).snapshot()
    assert len(snapshot.paths("features", SOLD.name)) == 3, "sixteen parts were merged into one"
    assert snapshot.updates(SOLD.name, view_schema(SOLD)).dataset.count_rows() == PARTS_PER_MERGE + 2
    places = FeatureStoreSettings(tmp_path / "registry.db", store.url, tmp_path / "online.db")
    feast = feature_store(shop, places)
    frame = pd.DataFrame(
        {
            "event_timestamp": pd.to_datetime([99, 250, 10_000], unit="us", utc=True),
            join_key(SOLD): [f"{SOLD.name}|a"] * 3,
            join_key(SEEN): [f"{SEEN.name}|b"] * 3,
        }
    )
    service = feast.get_feature_service(service_name(shop))
    found = feast.get_historical_features(entity_df=frame, features=service).to_df()
    mean = found[SOLD.features[0].name]
    assert pd.isna(mean[0])
    assert list(mean[1:]) == [2.0, PARTS_PER_MERGE + 2.0]


def test_a_part_that_breaks_off_while_it_is_read_is_said_with_where_it_lies(store: ArtifactStore) -> None:
    rows = PartsRows(store, ["part.parquet"], pa.schema([("a", pa.int64())]))
    write_part(store, "part.parquet", pa.table({"a": list(range(1000))}))
    store.put("part.parquet", store.get("part.parquet", 1 << 20)[:-50])
    with pytest.raises(
        PartUnreadable, match=r"^a part of the offline log in s3://driftloop/artifacts cannot be read: "
    ):
        rows.to_table()


def test_a_store_that_is_gone_while_a_part_is_read_is_said(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_part(store, "part.parquet", pa.table({"a": list(range(1000))}))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    s3fs.S3FileSystem.clear_instance_cache()
    away = ArtifactStore(URL, config_kwargs={"retries": {"max_attempts": 1}, "connect_timeout": 1})
    with pytest.raises(PartUnreadable, match=r"^a part .*part.parquet; try again if the store broke off"):
        PartsRows(away, ["part.parquet"], pa.schema([("a", pa.int64())])).to_table()


def test_a_bucket_that_is_not_there_is_said_with_the_address_and_what_to_do(store: ArtifactStore) -> None:
    elsewhere = ArtifactStore("s3://nobodys/artifacts")
    with pytest.raises(
        StoreUnavailable, match=r"^the artifact store s3://nobodys/artifacts cannot be used: .*DRIFTLOOP_ARTIFACTS_URL$"
    ):
        elsewhere.put("a/b", b"1")


def test_a_checkpoint_is_restored(store: ArtifactStore) -> None:
    checkpoints = CheckpointStore(store, "shop")
    assert checkpoints.load("aggregation", 0) is None
    checkpoints.save("aggregation", 0, {"state": [1, "two"]})
    checkpoints.save("aggregation", 0, {"state": [3]})
    assert checkpoints.load("aggregation", 0) == {"state": [3]}
