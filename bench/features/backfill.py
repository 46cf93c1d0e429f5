"""Events a second of `driftloop features backfill`: from the event log to its parts, in one process on one core."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa

from bench.features.events import NAME, message, spent
from bench.features.processes import ROOT, declare, started
from bench.ingest.machine import SERVER_CORES
from driftloop.artifacts import ArtifactStore
from driftloop.featurestore.log import EVENTS_SCHEMA, write_part
from driftloop.featurestore.manifest import STAGES, Manifest, Part, manifest_path, part_path

OVER = ("15m", "1h", "6h")
_PARTS_OF = 100_000


def write_events(folder: Path, count: int) -> Path:
    """An event log of so many events; returns the folder of use cases."""
    usecases = declare(folder, NAME, OVER)
    store = ArtifactStore(folder / "artifacts")
    rows, parts = [], []
    last_us = 0
    for one in spent(count):
        event = message(NAME, one).payload
        last_us = one.at_us
        rows.append((event.id, event.type, event.entity, last_us, last_us, one.number, event.SerializeToString()))
        if len(rows) == _PARTS_OF or one.number + 1 == count:
            first = one.number + 1 - len(rows)
            path = part_path(NAME, "events", "", 0, first, one.number)
            columns = zip(*rows, strict=True)
            arrays = [pa.array(column, type=each.type) for column, each in zip(columns, EVENTS_SCHEMA, strict=True)]
            write_part(store, path, pa.Table.from_arrays(arrays, schema=EVENTS_SCHEMA))
            parts.append(Part(path, "", first, one.number, len(rows)))
            rows = []
    for stage in STAGES:
        named = tuple(parts) if stage == "events" else ()
        store.put(manifest_path(NAME, stage, 0), Manifest(stage, 0, 1, last_us, named).to_json())
    return usecases


def measure(folder: Path, count: int) -> float:
    """One run of the command, its start included, over a fresh log."""
    place = folder / "backfill"
    shutil.rmtree(place, ignore_errors=True)
    usecases = write_events(place, count)
    command = ["backfill", NAME, "--no-online", "--json", "--artifacts-url", str(place / "artifacts")]
    argv = [sys.executable, "-m", "driftloop.cli", "features", *command, "--usecases", str(usecases)]
    started_s = time.perf_counter()
    with started(argv, {}, SERVER_CORES, stdout=subprocess.PIPE) as process:
        out, _ = process.communicate()
    seconds = time.perf_counter() - started_s
    assert process.returncode == 0, ROOT
    assert json.loads(out)["events"] == count
    return count / seconds
