"""`make bench-ingest`: every door of ingest beside a bare producer, interleaved; writes build/bench/ingest.json.

The server under test and the bare producer have one core to themselves, in turn; broker and clients have the rest. Stopped
by Ctrl-C or SIGTERM it counts and writes what its complete repetitions found.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from confluent_kafka import Consumer, TopicPartition

from bench.ingest.doors import GrpcDoor, HttpDoor, InboxDoor, accepted
from bench.ingest.events import NAME, SPREAD, USE_CASES, batches, json_batches, json_events, requests, values
from bench.ingest.machine import SERVER_CORES, Meter, client_cores
from bench.results import Result, write
from deploy.local import LocalKafka, create_topics, free_base_port
from driftloop.contracts.cloudevents import BATCH as BATCH_JSON
from driftloop.contracts.cloudevents import STRUCTURED

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "build" / "bench" / "ingest"
EVENTS, BATCH, SINGLES = 100_000, 1_000, 8_000


@dataclass
class Measured:
    """Per repetition: events per second, and CPU microseconds of the process under test per event."""

    rates: list[float] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)


def _start(stack: ExitStack, *argv: str, pipe: bool = False, **environment: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-m", *argv],
        cwd=ROOT,
        env=os.environ | environment,
        text=True,
        stdin=subprocess.PIPE if pipe else None,
        stdout=subprocess.PIPE if pipe else None,
        preexec_fn=lambda: os.sched_setaffinity(0, SERVER_CORES),
    )

    def end() -> None:
        process.kill()
        process.wait()

    stack.callback(end)
    return process


@contextmanager
def _broker() -> Iterator[str]:
    shutil.rmtree(FOLDER, ignore_errors=True)
    with LocalKafka(FOLDER / "kafka") as kafka:
        create_topics(kafka.bootstrap_servers, NAME, 30.0, SPREAD)
        yield kafka.bootstrap_servers


class Bench:
    """The doors and the bare producer, each measured by the same rules."""

    def __init__(self, stack: ExitStack, servers: str, repetitions: int, events: int) -> None:
        self._servers = servers
        self._events = events
        self.measured: dict[str, Measured] = defaultdict(Measured)
        self.sent: Counter[str] = Counter()
        self.lost = self.doubled = 0
        self.repetitions = 0  # that are complete, the first one not counted
        base = free_base_port()
        self._address, self._http_address, self._echo_address = (f"127.0.0.1:{base + place}" for place in range(3))
        self._ingest = _start(
            stack,
            "services.ingest",
            KAFKA_BOOTSTRAP_SERVERS=servers,
            DRIFTLOOP_USE_CASE=NAME,
            DRIFTLOOP_USECASES=str(USE_CASES),
            DRIFTLOOP_ARTIFACTS_URL=str(FOLDER / "artifacts"),
            INGEST_ADDRESS=self._address,
            INGEST_HTTP_ADDRESS=self._http_address,
            INGEST_WINDOW_IDS_MAX="200000",
        )
        self._echo = _start(stack, "bench.ingest.echo", self._echo_address)
        runs = [f"{kind}{repetition}" for repetition in range(repetitions + 1) for kind in ("bare", "floor")]
        self._bare = _start(stack, "bench.ingest.bare", servers, str(events), *runs, pipe=True)

    async def open(self) -> None:
        """Waits for the servers."""
        self._door, self._echo_door = GrpcDoor(self._address), GrpcDoor(self._echo_address)
        await self._door.ready()
        await self._echo_door.ready()
        self._http_door = HttpDoor(self._http_address)
        self._inbox_door = InboxDoor(self._servers, f"{NAME}.inbox", f"{NAME}.ingest")

    async def close(self) -> None:
        """Closes the channels."""
        await self._door.close()
        await self._echo_door.close()
        await self._http_door.close()
        self._inbox_door.close()

    def bare(self, case: str, run: str) -> None:
        """The bare producer's next run."""
        assert self._bare.stdin is not None
        assert self._bare.stdout is not None
        assert self._bare.stdout.readline() == "ready\n"
        self._bare.stdin.write("go\n")
        self._bare.stdin.flush()
        seconds, cpu_s = map(float, self._bare.stdout.readline().split())
        self._note(case, self._events, seconds, cpu_s)
        self.sent[run] += self._events

    async def calls(self, case: str, run: str, method: str, unanswered: int, count: int) -> None:
        """Unary calls of ingest."""
        made = batches(run, count, BATCH) if "Batch" in method else requests(run, count)
        await self._measure(case, run, method, count, lambda: self._door.calls(method, made, unanswered), self._ingest)

    async def stream(self, case: str, run: str, method: str, unanswered: int, count: int) -> None:
        """A stream of ingest's."""
        made = batches(run, count, BATCH) if "Batch" in method else requests(run, count)
        await self._measure(case, run, method, count, lambda: self._door.stream(method, made, unanswered), self._ingest)

    async def http(self, case: str, run: str, media: str, unanswered: int, count: int) -> None:
        """CloudEvents in JSON."""
        made = json_batches(run, count, BATCH) if media == BATCH_JSON else json_events(run, count)
        await self._measure(
            case, run, "Http", count, lambda: self._http_door.calls(media, made, unanswered), self._ingest
        )

    async def inbox(self, case: str, run: str, count: int) -> None:
        """Records of the inbox, from the first that is written to the last that is settled."""
        made = values(run, count)
        meter = Meter(self._ingest.pid)
        started_s, used_s = time.perf_counter(), meter.cpu_s()
        await asyncio.to_thread(self._inbox_door.send, made)
        self._note(case, count, time.perf_counter() - started_s, meter.cpu_s() - used_s)
        self.sent[run] += count

    async def echo(self, case: str, method: str, unanswered: int, count: int) -> None:
        """The same of the bare server."""
        made = requests("echo", count)
        door = self._echo_door
        send = door.stream if method == "IngestStream" else door.calls
        await self._measure(case, "", method, count, lambda: send(method, made, unanswered), self._echo)

    async def _measure(
        self,
        case: str,
        run: str,
        method: str,
        count: int,
        send: Callable[[], Awaitable[list[bytes]]],
        server: subprocess.Popen[str],
    ) -> None:
        meter = Meter(server.pid)
        started_s, used_s = time.perf_counter(), meter.cpu_s()
        responses = await send()
        self._note(case, count, time.perf_counter() - started_s, meter.cpu_s() - used_s)
        assert accepted(method, responses) == count, case
        if run:
            self.sent[run] += count

    def _note(self, case: str, count: int, seconds: float, cpu_s: float) -> None:
        found = self.measured[case]
        found.rates.append(count / seconds)
        found.cpu_us.append(cpu_s / count * 1e6)

    def found(self) -> Counter[str]:
        """How often each id lies in the topic."""
        consumer = Consumer({"bootstrap.servers": self._servers, "group.id": "bench", "enable.auto.commit": False})
        ids: Counter[str] = Counter()
        try:
            places = [TopicPartition(f"{NAME}.events", partition, 0) for partition in range(SPREAD)]
            left = {p.partition: consumer.get_watermark_offsets(p)[1] for p in places}
            consumer.assign(places)
            while left:
                for record in consumer.consume(10_000, 1.0):
                    assert record.error() is None, record.error()
                    if not (record.key() or b"").startswith(b"~"):
                        ids[dict(record.headers() or [])["ce_id"].decode()] += 1
                    if record.offset() + 1 >= left.get(record.partition(), 0):
                        left.pop(record.partition(), None)
        finally:
            consumer.close()
        return ids


async def run(repetitions: int, events: int, singles: int, only: Sequence[str]) -> Bench:
    """All cases, one after the other, again and again; the first round warms up and does not count."""
    os.sched_setaffinity(0, client_cores())
    with ExitStack() as stack:
        bench = Bench(stack, stack.enter_context(_broker()), repetitions, events)
        await bench.open()
        cases: dict[str, Callable[[int], Awaitable[None]]] = {
            "grpc batches": lambda n: bench.calls("grpc batches", f"b{n}", "IngestBatch", 8, events),
            "grpc batch stream": lambda n: bench.stream("grpc batch stream", f"s{n}", "IngestBatchStream", 8, events),
            "http batches": lambda n: bench.http("http batches", f"h{n}", BATCH_JSON, 8, events),
            "inbox": lambda n: bench.inbox("inbox", f"i{n}", events),
            "http single": lambda n: bench.http("http single", f"p{n}", STRUCTURED, 32, singles),
            "grpc unary": lambda n: bench.calls("grpc unary", f"u{n}", "Ingest", 32, singles),
            "echo unary": lambda n: bench.echo("echo unary", "Ingest", 32, singles),
            "grpc stream": lambda n: bench.stream("grpc stream", f"e{n}", "IngestStream", 200, singles),
            "echo stream": lambda n: bench.echo("echo stream", "IngestStream", 200, singles),
        }
        chosen = {name: measure for name, measure in cases.items() if not only or name in only}
        repeating = asyncio.create_task(_repeat(bench, repetitions, chosen))
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, repeating.cancel)
        try:
            await repeating
        except asyncio.CancelledError:
            print(f"stopped after {bench.repetitions} repetitions", file=sys.stderr)
        await bench.close()
        found = bench.found()
    for name, count in bench.sent.items():
        ids = [f"{name}-{number}" for number in range(count)]
        bench.lost += sum(found[one] == 0 for one in ids)
        bench.doubled += sum(max(0, found[one] - 1) for one in ids)
    return bench


async def _repeat(bench: Bench, repetitions: int, cases: Mapping[str, Callable[[int], Awaitable[None]]]) -> None:
    for repetition in range(repetitions + 1):
        await asyncio.to_thread(bench.bare, "bare", f"bare{repetition}")
        await asyncio.to_thread(bench.bare, "bare, no reports", f"floor{repetition}")
        for measure in cases.values():
            await measure(repetition)
        if repetition == 0:
            bench.measured.clear()
            continue
        bench.repetitions = repetition
        line = ", ".join(
            f"{name} {found.rates[-1]:,.0f}/s {found.cpu_us[-1]:.1f}" for name, found in bench.measured.items()
        )
        print(f"{repetition}: {line}", flush=True)


def results(bench: Bench) -> list[Result]:
    """Medians; ratios are medians of the ratios within a repetition, whose runs lie seconds apart."""
    complete = bench.repetitions
    measured = {name: Measured(m.rates[:complete], m.cpu_us[:complete]) for name, m in bench.measured.items()}
    found = []
    for name, each in measured.items():
        found.append(Result(name, "events", median(each.rates), "1/s"))
        found.append(Result(name, "CPU per event", median(each.cpu_us), "µs"))

    def rates(case: str, baseline: str) -> float:
        return median(a / b for a, b in zip(measured[case].rates, measured[baseline].rates, strict=True))

    def cpu(case: str, baseline: str) -> float:
        return median(a / b for a, b in zip(measured[case].cpu_us, measured[baseline].cpu_us, strict=True))

    for case, target in {"grpc batches": 0.3, "grpc batch stream": 0.3, "http batches": 0.15, "inbox": 0.0}.items():
        if case in measured:
            found.append(
                Result(
                    case, "events of the bare producer's", rates(case, "bare"), "", target=target or None, at_most=False
                )
            )
            found.append(Result(case, "events of one without reports", rates(case, "bare, no reports"), ""))
            found.append(Result(case, "CPU of the bare producer's", cpu(case, "bare"), "x"))
    for case, baseline, target in (("grpc unary", "echo unary", 1.5), ("grpc stream", "echo stream", 0.0)):
        if case in measured:
            found.append(Result(case, "CPU of a bare echo's", cpu(case, baseline), "x", target=target or None))
    found.append(Result("all doors", "events lost", bench.lost, "", target=0))
    found.append(Result("all doors", "events written twice", bench.doubled, "", target=0))
    return found


def main() -> None:
    """Runs the benchmark and writes its results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--events", type=int, default=EVENTS, help="through doors that take many at once")
    parser.add_argument("--singles", type=int, default=SINGLES, help="through doors that take one at a time")
    parser.add_argument("--only", nargs="*", default=[], help="cases; all by default")
    given = parser.parse_args()
    bench = asyncio.run(run(given.repetitions, given.events, given.singles, given.only))
    if not bench.repetitions:
        sys.exit("no repetition is complete, so nothing is written: let it run longer, or ask for fewer --events")
    write("ingest", results(bench), ROOT / "build" / "bench")


if __name__ == "__main__":
    main()
