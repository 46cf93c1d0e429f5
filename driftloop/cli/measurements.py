"""Measures the loop's own speeds from the append times of the records that a replay left; wall time, in seconds."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from confluent_kafka import Consumer, TopicPartition

from driftloop.cli.replay import Played
from driftloop.contracts import topics
from driftloop.contracts.features.v1.features_pb2 import TRIGGER_CLOCK, FeatureUpdate

READ_TIMEOUT_S = 30.0
BATCH_RECORDS = 10_000


def _appended(bootstrap_servers: str, use_case: str, names: Sequence[str]) -> dict[str, dict[str, tuple[float, str]]]:
    """Per topic, by message id: when the broker appended the record (seconds since the epoch) and its first cause."""
    consumer = Consumer(
        {"bootstrap.servers": bootstrap_servers, "group.id": "measurements", "enable.auto.commit": False}
    )
    found: dict[str, dict[str, tuple[float, str]]] = {name: {} for name in names}
    try:
        short = {topics()[name].kafka_name(use_case): name for name in names}
        known = consumer.list_topics(timeout=READ_TIMEOUT_S).topics
        places = [TopicPartition(name, p, 0) for name in short for p in known[name].partitions]
        ends = {(p.topic, p.partition): consumer.get_watermark_offsets(p, timeout=READ_TIMEOUT_S)[1] for p in places}
        left = {place for place, end in ends.items() if end > 0}
        consumer.assign(places)
        while left:
            records = consumer.consume(BATCH_RECORDS, READ_TIMEOUT_S)
            if not records:
                raise TimeoutError(f"no records from {sorted(left)} within {READ_TIMEOUT_S:.0f} s: is the broker up?")
            for record in records:
                headers = dict(record.headers() or ())
                message_id = (headers.get("ce_id") or b"").decode()
                if b"FeatureUpdate" in (headers.get("ce_type") or b""):
                    # What the clock moves out of a window was caused by an event of hours ago: that is no latency.
                    by_clock = FeatureUpdate.FromString(record.value()).trigger == TRIGGER_CLOCK
                    message_id = "" if by_clock else message_id
                cause = (headers.get("ce_causes") or b"").decode().partition(",")[0]
                found[short[record.topic()]].setdefault(message_id, (record.timestamp()[1] / 1000.0, cause))
                if record.offset() + 1 >= ends[(record.topic(), record.partition())]:
                    left.discard((record.topic(), record.partition()))
    finally:
        consumer.close()
    return found


def _spread(seconds: Sequence[float]) -> dict[str, float]:
    """Median and 99th percentile in milliseconds, and how many there were."""
    if not seconds:
        return {"n": 0}
    ordered = sorted(seconds)
    p99 = ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]
    return {"n": len(ordered), "p50_ms": statistics.median(ordered) * 1000, "p99_ms": p99 * 1000}


def measure(bootstrap_servers: str, use_case: str, played: Played) -> dict[str, Any]:
    """What `make bench-loop` reports: speeds of each link of the loop in this run."""
    names = ("events", "features", "scores", "drift", "decisions", "models", "releases")
    at = _appended(bootstrap_servers, use_case, names)
    told = [seen for message_id, seen in at["features"].items() if message_id]
    fresh = [when - at["events"][cause][0] for when, cause in told if cause in at["events"]]
    # A cohort is scored when the clock has passed it: what is measured is from the clock's step to the score on the topic.
    clocks = {
        mark.removeprefix("ingest@"): when for mark, (when, _) in at["events"].items() if mark.startswith("ingest@")
    }
    scored = [
        when - clocks[clock]
        for clock, when in ((m.partition("@")[2], w) for m, (w, _) in at["scores"].items() if m.startswith("matching/"))
        if clock in clocks
    ]
    judged = [
        when - clocks[mark.removeprefix("judging@")]
        for mark, (when, _) in at["releases"].items()
        if mark.startswith("judging@") and mark.removeprefix("judging@") in clocks
    ]
    first_drift = min((when for when, _ in at["drift"].values()), default=None)
    # Of those that a decision led to: answers are recalibrated as long as labels come.
    last_release = max((when for when, cause in at["releases"].values() if cause in at["decisions"]), default=None)
    return {
        "ingest_events_per_s": played.events["sent"] / played.ingest_s if played.ingest_s else None,
        "event_to_feature": _spread([max(0.0, s) for s in fresh]),
        "predict": _spread(played.predict_s),
        "clock_to_score": _spread(scored),
        "clock_to_judged": _spread(judged),
        "step": _spread(played.wait_s),
        "drift_to_last_release_s": last_release - first_drift if first_drift and last_release else None,
        "steps": played.steps,
    }
