"""The join on known time, through Feast's own door: a row never sees a value that was not known by then."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from feast import FeatureStore
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from driftloop.artifacts import ArtifactStore
from driftloop.contracts import Message
from driftloop.featurestore.definitions import join_key, service_name
from driftloop.featurestore.log import EventLogWriter, FeatureLogWriter
from driftloop.featurestore.store import FeatureStoreSettings, feature_store
from tests.featurestore_twin import SEEN, SOLD, Writer, shop, update

KEYS = ("a", "b", "c")
MEAN, COUNT = (feature.name for feature in SOLD.features)
SKY, WARM = (feature.name for feature in SEEN.features)


class Joined:
    """A Feast store over an offline log that each test fills anew."""

    def __init__(self, folder: Path) -> None:
        self.artifacts = ArtifactStore(folder / "artifacts")
        found = FeatureStoreSettings(folder / "registry.db", self.artifacts.url, folder / "online.db")
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


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(updates=updates, rows=rows, shuffle=st.randoms(use_true_random=False))
def test_the_join_equals_a_search_through_all_updates(
    joined: Joined, updates: list[tuple[str, int, float | None]], rows: list[tuple[str | None, int]], shuffle: Any
) -> None:
    made = [(key, known_at, sequence, value) for sequence, (key, known_at, value) in enumerate(updates)]
    written = [*made, *made[:3]]  # some twice
    shuffle.shuffle(written)
    middle = len(written) // 2
    joined.log(*([known(*each) for each in part] for part in (written[:middle], written[middle:])))
    found = joined.join([(key, None, at) for key, at in rows])
    for (key, at), row in zip(rows, found, strict=True):
        by_then = [each for each in made if each[0] == key and each[1] <= at]
        expected = max(by_then, key=lambda each: (each[1], each[2]), default=None)
        assert (row[MEAN], row[COUNT]) == ((expected[3], float(expected[2])) if expected else (None, None))
