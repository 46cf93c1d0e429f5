from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class SerializedPrediction(_message.Message):
    __slots__ = ("use_case", "id", "entity", "request_id", "as_of_us", "model_id", "arm", "score", "scores", "vector", "revision", "class_probabilities", "fallback")
    USE_CASE_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    ENTITY_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    AS_OF_US_FIELD_NUMBER: _ClassVar[int]
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    ARM_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    VECTOR_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    CLASS_PROBABILITIES_FIELD_NUMBER: _ClassVar[int]
    FALLBACK_FIELD_NUMBER: _ClassVar[int]
    use_case: str
    id: str
    entity: str
    request_id: str
    as_of_us: int
    model_id: str
    arm: str
    score: float
    scores: _containers.RepeatedScalarFieldContainer[bytes]
    vector: bytes
    revision: int
    class_probabilities: _containers.RepeatedScalarFieldContainer[float]
    fallback: str
    def __init__(self, use_case: _Optional[str] = ..., id: _Optional[str] = ..., entity: _Optional[str] = ..., request_id: _Optional[str] = ..., as_of_us: _Optional[int] = ..., model_id: _Optional[str] = ..., arm: _Optional[str] = ..., score: _Optional[float] = ..., scores: _Optional[_Iterable[bytes]] = ..., vector: _Optional[bytes] = ..., revision: _Optional[int] = ..., class_probabilities: _Optional[_Iterable[float]] = ..., fallback: _Optional[str] = ...) -> None: ...

class SerializedResponse(_message.Message):
    __slots__ = ("prediction_id", "model_id", "arm", "score", "as_of_us", "defaulted", "vector", "class_probabilities", "classes", "fallback")
    PREDICTION_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    ARM_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    AS_OF_US_FIELD_NUMBER: _ClassVar[int]
    DEFAULTED_FIELD_NUMBER: _ClassVar[int]
    VECTOR_FIELD_NUMBER: _ClassVar[int]
    CLASS_PROBABILITIES_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    FALLBACK_FIELD_NUMBER: _ClassVar[int]
    prediction_id: str
    model_id: str
    arm: str
    score: float
    as_of_us: int
    defaulted: _containers.RepeatedScalarFieldContainer[str]
    vector: bytes
    class_probabilities: _containers.RepeatedScalarFieldContainer[float]
    classes: _containers.RepeatedScalarFieldContainer[str]
    fallback: str
    def __init__(self, prediction_id: _Optional[str] = ..., model_id: _Optional[str] = ..., arm: _Optional[str] = ..., score: _Optional[float] = ..., as_of_us: _Optional[int] = ..., defaulted: _Optional[_Iterable[str]] = ..., vector: _Optional[bytes] = ..., class_probabilities: _Optional[_Iterable[float]] = ..., classes: _Optional[_Iterable[str]] = ..., fallback: _Optional[str] = ...) -> None: ...

class SerializedBatchResponse(_message.Message):
    __slots__ = ("responses",)
    RESPONSES_FIELD_NUMBER: _ClassVar[int]
    responses: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, responses: _Optional[_Iterable[bytes]] = ...) -> None: ...
