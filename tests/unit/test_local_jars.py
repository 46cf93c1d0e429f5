"""The lock of Kafka's jars: what it must hold, and what is refused."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from deploy.local.errors import ConnectToNetwork, DistrustJar
from deploy.local.jars import LOCK_PATH, Jar, ensure_jars, kafka_version, missing, read_lock, verify
from deploy.local.machine import port_is_free
from deploy.local.ports import free_base_port
from deploy.local.settings import LocalSettings


def a_jar(content: bytes) -> Jar:
    return Jar("org.example", "part", "1.0", hashlib.sha256(content).hexdigest())


def test_the_lock_pins_broker_and_client_to_one_version_and_binds_its_logging() -> None:
    jars = read_lock(LOCK_PATH.read_text())
    versions = {jar.artifact: jar.version for jar in jars}
    assert versions["kafka_2.13"] == versions["kafka-clients"] == versions["kafka-server"] == kafka_version(jars)
    assert versions["log4j-slf4j-impl"] == versions["log4j-core"]


@pytest.mark.parametrize("line", ["org.example:part:1.0", "org.example:part:1.0 abc", "part:1.0 " + "0" * 64, "x y z"])
def test_a_line_without_coordinate_and_sha256_is_refused_with_its_number(line: str) -> None:
    with pytest.raises(DistrustJar, match="Line 2"):
        read_lock(f"# header\n{line}\n")


def test_a_jar_named_twice_is_refused() -> None:
    line = f"org.example:part:1.0 {'0' * 64}\n"
    with pytest.raises(DistrustJar, match="twice"):
        read_lock(line * 2)


def test_a_file_with_another_sha256_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "part.jar"
    path.write_bytes(b"tampered")
    with pytest.raises(DistrustJar, match=r"org\.example:part:1\.0"):
        verify(a_jar(b"original"), path)


def test_a_tampered_cached_jar_is_thrown_away_and_fetched_again(tmp_path: Path) -> None:
    good, bad = a_jar(b"good"), Jar("org.example", "other", "1.0", hashlib.sha256(b"expected").hexdigest())
    (tmp_path / good.file_name).write_bytes(b"good")
    (tmp_path / bad.file_name).write_bytes(b"tampered")
    assert missing([good, bad], tmp_path) == [bad]
    assert not (tmp_path / bad.file_name).exists()


def test_without_network_one_sentence_names_the_jar_and_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_base_port() + 1
    assert port_is_free(port)
    for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{port}")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    settings = LocalSettings(cache_dir=tmp_path)
    with pytest.raises(ConnectToNetwork, match=r"org\.apache\.kafka:kafka_2\.13.*KAFKA_BOOTSTRAP_SERVERS") as caught:
        ensure_jars(settings, lock_text=f"org.apache.kafka:kafka_2.13:4.3.1 {'0' * 64}\n")
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [".lock"]
