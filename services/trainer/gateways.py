"""Trainer's ways out of the process: the offline log and its join, bundles, and messages that must have arrived.

Feast, BentoML and torch take seconds to import: they are imported where they are used, on the worker's thread.
"""

from __future__ import annotations

import io
import json
import logging
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from driftloop.artifacts import ArtifactStore, BundleRefused
from driftloop.artifacts.bundles import PublishedBundle, build_bundle, fetch_bundle, load_bundle, publish_bundle
from driftloop.artifacts.signing import SigningKey, ensure_keys
from driftloop.contracts import Message
from driftloop.contracts.event.v1.event_pb2 import Event
from driftloop.contracts.trainer.v1.trainer_pb2 import Model
from driftloop.featurestore.backfills import backfills
from driftloop.featurestore.log import KNOWN_AT, LogSnapshot, OfflineLogReader
from driftloop.messaging import Backlog, DeliveryFailed, Malformed, Producer, QueueFull, Reader, ReadFailed
from driftloop.scoring import ScoringModel
from driftloop.usecase import UseCase
from services.trainer.assembly import Examples, view_keys
from services.trainer.errors import Stopping

if TYPE_CHECKING:
    from services.trainer.attempts import TrainingSet
    from services.trainer.training import Trained

_log = logging.getLogger(__name__)
_ACK_TIMEOUT_S = 120.0  # twice what the producer waits for a broker that restarts
_READ_TIMEOUT_S = 1.0
_TRY_AGAIN_S = 0.5
_TIME = pa.timestamp("us", tz="UTC")


class Data(Protocol):
    """Where training rows come from and are kept."""

    def await_clock(self, clock_us: int) -> LogSnapshot:
        """The offline log once it has reached a clock; LogBehind, or Stopping."""
        ...

    def events(self, snapshot: LogSnapshot, types: Iterable[str], until_us: int) -> list[Event]:
        """Accepted events of some types that were known by a time."""
        ...

    def values(self, examples: Examples) -> Mapping[str, npt.NDArray[Any]]:
        """For each feature of a view its column for these examples, as known at each one's prediction time."""
        ...

    def keep(self, digest: str, rows: TrainingSet) -> None:
        """Keeps a training set under the digest of its content."""
        ...


class Bundles(Protocol):
    """Where models are published."""

    def model(self, model_id: str, url: str, digest: str) -> ScoringModel:
        """A published model; BundleRefused if it cannot be had."""
        ...

    def publish(self, model_id: str, trained: Trained) -> PublishedBundle:
        """Publishes a model under its id; again replaces its own files."""
        ...


class OfflineData:
    """Training data from the offline log and, through Feast, its join on known time."""

    def __init__(
        self,
        use_case: UseCase,
        store: ArtifactStore,
        artifacts_url: str,
        folder: Path,
        timeout_s: float,
        join_threads: int,
        stop: threading.Event,
        join: Literal["known", "visible"] = "known",
        visible_after_us: int = 0,
    ) -> None:
        self._use_case = use_case
        self._store = store
        self._artifacts_url = artifacts_url
        self._folder = folder
        self._timeout_s = timeout_s
        self._join_threads = join_threads
        self._join: Literal["known", "visible"] = join
        self._visible_after_us = visible_after_us
        self._stop = stop
        self._reader = OfflineLogReader(store, use_case.name)
        self._snapshot: LogSnapshot | None = None
        self._feast: Any = None

    def warm_up(self) -> None:
        """Opens the feature store, which imports Feast."""
        from driftloop.featurestore.store import FeatureStoreSettings, feature_store

        if self._feast is None:
            places = FeatureStoreSettings(
                registry_path=self._folder / "registry.db",
                artifacts_url=self._artifacts_url,
                online_sqlite=self._folder
                / "online.db",  # trainer never reads online; Feast wants a store all the same
                join_threads=self._join_threads,
                join=self._join,
                visible_after_us=self._visible_after_us,
            )
            self._feast = feature_store(self._use_case, places)

    def await_clock(self, clock_us: int) -> LogSnapshot:
        """See `Data.await_clock`."""
        if self._stop.is_set():
            raise Stopping("before the data were there")
        self._snapshot = self._reader.await_clock(clock_us, self._timeout_s, self._stop)
        return self._snapshot

    def events(self, snapshot: LogSnapshot, types: Iterable[str], until_us: int) -> list[Event]:
        """See `Data.events`."""
        wanted = pc.field("type").isin(list(types)) & (pc.field(KNOWN_AT) <= pa.scalar(until_us, _TIME))
        table = snapshot.events().to_table(columns=["fields"], filter=wanted)
        return [Event.FromString(data) for data in table["fields"].to_pylist()]

    def values(self, examples: Examples) -> Mapping[str, npt.NDArray[Any]]:
        """See `Data.values`."""
        if not self._use_case.views:
            return {}
        import pandas as pd

        from driftloop.featurestore.definitions import join_key, service_name

        self.warm_up()
        frame = pd.DataFrame({"event_timestamp": pd.to_datetime(examples.at_us, unit="us", utc=True)})
        keys = view_keys(self._use_case, examples)
        for view in self._use_case.views:
            frame[join_key(view)] = pd.Series(keys[view.name], dtype=object)
        service = self._feast.get_feature_service(service_name(self._use_case))
        found = self._feast.get_historical_features(entity_df=frame, features=service).to_arrow()
        features = [feature for view in self._use_case.views for feature in view.features]
        return {feature.name: found[feature.name].to_numpy() for feature in features}

    def keep(self, digest: str, rows: TrainingSet) -> None:
        """See `Data.keep`."""
        path = f"{self._use_case.name}/datasets/{digest}.parquet"
        if self._store.exists(path):
            return
        columns: dict[str, Any] = {
            "entity": rows.entities,
            "at": pa.array(rows.at_us, type=_TIME),
            "label": rows.labels,
            "label_known_at": pa.array(rows.known_at_us, type=_TIME),
        }
        columns |= {name: rows.numbers[:, place] for place, name in enumerate(self._use_case.numeric_inputs)}
        columns |= {name: pa.array(rows.texts[:, p], pa.string()) for p, name in enumerate(self._use_case.text_inputs)}
        self._store.put(f"{self._use_case.name}/datasets/{digest}.json", self._version(digest))
        buffer = io.BytesIO()
        pyarrow.parquet.write_table(pa.table(columns), buffer, compression="zstd")
        self._store.put(path, buffer.getvalue())

    def _version(self, digest: str) -> bytes:
        """What a training set rests on: the log's ranges at its clock, backfills, the schema's version, and its own digest."""
        version: dict[str, Any] = {
            "digest": digest,
            "schema_version": self._use_case.schema_version,
            "inputs_digest": self._use_case.inputs_digest,
            "join": self._join,
            "backfills": [each.generation for each in backfills(self._store, self._use_case.name)],
        }
        if self._snapshot is not None:
            version |= {"clock_us": self._snapshot.clock_us, "offset_ranges": self._snapshot.offset_ranges()}
        return json.dumps(version, indent=1).encode()


class SignedBundles:
    """Bundles in the artifact store, signed with trainer's key."""

    def __init__(self, use_case: UseCase, store: ArtifactStore, folder: Path, bytes_max: int) -> None:
        self._use_case = use_case
        self._store = store
        self._folder = folder
        self._bytes_max = bytes_max
        self._key: SigningKey = ensure_keys(store)

    def model(self, model_id: str, url: str, digest: str) -> ScoringModel:
        """See `Bundles.model`."""
        with tempfile.TemporaryDirectory(dir=self._made("fetched")) as folder:
            bundle = fetch_bundle(
                self._store,
                url,
                digest,
                self._key.verify_key,
                Path(folder),
                self._bytes_max,
            )
            model = load_bundle(bundle, self._made("bentoml"), model_id).scoring
        if model.inputs_digest != self._use_case.inputs_digest:
            raise BundleRefused("inputs", f"model {model_id} takes other inputs: {model.inputs_digest}")
        return model

    def publish(self, model_id: str, trained: Trained) -> PublishedBundle:
        """See `Bundles.publish`."""
        with tempfile.TemporaryDirectory(dir=self._made("built")) as folder:
            built = build_bundle(
                self._use_case.name,
                model_id,
                trained.onnx,
                trained.weights,
                trained.spec,
                Path(folder),
                self._made("bentoml"),
            )
            return publish_bundle(self._store, self._use_case.name, model_id, built, self._key)

    def _made(self, name: str) -> Path:
        folder = self._folder / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder


class Outbox:
    """Sends messages from the worker's thread."""

    def __init__(self, producer: Producer, stop: threading.Event) -> None:
        self._producer = producer
        self._stop = stop

    def tell(self, message: Message[Any]) -> None:
        """Sends a message that nobody waits for; Stopping while a full queue is waited for and the process ends."""
        self._send(message, None)

    def deliver(self, message: Message[Any]) -> None:
        """Returns when the broker has the message; DeliveryFailed if it never will."""
        answered = threading.Event()
        failures: list[Exception] = []

        def on_ack(error: Exception | None) -> None:
            if error is not None:
                failures.append(error)
            answered.set()

        self._send(message, on_ack)
        if not answered.wait(_ACK_TIMEOUT_S):
            raise DeliveryFailed(f"message {message.id} was not acknowledged within {_ACK_TIMEOUT_S:.0f} s")
        if failures:
            raise failures[0]

    def _send(self, message: Message[Any], on_ack: Callable[[Exception | None], None] | None) -> None:
        while True:
            try:
                self._producer.send(message, on_ack)
            except QueueFull as full:
                if self._stop.wait(full.retry_after_s):
                    raise Stopping("while the broker took nothing") from full
            else:
                return


def answered_requests(open_reader: Callable[[], Reader], timeout_s: float) -> set[str]:
    """Ids of the requests that `models` already answers, read from its start; ReadFailed if that takes longer.

    A broker that has just started, or just made the topic, may not lead it yet: that is waited for.
    """
    deadline_s = time.monotonic() + timeout_s
    while True:
        try:
            reader = open_reader()
            try:
                return _answered(reader, deadline_s)
            finally:
                reader.close()
        except ReadFailed as error:
            if time.monotonic() > deadline_s:
                raise
            _log.info("trying again: %s", error)
            time.sleep(_TRY_AGAIN_S)


def _answered(reader: Reader, deadline_s: float) -> set[str]:
    backlog = Backlog(reader.offset_ranges())
    found: set[str] = set()
    while backlog:
        if time.monotonic() > deadline_s:
            raise ReadFailed(f"the answers given so far were not read in time: {backlog}")
        records = reader.poll(_READ_TIMEOUT_S, 500)
        backlog.read(records)
        for record in records:
            if not isinstance(record, Malformed) and isinstance(record.message.payload, Model):
                found.add(record.message.payload.request_id)
    return found
