from driftloop.contracts.event.v1 import event_pb2 as _event_pb2
from driftloop.contracts.monitor.v1 import monitor_pb2 as _monitor_pb2
from driftloop.contracts.serving.v1 import scored_pb2 as _scored_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class PredictRequest(_message.Message):
    __slots__ = ("use_case", "entity", "request_id", "fields", "include_vector")
    class FieldsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _event_pb2.Value
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_event_pb2.Value, _Mapping]] = ...) -> None: ...
    USE_CASE_FIELD_NUMBER: _ClassVar[int]
    ENTITY_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_VECTOR_FIELD_NUMBER: _ClassVar[int]
    use_case: str
    entity: str
    request_id: str
    fields: _containers.MessageMap[str, _event_pb2.Value]
    include_vector: bool
    def __init__(self, use_case: _Optional[str] = ..., entity: _Optional[str] = ..., request_id: _Optional[str] = ..., fields: _Optional[_Mapping[str, _event_pb2.Value]] = ..., include_vector: _Optional[bool] = ...) -> None: ...

class Freshness(_message.Message):
    __slots__ = ("view", "found", "known_at_us", "event_time_us", "age_us")
    VIEW_FIELD_NUMBER: _ClassVar[int]
    FOUND_FIELD_NUMBER: _ClassVar[int]
    KNOWN_AT_US_FIELD_NUMBER: _ClassVar[int]
    EVENT_TIME_US_FIELD_NUMBER: _ClassVar[int]
    AGE_US_FIELD_NUMBER: _ClassVar[int]
    view: str
    found: bool
    known_at_us: int
    event_time_us: int
    age_us: int
    def __init__(self, view: _Optional[str] = ..., found: _Optional[bool] = ..., known_at_us: _Optional[int] = ..., event_time_us: _Optional[int] = ..., age_us: _Optional[int] = ...) -> None: ...

class PredictResponse(_message.Message):
    __slots__ = ("prediction_id", "model_id", "arm", "score", "as_of_us", "freshness", "defaulted", "vector", "class_probabilities", "classes", "fallback")
    PREDICTION_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    ARM_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    AS_OF_US_FIELD_NUMBER: _ClassVar[int]
    FRESHNESS_FIELD_NUMBER: _ClassVar[int]
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
    freshness: _containers.RepeatedCompositeFieldContainer[Freshness]
    defaulted: _containers.RepeatedScalarFieldContainer[str]
    vector: Vector
    class_probabilities: _containers.RepeatedScalarFieldContainer[float]
    classes: _containers.RepeatedScalarFieldContainer[str]
    fallback: str
    def __init__(self, prediction_id: _Optional[str] = ..., model_id: _Optional[str] = ..., arm: _Optional[str] = ..., score: _Optional[float] = ..., as_of_us: _Optional[int] = ..., freshness: _Optional[_Iterable[_Union[Freshness, _Mapping]]] = ..., defaulted: _Optional[_Iterable[str]] = ..., vector: _Optional[_Union[Vector, _Mapping]] = ..., class_probabilities: _Optional[_Iterable[float]] = ..., classes: _Optional[_Iterable[str]] = ..., fallback: _Optional[str] = ...) -> None: ...

class PredictBatchRequest(_message.Message):
    __slots__ = ("requests",)
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    requests: _containers.RepeatedCompositeFieldContainer[PredictRequest]
    def __init__(self, requests: _Optional[_Iterable[_Union[PredictRequest, _Mapping]]] = ...) -> None: ...

class PredictBatchResponse(_message.Message):
    __slots__ = ("responses",)
    RESPONSES_FIELD_NUMBER: _ClassVar[int]
    responses: _containers.RepeatedCompositeFieldContainer[PredictResponse]
    def __init__(self, responses: _Optional[_Iterable[_Union[PredictResponse, _Mapping]]] = ...) -> None: ...

class PredictStreamResponse(_message.Message):
    __slots__ = ("responses", "refusal")
    RESPONSES_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    responses: _containers.RepeatedCompositeFieldContainer[PredictResponse]
    refusal: Refusal
    def __init__(self, responses: _Optional[_Iterable[_Union[PredictResponse, _Mapping]]] = ..., refusal: _Optional[_Union[Refusal, _Mapping]] = ...) -> None: ...

class Refusal(_message.Message):
    __slots__ = ("code", "message", "violations", "retry_after_s")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    VIOLATIONS_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_S_FIELD_NUMBER: _ClassVar[int]
    code: int
    message: str
    violations: _containers.RepeatedCompositeFieldContainer[FieldViolation]
    retry_after_s: float
    def __init__(self, code: _Optional[int] = ..., message: _Optional[str] = ..., violations: _Optional[_Iterable[_Union[FieldViolation, _Mapping]]] = ..., retry_after_s: _Optional[float] = ...) -> None: ...

class FieldViolation(_message.Message):
    __slots__ = ("field", "rule", "description")
    FIELD_FIELD_NUMBER: _ClassVar[int]
    RULE_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    field: str
    rule: str
    description: str
    def __init__(self, field: _Optional[str] = ..., rule: _Optional[str] = ..., description: _Optional[str] = ...) -> None: ...

class ExplainRequest(_message.Message):
    __slots__ = ("use_case", "prediction_id", "model_id", "vector")
    USE_CASE_FIELD_NUMBER: _ClassVar[int]
    PREDICTION_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    VECTOR_FIELD_NUMBER: _ClassVar[int]
    use_case: str
    prediction_id: str
    model_id: str
    vector: Vector
    def __init__(self, use_case: _Optional[str] = ..., prediction_id: _Optional[str] = ..., model_id: _Optional[str] = ..., vector: _Optional[_Union[Vector, _Mapping]] = ...) -> None: ...

class ExplainResponse(_message.Message):
    __slots__ = ("prediction_id", "model_id", "score", "base", "explained_class", "attributions", "method", "background_rows", "answered")
    PREDICTION_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    BASE_FIELD_NUMBER: _ClassVar[int]
    EXPLAINED_CLASS_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTIONS_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    BACKGROUND_ROWS_FIELD_NUMBER: _ClassVar[int]
    ANSWERED_FIELD_NUMBER: _ClassVar[int]
    prediction_id: str
    model_id: str
    score: float
    base: float
    explained_class: str
    attributions: _containers.RepeatedCompositeFieldContainer[Attribution]
    method: str
    background_rows: int
    answered: float
    def __init__(self, prediction_id: _Optional[str] = ..., model_id: _Optional[str] = ..., score: _Optional[float] = ..., base: _Optional[float] = ..., explained_class: _Optional[str] = ..., attributions: _Optional[_Iterable[_Union[Attribution, _Mapping]]] = ..., method: _Optional[str] = ..., background_rows: _Optional[int] = ..., answered: _Optional[float] = ...) -> None: ...

class Attribution(_message.Message):
    __slots__ = ("input", "number", "text", "contribution", "missing")
    INPUT_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    CONTRIBUTION_FIELD_NUMBER: _ClassVar[int]
    MISSING_FIELD_NUMBER: _ClassVar[int]
    input: str
    number: float
    text: str
    contribution: float
    missing: bool
    def __init__(self, input: _Optional[str] = ..., number: _Optional[float] = ..., text: _Optional[str] = ..., contribution: _Optional[float] = ..., missing: _Optional[bool] = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ("use_case",)
    USE_CASE_FIELD_NUMBER: _ClassVar[int]
    use_case: str
    def __init__(self, use_case: _Optional[str] = ...) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("models", "revision")
    MODELS_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[ServedModel]
    revision: int
    def __init__(self, models: _Optional[_Iterable[_Union[ServedModel, _Mapping]]] = ..., revision: _Optional[int] = ...) -> None: ...

class ServedModel(_message.Message):
    __slots__ = ("model_id", "role", "share", "bundle_digest", "arm", "explainable", "refused")
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    SHARE_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_DIGEST_FIELD_NUMBER: _ClassVar[int]
    ARM_FIELD_NUMBER: _ClassVar[int]
    EXPLAINABLE_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    model_id: str
    role: str
    share: float
    bundle_digest: str
    arm: str
    explainable: bool
    refused: str
    def __init__(self, model_id: _Optional[str] = ..., role: _Optional[str] = ..., share: _Optional[float] = ..., bundle_digest: _Optional[str] = ..., arm: _Optional[str] = ..., explainable: _Optional[bool] = ..., refused: _Optional[str] = ...) -> None: ...

class GetReleaseRequest(_message.Message):
    __slots__ = ("use_case",)
    USE_CASE_FIELD_NUMBER: _ClassVar[int]
    use_case: str
    def __init__(self, use_case: _Optional[str] = ...) -> None: ...

class GetReleaseResponse(_message.Message):
    __slots__ = ("release",)
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    release: _monitor_pb2.Release
    def __init__(self, release: _Optional[_Union[_monitor_pb2.Release, _Mapping]] = ...) -> None: ...

class WaitForClockRequest(_message.Message):
    __slots__ = ("use_case", "clock_us")
    USE_CASE_FIELD_NUMBER: _ClassVar[int]
    CLOCK_US_FIELD_NUMBER: _ClassVar[int]
    use_case: str
    clock_us: int
    def __init__(self, use_case: _Optional[str] = ..., clock_us: _Optional[int] = ...) -> None: ...

class WaitForClockResponse(_message.Message):
    __slots__ = ("clock_us", "revision", "has_champion")
    CLOCK_US_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    HAS_CHAMPION_FIELD_NUMBER: _ClassVar[int]
    clock_us: int
    revision: int
    has_champion: bool
    def __init__(self, clock_us: _Optional[int] = ..., revision: _Optional[int] = ..., has_champion: _Optional[bool] = ...) -> None: ...

class Reading(_message.Message):
    __slots__ = ("view", "key", "found", "known_at_us", "event_time_us", "sequence", "update_id")
    VIEW_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    FOUND_FIELD_NUMBER: _ClassVar[int]
    KNOWN_AT_US_FIELD_NUMBER: _ClassVar[int]
    EVENT_TIME_US_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    UPDATE_ID_FIELD_NUMBER: _ClassVar[int]
    view: str
    key: str
    found: bool
    known_at_us: int
    event_time_us: int
    sequence: int
    update_id: str
    def __init__(self, view: _Optional[str] = ..., key: _Optional[str] = ..., found: _Optional[bool] = ..., known_at_us: _Optional[int] = ..., event_time_us: _Optional[int] = ..., sequence: _Optional[int] = ..., update_id: _Optional[str] = ...) -> None: ...

class Vector(_message.Message):
    __slots__ = ("inputs_digest", "numbers", "texts", "readings")
    INPUTS_DIGEST_FIELD_NUMBER: _ClassVar[int]
    NUMBERS_FIELD_NUMBER: _ClassVar[int]
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    READINGS_FIELD_NUMBER: _ClassVar[int]
    inputs_digest: str
    numbers: _containers.RepeatedScalarFieldContainer[float]
    texts: _containers.RepeatedScalarFieldContainer[str]
    readings: _containers.RepeatedCompositeFieldContainer[Reading]
    def __init__(self, inputs_digest: _Optional[str] = ..., numbers: _Optional[_Iterable[float]] = ..., texts: _Optional[_Iterable[str]] = ..., readings: _Optional[_Iterable[_Union[Reading, _Mapping]]] = ...) -> None: ...

class Prediction(_message.Message):
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
    scores: _containers.RepeatedCompositeFieldContainer[_scored_pb2.Scored]
    vector: Vector
    revision: int
    class_probabilities: _containers.RepeatedScalarFieldContainer[float]
    fallback: str
    def __init__(self, use_case: _Optional[str] = ..., id: _Optional[str] = ..., entity: _Optional[str] = ..., request_id: _Optional[str] = ..., as_of_us: _Optional[int] = ..., model_id: _Optional[str] = ..., arm: _Optional[str] = ..., score: _Optional[float] = ..., scores: _Optional[_Iterable[_Union[_scored_pb2.Scored, _Mapping]]] = ..., vector: _Optional[_Union[Vector, _Mapping]] = ..., revision: _Optional[int] = ..., class_probabilities: _Optional[_Iterable[float]] = ..., fallback: _Optional[str] = ...) -> None: ...
