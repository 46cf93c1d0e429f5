from driftloop.contracts.event.v1 import event_pb2 as _event_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Trigger(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TRIGGER_UNSPECIFIED: _ClassVar[Trigger]
    TRIGGER_EVENT: _ClassVar[Trigger]
    TRIGGER_CLOCK: _ClassVar[Trigger]
TRIGGER_UNSPECIFIED: Trigger
TRIGGER_EVENT: Trigger
TRIGGER_CLOCK: Trigger

class KeyedEvent(_message.Message):
    __slots__ = ("view", "key", "event_id", "event_time_us", "known_at_us", "values", "source_partition", "source_offset", "ordinal")
    VIEW_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    EVENT_ID_FIELD_NUMBER: _ClassVar[int]
    EVENT_TIME_US_FIELD_NUMBER: _ClassVar[int]
    KNOWN_AT_US_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    SOURCE_PARTITION_FIELD_NUMBER: _ClassVar[int]
    SOURCE_OFFSET_FIELD_NUMBER: _ClassVar[int]
    ORDINAL_FIELD_NUMBER: _ClassVar[int]
    view: str
    key: str
    event_id: str
    event_time_us: int
    known_at_us: int
    values: _containers.RepeatedCompositeFieldContainer[_event_pb2.Value]
    source_partition: int
    source_offset: int
    ordinal: int
    def __init__(self, view: _Optional[str] = ..., key: _Optional[str] = ..., event_id: _Optional[str] = ..., event_time_us: _Optional[int] = ..., known_at_us: _Optional[int] = ..., values: _Optional[_Iterable[_Union[_event_pb2.Value, _Mapping]]] = ..., source_partition: _Optional[int] = ..., source_offset: _Optional[int] = ..., ordinal: _Optional[int] = ...) -> None: ...

class FeatureUpdate(_message.Message):
    __slots__ = ("use_case", "view", "key", "event_time_us", "known_at_us", "values", "sequence", "trigger")
    USE_CASE_FIELD_NUMBER: _ClassVar[int]
    VIEW_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    EVENT_TIME_US_FIELD_NUMBER: _ClassVar[int]
    KNOWN_AT_US_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    TRIGGER_FIELD_NUMBER: _ClassVar[int]
    use_case: str
    view: str
    key: str
    event_time_us: int
    known_at_us: int
    values: _containers.RepeatedCompositeFieldContainer[_event_pb2.Value]
    sequence: int
    trigger: Trigger
    def __init__(self, use_case: _Optional[str] = ..., view: _Optional[str] = ..., key: _Optional[str] = ..., event_time_us: _Optional[int] = ..., known_at_us: _Optional[int] = ..., values: _Optional[_Iterable[_Union[_event_pb2.Value, _Mapping]]] = ..., sequence: _Optional[int] = ..., trigger: _Optional[_Union[Trigger, str]] = ...) -> None: ...
