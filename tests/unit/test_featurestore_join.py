"""The join on known time, through Feast's own door: a row never sees a value that was not known by then."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from feast import FeatureStore
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from driftloop.artifacts import ArtifactStore
from driftloop.contracts import Message
from driftloop.featurestore import offline
from driftloop.featurestore.backfills import BackfillWriter, backfilled_sequence
from driftloop.featurestore.definitions import join_key, service_name
from driftloop.featurestore.errors import PartUnreadable
from driftloop.featurestore.log import EventLogWriter, FeatureLogWriter, OfflineLogReader, view_schema
from driftloop.featurestore.store import FeatureStoreSettings, feature_store
from tests.featurestore_twin import SEEN, SOLD, Writer, shop, update

KEYS = ("a", "b", "c")
MEAN, COUNT = (feature.name for feature in SOLD.features)
SKY, WARM = (feature.name for feature in SEEN.features)


class Joined:
    """A Feast store over an offline log that each test fills anew."""

    def __init__(self, folder: Path, **join: Any) -> None:
        self.artifacts = ArtifactStore(folder / "artifacts")
        found = FeatureStoreSettings(folder / "registry.db", self.artifacts.url, folder / "online.db", **join)
        self.store: FeatureStore = feature_store(shop, found)

    def log(self, *cuts: list[Message[Any]]) -> None:
        """Replaces the log by updates, each list a cut."""
        events, features = EventLogWriter(self.artifacts, shop, 1), FeatureLogWriter(self.artifacts, shop, 1)
        events.restore(0, Writer(), None)
        events.cut(0, Writer()).publish()
        features.restore(0, Writer(), None)
        for updates in [*cuts, []]:
            features.take(0, Writer(updates=updates), [])
            cut = features.cut(0, Writer())
            cut.write()
            cut.publish()

    def join(self, rows: list[tuple[str | None, str | None, int]]) -> list[dict[str, Any]]:
        """Feature values for rows of (shop key, town key, time)."""
        frame = pd.DataFrame(
            {
                "event_timestamp": pd.to_datetime([at_us for _, _, at_us in rows], unit="us", utc=True),
                join_key(SOLD): pd.Series([_key(SOLD.name, key) for key, _, _ in rows], dtype=object),
                join_key(SEEN): pd.Series([_key(SEEN.name, key) for _, key, _ in rows], dtype=object),
            }
        )
        service = self.store.get_feature_service(service_name(shop))
        found = self.store.get_historical_features(entity_df=frame, features=service).to_df()
        return list(found[[MEAN, COUNT, SKY, WARM]].replace({np.nan: None}).to_dict("records"))


def _key(view: str, key: str | None) -> str | None:
    return None if key is None else f"{view}|{key}"


@pytest.fixture(scope="module")
def joined(tmp_path_factory: pytest.TempPathFactory) -> Joined:
    return Joined(tmp_path_factory.mktemp("join"))


def known(key: str, known_at_us: int, sequence: int, value: float | None, event_time_us: int = 0) -> Message[Any]:
    return update(SOLD.name, f"{SOLD.name}|{key}", known_at_us, sequence, [value, float(sequence)], event_time_us)


def test_a_value_that_happened_before_but_became_known_after_is_not_seen(joined: Joined) -> None:
    joined.log([known("a", 100, 1, 1.0), known("a", 300, 2, 2.0, event_time_us=50)])
    assert [row[MEAN] for row in joined.join([("a", None, 299), ("a", None, 300)])] == [1.0, 2.0]


def test_of_updates_known_at_one_time_the_highest_sequence_holds(joined: Joined) -> None:
    joined.log([known("a", 100, 7, 7.0), known("a", 100, 9, 9.0)], [known("a", 100, 8, 8.0)])
    assert joined.join([("a", None, 100)])[0][MEAN] == 9.0


def test_a_value_that_has_gone_missing_is_missing_rather_than_the_one_before(joined: Joined) -> None:
    joined.log([known("a", 100, 1, 1.0), known("a", 200, 2, None)])
    row = joined.join([("a", None, 250)])[0]
    assert (row[MEAN], row[COUNT]) == (None, 2.0)


def test_all_views_come_in_one_call_and_rows_keep_their_order(joined: Joined) -> None:
    sky = update(SEEN.name, f"{SEEN.name}|t", 10, 1, ["grey", False])
    joined.log([known("a", 20, 2, 2.0), sky])
    rows = joined.join([("a", "t", 30), (None, "t", 5), ("a", "nowhere", 30), ("z", None, 30)])
    assert [(row[MEAN], row[SKY], row[WARM]) for row in rows] == [
        (2.0, "grey", 0.0),
        (None, None, None),
        (2.0, None, None),
        (None, None, None),
    ]


def test_a_part_that_breaks_off_is_said_in_one_line(joined: Joined) -> None:
    joined.log([known("a", 10, 1, 1.0)])
    snapshot = OfflineLogReader(joined.artifacts, shop.name).snapshot()
    (path,) = snapshot.paths("features", SOLD.name)
    part = Path(joined.artifacts.full_path(path))
    part.write_bytes(part.read_bytes()[:-50])
    with pytest.raises(
        PartUnreadable, match=rf"^a part of the offline log cannot be read: [^\n]*{path}[^\n]*restore the file$"
    ):
        joined.join([("a", None, 20)])


def test_an_empty_log_gives_rows_without_values(joined: Joined) -> None:
    joined.log([])
    assert joined.join([("a", "t", 30)]) == [{MEAN: None, COUNT: None, SKY: None, WARM: None}]


def test_keys_with_quotes_and_separators_are_compared_as_they_are(joined: Joined) -> None:
    odd = "o'b\\|\"x"
    joined.log([known(odd, 1, 1, 4.0)])
    assert joined.join([(odd, None, 2)])[0][MEAN] == 4.0


def test_the_newest_values_can_be_pulled_for_feasts_own_materialization(joined: Joined) -> None:
    joined.log([known("a", 100, 1, 1.0), known("a", 100, 2, 2.0), known("b", 900, 3, 3.0)])
    joined.store.materialize(
        start_date=pd.Timestamp(0, unit="us", tz="UTC").to_pydatetime(),
        end_date=pd.Timestamp(500, unit="us", tz="UTC").to_pydatetime(),
    )
    found = joined.store.get_online_features(
        features=[f"{SOLD.name}:{MEAN}"],
        entity_rows=[{join_key(SOLD): f"{SOLD.name}|a"}, {join_key(SOLD): f"{SOLD.name}|b"}],
    ).to_dict()
    assert found[MEAN] == [2.0, None]


# Few keys and times, so that ties, duplicates and late values are the rule.
updates = st.lists(
    st.tuples(st.sampled_from(KEYS), st.integers(0, 12), st.one_of(st.none(), st.integers(-5, 5).map(float))),
    max_size=30,
)
rows = st.lists(st.tuples(st.sampled_from((*KEYS, "unknown", None)), st.integers(0, 14)), min_size=1, max_size=20)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(updates=updates, rows=rows, shuffle=st.randoms(use_true_random=False), filtered_rows=st.sampled_from([0, 100]))
def test_the_join_equals_a_search_through_all_updates(
    joined: Joined,
    updates: list[tuple[str, int, float | None]],
    rows: list[tuple[str | None, int]],
    shuffle: Any,
    filtered_rows: int,
) -> None:
    made = [(key, known_at, sequence, value) for sequence, (key, known_at, value) in enumerate(updates)]
    written = [*made, *made[:3]]  # some twice
    shuffle.shuffle(written)
    middle = len(written) // 2
    joined.log(*([known(*each) for each in part] for part in (written[:middle], written[middle:])))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(offline, "_FILTERED_ROWS_MAX", filtered_rows)  # large frames do not look for their keys first
        found = joined.join([(key, None, at) for key, at in rows])
    assert [(row[MEAN], row[COUNT]) for row in found] == [_searched(made, key, at) for key, at in rows]


def _searched(
    made: list[tuple[str, int, int, float | None]], key: str | None, at: int
) -> tuple[float | None, float | None]:
    """Mean and count of the newest of a key's updates (key, known time, sequence, mean) that were known by a time."""
    by_then = [each for each in made if each[0] == key and each[1] <= at]
    newest = max(by_then, key=lambda each: (each[1], each[2]), default=None)
    return (newest[3], float(newest[2])) if newest else (None, None)


@pytest.fixture(scope="module")
def visible(tmp_path_factory: pytest.TempPathFactory) -> Joined:
    """Serving sees a value three microseconds after it is known."""
    return Joined(tmp_path_factory.mktemp("visible"), join="visible", visible_after_us=3)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(updates=updates, rows=rows)
def test_what_was_visible_is_what_serving_had_seen_by_then(
    visible: Joined, updates: list[tuple[str, int, float | None]], rows: list[tuple[str | None, int]]
) -> None:
    made = [(key, known_at, sequence, value) for sequence, (key, known_at, value) in enumerate(updates)]
    visible.log([known(*each) for each in made])
    found = visible.join([(key, None, at) for key, at in rows])
    assert [(row[MEAN], row[COUNT]) for row in found] == [_searched(made, key, at - 3) for key, at in rows]


def test_serving_never_saw_a_backfill_so_it_is_known_but_was_not_visible(tmp_path: Path) -> None:
    stores = [Joined(tmp_path), Joined(tmp_path, join="visible")]
    stores[0].log([known("a", 100, 1, 1.0)])
    backfill = BackfillWriter(stores[0].artifacts, shop.name, 0, 200)
    values = [
        ["sold_price_by_shop|a"],
        [90],
        [90],
        [backfilled_sequence(90, backfill.generation)],
        ["b1"],
        [5.0],
        [2.0],
    ]
    schema = view_schema(SOLD)
    columns = [pa.array(value, type=each.type) for value, each in zip(values, schema, strict=True)]
    backfill.add(SOLD.name, pa.Table.from_arrays(columns, schema=schema))
    backfill.publish()
    assert [store.join([("a", None, 95)])[0][MEAN] for store in stores] == [5.0, None]
    assert [store.join([("a", None, 150)])[0][MEAN] for store in stores] == [5.0, 1.0]
