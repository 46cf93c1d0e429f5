"""Where services share Feast's stores: passwords come from files, and a missing one is said with its name."""

from __future__ import annotations

from pathlib import Path

import pytest

from driftloop.featurestore.errors import SecretMissing
from driftloop.featurestore.shared import SharedStores


def test_by_default_nothing_is_shared_and_nothing_asks_for_a_password() -> None:
    places = SharedStores()
    assert (places.registry(), places.redis(""), places.redis("redis:6379")) == ("", "", "redis:6379")


def test_the_password_in_a_file_becomes_part_of_the_address_whatever_signs_it_has(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("a/b@c:d\n")
    url = "postgresql://driftloop@postgres:5432/driftloop"
    places = SharedStores(registry_url=url, registry_password_file=tmp_path / "password")
    assert places.registry() == "postgresql+psycopg://driftloop:a%2Fb%40c%3Ad@postgres:5432/driftloop"


def test_redis_is_given_its_password(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("secret\n")
    assert SharedStores(redis_password_file=tmp_path / "password").redis("redis:6379") == "redis:6379,password=secret"


@pytest.mark.parametrize("content", [None, "", "\n"])
def test_a_password_that_is_not_there_stops_with_the_file_named(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "redis_password"
    if content is not None:
        file.write_text(content)
    with pytest.raises(SecretMissing, match="redis_password"):
        SharedStores(redis_password_file=file).redis("redis:6379")
    with pytest.raises(SecretMissing, match="redis_password"):
        SharedStores(registry_url="postgresql://u@h/d", registry_password_file=file).registry()


def test_a_password_is_not_shown_where_settings_are_printed(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("hidden")
    assert "hidden" not in repr(SharedStores(redis_password_file=tmp_path / "password"))
