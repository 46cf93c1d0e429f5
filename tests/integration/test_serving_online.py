"""What features writes to Feast's online store is what serving reads there for an entity that its view had to drop."""

from __future__ import annotations

import asyncio
from pathlib import Path

from driftloop.contracts import Message, to_value
from driftloop.contracts.features.v1.features_pb2 import FeatureUpdate
from driftloop.usecase import load_use_case
from services.serving.gateways.online import OnlineLookup
from services.serving.settings import ServingSettings
from services.serving.view import Entry, FeatureView

FLIGHTS = load_use_case("flights")
VIEW = FLIGHTS.views[0]


async def test_an_entry_read_from_feast_is_the_one_that_the_view_would_hold(tmp_path: Path) -> None:
    from driftloop.featurestore.online import online_writer
    from driftloop.featurestore.store import FeatureStoreSettings, feature_store
    from services.serving.gateways.feast import open_online_reader

    settings = ServingSettings(state_dir=tmp_path / "state", artifacts_url=str(tmp_path / "artifacts"))
    written = FeatureStoreSettings(tmp_path / "writer.db", settings.artifacts_url, settings.online_file)
    values = [to_value(float(n) if n % 3 else None) for n in range(len(VIEW.features))]
    key = VIEW.key({"origin": "EWR"})
    assert key is not None
    payload = FeatureUpdate(
        use_case="flights", view=VIEW.name, key=key, event_time_us=40, known_at_us=50, values=values, sequence=7
    )
    update = Message("features", key, payload, "update-7", "test", 40, 50)
    writer = online_writer(feature_store(FLIGHTS, written), FLIGHTS)
    writer.write([update])

    view = FeatureView(FLIGHTS, 10)
    view.apply(update)
    lookup = OnlineLookup(lambda: open_online_reader(settings, FLIGHTS), lookups_max=10)
    async with asyncio.timeout(25):
        found = await lookup.read([(VIEW.name, key), (VIEW.name, f"{VIEW.name}|JFK")], timeout_s=25)
    assert found == {key: view.read(key)}
    assert isinstance(found[key], Entry)
    lookup.close()
