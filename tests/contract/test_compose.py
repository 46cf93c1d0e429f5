"""The compose file, its settings, the Dockerfile and the checks of a set-up, as data: what needs an engine is `make test-compose`."""

from __future__ import annotations

import importlib
import re
import socket
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.compose import check, prepare

ROOT = Path(__file__).resolve().parents[2]
TEXT = re.sub(r"(?m)^\s*#.*\n", "", (ROOT / "compose.yaml").read_text())
COMPOSE = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {"ingest", "features", "serving", "monitor", "trainer"}
ENDING = {"secrets", "prepare", "demo"}
ENV = check.settings(ROOT, {})
ENOUGH = {"ServerVersion": "28", "MemTotal": 16 << 30, "Runtimes": {"runc": {}, "nvidia": {}}}


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_every_container_is_without_rights_and_limited(name: str) -> None:
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["mem_limit"]
    assert service["logging"]["options"]["max-size"]
    assert service["read_only"] if name != "kafka" else True
    assert service["restart"] == ("no" if name in ENDING else "unless-stopped")


def test_only_the_doors_are_published_and_on_this_machine_alone() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if service.get("ports")}
    assert set(published) == {"ingest", "serving", "monitor", "grafana"}
    assert all(port.startswith("${DOORS:-127.0.0.1}:") for ports in published.values() for port in ports)
    assert COMPOSE["networks"]["backend"] == {"internal": True}
    assert all(service["networks"] == ["backend"] for name, service in SERVICES.items() if name not in published)


def test_what_is_published_of_a_service_is_where_it_listens() -> None:
    """An address that no setting reads opens nothing, and a port that is published for it refuses every caller."""
    environment = SERVICES["monitor"]["environment"]
    given = {name for name in environment if re.fullmatch(r"[A-Z_]*ADDRESS", name)}
    read = {name: _addresses(name) for name in OURS}
    assert given == {variable for variables in read.values() for variable in variables}
    for name, variables in read.items():
        ports = {port.rpartition(":")[2] for port in SERVICES[name].get("ports", [])}
        assert ports <= {environment[variable].rpartition(":")[2] for variable in variables}


def _addresses(service: str) -> set[str]:
    """The variables that name the addresses of a service."""
    settings = importlib.import_module(f"services.{service}.settings")
    declared = getattr(settings, f"{service.title()}Settings").model_fields
    return {f"{service}_{name}".upper() for name in declared if name.endswith("address")}


def test_the_core_is_what_starts_without_a_profile() -> None:
    core = {name for name, service in SERVICES.items() if not service.get("profiles")}
    assert core == OURS | {"kafka", "redis", "postgres", "secrets", "prepare"}
    profiles = {profile for service in SERVICES.values() for profile in service.get("profiles", [])}
    assert profiles == {"demo", "tracking", "observability"}


def test_services_start_when_what_they_stand_on_is_healthy() -> None:
    assert SERVICES["prepare"]["depends_on"] == {
        n: {"condition": "service_healthy"} for n in ("kafka", "redis", "postgres")
    }
    for name in OURS:
        assert SERVICES[name]["depends_on"] == {"prepare": {"condition": "service_completed_successfully"}}
    assert {c["condition"] for c in SERVICES["demo"]["depends_on"].values()} == {"service_healthy"}


def test_every_setting_of_the_file_is_in_dotenv_with_the_same_default_and_the_other_way_round() -> None:
    asked = dict(re.findall(r"\$\{([A-Z_]+):-([^}]*)\}", TEXT))
    assert "${" not in re.sub(r"\$\{[A-Z_]+:-[^}]*\}", "", TEXT)  # no form that 1.29 does not know
    outside = {"COMPOSE_PROFILES", "COMPOSE_PROJECT_NAME"}
    assert {name: ENV[name] for name in asked} == asked
    assert set(ENV) == set(asked) | outside


def test_no_key_is_used_that_one_of_both_composes_does_not_know() -> None:
    unknown_to_1_29 = {"start_interval", "pull_policy", "develop", "include", "attach", "required"}
    keys = set(re.findall(r"[\s{,]([a-z_]+):", TEXT))
    assert not keys & unknown_to_1_29
    assert "version" not in COMPOSE


def test_volumes_are_named_and_every_named_one_is_used() -> None:
    used = {volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", [])}
    named = {volume for volume in used if re.fullmatch(r"[a-z-]+", volume)} | {"secrets"}
    assert named == set(COMPOSE["volumes"])


@pytest.mark.parametrize("name", sorted(OURS))
def test_a_service_that_opens_the_artifact_store_has_its_volume(name: str) -> None:
    code = "\n".join(path.read_text() for path in (ROOT / "services" / name).rglob("*.py"))
    mounted = [
        volume for volume in SERVICES[name]["volumes"] if volume.startswith("artifacts:/var/lib/driftloop/artifacts")
    ]
    assert bool(mounted) == ("ArtifactStore(" in code)


def test_the_gpu_file_asks_for_one_and_for_the_locked_torch() -> None:
    (trainer,) = yaml.safe_load((ROOT / "compose.gpu.yaml").read_text())["services"].values()
    assert trainer["environment"]["TRAINER_DEVICE"] == "cuda"
    assert trainer["build"]["args"]["TORCH"] == "locked"
    assert trainer["deploy"]["resources"]["reservations"]["devices"][0]["capabilities"] == ["gpu"]


def test_images_are_built_from_the_lock_run_without_rights_and_say_what_they_are() -> None:
    text = (ROOT / "deploy" / "compose" / "Dockerfile").read_text()
    final = text[text.index("AS service") :]
    assert "USER 10001:10001" in final
    assert "HEALTHCHECK" in final
    assert final.count("org.opencontainers.image.") >= 5
    assert "<<" not in text  # no heredoc, no cache mount: the classic builder reads it, too
    assert "--mount" not in text
    install = (ROOT / "deploy" / "compose" / "install.sh").read_text()
    assert "-c constraints.txt -r pyproject.toml" in install
    assert "cyclonedx-py environment" in install


# set-ups that cannot work -----------------------------------------------------------------------------------------------


def said(info: dict[str, Any] | None = None, gpu: bool = False, **environment: str) -> list[str]:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        free = one.getsockname()[1]
    found = {**ENV, **dict.fromkeys(check.PORTS, str(free)), **environment}
    return list(check.problems(found, ENOUGH if info is None else info, set(), gpu, ROOT))


def test_a_host_that_has_everything_is_told_nothing() -> None:
    assert said(gpu=True) == []


def test_too_little_memory_is_said_with_what_there_is() -> None:
    (sentence,) = said({**ENOUGH, "MemTotal": 2 << 30})
    assert sentence.startswith("Docker's machine has 2.0 GiB of memory and driftloop needs 5 GiB")


def test_a_taken_port_is_named_with_its_setting_unless_it_is_our_own() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        (sentence,) = said(SERVING_PORT=str(port))
        assert sentence.startswith(f"Port {port} is taken")
        assert "SERVING_PORT" in sentence
        found = {**ENV, **dict.fromkeys(check.PORTS, str(port))}
        assert list(check.problems(found, ENOUGH, {port}, False, ROOT)) == []


def test_a_missing_gpu_is_said_where_the_gpu_file_is_meant() -> None:
    without = {**ENOUGH, "Runtimes": {"runc": {}}}
    assert said(without) == []
    (sentence,) = said(without, gpu=True)
    assert sentence.startswith("compose.gpu.yaml needs a GPU and Docker knows none")


def test_a_missing_secret_is_named(tmp_path: Path) -> None:
    for name in ("postgres_password", "redis_password"):
        (tmp_path / name).write_text("x")
    assert said(SECRETS_DIR=str(tmp_path)) == [
        f"The secret {tmp_path}/grafana_password is missing: write it there, one line."
    ]
    with pytest.raises(prepare.CannotWork, match="grafana_password cannot be read"):
        prepare.require_secrets(tmp_path / "postgres_password", tmp_path / "grafana_password")


def test_an_unknown_use_case_is_said_with_the_settings() -> None:
    (sentence,) = said(USECASE="nobody")
    assert "nobody/usecase.py: correct USECASE or USECASES_DIR" in sentence


def test_preparation_refuses_a_machine_with_too_little_memory() -> None:
    prepare.require_memory(5, "MemTotal:  8000000 kB\n")
    with pytest.raises(prepare.CannotWork, match=r"has 1.9 GiB of memory and driftloop needs 5 GiB"):
        prepare.require_memory(5, "MemFree: 1 kB\nMemTotal:  2000000 kB\n")


def test_preparation_refuses_a_volume_of_another_layout_and_keeps_one_of_its_own(tmp_path: Path) -> None:
    prepare.require_layout(tmp_path, 2)
    prepare.require_layout(tmp_path, 2)
    with pytest.raises(prepare.CannotWork, match="spread over 2 partitions and PARTITIONS is 4"):
        prepare.require_layout(tmp_path, 4)
    for written in ('{"version": 99, "partitions": 2}', "nonsense"):
        (tmp_path / prepare.LAYOUT_FILE).write_text(written)
        with pytest.raises(prepare.CannotWork, match="written by a driftloop with layout"):
            prepare.require_layout(tmp_path, 2)


def test_preparation_refuses_clocks_that_differ() -> None:
    prepare.require_one_clock(100.0, 104.0, 5.0)
    with pytest.raises(prepare.CannotWork, match="differ by 60 s"):
        prepare.require_one_clock(160.0, 100.0, 5.0)
