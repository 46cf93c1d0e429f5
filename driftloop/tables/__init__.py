"""A user's table as a use case: read, inferred, declared, replayed.

table = read_table("orders.csv")
inferred = infer(table, InferenceOptions(label="late", time="placed_at"))
print("\\n".join(inferred.sentences()))
use_case, stretch = use_case_of(inferred), TableStretch(table, inferred)
"""

from driftloop.tables.columns import Column
from driftloop.tables.declaration import use_case_of
from driftloop.tables.errors import TableError, UnfitLabel, UnfitRows, UnfitTimes, UnknownColumn, UnreadableTable
from driftloop.tables.inference import infer
from driftloop.tables.inferred import Inferred, Note
from driftloop.tables.labels import LabelColumn
from driftloop.tables.options import InferenceOptions
from driftloop.tables.reading import Table, read_table
from driftloop.tables.replay import RowsStretch, TableStretch, folder_stretch, prepared
from driftloop.tables.settings import TableSettings

__all__ = [
    "Column",
    "InferenceOptions",
    "Inferred",
    "LabelColumn",
    "Note",
    "RowsStretch",
    "Table",
    "TableError",
    "TableSettings",
    "TableStretch",
    "UnfitLabel",
    "UnfitRows",
    "UnfitTimes",
    "UnknownColumn",
    "UnreadableTable",
    "folder_stretch",
    "infer",
    "prepared",
    "read_table",
    "use_case_of",
]
