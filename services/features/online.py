"""Writes feature values into Feast's online store behind the stream: in batches, on a thread of its own, newest value only.

Nothing is lost silently: every checkpoint holds what is not written yet, in the heart or beside it, a failed batch is tried again for ever with a
bounded pause, and after a restart all values that the heart holds are written again (the store may be a new one).
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

from driftloop.contracts import Message, decode, encode
from driftloop.messaging.hosting import Heart
from services.features.aggregation import Aggregation
from services.features.instruments import OnlineInstruments

_log = logging.getLogger(__name__)
_FIRST_RETRY_S = 0.5
_SETTLED_PER_TURN = 1_000  # values made anew between two folds: 10 ms, during which nothing is folded
_RESTORED_ROWS_MAX = 20_000  # values that wait before the first fold: the others are made behind it, it comes soon


class OnlineWriter(Protocol):
    """Feast's online store, as `driftloop.featurestore` writes it."""

    def write(self, updates: Sequence[Message[Any]]) -> int:
        """Writes what is newer than what is there; returns how many rows that were. Blocks."""
        ...


@dataclass(frozen=True)
class OnlineBounds:
    """See the settings of the same names."""

    every_s: float
    batch_rows_max: int
    rows_max: int
    retry_s_max: float


@dataclass(frozen=True)
class _Cut:
    """What is not written yet; it needs no file, the checkpoint itself holds it."""

    state: list[Any]

    def write(self) -> None:
        """See `Cut.write`: nothing to do."""

    def publish(self) -> None:
        """See `Cut.publish`: nothing to do."""


class OnlineWriteBehind:
    """A `Sink` of aggregation. `open_writer` is called on the thread, so that importing Feast keeps nobody waiting."""

    name = "online"

    def __init__(
        self, open_writer: Callable[[], OnlineWriter], bounds: OnlineBounds, measured: OnlineInstruments
    ) -> None:
        self._open_writer = open_writer
        self._bounds = bounds
        self._measured = measured
        self._lock = threading.Lock()
        self._waiting: dict[str, tuple[int, Message[Any]]] = {}
        self._owed: defaultdict[int, dict[str, None]] = defaultdict(dict)  # in the order in which they are due
        self._groups: set[int] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="features-online", daemon=True)

    def __len__(self) -> int:
        return len(self._waiting)

    def start(self) -> None:
        """Starts writing; until then values only gather."""
        self._thread.start()

    def close(self, timeout_s: float) -> None:
        """Writes one last batch if that can be done in time; what is left is in the checkpoint."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    # the sink ---------------------------------------------------------------------------------------------------------

    def restore(self, group: int, heart: Heart, state: Any) -> None:
        """See `Sink.restore`: what was waiting, and all that the heart holds."""
        with self._lock:
            self._groups.add(group)
        if state is not None:
            assert isinstance(heart, Aggregation)
            last = [decode("features", k, v, [(n, c) for n, c in headers]) for k, v, headers in state]
            self._add(group, heart, last)
            self._owed[group] = dict.fromkeys(heart.keys())
            while self._owed[group] and len(self._waiting) < min(self._bounds.rows_max, _RESTORED_ROWS_MAX):
                self._settle(group, heart)

    def take(self, group: int, heart: Heart, outputs: Sequence[Message[Any]]) -> None:
        """See `Sink.take`."""
        assert isinstance(heart, Aggregation)
        if self._owed[group] and len(self._waiting) <= self._bounds.rows_max // 2:
            self._settle(group, heart)
        self._add(group, heart, [message for message in outputs if not message.is_watermark])

    def cut(self, group: int, heart: Heart) -> _Cut:
        """See `Sink.cut`: the last values of entities that are no more; the others' are made again from the heart's own state."""
        assert isinstance(heart, Aggregation)
        with self._lock:
            waiting = [m for found, m in self._waiting.values() if found == group and m.key not in heart]
        return _Cut([[e.key, e.value, e.headers] for e in map(encode, waiting)])

    def release(self, group: int) -> None:
        """See `Sink.release`: its new owner writes it, and would be overwritten by what waits here."""
        with self._lock:
            self._owed.pop(group, None)
            self._groups.discard(group)
            self._waiting = {key: entry for key, entry in self._waiting.items() if entry[0] != group}

    def _add(self, group: int, heart: Aggregation, updates: Sequence[Message[Any]]) -> None:
        """Past the bound a value is owed, as long as the heart can make it again: nobody else has an entity's last one."""
        with self._lock:
            for message in updates:
                held = self._waiting.get(message.key)
                if held is None and len(self._waiting) >= self._bounds.rows_max and message.key in heart:
                    self._owed[group][message.key] = None
                elif held is None or message.payload.sequence >= held[1].payload.sequence:
                    self._waiting[message.key] = (group, message)

    def _settle(self, group: int, heart: Aggregation) -> None:
        """There is room for some entities whose values had to stay out, and the heart still has them."""
        owed = self._owed[group]
        due = list(islice(owed, _SETTLED_PER_TURN))
        for key in due:
            del owed[key]
        self._add(group, heart, heart.current(due))

    # the thread -------------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        writer: OnlineWriter | None = None
        pause_s, retry_s = self._bounds.every_s, _FIRST_RETRY_S
        while not self._stop.wait(pause_s):
            pause_s = self._bounds.every_s
            try:
                if writer is None:
                    writer = self._open_writer()
                while self.write_batch(writer) and not self._stop.is_set():
                    continue
            except Exception as error:  # whatever a store raises: it is tried again, and seen
                _log.warning("the online store was not written, next try in %.1f s: %r", retry_s, error)
                pause_s, retry_s = retry_s, min(retry_s * 2, self._bounds.retry_s_max)
            else:
                retry_s = _FIRST_RETRY_S
            self._observe()
        if writer is not None:
            try:
                self.write_batch(writer)
            except Exception as error:
                _log.warning("the last batch was not written, it is in the checkpoint: %r", error)

    def write_batch(self, writer: OnlineWriter) -> bool:
        """Writes a batch; True if a full one was taken. It leaves the buffer only when the store has it.

        The thread calls it; a caller that has not started the thread may.
        """
        with self._lock:
            batch = [
                entry[1] for _, entry in zip(range(self._bounds.batch_rows_max), self._waiting.values(), strict=False)
            ]
        if not batch:
            return False
        started_s = time.perf_counter()
        rows = writer.write(batch)
        self._measured.write_seconds.record(time.perf_counter() - started_s)
        self._measured.rows.add(rows)
        with self._lock:
            for message in batch:
                if (held := self._waiting.get(message.key)) is not None and held[1] is message:
                    del self._waiting[message.key]
        return len(batch) == self._bounds.batch_rows_max

    def _observe(self) -> None:
        with self._lock:
            behind = Counter(group for group, _ in self._waiting.values())
            groups = list(self._groups)
        self._measured.behind({group: behind[group] for group in groups})
