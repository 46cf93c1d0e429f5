"""The offline log as a Feast data source: one view's updates, at the times when they became known."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

import pyarrow as pa
from feast import RepoConfig, ValueType
from feast.data_source import DataSource
from feast.protos.feast.core.DataSource_pb2 import DataSource as DataSourceProto

from driftloop.featurestore.log import KEY, KNOWN_AT, updates_schema

_NUMBER, _TEXT = "number", "text"
_FEAST_TYPES = {_NUMBER: ValueType.DOUBLE, _TEXT: ValueType.STRING}


class OfflineLogSource(DataSource):  # type: ignore[misc]
    """The parts of one view that the newest manifests of a use case name, in the artifact store at `artifacts_url`."""

    def __init__(
        self,
        *,
        name: str,
        artifacts_url: str,
        use_case: str,
        view: str,
        numbers: Iterable[str],
        texts: Iterable[str],
        field_mapping: dict[str, str],
    ) -> None:
        super().__init__(name=name, timestamp_field=KNOWN_AT, field_mapping=field_mapping)
        self.artifacts_url = artifacts_url
        self.use_case = use_case
        self.view = view
        self.columns = dict.fromkeys(numbers, _NUMBER) | dict.fromkeys(texts, _TEXT)

    def __hash__(self) -> int:
        return super().__hash__()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, OfflineLogSource) and super().__eq__(other) and self._options() == other._options()

    def _options(self) -> dict[str, Any]:
        return {
            "artifacts_url": self.artifacts_url,
            "use_case": self.use_case,
            "view": self.view,
            "columns": self.columns,
        }

    def schema(self) -> pa.Schema:
        """Columns of the view's parts."""
        return updates_schema({name: kind == _NUMBER for name, kind in self.columns.items()})

    def source_type(self) -> DataSourceProto.SourceType.ValueType:
        return DataSourceProto.CUSTOM_SOURCE

    @staticmethod
    def from_proto(data_source: DataSourceProto) -> OfflineLogSource:
        options = json.loads(data_source.custom_options.configuration)
        columns = options["columns"]
        return OfflineLogSource(
            name=data_source.name,
            artifacts_url=options["artifacts_url"],
            use_case=options["use_case"],
            view=options["view"],
            numbers=[column for column, kind in columns.items() if kind == _NUMBER],
            texts=[column for column, kind in columns.items() if kind == _TEXT],
            field_mapping=dict(data_source.field_mapping),
        )

    def _to_proto_impl(self) -> DataSourceProto:
        return DataSourceProto(
            name=self.name,
            type=DataSourceProto.CUSTOM_SOURCE,
            data_source_class_type="driftloop.featurestore.source.OfflineLogSource",
            field_mapping=self.field_mapping,
            timestamp_field=self.timestamp_field,
            custom_options=DataSourceProto.CustomSourceOptions(configuration=json.dumps(self._options()).encode()),
        )

    def validate(self, config: RepoConfig) -> None:
        """Nothing to check: a log that has no parts yet is an empty one."""

    @staticmethod
    def source_datatype_to_feast_value_type() -> Callable[[str], ValueType]:
        return _FEAST_TYPES.__getitem__

    def get_table_column_names_and_types(self, config: RepoConfig) -> Iterable[tuple[str, str]]:
        return [(KEY, _TEXT), *self.columns.items()]

    def get_table_query_string(self) -> str:
        return f"{self.use_case}/offline/features/{self.view}"
