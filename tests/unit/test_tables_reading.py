"""Files that cannot be what they seem are refused with what is wrong and where, before hours or wrong values follow from them."""

from __future__ import annotations

import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from driftloop.tables.errors import UnreadableTable
from driftloop.tables.reading import read_table
from driftloop.tables.settings import TableSettings

ROWS = [f'{row},x{row},"text, {row}"' for row in range(600)]
OPENED = ['600,x,"opened', '"600,x,opened', '600,x,"two ""words""']


@pytest.mark.parametrize("opened", OPENED)
@pytest.mark.parametrize(("place", "ending"), [(600, ""), (600, "\n"), (300, "\n")])
@pytest.mark.parametrize("name", ["table.csv", "table.csv.gz"])
def test_a_quote_that_is_not_closed_is_refused_with_its_line(
    tmp_path: Path, opened: str, place: int, ending: str, name: str
) -> None:
    text = "\n".join(["a,b,c", *ROWS[:place], opened, *ROWS[place:]]) + ending
    file = tmp_path / name
    file.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    with pytest.raises(UnreadableTable, match=rf"line {place + 2}: .*quote"):
        read_table(file)


def test_quotes_that_are_meant_are_read(tmp_path: Path) -> None:
    rows = ['600,x,5" pipe', '601,x,"""said"" he"', '602,x,"two', 'lines"']
    (tmp_path / "table.csv").write_text("\n".join(["a,b,c", *ROWS, *rows, ""]))
    assert read_table(tmp_path / "table.csv").texts("c")[-3:].tolist() == ['5" pipe', '"said" he', "two\nlines"]


@pytest.mark.parametrize("name", ["table.csv", "table.csv.gz", "table.parquet"])
def test_more_columns_than_may_be_are_counted_before_anything_is_read(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    if name.endswith(".parquet"):
        pq.write_table(pa.table({f"c{number}": ["not read"] for number in range(6)}), file)
        damaged = bytearray(file.read_bytes())
        damaged[4:40] = bytes(36)
        file.write_bytes(damaged)
    else:
        text = b'"c, 0",c1,c2,c3,c4,c5\nno,such,number,of,fields\n\xff\n'
        file.write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    with pytest.raises(UnreadableTable, match=r"has 6 columns, more than 5: .*TABLES_COLUMNS_MAX"):
        read_table(file, TableSettings(columns_max=5))


def test_more_rows_than_may_be_are_counted_before_a_parquet_file_is_read(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": ["not read"] * 6}), tmp_path / "table.parquet")
    damaged = bytearray((tmp_path / "table.parquet").read_bytes())
    damaged[4:30] = bytes(26)
    (tmp_path / "table.parquet").write_bytes(damaged)
    with pytest.raises(UnreadableTable, match=r"has 6 rows, more than 5: .*TABLES_ROWS_MAX"):
        read_table(tmp_path / "table.parquet", TableSettings(rows_max=5))


@pytest.mark.parametrize("share", [0.3, 0.9, 1.0])
def test_a_parquet_file_that_breaks_off_or_is_damaged_is_refused(tmp_path: Path, share: float) -> None:
    file = tmp_path / "table.parquet"
    pq.write_table(pa.table({"a": [float(row) for row in range(5000)]}), file, compression="zstd")
    whole = file.read_bytes()
    damaged = whole[:100] + bytes(200) + whole[300:] if share == 1.0 else whole[: int(len(whole) * share)]
    file.write_bytes(damaged)
    with pytest.raises(UnreadableTable, match="is no readable Parquet file"):
        read_table(file)
