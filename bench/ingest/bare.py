"""The bare confluent-kafka producer that ingest is held against: records made before, nothing but produce.

`python -m bench.ingest.bare BOOTSTRAP COUNT RUN…`: for each run it waits for a line, produces the run's records, and prints
seconds and CPU seconds. Runs are in pairs. The first asks for a delivery report of each record, without which nobody could
acknowledge anything: the baseline. The second does not even know what was delivered: the floor.
"""

from __future__ import annotations

import resource
import sys
import time

from confluent_kafka import Producer

from bench.ingest.events import NAME, records
from driftloop.messaging import KafkaSettings

# What suits a producer that is always busy.
_LINGER_MS = 1.0


def main() -> None:
    """Serves one run per line of input."""
    servers, count, *runs = sys.argv[1:]
    producer = Producer(
        KafkaSettings().client_config(servers, "bare")
        | {
            "acks": "all",
            "enable.idempotence": True,
            "compression.type": "lz4",
            "partitioner": "murmur2_random",
            "linger.ms": _LINGER_MS,
            "queue.buffering.max.messages": KafkaSettings().queue_messages_max,
            "queue.buffering.max.kbytes": KafkaSettings().queue_kbytes_max,
        }
    )
    topic, produce = f"{NAME}.events", producer.produce
    producer.list_topics(topic, timeout=10)
    for place, run in enumerate(runs):
        made = list(records(run, int(count)))
        print("ready", flush=True)
        sys.stdin.readline()
        started_s, used_s = time.perf_counter(), _cpu_s()
        delivered = 0

        def report(error: object, record: object) -> None:
            nonlocal delivered
            delivered += error is None

        for number, (key, value, headers) in enumerate(made):
            while True:
                try:
                    if place % 2:
                        produce(topic, value, key, -1, None, None, 0, headers)
                    else:
                        produce(topic, value, key, on_delivery=report, headers=headers)
                    break
                except BufferError:
                    producer.poll(0.01)
            if number % 1_000 == 0:
                producer.poll(0)
        assert producer.flush(60) == 0
        assert delivered == (0 if place % 2 else len(made))
        print(time.perf_counter() - started_s, _cpu_s() - used_s, flush=True)


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
