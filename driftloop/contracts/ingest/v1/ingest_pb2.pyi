from driftloop.contracts.event.v1 import event_pb2 as _event_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Outcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OUTCOME_UNSPECIFIED: _ClassVar[Outcome]
    OUTCOME_ACCEPTED: _ClassVar[Outcome]
    OUTCOME_DUPLICATE: _ClassVar[Outcome]
    OUTCOME_REJECTED: _ClassVar[Outcome]
OUTCOME_UNSPECIFIED: Outcome
OUTCOME_ACCEPTED: Outcome
OUTCOME_DUPLICATE: Outcome
OUTCOME_REJECTED: Outcome

class Violation(_message.Message):
    __slots__ = ("field", "rule", "description")
    FIELD_FIELD_NUMBER: _ClassVar[int]
    RULE_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    field: str
    rule: str
    description: str
    def __init__(self, field: _Optional[str] = ..., rule: _Optional[str] = ..., description: _Optional[str] = ...) -> None: ...

class IngestRequest(_message.Message):
    __slots__ = ("event", "redrive_of")
    EVENT_FIELD_NUMBER: _ClassVar[int]
    REDRIVE_OF_FIELD_NUMBER: _ClassVar[int]
    event: _event_pb2.Event
    redrive_of: str
    def __init__(self, event: _Optional[_Union[_event_pb2.Event, _Mapping]] = ..., redrive_of: _Optional[str] = ...) -> None: ...

class IngestResponse(_message.Message):
    __slots__ = ("event_id", "outcome", "code", "violations")
    EVENT_ID_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    VIOLATIONS_FIELD_NUMBER: _ClassVar[int]
    event_id: str
    outcome: Outcome
    code: int
    violations: _containers.RepeatedCompositeFieldContainer[Violation]
    def __init__(self, event_id: _Optional[str] = ..., outcome: _Optional[_Union[Outcome, str]] = ..., code: _Optional[int] = ..., violations: _Optional[_Iterable[_Union[Violation, _Mapping]]] = ...) -> None: ...

class IngestBatchRequest(_message.Message):
    __slots__ = ("events",)
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    events: _containers.RepeatedCompositeFieldContainer[_event_pb2.Event]
    def __init__(self, events: _Optional[_Iterable[_Union[_event_pb2.Event, _Mapping]]] = ...) -> None: ...

class SerializedRequest(_message.Message):
    __slots__ = ("event", "redrive_of")
    EVENT_FIELD_NUMBER: _ClassVar[int]
    REDRIVE_OF_FIELD_NUMBER: _ClassVar[int]
    event: bytes
    redrive_of: str
    def __init__(self, event: _Optional[bytes] = ..., redrive_of: _Optional[str] = ...) -> None: ...

class SerializedBatch(_message.Message):
    __slots__ = ("events",)
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    events: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, events: _Optional[_Iterable[bytes]] = ...) -> None: ...

class IngestBatchResponse(_message.Message):
    __slots__ = ("responses",)
    RESPONSES_FIELD_NUMBER: _ClassVar[int]
    responses: _containers.RepeatedCompositeFieldContainer[IngestResponse]
    def __init__(self, responses: _Optional[_Iterable[_Union[IngestResponse, _Mapping]]] = ...) -> None: ...

class AdvanceRequest(_message.Message):
    __slots__ = ("use_case", "known_at_us")
    USE_CASE_FIELD_NUMBER: _ClassVar[int]
    KNOWN_AT_US_FIELD_NUMBER: _ClassVar[int]
    use_case: str
    known_at_us: int
    def __init__(self, use_case: _Optional[str] = ..., known_at_us: _Optional[int] = ...) -> None: ...

class AdvanceResponse(_message.Message):
    __slots__ = ("clock_us",)
    CLOCK_US_FIELD_NUMBER: _ClassVar[int]
    clock_us: int
    def __init__(self, clock_us: _Optional[int] = ...) -> None: ...

class Schema(_message.Message):
    __slots__ = ("use_case", "version", "events", "digest", "accepted_because")
    USE_CASE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_BECAUSE_FIELD_NUMBER: _ClassVar[int]
    use_case: str
    version: int
    events: _containers.RepeatedCompositeFieldContainer[EventSchema]
    digest: str
    accepted_because: str
    def __init__(self, use_case: _Optional[str] = ..., version: _Optional[int] = ..., events: _Optional[_Iterable[_Union[EventSchema, _Mapping]]] = ..., digest: _Optional[str] = ..., accepted_because: _Optional[str] = ...) -> None: ...

class EventSchema(_message.Message):
    __slots__ = ("name", "entity", "fields", "expectations")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ENTITY_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    EXPECTATIONS_FIELD_NUMBER: _ClassVar[int]
    name: str
    entity: str
    fields: _containers.RepeatedCompositeFieldContainer[FieldSchema]
    expectations: _containers.RepeatedCompositeFieldContainer[ExpectationSchema]
    def __init__(self, name: _Optional[str] = ..., entity: _Optional[str] = ..., fields: _Optional[_Iterable[_Union[FieldSchema, _Mapping]]] = ..., expectations: _Optional[_Iterable[_Union[ExpectationSchema, _Mapping]]] = ...) -> None: ...

class FieldSchema(_message.Message):
    __slots__ = ("name", "kind", "unit", "optional", "ge", "le", "one_of", "max_length", "pattern", "otherwise", "deprecated", "readers")
    NAME_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    OPTIONAL_FIELD_NUMBER: _ClassVar[int]
    GE_FIELD_NUMBER: _ClassVar[int]
    LE_FIELD_NUMBER: _ClassVar[int]
    ONE_OF_FIELD_NUMBER: _ClassVar[int]
    MAX_LENGTH_FIELD_NUMBER: _ClassVar[int]
    PATTERN_FIELD_NUMBER: _ClassVar[int]
    OTHERWISE_FIELD_NUMBER: _ClassVar[int]
    DEPRECATED_FIELD_NUMBER: _ClassVar[int]
    READERS_FIELD_NUMBER: _ClassVar[int]
    name: str
    kind: str
    unit: str
    optional: bool
    ge: float
    le: float
    one_of: _containers.RepeatedScalarFieldContainer[str]
    max_length: int
    pattern: str
    otherwise: str
    deprecated: str
    readers: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, name: _Optional[str] = ..., kind: _Optional[str] = ..., unit: _Optional[str] = ..., optional: _Optional[bool] = ..., ge: _Optional[float] = ..., le: _Optional[float] = ..., one_of: _Optional[_Iterable[str]] = ..., max_length: _Optional[int] = ..., pattern: _Optional[str] = ..., otherwise: _Optional[str] = ..., deprecated: _Optional[str] = ..., readers: _Optional[_Iterable[str]] = ...) -> None: ...

class ExpectationSchema(_message.Message):
    __slots__ = ("name", "otherwise")
    NAME_FIELD_NUMBER: _ClassVar[int]
    OTHERWISE_FIELD_NUMBER: _ClassVar[int]
    name: str
    otherwise: str
    def __init__(self, name: _Optional[str] = ..., otherwise: _Optional[str] = ...) -> None: ...
