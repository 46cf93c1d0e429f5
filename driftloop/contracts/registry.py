"""The registry of topics, read from proto/topics/*.yaml: who writes what for whom, and how long it is kept."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from importlib.resources import files
from typing import Any

import yaml
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.message import Message as Payload
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from driftloop.contracts.errors import TopicFileError

MAX_RECORD_BYTES = 1_048_576


class Topic(BaseModel):
    """One topic. `partitions` None: as many as the use case's entities are spread over."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    description: str
    message: str
    key: str
    partitions: int | None = None
    compacted: bool = False
    retention_ms: int = Field(gt=0)
    producers: tuple[str, ...] = Field(min_length=1)
    consumers: tuple[str, ...] = Field(min_length=1)
    dead_letter: bool
    example: Mapping[str, Any]

    def kafka_name(self, use_case: str) -> str:
        """The topic's name on the broker."""
        return f"{use_case}.{self.name}"

    def partition_count(self, spread: int) -> int:
        """Partitions on a deployment that spreads entities over `spread` partitions."""
        return self.partitions if self.partitions is not None else spread

    @property
    def payload_class(self) -> type[Payload]:
        """The generated class of the topic's message."""
        return payload_class(self.message)


@cache
def payload_class(full_name: str) -> type[Payload]:
    """The generated class of a message by its full proto name; TopicFileError if there is none."""
    area, _, rest = full_name.removeprefix("driftloop.").partition(".")
    version = rest.partition(".")[0]
    try:
        import_module(f"driftloop.contracts.{area}.{version}.{area}_pb2")
        return message_factory.GetMessageClass(descriptor_pool.Default().FindMessageTypeByName(full_name))
    except (ImportError, KeyError) as error:
        raise TopicFileError(f"no message {full_name}: run `make contracts` or correct the topic's file") from error


@cache
def topics() -> Mapping[str, Topic]:
    """Every topic by its short name; TopicFileError names the file that is wrong."""
    found: dict[str, Topic] = {}
    for path in sorted(files("driftloop.contracts").joinpath("topics").iterdir(), key=lambda p: p.name):
        if not path.name.endswith(".yaml"):
            continue
        try:
            topic = Topic.model_validate(yaml.safe_load(path.read_text()))
        except (ValidationError, yaml.YAMLError) as error:
            raise TopicFileError(f"{path.name}: {error}") from error
        if f"{topic.name}.yaml" != path.name:
            raise TopicFileError(f"{path.name} declares topic {topic.name}: the file is named after the topic")
        found[topic.name] = topic
    return found
