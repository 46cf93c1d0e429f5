"""Keeps the archive of bundles small: after every answer, what nobody will need again goes, by count and by age."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from driftloop.artifacts import ArtifactStore
from driftloop.artifacts.archive import ARCHIVE_TOPICS, remove, sorted_out
from driftloop.contracts import Record
from driftloop.messaging import Backlog, Reader
from services.trainer.recording import Recorded

_log = logging.getLogger(__name__)
_BATCH_RECORDS = 1_000


class BundleArchive:
    """A `Recorder` that removes bundles; what fails is tried again, and after the next answer.

    Older than `older_than_us` on the use case's clock, not among the newest `keep`, and named by no release, rollback or
    returning concept: see `sorted_out`. A bundle just published has no release yet, so it stays.
    """

    name = "archive"

    def __init__(
        self, store: ArtifactStore, open_reader: Callable[[], Reader], keep: int, older_than_us: int, timeout_s: float
    ) -> None:
        """`open_reader`: of the topics of the archive, from their start."""
        self._store = store
        self._open_reader = open_reader
        self._keep = keep
        self._older_than_us = older_than_us
        self._timeout_s = timeout_s

    def record(self, recorded: Recorded) -> None:
        """See `Recorder.record`."""
        told = self._told()
        releases = sorted(told["releases"], key=lambda release: release.revision)
        found = sorted_out(told["models"], releases, told["retrain"], self._keep, self._older_than_us)
        goes = [bundle for bundle in found if not bundle.why and self._store.exists(bundle.url)]
        for bundle in goes:
            remove(self._store, bundle)
        if goes:
            _log.info(
                "%d bundles that nobody needs any more are removed, %d are kept", len(goes), len(found) - len(goes)
            )

    def _told(self) -> Mapping[str, Sequence[Any]]:
        """The distinct messages of each topic, in order, up to the present ends."""
        reader = self._open_reader()
        try:
            backlog = Backlog(reader.offset_ranges())
            found: dict[str, dict[str, Any]] = {topic: {} for topic in ARCHIVE_TOPICS}
            while backlog:
                batch = reader.poll(self._timeout_s, _BATCH_RECORDS)
                if not batch:
                    raise TimeoutError(f"{backlog}: no records in {self._timeout_s:g} s")
                backlog.read(batch)
                for record in batch:
                    if isinstance(record, Record) and not record.message.is_watermark:
                        found[record.topic].setdefault(record.message.id, record.message.payload)
        finally:
            reader.close()
        return {topic: list(payloads.values()) for topic, payloads in found.items()}
