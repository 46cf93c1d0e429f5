"""`make test-compose`: the containers for real, on a project and volumes of its own, ended and removed at the end.

Each step prints what holds; the first that does not ends the run with exit status 1, no engine with 3. COMPOSE names the command
("docker compose" or "docker-compose"; by default what is here), BUILD=0 takes the images as they are.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from grpc import insecure_channel
from grpc_health.v1 import health_pb2, health_pb2_grpc

from deploy.compose.check import engine
from deploy.local import free_base_port
from deploy.observability.dashboards import FOLDER, queried
from driftloop.cli.replay import Played, Replay, steps_of
from driftloop.client import Prediction, PredictionRequest, PredictionsClient
from driftloop.usecase import ReplayStep, load_replay, load_use_case

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "build" / "compose"
SERVICES = ("ingest", "features", "serving", "monitor", "trainer")
FLIGHTS = load_use_case("flights")
DAYS = 10  # the first model is asked for at about step 920 of 960
# Step at which each container is killed under traffic; the trainer while it trains the first model.
KILLS = {150: "ingest", 300: "features", 450: "monitor", 600: "serving", 922: "trainer", 930: "serving"}
REDIS_AT, BROKER_AT = 700, 800
HEALTHY_TIMEOUT_S = 240.0  # the target is 60 s on an idle machine; here others may be at work, too
RECOVERY_TIMEOUT_S = 120.0
# What a stretch of ten days with binary labels has no reason to tell: nothing is refused, and 200 labels of answered calls,
# of which the loss is a mean, have not matured by its end.
RARE = {
    "driftloop_ingest_events_rejected_total", "driftloop_ingest_calls_refused_total", "driftloop_dead_letters_total",
    "driftloop_ingest_events_duplicate_total", "driftloop_ingest_expectations_unmet_total", "driftloop_duplicates_total",
    "driftloop_ingest_incidents_total", "driftloop_delivery_failures_total", "driftloop_features_late_events_total",
    "driftloop_serving_guardrails_total", "driftloop_trainer_gates_failed_total", "driftloop_monitor_incidents_total",
    "driftloop_monitor_absolute_error", "driftloop_monitor_log_loss", "driftloop_monitor_alarms_total", "driftloop_serving_view_reads_total",
    "driftloop_features_parity_values_total", "driftloop_features_parity_mismatches_total",
}  # fmt: skip
NAMES = """
import json, urllib.request
base = "http://prometheus:9090/api/v1/"
print(json.dumps({
    "names": json.load(urllib.request.urlopen(base + "label/__name__/values"))["data"],
    "rules": [r["health"] for g in json.load(urllib.request.urlopen(base + "rules"))["data"]["groups"] for r in g["rules"]],
}))
"""
RUNS = """
import json, urllib.request
def post(path, body):
    request = urllib.request.Request("http://mlflow:5000/api/2.0/mlflow/" + path, json.dumps(body).encode(),
                                     {"Content-Type": "application/json"})
    return json.load(urllib.request.urlopen(request))
found = post("experiments/search", {"max_results": 100}).get("experiments", [])
ids = [e["experiment_id"] for e in found if e["name"] == "flights"]
runs = post("runs/search", {"experiment_ids": ids}).get("runs", []) if ids else []
print(json.dumps([{t["key"]: t["value"] for t in run["data"]["tags"]} for run in runs]))
"""
COUNT = """
import collections, json
from driftloop.cli.history import read_topics
found = collections.defaultdict(set)
champions = []
for record in read_topics("kafka:9092", "flights"):
    found[record.message.topic].add(record.message.id)
    if record.message.topic == "releases" and record.message.payload.HasField("champion"):
        champions.append(record.message.payload.champion.model_id)
print(json.dumps({"ids": {topic: len(ids) for topic, ids in found.items()}, "champions": champions}))
"""


class Broken(Exception):
    """A step does not hold; the text says which and why."""


def hold(condition: bool, otherwise: str) -> None:
    """Ends the run unless the condition holds."""
    if not condition:
        raise Broken(otherwise)


def chosen_compose() -> list[str]:
    """The compose command: COMPOSE, else v2, else 1.29."""
    if given := os.environ.get("COMPOSE"):
        return given.split()
    plugin = subprocess.run(["docker", "compose", "version"], capture_output=True)
    return ["docker", "compose"] if plugin.returncode == 0 else ["docker-compose"]


class System:
    """The project's containers, on ports that are free."""

    def __init__(self, compose: list[str]) -> None:
        base = free_base_port()
        self.ports = {"ingest": base + 1, "serving": base + 3, "monitor": base + 4}
        self._compose = compose
        self.environment = {
            **os.environ,
            "COMPOSE_PROJECT_NAME": "driftlooptest",
            "COMPOSE_PROFILES": "",
            "INGEST_PORT": str(base + 1),
            "SERVING_PORT": str(base + 3),
            "OPERATOR_PORT": str(base + 4),
            "INGEST_HTTP_PORT": str(base + 21),
            "SERVING_HTTP_PORT": str(base + 23),
            "OPERATOR_HTTP_PORT": str(base + 24),
            "GRAFANA_PORT": str(base + 30),
        }
        self.killed: list[str] = []

    def compose(self, *arguments: str, stdin: str | None = None) -> str:
        """Runs the compose command; Broken with the end of what it said if it fails."""
        done = subprocess.run(
            [*self._compose, *arguments], cwd=ROOT, env=self.environment, input=stdin, capture_output=True, text=True
        )
        if done.returncode:
            raise Broken(f"{' '.join([*self._compose, *arguments])}: {done.stderr[-1500:]}")
        return done.stdout

    def container(self, service: str) -> str:
        """The id of a service's container, also of one that does not run."""
        listed = self.docker(
            "ps", "-aq", "--filter", "label=com.docker.compose.project=driftlooptest",
            "--filter", f"label=com.docker.compose.service={service}",
        )  # fmt: skip
        return listed.split()[0]

    def docker(self, *arguments: str) -> str:
        """Runs docker; Broken if it fails."""
        done = subprocess.run(["docker", *arguments], capture_output=True, text=True)
        if done.returncode:
            raise Broken(f"docker {' '.join(arguments)}: {done.stderr[-800:]}")
        return done.stdout

    def inspect(self, service: str, what: str) -> str:
        """One field of a container's state."""
        return self.docker("inspect", "--format", f"{{{{{what}}}}}", self.container(service)).strip()

    def await_healthy(self, services: tuple[str, ...] = SERVICES, timeout_s: float = HEALTHY_TIMEOUT_S) -> float:
        """Seconds until Docker calls all of them healthy."""
        started_s = time.monotonic()
        for service in services:
            self.until(
                lambda service=service: self.inspect(service, ".State.Health.Status") == "healthy",
                f"{service} did not become healthy: {self.log(service)[-600:]}",
                timeout_s,
            )
        return time.monotonic() - started_s

    def until(self, true: Callable[[], bool], otherwise: str, timeout_s: float = RECOVERY_TIMEOUT_S) -> None:
        """Looks every half second; Broken after the bound."""
        deadline_s = time.monotonic() + timeout_s
        while not true():
            hold(time.monotonic() < deadline_s, f"after {timeout_s:.0f} s: {otherwise}")
            time.sleep(0.5)

    def log(self, service: str) -> str:
        """What a container has said."""
        done = subprocess.run(["docker", "logs", self.container(service)], capture_output=True, text=True)
        return done.stdout + done.stderr

    def kill(self, service: str) -> None:
        """docker kill, and started again as an operator would."""
        self.docker("kill", self.container(service))
        self.killed.append(service)
        self.docker("start", self.container(service))

    def counts(self) -> dict[str, Any]:
        """Distinct ids per topic and every champion there was, read inside serving's container."""
        return json.loads(self.compose("exec", "-T", "serving", "python", "-", stdin=COUNT))

    def serving_answers(self) -> bool:
        """Whether serving's door says SERVING on its published port."""
        with insecure_channel(f"127.0.0.1:{self.ports['serving']}") as channel:
            try:
                answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=2)
            except Exception:
                return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


@contextmanager
def step(report: list[dict[str, Any]], name: str) -> Iterator[dict[str, Any]]:
    """One step: what it found is kept, and printed when it holds."""
    print(f"… {name}", flush=True)
    found: dict[str, Any] = {"step": name}
    started_s = time.monotonic()
    yield found
    found["seconds"] = round(time.monotonic() - started_s, 1)
    report.append(found)
    shown = ", ".join(f"{key} {value}" for key, value in found.items() if key != "step")
    print(f"✔ {name}: {shown}", flush=True)


def replayed(system: System, at: dict[int, Callable[[], None]]) -> Played:
    """Plays the stretch; what `at` names is done after that step, beside the traffic."""
    replay = Replay(FLIGHTS, f"127.0.0.1:{system.ports['ingest']}", f"127.0.0.1:{system.ports['serving']}")
    beside: list[threading.Thread] = []
    failed: list[BaseException] = []

    def run(act: Callable[[], None]) -> None:
        try:
            act()
        except BaseException as error:
            failed.append(error)

    def after_step(done: ReplayStep, played: Played) -> None:
        if played.steps % 100 == 0:
            print(f"  step {played.steps}: {played.events['accepted']} events", flush=True)
        if played.steps in at:
            beside.append(threading.Thread(target=run, args=(at[played.steps],)))
            beside[-1].start()

    try:
        return replay.run(steps_of(FLIGHTS, load_replay("flights").stretch(days=DAYS)), after_step)
    finally:
        replay.close()
        for thread in beside:
            thread.join()
        if failed:
            raise failed[0]


def answers(system: System, requests: list[PredictionRequest]) -> list[Prediction]:
    """What serving answers to the same requests."""
    with PredictionsClient(f"127.0.0.1:{system.ports['serving']}", FLIGHTS) as client:
        return [client.predict(request) for request in requests]


def scenario(system: System, report: list[dict[str, Any]]) -> None:
    """The whole of it, in order."""
    with step(report, "start to healthy") as found:
        started_s = time.monotonic()
        system.compose("up", "-d", "--no-build")
        system.await_healthy(("kafka", "redis", "postgres", *SERVICES))
        found["healthy_s"] = round(time.monotonic() - started_s, 1)
        system.compose("up", "-d", "--no-build", "collector", "prometheus", "mlflow")

    stretch = load_replay("flights").stretch(days=DAYS)
    last = [request for one in steps_of(FLIGHTS, stretch) for request in one.requests][-20:]
    requests = [PredictionRequest(r.entity, r.fields, f"again-{n}") for n, r in enumerate(last)]
    with step(report, "a replay to a closed loop through kills, a restart of Redis and one of the broker") as found:
        at: dict[int, Callable[[], None]] = {n: lambda name=name: system.kill(name) for n, name in KILLS.items()}
        at[REDIS_AT] = lambda: system.docker("restart", system.container("redis")) and None
        at[BROKER_AT] = lambda: system.docker("restart", system.container("kafka")) and None
        played = replayed(system, at)
        counted = system.counts()
        sent, kept = played.events, counted["ids"]["events"]
        hold(sent["sent"] == sent["accepted"] + sent["duplicate"], f"not every event was accepted: {sent}")
        hold(kept == sent["sent"], f"{sent['sent']} events were sent and {kept} are in the log")
        hold(played.predictions["failed"] == 0, f"predictions failed: {played.failures[:3]}")
        hold(counted["ids"]["predictions"] == played.predictions["answered"], "not every answer is in the log")
        hold(bool(counted["champions"]), "no model was released")
        hold(set(system.killed) == set(SERVICES), f"only {system.killed} were killed")
        found |= {"events": kept, "answered": played.predictions["answered"], "kills": len(system.killed)}

    with step(report, "Prometheus has what every dashboard and alert asks for") as found:
        asked = {name for path in FOLDER.glob("*.json") for name in queried(path.read_text())}
        asked |= queried((FOLDER.parent / "rules" / "driftloop.rules.yaml").read_text())

        def told() -> dict[str, Any]:
            return json.loads(system.compose("exec", "-T", "serving", "python", "-", stdin=NAMES))

        system.until(
            lambda: asked - RARE <= set(told()["names"]),
            f"never told: {sorted(asked - RARE - set(told()['names']))}",
            60,
        )
        hold(set(told()["rules"]) == {"ok"}, "a rule cannot be evaluated")
        found |= {"metrics": len(asked & set(told()["names"])), "rules": len(told()["rules"])}

    with step(report, "MLflow and OpenLineage have a run for every answer of trainer") as found:
        wanted = system.counts()["ids"]["models"]

        def runs() -> list[dict[str, str]]:
            return json.loads(system.compose("exec", "-T", "serving", "python", "-", stdin=RUNS))

        system.until(lambda: len(runs()) == wanted, f"{wanted} answers and {len(runs())} runs in MLflow", 90)
        lines = system.compose("exec", "-T", "trainer", "cat", "/var/lib/driftloop/state/lineage.jsonl").splitlines()
        lineage = {json.loads(line)["run"]["runId"] for line in lines}
        hold(len(lineage) == wanted, f"{wanted} answers and {len(lineage)} runs of lineage")
        found |= {"runs": wanted, "models": {run["driftloop.outcome"] for run in runs()}}

    with step(report, "a process that dies by itself is started again") as found:
        system.await_healthy()
        before = int(system.inspect("serving", ".RestartCount"))
        os.kill(_child(int(system.inspect("serving", ".State.Pid"))), 9)
        system.until(lambda: int(system.inspect("serving", ".RestartCount")) > before, "serving was not restarted")
        system.until(system.serving_answers, "serving does not answer after its restart")

    with step(report, "stop and start with the data kept: the same model, the same answers") as found:
        first = answers(system, requests)
        system.compose("down")
        system.compose("up", "-d", "--no-build")
        system.await_healthy()
        system.until(system.serving_answers, "serving does not answer after down and up")
        second = answers(system, requests)
        hold([a.model_id for a in first] == [a.model_id for a in second], "another model answers")
        hold([a.score for a in first] == [a.score for a in second], "the same requests have other answers")
        hold([a.freshness for a in first] == [a.freshness for a in second], "features have other values or times")
        hold(system.counts()["ids"]["events"] == report[1]["events"], "events are gone")
        found |= {"model": first[0].model_id[:12], "answers_compared": len(first)}

    with step(report, "Feast's stores hold what features wrote: Redis the values, PostgreSQL the registry") as found:
        keys = system.compose(
            "exec", "-T", "redis", "sh", "-c", "REDISCLI_AUTH=$(cat /run/secrets/redis_password) redis-cli dbsize"
        )
        rows = system.compose(
            "exec", "-T", "postgres", "psql", "-h", "/var/run/postgresql", "-U", "driftloop", "-tA", "-c",
            "select count(*) from feature_views",
        )  # fmt: skip
        found |= {"redis_keys": int(keys.split()[-1]), "feature_views": int(rows.strip())}
        hold(found["redis_keys"] > 0, "Redis is empty")
        hold(found["feature_views"] == len(FLIGHTS.views), "the registry lacks views")

    with step(report, "images: no rights, no torch but in trainer, below 1 GB each") as found:
        for service in SERVICES:
            image = system.inspect(service, ".Image")
            size_mb = int(system.docker("image", "inspect", "--format", "{{.Size}}", image)) / 1e6
            found[service] = f"{size_mb:.0f} MB"
            hold(service == "trainer" or size_mb < 1000, f"the image of {service} has {size_mb:.0f} MB")
            hold(
                system.docker("image", "inspect", "--format", "{{.Config.User}}", image).strip() == "10001:10001",
                "root",
            )
            seen = system.compose(
                "exec", "-T", service, "sh", "-c",
                "touch /app/x 2>/dev/null && echo writable; for t in gcc uv make; do command -v $t; done; "
                "python -c 'import importlib.util as u; print(u.find_spec(\"torch\") is not None)'; ls /usr/share/sbom",
            ).split()  # fmt: skip
            hold(seen == [str(service == "trainer"), f"{service}.cdx.json"], f"{service}: {seen}")


def disk_full(system: System, report: list[dict[str, Any]]) -> None:
    """A volume that is full: what features says, and that it goes on when there is room; on a fresh project."""
    with step(report, "a full disk is said, nothing is lost, and work goes on when space returns") as found:
        system.compose("down", "--volumes")
        system.environment["COMPOSE_FILE"] = f"compose.yaml{os.pathsep}tests/compose/small-disk.yaml"
        system.environment["DRIFTLOOP_DISK_GIB_MIN"] = "0.01"
        try:
            system.compose("up", "-d", "--no-build")
            holder = ["run", "-d", "--name", "driftlooptest_holder", "-v", "driftlooptest_artifacts:/a"]
            system.docker(*holder, "--entrypoint", "sleep", system.inspect("ingest", ".Config.Image"), "1200")
            system.await_healthy()
            filled = threading.Event()

            def fill() -> None:
                command = "head -c 100m /dev/zero >/a/filler 2>/dev/null; ls -l /a/filler"
                system.docker("exec", "driftlooptest_holder", "sh", "-c", command)
                filled.set()
                system.until(
                    lambda: "space left" in system.log("features"), "features does not say that the disk is full"
                )
                system.docker("exec", "driftlooptest_holder", "rm", "/a/filler")

            replay = Replay(FLIGHTS, f"127.0.0.1:{system.ports['ingest']}", f"127.0.0.1:{system.ports['serving']}")
            thread = threading.Thread(target=fill)

            def after_step(done: ReplayStep, played: Played) -> None:
                if played.steps == 10:
                    thread.start()
                    filled.wait(60)

            try:
                played = replay.run(steps_of(FLIGHTS, load_replay("flights").stretch(days=2)), after_step)
            finally:
                replay.close()
                thread.join()
            hold("No space left" in system.log("features"), "features did not say that the disk was full")
            kept = system.counts()["ids"]["events"]
            hold(kept == played.events["sent"], f"{played.events['sent']} events were sent and {kept} are in the log")
            system.await_healthy()
            found |= {
                "events": kept,
                "said": next(x for x in system.log("features").splitlines() if "space left" in x)[-160:],
            }
        finally:
            subprocess.run(["docker", "rm", "-f", "driftlooptest_holder"], capture_output=True)


def _child(pid: int) -> int:
    """The service itself, below the init process of its container."""
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


def main() -> int:
    """The exit status."""
    if shutil.which("docker") is None or engine() is None:
        print("NOT RUN: no Docker engine answers here, so nothing of the containers was tried.", file=sys.stderr)
        return 3
    OUT.mkdir(parents=True, exist_ok=True)
    system = System(chosen_compose())
    report: list[dict[str, Any]] = []
    try:
        if os.environ.get("BUILD") != "0":
            with step(report, "build"):
                system.compose("--profile", "tracking", "build", *SERVICES, "mlflow")
            report.clear()
        system.compose("down", "--volumes")
        scenario(system, report)
        disk_full(system, report)
    except Broken as broken:
        for service in SERVICES:
            (OUT / f"{service}.log").write_text(_quietly(lambda service=service: system.log(service)))
        print(f"✘ {broken}\nthe containers' logs are in {OUT}", file=sys.stderr)
        return 1
    finally:
        _quietly(lambda: system.compose("down", "--volumes"))
        (OUT / "result.json").write_text(json.dumps(report, indent=1, default=sorted))
    print(f"all {len(report)} steps hold; {OUT / 'result.json'}")
    return 0


def _quietly(act: Callable[[], str]) -> str:
    try:
        return act()
    except Broken as broken:
        return str(broken)


if __name__ == "__main__":
    sys.exit(main())
