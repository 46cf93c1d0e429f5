"""Feast's online store in a process of its own: a thousand rows keep an interpreter busy for a tenth of a second.

In the service's own process that tenth was taken from folding, row by row, every second. Here it has its interpreter, and a
priority below the service's. What is sent is length, then msgpack: there the id and payload of each update, back the number of
rows written or what the store said. The process ends when its input does: with the service, however that ends.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import IO, Any

import msgpack

from driftloop.contracts import Message
from driftloop.contracts.features.v1.features_pb2 import FeatureUpdate
from driftloop.telemetry import setup_logging
from driftloop.usecase import load_use_case
from services.features.errors import OnlineStoreFailed
from services.features.settings import FeaturesSettings

_LENGTH_BYTES = 4
_NICENESS = 10  # a store that is a second behind waits for a core before an event does


class OnlineProcess:
    """An `OnlineWriter` whose process is started by the first write, and again by the next one if it has died.

    It reads its settings from the environment, as this process does. One thread at a time.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def write(self, updates: Sequence[Message[Any]]) -> int:
        """See `OnlineWriter.write`; OnlineStoreFailed if the store refuses, or the process has died: try again."""
        if self._process is None or self._process.poll() is not None:
            argv = [sys.executable, "-m", __name__]
            self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        asked, answers = self._process.stdin, self._process.stdout
        assert asked is not None
        assert answers is not None
        try:
            _put(asked, [[message.id, message.payload.SerializeToString()] for message in updates])
            answer = _get(answers)
        except OSError as error:
            raise OnlineStoreFailed(f"the process that writes the online store has died: {error}") from error
        if answer is None:
            raise OnlineStoreFailed("the process that writes the online store has died")
        if isinstance(answer, str):
            raise OnlineStoreFailed(answer)
        return int(answer)


def _put(pipe: IO[bytes], content: Any) -> None:
    packed = msgpack.packb(content)
    pipe.write(len(packed).to_bytes(_LENGTH_BYTES) + packed)
    pipe.flush()


def _get(pipe: IO[bytes]) -> Any:
    """What the other side put; None at the end."""
    length = pipe.read(_LENGTH_BYTES)
    packed = pipe.read(int.from_bytes(length)) if len(length) == _LENGTH_BYTES else b""
    return msgpack.unpackb(packed) if packed else None


def _updates(content: list[tuple[str, bytes]]) -> list[Message[FeatureUpdate]]:
    found = []
    for update_id, packed in content:
        update = FeatureUpdate.FromString(packed)
        times_us = update.event_time_us, update.known_at_us
        found.append(Message("features", update.key, update, update_id, "driftloop/features", *times_us))
    return found


def serve(asked: IO[bytes], answers: IO[bytes], settings: FeaturesSettings) -> None:
    """Writes what is asked for until there is no more; a store that cannot be opened is tried again with the next batch."""
    from driftloop.featurestore.online import online_writer
    from driftloop.featurestore.store import FeatureStoreSettings, feature_store

    logging.getLogger("feast").setLevel(logging.WARNING)  # it tells of every look into its registry
    use_case = load_use_case(settings.use_case, settings.usecases)
    folder = settings.state_dir / "feast"
    writer = None
    while (content := _get(asked)) is not None:
        try:
            if writer is None:
                store = feature_store(
                    use_case,
                    FeatureStoreSettings(
                        registry_path=folder / f"registry-features-{settings.replica}.db",
                        artifacts_url=settings.artifacts_url,
                        online_sqlite=folder / "online.db",
                        online_redis=settings.online_redis,
                    ),
                )
                writer = online_writer(store, use_case)
            answer: int | str = writer.write(_updates(content))
        except Exception as error:  # whatever a store raises: the service tries again, and says so
            answer = repr(error)
        _put(answers, answer)


def main() -> None:
    """The process: what libraries print goes to its errors, and signals are the service's business."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    os.nice(_NICENESS)
    settings = FeaturesSettings()
    setup_logging("features", settings.log_level)
    try:
        with os.fdopen(os.dup(1), "wb") as answers:
            os.dup2(2, 1)
            serve(sys.stdin.buffer, answers, settings)
    # The service has gone and waits for no answer: what it had not checkpointed it writes again.
    except BrokenPipeError:
        return


if __name__ == "__main__":
    main()
