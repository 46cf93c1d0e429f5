"""What `make test-compose` does, stage by stage; each holds or raises Broken, and tells what it found.

The stages from `start` to `images` are about one life of the project's data, in this order; the others begin afresh.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from deploy.observability.dashboards import FOLDER, queried
from driftloop.cli.replay import Played, Replay, steps_of
from driftloop.client import Prediction, PredictionRequest, PredictionsClient
from driftloop.usecase import ReplayStep, load_replay, load_use_case
from tests.compose.inside import COUNT, NAMES, RUNS
from tests.compose.system import CORE, SERVICES, Broken, System, hold
from tests.compose.traces import edges
from tests.spans import ROUND

FLIGHTS = load_use_case("flights")
DAYS = 10  # the first model is asked for at about step 920 of 960
# Step at which each container is killed under traffic; the trainer while it trains the first model.
KILLS = {150: "ingest", 300: "features", 450: "monitor", 600: "serving", 922: "trainer", 930: "serving"}
RESTARTS = {700: "redis", 800: "kafka"}
# What a stretch of ten days with binary labels has no reason to tell: nothing is refused, no event asks, and 200 labels of
# answered calls, of which the loss is a mean, have not matured by its end.
RARE = {
    "driftloop_ingest_events_rejected_total", "driftloop_ingest_calls_refused_total", "driftloop_dead_letters_total",
    "driftloop_ingest_events_duplicate_total", "driftloop_ingest_expectations_unmet_total", "driftloop_duplicates_total",
    "driftloop_ingest_incidents_total", "driftloop_delivery_failures_total", "driftloop_features_late_events_total",
    "driftloop_serving_guardrails_total", "driftloop_trainer_gates_failed_total", "driftloop_monitor_incidents_total",
    "driftloop_monitor_absolute_error", "driftloop_monitor_log_loss", "driftloop_monitor_alarms_total", "driftloop_serving_view_reads_total",
    "driftloop_features_parity_values_total", "driftloop_features_parity_mismatches_total", "driftloop_serving_asking_events_total",
    "driftloop_features_overflowed_events_total",
}  # fmt: skip
Found = dict[str, Any]


def build(system: System) -> Found:
    """Every image of the core, MLflow's and that of the demo; ours say of which commit they are."""
    system.compose("--profile", "tracking", "--profile", "demo", "build", *SERVICES, "mlflow", "demo")
    label = f"label=org.opencontainers.image.revision={system.environment['DRIFTLOOP_REVISION']}"
    labelled = set(system.docker("image", "ls", "-q", "--filter", label).split())
    hold(len(labelled) >= len(SERVICES) + 1, f"only {len(labelled)} images have the {label}")
    return {}


def start(system: System) -> Found:
    """From empty volumes to healthy; then what watches beside."""
    system.down("--volumes")
    began_s = time.time()
    system.compose("up", "-d", "--no-build")
    created_s = time.time() - began_s
    healthy = system.await_healthy(CORE)
    began = {
        name: round(_epoch_s(system.inspect(name, ".State.StartedAt")) - began_s, 1)
        for name in ("kafka", "postgres", "prepare", *SERVICES)
    }
    system.compose("up", "-d", "--no-build", "collector", "prometheus", "mlflow")
    after = {name: round(created_s + seconds, 1) for name, seconds in healthy.items()}
    return {"healthy_s": max(after.values()), "started_at_s": began, "healthy_at_s": after}


def loop(system: System) -> Found:
    """A replay to a closed loop through kills, a restart of Redis and one of the broker."""
    at: dict[int, Callable[[], None]] = {step: partial(system.kill, name) for step, name in KILLS.items()}
    at |= {step: partial(system.restart, name) for step, name in RESTARTS.items()}
    played = _replayed(system, DAYS, at)
    counted = system.asked("serving", COUNT)
    sent, kept = played.events, counted["ids"]["events"]
    hold(sent["sent"] == sent["accepted"] + sent["duplicate"], f"not every event was accepted: {sent}")
    hold(kept == sent["sent"], f"{sent['sent']} events were sent and {kept} are in the log")
    hold(played.predictions["failed"] == 0, f"predictions failed: {played.failures[:3]}")
    hold(counted["ids"]["predictions"] == played.predictions["answered"], "not every answer is in the log")
    hold(played.predictions["answered"] > 0, "nothing was predicted")
    hold(bool(counted["champions"]), "no model was released")
    hold(set(system.killed) == set(SERVICES), f"only {system.killed} were killed")
    return {"events": kept, "answered": played.predictions["answered"], "kills": len(system.killed)}


def metrics(system: System) -> Found:
    """Prometheus has what every dashboard and alert asks for."""
    asked = {name for path in FOLDER.glob("*.json") for name in queried(path.read_text())}
    asked |= queried((FOLDER.parent / "rules" / "driftloop.rules.yaml").read_text())
    system.await_healthy()
    told: Found = {}

    def all_told() -> bool:
        told.update(system.asked("serving", NAMES))
        return asked - RARE <= set(told["names"])

    try:
        system.until(all_told, "a metric is never told", 60)
    except Broken as never:
        raise Broken(f"{never}: {', '.join(sorted(asked - RARE - set(told['names'])))}") from never
    hold(set(told["rules"]) == {"ok"}, "a rule cannot be evaluated")
    return {"metrics": len(asked & set(told["names"])), "rules": len(told["rules"])}


def traces(system: System) -> Found:
    """The collector's spans lead from an event's arrival around the loop to the release that follows."""
    pid = system.inspect("collector", ".State.Pid")
    files = sorted(Path(f"/proc/{pid}/root/tmp").glob("traces*.jsonl"))
    hold(bool(files), "the collector keeps no traces")
    found = edges(line for file in files for line in file.read_text().splitlines())
    missing = [edge for edge in ROUND if not found[edge]]
    hold(not missing, f"no span leads {missing}")
    return {"edges": {" -> ".join(edge): found[edge] for edge in ROUND}}


def recordings(system: System) -> Found:
    """MLflow and OpenLineage have a run for every answer of trainer."""
    system.await_healthy(("mlflow",))
    wanted = system.asked("serving", COUNT)["ids"]["models"]
    runs: list[dict[str, str]] = []

    def all_told() -> bool:
        runs[:] = system.asked("serving", RUNS)
        return len(runs) == wanted

    system.until(all_told, f"trainer gave {wanted} answers and MLflow has other runs", 90)
    lines = system.compose("exec", "-T", "trainer", "cat", "/var/lib/driftloop/state/lineage.jsonl").splitlines()
    lineage = {json.loads(line)["run"]["runId"] for line in lines}
    hold(len(lineage) == wanted, f"{wanted} answers and {len(lineage)} runs of lineage")
    hold(
        system.inspect("mlflow", ".RestartCount") == "0",
        "MLflow was started more than once: does it get too little memory?",
    )
    return {"runs": wanted, "outcomes": sorted({run["driftloop.outcome"] for run in runs})}


def crash(system: System) -> Found:
    """A process that dies by itself is started again."""
    system.await_healthy()
    before = int(system.inspect("serving", ".RestartCount"))
    os.kill(system.process("serving"), 9)
    system.until(lambda: int(system.inspect("serving", ".RestartCount")) > before, "serving was not restarted")
    system.until(system.serving_answers, "serving does not answer after its restart")
    return {"restarts": int(system.inspect("serving", ".RestartCount")) - before}


def again(system: System) -> Found:
    """Down and up with the data kept: the same model, the same features, the same answers."""
    stretch = load_replay("flights").stretch(days=DAYS)
    last = [request for one in steps_of(FLIGHTS, stretch) for request in one.requests][-20:]
    requests = [PredictionRequest(r.entity, r.fields, f"again-{n}") for n, r in enumerate(last)]
    system.until(system.serving_answers, "serving does not answer")
    first, events = _answers(system, requests), system.asked("serving", COUNT)["ids"]["events"]
    system.down()
    began_s = time.monotonic()
    system.compose("up", "-d", "--no-build")
    system.await_healthy()
    healthy_s = time.monotonic() - began_s
    system.until(system.serving_answers, "serving does not answer after down and up")
    second = _answers(system, requests)
    hold([a.model_id for a in first] == [a.model_id for a in second], "another model answers")
    hold([a.freshness for a in first] == [a.freshness for a in second], "features have other values or times")
    hold([a.score for a in first] == [a.score for a in second], "the same requests have other answers")
    hold(any(f.found for a in first for f in a.freshness), "no feature of the requests is known")
    kept = system.asked("serving", COUNT)["ids"]["events"]
    hold(kept == events, f"there were {events} events and there are {kept}")
    return {"model": first[0].model_id[:12], "answers_compared": len(first), "healthy_s": round(healthy_s, 1)}


def stores(system: System) -> Found:
    """Feast's stores hold what features wrote: Redis the values, PostgreSQL the registry."""
    keys = system.compose(
        "exec", "-T", "redis", "sh", "-c", "REDISCLI_AUTH=$(cat /run/secrets/redis_password) redis-cli dbsize"
    )
    rows = system.compose(
        "exec", "-T", "postgres", "psql", "-h", "/var/run/postgresql", "-U", "driftloop", "-tA", "-c",
        "select count(*) from feature_views",
    )  # fmt: skip
    found = {"redis_keys": int(keys.split()[-1]), "feature_views": int(rows.strip())}
    hold(found["redis_keys"] > 0, "Redis is empty")
    hold(found["feature_views"] == len(FLIGHTS.views), "the registry lacks views")
    return found


def images(system: System) -> Found:
    """No rights, no build tools, no torch but in trainer, below 1 GB each."""
    found: Found = {}
    for service in SERVICES:
        image = system.inspect(service, ".Image")
        size_mb = int(system.docker("image", "inspect", "--format", "{{.Size}}", image)) / 1e6
        user = system.docker("image", "inspect", "--format", "{{.Config.User}}", image).strip()
        found[service] = f"{size_mb:.0f} MB"
        hold(service == "trainer" or size_mb < 1000, f"the image of {service} has {size_mb:.0f} MB")
        hold(user == "10001:10001", f"{service} runs as {user or 'root'}")
        seen = system.compose(
            "exec", "-T", service, "sh", "-c",
            "touch /app/x 2>/dev/null && echo writable; for t in gcc uv make; do command -v $t; done; "
            "python -c 'import importlib.util as u; print(u.find_spec(\"torch\") is not None)'; ls /usr/share/sbom",
        ).split()  # fmt: skip
        hold(seen == [str(service == "trainer"), f"{service}.cdx.json"], f"{service}: {seen}")
    # What the demo measures at its end, it imports at its end.
    measures = "import driftloop.cli.demo, driftloop.cli.report, driftloop.cli.summary, simulation.vectors"
    system.compose(
        "--profile", "demo", "run", "--rm", "--no-deps", "-T", "--entrypoint", "python", "demo", "-c", measures
    )
    return found


def _replayed(system: System, days: int, at: dict[int, Callable[[], None]]) -> Played:
    """Plays a stretch; what `at` names is done after that step, beside the traffic."""
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
        return replay.run(steps_of(FLIGHTS, load_replay("flights").stretch(days=days)), after_step)
    finally:
        replay.close()
        for thread in beside:
            thread.join()
        if failed:
            raise failed[0]


def _answers(system: System, requests: list[PredictionRequest]) -> list[Prediction]:
    """What serving answers to the same requests."""
    with PredictionsClient(f"127.0.0.1:{system.ports['serving']}", FLIGHTS) as client:
        return [client.predict(request) for request in requests]


def _epoch_s(stamp: str) -> float:
    """Docker's time of an event: nanoseconds, of which Python reads six digits."""
    whole, _, fraction = stamp.rstrip("Z").partition(".")
    return datetime.fromisoformat(f"{whole}.{fraction[:6]:0<6}+00:00").timestamp()
