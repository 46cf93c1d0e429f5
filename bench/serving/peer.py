"""What is glued by hand where there is no driftloop: Feast's feature server, then BentoML's HTTP server, from one client.

`python -m bench.serving.peer REGISTRY ARTIFACTS ONLINE PORT` is the feature server, over the same definitions and values that
serving reads.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import aiohttp

from bench.serving.parcels import NAME, USE_CASES, Shipment, keys_of
from driftloop.usecase import load_use_case


class GluedClient:
    """One prediction is two requests: the features, and the model's answer to them."""

    def __init__(self, features_port: int, model_port: int) -> None:
        self._use_case = load_use_case(NAME, str(USE_CASES))
        self._features = f"http://127.0.0.1:{features_port}/get-online-features"
        self._model = f"http://127.0.0.1:{model_port}/predict"
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))

    async def close(self) -> None:
        """Closes the connections."""
        await self._session.close()

    async def predict(self, shipment: Shipment) -> float:
        """The chance for one shipment."""
        views = self._use_case.views
        asked = {
            "feature_service": f"{NAME}_vector",
            "entities": {
                f"{view.name}_key": [key] for view, key in zip(views, keys_of(self._use_case, shipment), strict=True)
            },
        }
        async with self._session.post(self._features, json=asked) as response:
            response.raise_for_status()
            found = await response.json()
        names: Sequence[str] = found["metadata"]["feature_names"]
        values = {name: result["values"][0] for name, result in zip(names, found["results"], strict=True)}
        numbers = [shipment.weight, shipment.hour]
        numbers += [values[feature.name] for view in views for feature in view.features]
        body = {"numbers": [numbers], "texts": [[]]}
        async with self._session.post(self._model, json=body) as response:
            response.raise_for_status()
            (chance,) = await response.json()
        return float(chance)


def main() -> None:
    """Serves features until it is killed."""
    from driftloop.featurestore.store import FeatureStoreSettings, feature_store

    registry, artifacts, online, port = sys.argv[1:]
    store = feature_store(
        load_use_case(NAME, str(USE_CASES)), FeatureStoreSettings(Path(registry), artifacts, Path(online))
    )
    store.serve("127.0.0.1", int(port), type_="http", no_access_log=True, workers=1, max_requests=0)


if __name__ == "__main__":
    main()
