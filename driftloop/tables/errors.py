"""What can be wrong with a table, named by what its owner corrects.

TableError                the base: a sentence that says what is wrong and what to do
├── UnreadableTable       the file: it is not there, no table, or too large
├── UnknownColumn         an option names a column that the table does not have
├── UnfitRows             the rows: too few, told twice, or without any usable column
├── UnfitLabel            the label: missing, constant, infinite, or of too many classes
└── UnfitTimes            the times: unparsable, missing, unsorted, or a label before its prediction
"""

from __future__ import annotations

from driftloop.usecase import UseCaseError


class TableError(UseCaseError):
    """Something about a table must be corrected before it can become a use case."""


class UnreadableTable(TableError):
    """Give another file, or write this one as CSV or Parquet."""


class UnknownColumn(TableError):
    """Correct the option that names the column."""


class UnfitRows(TableError):
    """Correct the table's rows, or give more of them."""


class UnfitLabel(TableError):
    """Correct the label column, or the options about it."""


class UnfitTimes(TableError):
    """Correct the time columns, or the options about them."""
