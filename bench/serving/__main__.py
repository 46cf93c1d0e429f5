"""`make bench-serving`: serving beside a bare echo and beside servers glued by hand; writes build/bench/serving.json.

Servers have one core to themselves, in turn; broker, collector and client have the rest. Every prediction is logged, and traces
are sampled at 1 %. Cases are interleaved; figures are medians over repetitions, ratios medians of the ratios within one.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections import defaultdict
from collections.abc import Awaitable, Callable
from statistics import median

import uvloop

from bench.ingest.machine import SERVER_CORES, Meter, client_cores
from bench.results import Result, write
from bench.serving.load import Ask, GrpcCaller, Load, arriving, closed
from bench.serving.parcels import NAME, batches, predict_request, requests, shipment
from bench.serving.peer import GluedClient
from bench.serving.world import FOLDER, ROOT, SERVING, Server, World, await_http, stop, world
from deploy.local import free_base_port
from driftloop.contracts import prediction_id
from driftloop.contracts.serving.v1.serving_pb2 import ExplainRequest, PredictResponse, PredictStreamResponse

IN_FLIGHT, BATCH, AHEAD = 32, 64, 8
EXPLAINED = 12  # at once: enough for two workers, fewer than may wait at one
STEADY, OVERLOAD = 0.7, 3.0  # of what is served at most
DEADLINE_S = 1.0  # of a call under overload: later answers are worth nothing


class Bench:
    """What was measured, by case and metric; one value per repetition."""

    def __init__(self, where: World, repetitions: int, calls: int, cores: tuple[int, ...]) -> None:
        self.world = where
        self.cores = cores
        self.repetitions = repetitions
        self.calls = calls
        self.values: dict[tuple[str, str], list[float]] = defaultdict(list)
        self.answered = 0
        self._runs = 0

    def note(self, case: str, **measured: float) -> None:
        """Takes the figures of one repetition."""
        for metric, value in measured.items():
            self.values[case, metric].append(value)

    def run(self) -> str:
        """A name for request ids that no other call had."""
        self._runs += 1
        return f"r{self._runs}"

    def forget(self) -> None:
        """What was measured so far only warmed things up."""
        self.values.clear()

    def median(self, case: str, metric: str) -> float:
        """Over the repetitions."""
        return median(self.values[case, metric])

    def ratio(self, case: str, baseline: str, metric: str) -> float:
        """The median of the ratios within a repetition, whose cases lie seconds apart."""
        pairs = zip(self.values[case, metric], self.values[baseline, metric], strict=True)
        return median(value / other for value, other in pairs)

    async def measured(self, case: str, server: Server, ask: Ask, count: int, unanswered: int) -> Load:
        """As many calls as are answered, with what they cost the server."""
        meter = Meter(server.process.pid)
        before_s = meter.cpu_s()
        load = await closed(ask, count, unanswered)
        cpu_us = (meter.cpu_s() - before_s) / count * 1e6
        assert not load.refused, f"{case}: {load.refused}"
        self.note(case, rate=load.rate, cpu_us=cpu_us, p50_ms=load.percentile(50), p99_ms=load.percentile(99))
        return load


async def _unary(bench: Bench) -> list[Result]:
    """Unary calls beside a bare echo of the same server type, and of a server on threads."""
    servers = {
        "predict": bench.world.serving(),
        "echo": bench.world.echo("aio"),
        "echo on threads": bench.world.echo("sync"),
    }
    callers = {case: GrpcCaller(server.address) for case, server in servers.items()}
    for caller in callers.values():
        await caller.ready()
    logged = bench.world.logged()
    for repetition in range(bench.repetitions + 1):
        for case, server in servers.items():
            for unanswered, share in ((IN_FLIGHT, 1), (1, 3)):
                count = bench.calls // share
                ask = callers[case].asks("Predict", requests(bench.world.use_case, bench.run(), count))
                await bench.measured(f"{case}, {unanswered} in flight", server, ask, count, unanswered)
                bench.answered += count if case == "predict" else 0
        if repetition == 0:
            bench.forget()
    lost = bench.answered - await _logged(bench, logged + bench.answered) + logged
    for caller in callers.values():
        await caller.close()
    for server in servers.values():
        stop(server.process)
    found = [Result("predict", "answers not logged", lost, "", target=0)]
    for case in servers:
        busy, alone = f"{case}, {IN_FLIGHT} in flight", f"{case}, 1 in flight"
        found += [
            Result(busy, "calls", bench.median(busy, "rate"), "1/s"),
            Result(busy, "CPU per call", bench.median(busy, "cpu_us"), "µs"),
            Result(busy, "p50", bench.median(busy, "p50_ms"), "ms"),
            Result(busy, "p99", bench.median(busy, "p99_ms"), "ms"),
            Result(alone, "p50", bench.median(alone, "p50_ms"), "ms"),
            Result(alone, "CPU per call", bench.median(alone, "cpu_us"), "µs"),
        ]
    for unanswered in (IN_FLIGHT, 1):
        case, baseline = f"predict, {unanswered} in flight", f"echo, {unanswered} in flight"
        found += [
            Result(case, "p50 of a bare echo's", bench.ratio(case, baseline, "p50_ms"), "x", target=1.5),
            Result(case, "CPU of a bare echo's", bench.ratio(case, baseline, "cpu_us"), "x", target=1.5),
        ]
    return found


async def _logged(bench: Bench, expected: int) -> int:
    """Predictions on the topic, once as many are there as are expected, or after some seconds."""
    found = 0
    for _ in range(100):
        found = await asyncio.to_thread(bench.world.logged)
        if found >= expected:
            break
        await asyncio.sleep(0.1)
    return found


async def _peer(bench: Bench) -> list[Result]:
    """The hand-glued peer: throughput of either, then the tail of both at the same load."""
    from driftloop.featurestore.online import online_writer
    from driftloop.featurestore.store import FeatureStoreSettings, feature_store

    where, online = bench.world, FOLDER / "peer" / "online.db"
    registry = FOLDER / "peer" / "registry.db"
    store = feature_store(where.use_case, FeatureStoreSettings(registry, str(where.artifacts), online))
    online_writer(store, where.use_case).write(where.updates)
    base = free_base_port()
    ports = base, base + 1
    # Feast's server loads the offline store, too, whose libraries serving's own environment does not have.
    argv = [sys.executable, "-m", "bench.serving.peer", str(registry), str(where.artifacts), str(online)]
    processes = [where.spawn([*argv, str(ports[0])], SERVER_CORES)]
    home = {"BENTOML_HOME": str(FOLDER / "peer" / "bentoml"), "BENTOML_DO_NOT_TRACK": "true"}
    bentoml = str(SERVING / "bentoml")
    imported = where.spawn([bentoml, "import", str(where.bundle)], environment=home)
    assert imported.wait(60) == 0
    processes.append(
        where.spawn(
            [bentoml, "serve", f"driftloop-{where.use_case.name}:latest", "--port", str(ports[1])],
            SERVER_CORES,
            environment=home,
        )
    )
    await asyncio.to_thread(await_http, f"http://127.0.0.1:{ports[0]}/health")
    await asyncio.to_thread(await_http, f"http://127.0.0.1:{ports[1]}/readyz")
    glued, server = GluedClient(*ports), where.serving()
    caller = GrpcCaller(server.address)
    await caller.ready()
    shipments = [shipment(number) for number in range(bench.calls)]

    async def ask_peer(number: int) -> None:
        await glued.predict(shipments[number])

    for repetition in range(bench.repetitions + 1):
        few = max(100, bench.calls // 10)
        for case, ask, count in (
            ("glued", ask_peer, few),
            ("predict", caller.asks("Predict", requests(where.use_case, bench.run(), bench.calls)), bench.calls),
        ):
            load = await closed(ask, count, 8 if case == "glued" else IN_FLIGHT)
            bench.note(case, rate=load.rate)
        rate = bench.values["glued", "rate"][-1] / 2
        made = requests(where.use_case, bench.run(), few)
        for case, ask in (("glued", ask_peer), ("predict", caller.asks("Predict", made))):
            load = await arriving(ask, few, rate, repetition)
            bench.note(case, p50_ms=load.percentile(50), p99_ms=load.percentile(99))
        if repetition == 0:
            bench.forget()
    await glued.close()
    await caller.close()
    for process in (*processes, server.process):
        stop(process)
    peer = "Feast's feature server and BentoML over HTTP, glued by hand"
    return [
        Result("glued", "predictions", bench.median("glued", "rate"), "1/s"),
        Result("glued", "p50 at half its load", bench.median("glued", "p50_ms"), "ms"),
        Result("glued", "p99 at half its load", bench.median("glued", "p99_ms"), "ms"),
        Result("predict", "p50 at the same load", bench.median("predict", "p50_ms"), "ms"),
        Result("predict", "p99 at the same load", bench.median("predict", "p99_ms"), "ms"),
        Result(
            "predict", f"throughput of {peer}", bench.ratio("predict", "glued", "rate"), "x", target=15, at_most=False
        ),
        Result(
            "predict", "p99 of glued / ours", bench.ratio("glued", "predict", "p99_ms"), "x", target=10, at_most=False
        ),
    ]


async def _many(bench: Bench) -> list[Result]:
    """Batches and streams of 64 entities a call."""
    server = bench.world.serving()
    caller = GrpcCaller(server.address)
    await caller.ready()
    logged, count = bench.world.logged(), bench.calls * 20 // BATCH * BATCH
    meter = Meter(server.process.pid)
    for repetition in range(bench.repetitions + 1):
        for case in ("batch", "stream"):
            made = batches(bench.world.use_case, bench.run(), count, BATCH)
            before_s, answers = meter.cpu_s(), 0
            if case == "batch":
                load = await closed(caller.asks("PredictBatch", made), len(made), AHEAD)
                assert not load.refused, load.refused
                seconds, answers = load.seconds, count
            else:
                started_s = asyncio.get_running_loop().time()
                received = await caller.stream(made, AHEAD)
                seconds = asyncio.get_running_loop().time() - started_s
                answers = sum(len(PredictStreamResponse.FromString(answer).responses) for answer in received)
            assert answers == count, f"{case}: {answers} of {count}"
            bench.note(case, rate=count / seconds, cpu_us=(meter.cpu_s() - before_s) / count * 1e6)
            bench.answered += count
        if repetition == 0:
            bench.forget()
    expected = logged + 2 * count * (bench.repetitions + 1)
    lost = expected - await _logged(bench, expected)
    await caller.close()
    stop(server.process)
    found = [Result("batch and stream", "answers not logged", lost, "", target=0)]
    for case in ("batch", "stream"):
        found += [
            Result(
                f"{case} of {BATCH}", "predictions", bench.median(case, "rate"), "1/s", target=30_000, at_most=False
            ),
            Result(f"{case} of {BATCH}", "CPU per prediction", bench.median(case, "cpu_us"), "µs"),
        ]
    return found


async def _tail(bench: Bench) -> list[Result]:
    """p99 at 70 % of what is served at most, with calls that come at random; the bare echo's beside it."""
    servers = {"predict": bench.world.serving(), "echo": bench.world.echo("aio")}
    callers = {case: GrpcCaller(server.address) for case, server in servers.items()}
    for caller in callers.values():
        await caller.ready()
        made = requests(bench.world.use_case, bench.run(), bench.calls)
        await closed(caller.asks("Predict", made), bench.calls, IN_FLIGHT)  # warms up
    for repetition in range(bench.repetitions):
        for case, caller in callers.items():
            made = requests(bench.world.use_case, bench.run(), bench.calls)
            most = (await closed(caller.asks("Predict", made), bench.calls, IN_FLIGHT)).rate
            made = requests(bench.world.use_case, bench.run(), bench.calls)
            load = await arriving(caller.asks("Predict", made), bench.calls, STEADY * most, repetition)
            p50_ms, p99_ms = load.percentile(50), load.percentile(99)
            bench.note(f"tail {case}", p50_ms=p50_ms, p99_ms=p99_ms, spread=p99_ms / p50_ms)
            p50_ms, p99_ms = load.percentile_sent(50), load.percentile_sent(99)
            bench.note(f"sent {case}", p50_ms=p50_ms, p99_ms=p99_ms, spread=p99_ms / p50_ms)
    for caller in callers.values():
        await caller.close()
    for server in servers.values():
        stop(server.process)
    found = []
    for case in servers:
        name, measured = f"{case} at {STEADY:.0%} load", f"tail {case}"
        found += [
            Result(name, "p50", bench.median(measured, "p50_ms"), "ms"),
            Result(name, "p99", bench.median(measured, "p99_ms"), "ms"),
            Result(
                name, "p99 of its p50", bench.median(measured, "spread"), "x", target=5 if case == "predict" else None
            ),
            Result(name, "p50 since it was sent", bench.median(f"sent {case}", "p50_ms"), "ms"),
            Result(name, "p99 since it was sent", bench.median(f"sent {case}", "p99_ms"), "ms"),
            Result(name, "p99 of its p50 since it was sent", bench.median(f"sent {case}", "spread"), "x"),
        ]
    return found


async def _start(bench: Bench) -> list[Result]:
    """Cold starts on the whole machine, to ready with the released bundle."""
    for _ in range(bench.repetitions):
        server = await asyncio.to_thread(bench.world.serving, bench.cores)
        bench.note("start", seconds=server.start_s)
        stop(server.process)
    return [Result("cold start", "to ready with its bundle", bench.median("start", "seconds"), "s", target=5)]


async def _workers(bench: Bench) -> list[Result]:
    """One process and two on the same address, the client beside them on the same cores; each caller has its own connection."""
    count, explained = bench.calls * 8 // BATCH * BATCH, bench.calls // 10
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, bench.cores)
    servers = {
        name: await asyncio.to_thread(bench.world.serving, bench.cores, workers)
        for name, workers in (("1 worker", 1), ("2 workers", 2))
    }
    callers = {workers: GrpcCaller(server.address, connections=IN_FLIGHT) for workers, server in servers.items()}
    for caller in callers.values():
        await caller.ready()
    for repetition in range(bench.repetitions + 1):
        for workers, caller in callers.items():
            server = servers[workers]
            made = batches(bench.world.use_case, bench.run(), count, BATCH)
            await bench.measured(f"{workers}, batches", server, caller.asks("PredictBatch", made), len(made), IN_FLIGHT)
            explain = [await _to_explain(bench, caller)] * explained
            await bench.measured(f"{workers}, explain", server, caller.asks("Explain", explain), explained, EXPLAINED)
        if repetition == 0:
            bench.forget()
    for caller in callers.values():
        await caller.close()
    for server in servers.values():
        stop(server.process)
    os.sched_setaffinity(0, before)
    found = []
    for workers in servers:
        case = f"{workers}, batches"
        found += [
            Result(case, "predictions", bench.median(case, "rate") * BATCH, "1/s"),
            Result(case, "CPU per prediction", bench.median(case, "cpu_us") / BATCH, "µs"),
            Result(f"{workers}, explain", "explanations", bench.median(f"{workers}, explain", "rate"), "1/s"),
        ]
    grown = bench.ratio("2 workers, batches", "1 worker, batches", "rate")
    explaining = bench.ratio("2 workers, explain", "1 worker, explain", "rate")
    return [
        *found,
        Result("2 workers", "throughput of 1, the client on the same two cores", grown, "x", target=1.2, at_most=False),
        Result("2 workers", "explanations of 1, which cost a client next to nothing", explaining, "x"),
    ]


async def _to_explain(bench: Bench, caller: GrpcCaller) -> bytes:
    """Asks to explain what an answer rested on: any replica can, as the vector is in the request."""
    request = predict_request(bench.world.use_case, bench.run(), 0)
    request.include_vector = True
    answer = PredictResponse.FromString(await caller.answer("Predict", request.SerializeToString()))
    return ExplainRequest(use_case=NAME, model_id=answer.model_id, vector=answer.vector).SerializeToString()


async def _overload(bench: Bench) -> list[Result]:
    """Batches come at three times the rate that can be served: what is still answered in time, and how fast the rest is refused."""
    server = bench.world.serving()
    caller = GrpcCaller(server.address, connections=4)
    await caller.ready()
    count = bench.calls // 8
    for repetition in range(bench.repetitions + 1):
        made = batches(bench.world.use_case, bench.run(), count * BATCH, BATCH)
        most = (await closed(caller.asks("PredictBatch", made), count, IN_FLIGHT)).rate
        made = batches(bench.world.use_case, bench.run(), int(count * OVERLOAD) * BATCH, BATCH)
        load = await arriving(
            caller.asks("PredictBatch", made, DEADLINE_S), int(count * OVERLOAD), OVERLOAD * most, repetition
        )
        refused = load.refused.total()
        bench.note(
            "overload",
            goodput=load.rate / most,
            refused_ms=median(load.refused_ms) if load.refused_ms else 0.0,
            told=load.refused["RESOURCE_EXHAUSTED"] / max(1, refused),
            p99_ms=load.percentile(99),
        )
        if repetition == 0:
            bench.forget()
    await caller.close()
    stop(server.process)
    name = f"batches at {OVERLOAD:g}x"
    return [
        Result(name, "goodput of the peak", bench.median("overload", "goodput"), "x", target=0.8, at_most=False),
        Result(name, "p99 of what is answered", bench.median("overload", "p99_ms"), "ms"),
        Result(name, "until a refusal", bench.median("overload", "refused_ms"), "ms"),
        Result(
            name, "RESOURCE_EXHAUSTED of the refused", bench.median("overload", "told"), "", target=1, at_most=False
        ),
    ]


async def _explain(bench: Bench) -> list[Result]:
    """Explanations of single answers by their id, one after another."""
    server, count = bench.world.serving(), bench.calls // 20
    caller = GrpcCaller(server.address)
    await caller.ready()
    for repetition in range(bench.repetitions + 1):
        run = bench.run()
        await closed(caller.asks("Predict", requests(bench.world.use_case, run, count)), count, IN_FLIGHT)
        ids = [prediction_id(bench.world.use_case.name, f"p{number}", run) for number in range(count)]
        made = [ExplainRequest(use_case=NAME, prediction_id=each).SerializeToString() for each in ids]
        await bench.measured("explain", server, caller.asks("Explain", made), count, 1)
        if repetition == 0:
            bench.forget()
    await caller.close()
    stop(server.process)
    return [
        Result("explain", "p50", bench.median("explain", "p50_ms"), "ms"),
        Result("explain", "p99", bench.median("explain", "p99_ms"), "ms", target=20),
    ]


PARTS: dict[str, Callable[[Bench], Awaitable[list[Result]]]] = {
    "unary": _unary,
    "peer": _peer,
    "many": _many,
    "tail": _tail,
    "start": _start,
    "workers": _workers,
    "overload": _overload,
    "explain": _explain,
}


def main() -> None:
    """Runs the benchmark, or parts of it, and writes the results; those of other parts stay."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--calls", type=int, default=4_000, help="unary calls per case and repetition")
    parser.add_argument("--parts", nargs="*", default=list(PARTS), choices=list(PARTS))
    given = parser.parse_args()
    cores = tuple(os.sched_getaffinity(0))
    os.sched_setaffinity(0, client_cores())
    kept = ROOT / "build" / "bench" / "serving-parts.json"
    parts = json.loads(kept.read_text()) if kept.exists() else {}
    with world() as where:
        for name in given.parts:
            found = uvloop.run(PARTS[name](Bench(where, given.repetitions, given.calls, cores)))
            parts[name] = [vars(result) for result in found]
            kept.write_text(json.dumps(parts))
            print(f"{name} is done", flush=True)
    write("serving", [Result(**row) for name in PARTS for row in parts.get(name, [])], ROOT / "build" / "bench")


if __name__ == "__main__":
    main()
