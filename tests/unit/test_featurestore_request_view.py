"""The request's features through Feast's on-demand view: online and offline the values that serving and trainer compute."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from feast import FeatureStore

from driftloop.artifacts import ArtifactStore
from driftloop.featurestore.definitions import join_key
from driftloop.featurestore.log import EventLogWriter, FeatureLogWriter
from driftloop.featurestore.online import online_writer
from driftloop.featurestore.request_view import inputs_service_name
from driftloop.featurestore.store import FeatureStoreSettings, feature_store
from driftloop.usecase import Fields, UseCase, load_use_case
from services.serving.assembly import Assembly
from tests.featurestore_twin import Writer, update

FLIGHTS = load_use_case("flights")
AT_US = 1_363_800_000_000_000
ROWS: list[Fields] = [
    {
        "carrier": "UA",
        "origin": "EWR",
        "dest": "IAH",
        "number": "UA1",
        "tail_number": "N1",
        "distance": 1400.5,
        "departs_at": AT_US,
    },
    {
        "carrier": "DL",
        "origin": "JFK",
        "dest": "ATL",
        "number": "DL2",
        "tail_number": "N2",
        "distance": 0.0,
        "departs_at": AT_US + 7_777,
    },
]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    folder = tmp_path_factory.mktemp("request")
    artifacts = ArtifactStore(folder / "artifacts")
    view = FLIGHTS.views[0]
    known = update(view.name, view.key(ROWS[0]) or "", AT_US - 1, 1, [3.5] * len(view.features))
    events, features = EventLogWriter(artifacts, FLIGHTS, 1), FeatureLogWriter(artifacts, FLIGHTS, 1)
    for writer in (events, features):
        writer.restore(0, Writer(), None)
    features.take(0, Writer(updates=[known]), [])
    for writer in (events, features):
        cut = writer.cut(0, Writer())
        cut.write()
        cut.publish()
    places = FeatureStoreSettings(folder / "registry.db", artifacts.url, folder / "online.db", request_view=True)
    found = feature_store(FLIGHTS, places)
    online_writer(found, FLIGHTS).write([known])
    return found


def _entities(use_case: UseCase, fields: Fields) -> dict[str, object]:
    return {join_key(view): view.key(fields) for view in use_case.views} | dict(fields)


def _expected(fields: Fields) -> dict[str, float | str]:
    """What training uses."""
    values = zip(FLIGHTS.request_inputs, FLIGHTS.request_values(fields), strict=True)
    return {feature.name: value for feature, value in values if feature.name not in fields}


def test_offline_each_row_has_the_features_of_its_request_beside_those_of_the_views(store: FeatureStore) -> None:
    frame = pd.DataFrame([_entities(FLIGHTS, fields) for fields in ROWS])
    frame["event_timestamp"] = pd.to_datetime([AT_US] * len(ROWS), unit="us", utc=True)
    service = store.get_feature_service(inputs_service_name(FLIGHTS))
    found = store.get_historical_features(entity_df=frame, features=service).to_df()
    for row, fields in enumerate(ROWS):
        expected = _expected(fields)
        assert expected
        assert {name: found[name][row] for name in expected} == expected
    first = FLIGHTS.views[0].features[0].name
    assert found[first][0] == 3.5
    assert np.isnan(found[first][1])


def test_online_it_gives_what_serving_assembles(store: FeatureStore) -> None:
    service = store.get_feature_service(inputs_service_name(FLIGHTS))
    found = store.get_online_features(service, [_entities(FLIGHTS, fields) for fields in ROWS]).to_dict()
    assembly = Assembly(FLIGHTS)
    for row, fields in enumerate(ROWS):
        vector = assembly.assemble(fields, lambda keys: [None] * len(keys)).vector
        numbers, texts = iter(vector.numbers), iter(vector.texts)
        served = {f.name: next(numbers) if f.numeric else next(texts) for f in FLIGHTS.request_inputs}
        expected = _expected(fields)
        assert {name: found[name][row] for name in expected} == {name: served[name] for name in expected} == expected
    assert found[FLIGHTS.views[0].features[0].name][0] == 3.5
