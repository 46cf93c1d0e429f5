"""Services' settings in a run: what is passed in, and the declared defaults. The environment has no say in what a seed does."""

from __future__ import annotations

from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from driftloop.messaging.hosting import HostSettings
from services.ingest.settings import IngestSettings
from services.serving.settings import ServingSettings


class _Given(BaseSettings):
    """Read from nothing but its own arguments."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """See `BaseSettings.settings_customise_sources`."""
        return (init_settings,)


class GivenHost(_Given, HostSettings):
    """The bounds of hosting."""


class GivenIngest(_Given, IngestSettings):
    """Ingest's settings."""


class GivenServing(_Given, ServingSettings):
    """Serving's settings."""
