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

class KeyedEvents(_message.Message):
    __slots__ = ("source_partition", "views")
    SOURCE_PARTITION_FIELD_NUMBER: _ClassVar[int]
    VIEWS_FIELD_NUMBER: _ClassVar[int]
    source_partition: int
    views: _containers.RepeatedCompositeFieldContainer[ViewEvents]
    def __init__(self, source_partition: _Optional[int] = ..., views: _Optional[_Iterable[_Union[ViewEvents, _Mapping]]] = ...) -> None: ...

class ViewEvents(_message.Message):
    __slots__ = ("view", "keys", "key", "source_offset", "event_id", "event_time_us", "known_at_us", "values", "traceparents")
    class TraceparentsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: str
        def __init__(self, key: _Optional[int] = ..., value: _Optional[str] = ...) -> None: ...
    VIEW_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    SOURCE_OFFSET_FIELD_NUMBER: _ClassVar[int]
    EVENT_ID_FIELD_NUMBER: _ClassVar[int]
    EVENT_TIME_US_FIELD_NUMBER: _ClassVar[int]
    KNOWN_AT_US_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENTS_FIELD_NUMBER: _ClassVar[int]
    view: str
    keys: _containers.RepeatedScalarFieldContainer[str]
    key: _containers.RepeatedScalarFieldContainer[int]
    source_offset: _containers.RepeatedScalarFieldContainer[int]
    event_id: _containers.RepeatedScalarFieldContainer[str]
    event_time_us: _containers.RepeatedScalarFieldContainer[int]
    known_at_us: _containers.RepeatedScalarFieldContainer[int]
    values: _containers.RepeatedCompositeFieldContainer[ValueColumn]
    traceparents: _containers.ScalarMap[int, str]
    def __init__(self, view: _Optional[str] = ..., keys: _Optional[_Iterable[str]] = ..., key: _Optional[_Iterable[int]] = ..., source_offset: _Optional[_Iterable[int]] = ..., event_id: _Optional[_Iterable[str]] = ..., event_time_us: _Optional[_Iterable[int]] = ..., known_at_us: _Optional[_Iterable[int]] = ..., values: _Optional[_Iterable[_Union[ValueColumn, _Mapping]]] = ..., traceparents: _Optional[_Mapping[int, str]] = ...) -> None: ...

class ValueColumn(_message.Message):
    __slots__ = ("numbers", "texts", "absent")
    NUMBERS_FIELD_NUMBER: _ClassVar[int]
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    ABSENT_FIELD_NUMBER: _ClassVar[int]
    numbers: _containers.RepeatedScalarFieldContainer[float]
    texts: _containers.RepeatedScalarFieldContainer[str]
    absent: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, numbers: _Optional[_Iterable[float]] = ..., texts: _Optional[_Iterable[str]] = ..., absent: _Optional[_Iterable[int]] = ...) -> None: ...

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
