"""Where services on several hosts share Feast's stores: a registry in a database, and secrets that are files; imports no Feast."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from driftloop.featurestore.errors import SecretMissing


class SharedStores(BaseSettings):
    """Read from DRIFTLOOP_FEAST_<NAME>; empty: every process keeps a registry of its own, and Redis asks for no password."""

    model_config = SettingsConfigDict(env_prefix="DRIFTLOOP_FEAST_", extra="ignore")

    registry_url: str = Field(
        default="", description="postgresql://user@host/database of a registry that all processes share; empty: a file"
    )
    registry_password_file: Path | None = Field(default=None, description="file with the password of registry_url")
    redis_password_file: Path | None = Field(default=None, description="file with the password of the online Redis")
    apply_attempts_max: int = Field(
        default=5, gt=0, description="processes that start together apply the same definitions, and one comes first"
    )

    def registry(self) -> str:
        """The registry's URL with its password, for Feast alone: never log it. SecretMissing."""
        # Feast's driver is psycopg 3, which SQLAlchemy wants named.
        url = self.registry_url.replace("postgresql://", "postgresql+psycopg://", 1)
        if not url or self.registry_password_file is None:
            return url
        parts = urlsplit(url)
        user, _, host = parts.netloc.rpartition("@")
        password = quote(read_secret(self.registry_password_file), safe="")
        return urlunsplit(parts._replace(netloc=f"{user}:{password}@{host}"))

    def redis(self, address: str) -> str:
        """Feast's connection string of the Redis at `address` ("host:port"); empty where there is none. SecretMissing."""
        if not address or self.redis_password_file is None:
            return address
        return f"{address},password={read_secret(self.redis_password_file)}"


def read_secret(path: Path) -> str:
    """The secret in a file, without the newline that editors add; SecretMissing if it is not there or empty."""
    try:
        found = path.read_text().strip()
    except OSError as error:
        raise SecretMissing(f"the secret {path} cannot be read ({error.strerror}): write it there, one line") from error
    if not found:
        raise SecretMissing(f"the secret {path} is empty: write it there, one line")
    return found
