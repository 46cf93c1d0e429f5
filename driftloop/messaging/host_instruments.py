"""What every host of hearts measures; a service adds what it alone can tell."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from driftloop.contracts import Message, Record
from driftloop.messaging.hosting import Heart
from driftloop.messaging.interfaces import TopicPartition
from driftloop.telemetry import Instruments

_CLOCK_EVERY_S = 1.0  # gauges are read every few seconds: setting them for every batch would only cost


class HostInstruments:
    """A `Watcher` of one stage, recording the metrics that all stages share."""

    def __init__(self, declared: Instruments, stage: str) -> None:
        self._stage = {"stage": stage}
        self._records = declared.counter("records_folded")
        self._fold_seconds = declared.histogram("fold_seconds")
        self._clock = declared.gauge("clock_seconds")
        self._checkpoints = declared.counter("checkpoints")
        self._checkpoint_seconds = declared.histogram("checkpoint_seconds")
        self._dead_letters = declared.counter("dead_letters")
        self._lag = declared.gauge("lag_records")
        self._delay = declared.gauge("event_delay_seconds")
        self._queue = declared.gauge("producer_queue_messages")
        self._duplicates = declared.counter("duplicates")
        self._repeated: dict[int, int] = {}
        self._gauged_at_s: dict[int, float] = {}

    def folded(
        self, group: int, heart: Heart, records: Sequence[Record], outputs: Sequence[Message[Any]], seconds: float
    ) -> None:
        """See `Watcher.folded`."""
        self._records.add(len(records), self._stage)
        self._fold_seconds.record(seconds, self._stage)
        now_s = time.monotonic()
        if now_s - self._gauged_at_s.get(group, 0.0) >= _CLOCK_EVERY_S:
            self._gauged_at_s[group] = now_s
            self.gauged(group, heart)
            newest = next((r.message for r in reversed(records) if not r.message.is_watermark), None)
            if newest is not None:
                self._delay.set(max(0, newest.known_at_us - newest.time_us) / 1e6, self._stage)

    def gauged(self, group: int, heart: Heart) -> None:
        """Called about once a second per group while records come; a service sets its own gauges here too."""
        if heart.clock_us >= 0:
            self._clock.set(heart.clock_us / 1e6, self._stage)

    def repeated(self, group: int, total: int) -> None:
        """Takes the number of duplicates that a heart has dropped since it was new."""
        before = self._repeated.get(group, total)
        self._repeated[group] = total
        if total > before:
            self._duplicates.add(total - before, self._stage)

    def checkpointed(self, group: int, heart: Heart, seconds: float) -> None:
        """See `Watcher.checkpointed`."""
        self._checkpoints.add(1, self._stage)
        self._checkpoint_seconds.record(seconds, self._stage)

    def dead_lettered(self, rule: str) -> None:
        """See `Watcher.dead_lettered`."""
        self._dead_letters.add(1, {"rule": rule})

    def waiting(self, lag: Mapping[TopicPartition, int], queued: int) -> None:
        """Takes the records that wait to be folded, and the messages that wait for the broker."""
        for (topic, partition), records in lag.items():
            self._lag.set(records, {"topic": topic, "partition": str(partition)})
        self._queue.set(queued)
