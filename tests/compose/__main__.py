"""`make test-compose`: the containers for real, on a project and volumes of its own, ended and removed at the end.

Each stage prints what holds and how long it took; the first that does not ends the run with exit status 1, no engine with 3.
COMPOSE names the command ("docker compose" or "docker-compose"; by default what is here), BUILD=0 takes the images as they are.
STAGES="start loop" runs some of them, on the containers that an earlier run left with KEEP=1.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from deploy.compose.check import engine
from tests.compose import setups, stages
from tests.compose.system import ROOT, SERVICES, Broken, System, chosen_compose

OUT = ROOT / "build" / "compose"
RESULT, LEFT = OUT / "result.json", OUT / "left.json"
STAGES: dict[str, Callable[[System], dict[str, Any]]] = {
    "build": stages.build,
    "start": stages.start,
    "loop": stages.loop,
    "metrics": stages.metrics,
    "traces": stages.traces,
    "recordings": stages.recordings,
    "crash": stages.crash,
    "again": stages.again,
    "stores": stages.stores,
    "images": stages.images,
    "full-disk": setups.full_disk,
    "refusals": setups.refusals,
}


def chosen_stages() -> list[str]:
    """Those of STAGES, all by default; SystemExit 2 names one that is not there."""
    wanted = os.environ.get("STAGES", "").split() or [
        name for name in STAGES if name != "build" or os.environ.get("BUILD") != "0"
    ]
    if unknown := [name for name in wanted if name not in STAGES]:
        print(f"there is no stage {' '.join(unknown)}: the stages are {' '.join(STAGES)}", file=sys.stderr)
        raise SystemExit(2)
    return wanted


def main() -> int:
    """The exit status."""
    wanted = chosen_stages()
    if shutil.which("docker") is None or engine() is None:
        print("NOT RUN: no Docker engine answers here, so nothing of the containers was tried.", file=sys.stderr)
        return 3
    OUT.mkdir(parents=True, exist_ok=True)
    system = System(chosen_compose(), json.loads(LEFT.read_text())["base"] if LEFT.exists() else None)
    report: list[dict[str, Any]] = []
    began_s = time.monotonic()
    try:
        for number, name in enumerate(wanted, 1):
            said = (STAGES[name].__doc__ or "").strip()
            print(f"[{number}/{len(wanted)}] {name}: {said}", flush=True)
            started_s = time.monotonic()
            found = STAGES[name](system)
            report.append({"stage": name, "seconds": round(time.monotonic() - started_s, 1), **found})
            shown = "".join(f"\n      {key}: {value}" for key, value in found.items())
            print(f"  ok after {report[-1]['seconds']} s{shown}", flush=True)
    except Broken as broken:
        for service in SERVICES:
            (OUT / f"{service}.log").write_text(_quietly(partial(system.log, service)))
        print(f"  BROKEN: {broken}\nthe containers' logs are in {OUT}", file=sys.stderr)
        return 1
    finally:
        RESULT.write_text(json.dumps(report, indent=1))
        if os.environ.get("KEEP") == "1":
            LEFT.write_text(json.dumps({"base": system.base}))
            print(f"left running, for STAGES=…: {system.base}")
        else:
            LEFT.unlink(missing_ok=True)
            _quietly(partial(system.down, "--volumes"))
    print(f"all {len(report)} stages hold, {time.monotonic() - began_s:.0f} s; {RESULT}")
    return 0


def _quietly(act: Callable[[], str]) -> str:
    try:
        return act()
    except Broken as broken:
        return str(broken)


if __name__ == "__main__":
    sys.exit(main())
