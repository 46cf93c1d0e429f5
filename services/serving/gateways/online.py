"""Looks feature entities up in Feast's online store that the in-process view has had to drop; never writes there."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from services.serving.view import Entry

_logger = logging.getLogger(__name__)


class OnlineReader(Protocol):
    """Feast's online store, as `driftloop.featurestore` reads it."""

    def read(self, view: str, keys: Sequence[str]) -> dict[str, Entry]:
        """The entries of those keys of a view that the store has."""
        ...


class OnlineLookup:
    """Reads with a deadline. One thread owns the store, which is not safe to share, and opens it at the first need.

    Feast takes ten seconds to import; while the view is complete nobody pays for it.
    """

    def __init__(self, open_reader: Callable[[], OnlineReader], lookups_max: int) -> None:
        self._open_reader = open_reader
        self._lookups_max = lookups_max
        self._thread = ThreadPoolExecutor(1, "serving-online")
        self._reader: OnlineReader | None = None
        self._waiting = 0
        self._failing = False

    def open_ahead(self) -> None:
        """Opens the store behind the work, before the first call needs it."""
        self._thread.submit(self._opened)

    async def read(self, keys: Sequence[tuple[str, str]], timeout_s: float) -> dict[str, Entry]:
        """Entries by key for pairs of view and key; what is unknown, or was not found out in time, is left out."""
        if self._waiting >= self._lookups_max:
            self._failed("too many look-ups wait for the online store")
            return {}
        loop = asyncio.get_running_loop()
        self._waiting += 1
        try:
            found = await asyncio.wait_for(loop.run_in_executor(self._thread, self._read, list(keys)), timeout_s)
        except TimeoutError:
            self._failed(f"the online store did not answer within {timeout_s:g} s")
            return {}
        except Exception as error:  # Feast and its stores raise anything; an answer from defaults says what it lacks
            self._failed(f"{type(error).__name__}: {error}")
            return {}
        finally:
            self._waiting -= 1
        if self._failing:
            self._failing = False
            _logger.info("look-ups in the online store work again")
        return found

    def close(self) -> None:
        """Lets the thread go when it has ended what it does."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _opened(self) -> OnlineReader:
        if self._reader is None:
            self._reader = self._open_reader()
        return self._reader

    def _read(self, keys: list[tuple[str, str]]) -> dict[str, Entry]:
        views: dict[str, list[str]] = {}
        for view, key in keys:
            views.setdefault(view, []).append(key)
        found: dict[str, Entry] = {}
        for view, wanted in views.items():
            found |= self._opened().read(view, wanted)
        return found

    def _failed(self, why: str) -> None:
        if not self._failing:
            self._failing = True
            _logger.warning("answers rest on defaults where the view has dropped an entity: %s", why)
