"""Where a backtest's history comes from: a table, or the replay beside a use case's declaration; opened anew in every process."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from driftloop.tables import InferenceOptions, TableStretch, infer, read_table, use_case_of
from driftloop.usecase import ReplayStretch, UseCase, UseCaseError, load_replay, load_use_case

TABLE_SUFFIXES = (".csv", ".parquet")


@dataclass(frozen=True)
class Opened:
    """A use case and its recorded stretch; `inferred`: in sentences, what was not declared but inferred."""

    use_case: UseCase
    stretch: ReplayStretch
    inferred: tuple[str, ...] = ()


class Source(Protocol):
    """Plain values, so that another process can open the same history."""

    @property
    def name(self) -> str:
        """What a report calls it."""
        ...

    def open(self) -> Opened:
        """Reads the history. UseCaseError says what is wrong with it and what to do."""
        ...


@dataclass(frozen=True)
class TableSource:
    """A table in a file, its schema inferred."""

    path: Path
    options: InferenceOptions

    @property
    def name(self) -> str:
        """The file's name."""
        return self.path.name

    def open(self) -> Opened:
        """Reads the table and infers; TableError."""
        table = read_table(self.path)
        inferred = infer(table, self.options)
        return Opened(use_case_of(inferred), TableStretch(table, inferred), tuple(inferred.sentences()))


@dataclass(frozen=True)
class UseCaseSource:
    """A use case by name; `folders` as in DRIFTLOOP_USECASES; `options` go to its replay's `stretch`."""

    use_case: str
    folders: str = ""
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The use case's name."""
        return self.use_case

    def open(self) -> Opened:
        """Its stretch as asked for; its whole history where nothing is asked for and `history()` is there to say what that is."""
        declared, replay = load_use_case(self.use_case, self.folders), load_replay(self.use_case, self.folders)
        if not self.options and hasattr(replay, "history"):
            return Opened(declared, replay.history())
        try:
            return Opened(declared, replay.stretch(**self.options))
        except TypeError as error:
            raise UseCaseError(f"the replay of {self.use_case} takes no such option: {error}") from error


def is_table(data: str) -> bool:
    """Whether DATA names a table rather than a use case."""
    return data.endswith(TABLE_SUFFIXES) or Path(data).is_file()
