"""How large a table may be, from the environment; every bound with its unit and its reason."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class TableSettings(BaseSettings):
    """TABLES_<NAME> in the environment."""

    model_config = SettingsConfigDict(env_prefix="TABLES_", extra="ignore")

    file_bytes_max: int = Field(default=2 << 30, gt=0, description="on disk; a CSV takes about as much again in memory")
    rows_max: int = Field(default=5_000_000, gt=0, description="a row takes 0.5 KB while it is replayed")
    columns_max: int = Field(default=500, gt=0, description="each becomes a field of every event")
