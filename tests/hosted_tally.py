"""A process that hosts the tests' heart behind Faust: `python -m tests.hosted_tally <bootstrap> <use case> <folder> <replica>`."""

from __future__ import annotations

import asyncio
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from driftloop.artifacts import ArtifactStore
from driftloop.artifacts.checkpoints import CheckpointStore
from driftloop.contracts import Record
from driftloop.messaging import KafkaProducer, KafkaSettings, Malformed, await_topics
from driftloop.messaging.faust_worker import Stage, WorkerSettings, end_process, run_stages
from driftloop.messaging.heart_host import HeartHost
from driftloop.messaging.hosting import HostSettings
from tests.hearts import FileSink, Tally


async def main(bootstrap_servers: str, use_case: str, folder: Path, replica: str) -> None:
    """Runs until SIGTERM; prints READY once partitions are assigned and restored."""
    spread = await_topics(bootstrap_servers, use_case, ["events", "features"], 20)["events"]
    producer = KafkaProducer(bootstrap_servers, use_case, f"tally-{replica}")
    host = HeartHost(
        "tally",
        ["events"],
        Tally,
        producer,
        CheckpointStore(ArtifactStore(folder / "store"), use_case),
        use_case=use_case,
        service="features",
        spread=spread,
        sinks=[FileSink(folder / "sink")],
        settings=HostSettings(checkpoint_records=400, checkpoint_s=0.3, fold_records_max=100, checkpoint_load_max=0.5),
    )

    async def events(partition: int, records: Sequence[Record | Malformed]) -> None:
        if any(isinstance(record, Record) and record.message.key == "hang" for record in records):
            await asyncio.Event().wait()
        await host.deliver(("events", partition), records)

    stage = Stage(
        host,
        {"events": events},
        use_case=use_case,
        group=f"{use_case}-tally",
        instance_id=f"tally-{replica}",
        bootstrap_servers=bootstrap_servers,
        kafka=KafkaSettings(session_timeout_s=6),
        settings=WorkerSettings(start_timeout_s=60, stall_timeout_s=4, watch_every_s=0.5),
    )
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)

    async def ready() -> None:
        sys.stdout.write("READY\n")
        sys.stdout.flush()

    await run_stages([stage], ready, stop, stop_timeout_s=8)
    producer.close(5)


if __name__ == "__main__":
    code = 0
    try:
        asyncio.run(main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), sys.argv[4]))
    except Exception:
        traceback.print_exc()
        code = 1
    end_process(code)
