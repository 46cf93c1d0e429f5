"""Opens Feast's online store for reading. Importing this module imports Feast, which takes ten seconds."""

from __future__ import annotations

from collections.abc import Sequence

from driftloop.featurestore.online import OnlineReader as FeastReader
from driftloop.featurestore.online import online_reader
from driftloop.featurestore.store import FeatureStoreSettings, feature_store
from driftloop.usecase import UseCase
from services.serving.settings import ServingSettings
from services.serving.view import Entry


class FeastEntries:
    """Feast's online store, read as entries of the view. Not safe to share between threads."""

    def __init__(self, reader: FeastReader) -> None:
        self._reader = reader

    def read(self, view: str, keys: Sequence[str]) -> dict[str, Entry]:
        """The entries of those keys of a view that the store has."""
        return {key: Entry(*found) for key, found in self._reader.read(view, keys).items()}


def open_online_reader(settings: ServingSettings, use_case: UseCase) -> FeastEntries:
    """The store that features writes, opened by the thread that will read it."""
    store = feature_store(
        use_case,
        FeatureStoreSettings(
            registry_path=settings.folder_of(use_case.name) / "feast" / "registry.db",
            artifacts_url=settings.artifacts_url,
            online_sqlite=settings.online_file,
            online_redis=settings.online_redis,
        ),
    )
    return FeastEntries(online_reader(store, use_case))
