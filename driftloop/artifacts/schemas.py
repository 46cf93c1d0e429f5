"""The history of a use case's schemas in the artifact store: one file for each version, never rewritten."""

from __future__ import annotations

from google.protobuf import json_format

from driftloop.artifacts.errors import SchemaRefused
from driftloop.artifacts.store import ArtifactStore
from driftloop.contracts.evolution import Verdict, judge
from driftloop.contracts.ingest.v1.ingest_pb2 import Schema
from driftloop.contracts.schemas import schema_of
from driftloop.usecase import UseCase

# Hundreds of events of hundreds of fields.
_SCHEMA_BYTES_MAX = 16 << 20


class SchemaHistory:
    """The schemas that a use case has had, in `<use_case>/schemas/<version>.json`."""

    def __init__(self, store: ArtifactStore, use_case: str) -> None:
        self._store = store
        self._folder = f"{use_case}/schemas"

    def stored(self) -> list[Schema]:
        """All versions, oldest first."""
        found = []
        for path in self._store.list(self._folder):
            found.append(json_format.Parse(self._store.get(path, _SCHEMA_BYTES_MAX), Schema()))
        return sorted(found, key=lambda schema: schema.version)

    def judged(self, use_case: UseCase) -> Verdict:
        """What would become of the schema as it is declared now."""
        return judge(self.stored(), schema_of(use_case))

    def accept(self, use_case: UseCase) -> Verdict:
        """Stores the declared schema if it may follow; SchemaRefused, with all that breaks, if not."""
        verdict = self.judged(use_case)
        if verdict.refused:
            raise SchemaRefused(use_case.name, verdict.refused)
        if verdict.is_new:
            self.put(schema_of(use_case))
        return verdict

    def put(self, schema: Schema) -> None:
        """Stores a schema under its version, whatever it breaks."""
        text = json_format.MessageToJson(schema, preserving_proto_field_name=True)
        self._store.put(f"{self._folder}/{schema.version:06d}.json", text.encode())
