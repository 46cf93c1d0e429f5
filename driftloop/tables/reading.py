"""Reads a CSV or Parquet file into typed columns; decides what is missing, never what a column is for."""

from __future__ import annotations

import codecs
import csv
import re
from dataclasses import dataclass
from io import TextIOWrapper
from itertools import chain
from pathlib import Path
from typing import Any, Literal, TextIO

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from driftloop.tables.errors import UnreadableTable
from driftloop.tables.settings import TableSettings

ColumnKind = Literal["number", "flag", "text", "time", "empty", "other"]
Numbers = npt.NDArray[np.float64]
Texts = npt.NDArray[Any]
Times = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

PARQUET_MAGIC = b"PAR1"
CSV_SUFFIXES = (".csv", ".tsv", ".txt", ".csv.gz", ".tsv.gz", ".csv.zst")
# What people write for "no value". Not "None": it is a category in many tables.
MISSING_WORDS = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "?")
# Not BOOLEAN: it would make "true" of "yes", and what a table calls its classes is what people know them by.
CSV_TYPES = ("NULL", "BIGINT", "DOUBLE", "DATE", "TIMESTAMP", "TIMESTAMP WITH TIME ZONE", "VARCHAR")
CSV_ERROR_LINES = 4  # which line, what it holds, what was expected
DELIMITERS = ",;\t|"
QUOTE = '"'
REGULAR_ROWS = "give one header line, and as many fields in every row as in the header"
UTC_US = pa.timestamp("us", tz="UTC")


@dataclass(frozen=True)
class Table:
    """A table in memory. `source`: its file's name, for people; `arrow`: columns of float64, int64, bool, string or time.

    Texts are trimmed, and words that mean "no value" are missing. Times are microseconds UTC; one without a zone was
    taken for UTC.
    """

    source: str
    arrow: pa.Table

    @property
    def rows(self) -> int:
        """Number of rows."""
        return int(self.arrow.num_rows)

    @property
    def names(self) -> tuple[str, ...]:
        """Column names in the file's order."""
        return tuple(self.arrow.column_names)

    def kind(self, name: str) -> ColumnKind:
        """What the column holds; `empty` where no row has a value."""
        column = self.arrow.column(name)
        if column.null_count == len(column):
            return "empty"
        return kind_of(column.type)

    def is_integral(self, name: str) -> bool:
        """Whether every number of the column is whole: integers, also where missing values have made them floats."""
        if pa.types.is_integer(self.arrow.schema.field(name).type):
            return True
        numbers = self.numbers(name)
        present = numbers[np.isfinite(numbers)]
        return bool(len(present)) and bool(np.all(present == np.floor(present)))

    def missing(self, name: str) -> Mask:
        """Where the column has no value, shape (rows,)."""
        return np.asarray(pc.is_null(self.arrow.column(name)).to_numpy(zero_copy_only=False), dtype=bool)

    def numbers(self, name: str) -> Numbers:
        """A column of numbers or flags, shape (rows,), NaN where missing."""
        return numbers_of(self.arrow.column(name))

    def texts(self, name: str) -> Texts:
        """Any column as texts, shape (rows,), None where missing; whole numbers without a point."""
        return np.asarray(texts_of(self.arrow.column(name)).to_numpy(zero_copy_only=False), dtype=object)

    def distinct(self, name: str) -> int:
        """How many different values the column has, missing ones not counted."""
        return int(pc.count_distinct(self.arrow.column(name), mode="only_valid").as_py())


def read_table(path: Path | str, settings: TableSettings | None = None) -> Table:
    """The table in a CSV (any common delimiter, with a header, gzip too) or Parquet file, rows in the file's order.

    Raises UnreadableTable if there is no such file, it is no such table, or it is larger than the settings allow.
    """
    path, settings = Path(path).expanduser(), settings or TableSettings()
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise UnreadableTable(f"{path} {what}: give the path of a CSV or Parquet file")
    size = path.stat().st_size
    if size == 0:
        raise UnreadableTable(f"{path} is empty: give a CSV or Parquet file with rows in it")
    if size > settings.file_bytes_max:
        raise UnreadableTable(
            f"{path} has {size:,} bytes, more than {settings.file_bytes_max:,}: give fewer rows or columns, "
            "or raise TABLES_FILE_BYTES_MAX"
        )
    with path.open("rb") as file:
        is_parquet = file.read(len(PARQUET_MAGIC)) == PARQUET_MAGIC
    if not is_parquet and not path.name.lower().endswith(CSV_SUFFIXES):
        raise UnreadableTable(f"{path} is neither Parquet nor named as CSV ({', '.join(CSV_SUFFIXES)}): convert it")
    if not is_parquet:  # thousands of columns would be looked at for minutes first
        _bounded(path, 0, _header_fields(path), settings)
    arrow = _read_parquet(path, settings) if is_parquet else _read_csv(path)
    _bounded(path, arrow.num_rows, arrow.num_columns, settings)
    return Table(path.name, pa.table({name: _typed(arrow.column(name)) for name in arrow.column_names}))


def _bounded(path: Path, rows: int, columns: int, settings: TableSettings) -> None:
    if rows > settings.rows_max:
        raise UnreadableTable(
            f"{path} has {rows:,} rows, more than {settings.rows_max:,}: give a stretch of it, or raise TABLES_ROWS_MAX"
        )
    if columns > settings.columns_max:
        raise UnreadableTable(
            f"{path} has {columns:,} columns, more than {settings.columns_max:,}: leave out what is not needed, "
            "or raise TABLES_COLUMNS_MAX"
        )


def kind_of(kind: pa.DataType) -> ColumnKind:
    """What an Arrow type holds."""
    if pa.types.is_boolean(kind):
        return "flag"
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return "number"
    if pa.types.is_string(kind):
        return "text"
    if pa.types.is_timestamp(kind):
        return "time"
    return "other"


def numbers_of(column: pa.ChunkedArray) -> Numbers:
    """Numbers or flags as float64, NaN where missing."""
    column = pc.cast(column, pa.float64()) if not pa.types.is_boolean(column.type) else _flags_as_numbers(column)
    return np.asarray(pc.fill_null(column, float("nan")).to_numpy(zero_copy_only=False), dtype=np.float64)


def texts_of(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Any column as texts; whole numbers without a point, so that 3.0 and 3 are one category."""
    if pa.types.is_floating(column.type):
        whole = pc.all(pc.equal(column, pc.floor(column))).as_py() is not False
        column = pc.cast(column, pa.int64()) if whole else column
    return pc.cast(column, pa.string())


def _flags_as_numbers(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.cast(pc.cast(column, pa.int8()), pa.float64())


def _read_parquet(path: Path, settings: TableSettings) -> pa.Table:
    try:
        with pq.ParquetFile(path) as file:
            _bounded(path, file.metadata.num_rows, len(file.schema_arrow), settings)
            return file.read()
    except (pa.ArrowException, OSError) as error:
        raise UnreadableTable(f"{path} is no readable Parquet file: {_lines(error, 1)}") from error


def _read_csv(path: Path) -> pa.Table:
    # The whole file is looked at for types: a column that is whole numbers for 20,000 rows may end in a text.
    query = "SELECT * FROM read_csv(?, sample_size = -1, nullstr = ?, header = true, auto_type_candidates = ?)"
    try:
        with duckdb.connect(config={"autoinstall_known_extensions": "false", "threads": "2"}) as connection:
            arrow = connection.sql(
                query, params=[_literal(path), list(MISSING_WORDS), list(CSV_TYPES)]
            ).to_arrow_table()
    except duckdb.Error as error:
        lines = f"{path} cannot be read as CSV: {_lines(error, CSV_ERROR_LINES)}; {REGULAR_ROWS}"
        raise UnreadableTable(_not_utf8(path) or _unclosed(path) or lines) from error
    if wrong := _misread(path, arrow):
        raise UnreadableTable(wrong)
    return arrow


def _misread(path: Path, arrow: pa.Table) -> str:
    """What is wrong with a file that DuckDB takes without a word; "" if nothing is."""
    falls, only = "", arrow.column_names[0]
    # It takes what falls into no columns for one, and leaves out all rows above the last that differs from the others.
    if irregular := _irregular(path, arrow.num_columns):
        falls = f"{path} falls into no columns: {irregular}; {REGULAR_ROWS}"
    elif arrow.num_columns == 1 and any(delimiter in only for delimiter in DELIMITERS):
        falls = f"{path} falls into no columns (its header is {only!r}): {REGULAR_ROWS}"
    # It takes a field whose quote is not closed for a text that begins with one, as some are meant to.
    return (_unclosed(path) or falls) if falls or _begins_with_quote(arrow) else ""


def _irregular(path: Path, columns: int) -> str:
    """Where the rows of a file differ from its header, if that has not as many columns; "" where they do not."""
    if path.suffix in (".gz", ".zst"):
        return ""
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        header = file.readline()
        if columns > 1 and columns in {header.count(delimiter) + 1 for delimiter in DELIMITERS}:
            return ""
        file.seek(0)
        rows = csv.reader(file, delimiter=_delimiter(header))
        try:
            fields = len(next(rows))
            if fields in (1, columns):
                return ""
            for row in rows:
                if row and len(row) != fields:
                    return f"line {rows.line_num:,} has {len(row):,} fields, the header {fields:,}"
        except csv.Error as error:
            return f"line {rows.line_num:,}: {error}"
    return ""


def _header_fields(path: Path) -> int:
    """How many fields the first line of a file has."""
    try:
        with _opened(path) as file:
            header = file.readline()
            return len(next(csv.reader([header], delimiter=_delimiter(header))))
    except (OSError, pa.ArrowException, csv.Error):  # the reader of the whole file says what is wrong
        return 0


def _begins_with_quote(arrow: pa.Table) -> bool:
    texts = [column for column in arrow.columns if pa.types.is_string(column.type)]
    return any(name.startswith(QUOTE) for name in arrow.column_names) or any(
        pc.any(pc.starts_with(column, QUOTE)).as_py() for column in texts
    )


def _unclosed(path: Path) -> str:
    """Where a field of a file begins with a quote and does not end with one; "" where none does, or it cannot be unpacked."""
    begins = 1
    try:
        with _opened(path) as file:
            header = file.readline()
            rows = csv.reader(chain([header], file), delimiter=_delimiter(header), strict=True)
            for _ in rows:
                begins = rows.line_num + 1
    except OSError:
        return ""
    except csv.Error:
        return f"{path} cannot be read as CSV: line {begins:,}: a field begins with a quote and does not end with one; close it, or double it within"
    return ""


def _opened(path: Path) -> TextIO:
    return TextIOWrapper(pa.input_stream(str(path), compression="detect"), "utf-8-sig", errors="replace", newline="")


def _delimiter(header: str) -> str:
    return max(DELIMITERS, key=header.count)


def _literal(path: Path) -> str:
    """The path with what DuckDB would take for a pattern of file names escaped."""
    return re.sub(r"([*?\[])", r"[\1]", str(path))


def _lines(error: BaseException, most: int) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return ", ".join(lines[:most]) or type(error).__name__


def _not_utf8(path: Path) -> str:
    """What is wrong with the encoding of a file that is not compressed; "" if nothing is."""
    if path.suffix in (".gz", ".zst"):
        return ""
    decoder = codecs.getincrementaldecoder("utf-8")()
    line = 1
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            try:
                decoder.decode(chunk)
            except UnicodeDecodeError as error:
                line += error.object[: error.start].count(b"\n")
                return f"{path} is not written in UTF-8 (line {line:,}): save it as UTF-8"
            line += chunk.count(b"\n")
    return ""


def _flags(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """Texts that are all "true" or "false" as flags; others as they are."""
    lowered = pc.utf8_lower(texts)
    present = pc.drop_null(lowered)
    words = len(present) and pc.all(pc.is_in(present, value_set=pa.array(["true", "false"]))).as_py()
    return pc.equal(lowered, "true") if words else texts


def _typed(column: pa.ChunkedArray) -> pa.ChunkedArray:
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = pc.cast(column, kind.value_type)
        kind = column.type
    if pa.types.is_null(kind):
        return pc.cast(column, pa.string())
    if pa.types.is_decimal(kind) or pa.types.is_floating(kind):
        numbers = pc.cast(column, pa.float64())
        return pc.if_else(pc.is_nan(numbers), pa.scalar(None, pa.float64()), numbers)
    if pa.types.is_unsigned_integer(kind) and kind.bit_width == 64:
        return pc.cast(column, pa.float64())
    if pa.types.is_integer(kind):
        return pc.cast(column, pa.int64())
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        texts = pc.utf8_trim_whitespace(pc.cast(column, pa.string()))
        missing = pc.is_in(texts, value_set=pa.array(MISSING_WORDS))
        return _flags(pc.if_else(missing, pa.scalar(None, pa.string()), texts))
    if pa.types.is_date(kind):
        return pc.assume_timezone(pc.cast(column, pa.timestamp("us")), "UTC")
    if pa.types.is_timestamp(kind):
        micros = pc.cast(column, pa.timestamp("us", tz=kind.tz), safe=False)
        return pc.cast(micros, UTC_US) if kind.tz else pc.assume_timezone(micros, "UTC")
    return column
