from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Stage(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STAGE_UNSPECIFIED: _ClassVar[Stage]
    STAGE_WAITING_FOR_DATA: _ClassVar[Stage]
    STAGE_ASSEMBLING: _ClassVar[Stage]
    STAGE_TRAINING: _ClassVar[Stage]
    STAGE_EVALUATING: _ClassVar[Stage]
    STAGE_PUBLISHING: _ClassVar[Stage]

class Outcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OUTCOME_UNSPECIFIED: _ClassVar[Outcome]
    OUTCOME_PUBLISHED: _ClassVar[Outcome]
    OUTCOME_REFUSED: _ClassVar[Outcome]
STAGE_UNSPECIFIED: Stage
STAGE_WAITING_FOR_DATA: Stage
STAGE_ASSEMBLING: Stage
STAGE_TRAINING: Stage
STAGE_EVALUATING: Stage
STAGE_PUBLISHING: Stage
OUTCOME_UNSPECIFIED: Outcome
OUTCOME_PUBLISHED: Outcome
OUTCOME_REFUSED: Outcome

class Progress(_message.Message):
    __slots__ = ("use_case", "request_id", "stage", "detail")
    USE_CASE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    use_case: str
    request_id: str
    stage: Stage
    detail: str
    def __init__(self, use_case: _Optional[str] = ..., request_id: _Optional[str] = ..., stage: _Optional[_Union[Stage, str]] = ..., detail: _Optional[str] = ...) -> None: ...

class Gate(_message.Message):
    __slots__ = ("name", "passed", "value", "threshold", "reason")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PASSED_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    name: str
    passed: bool
    value: float
    threshold: float
    reason: str
    def __init__(self, name: _Optional[str] = ..., passed: _Optional[bool] = ..., value: _Optional[float] = ..., threshold: _Optional[float] = ..., reason: _Optional[str] = ...) -> None: ...

class Model(_message.Message):
    __slots__ = ("use_case", "id", "request_id", "outcome", "because", "bundle_url", "bundle_digest", "model_digest", "dataset_digest", "inputs_digest", "trained_rows", "row_epochs", "fitted_rows", "clock_us", "since_us", "metrics", "gates", "device", "label_scale", "candidate", "held_out_gains", "held_out_rows", "held_out_from_us", "held_out_to_us", "held_out_champion_loss")
    class MetricsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    USE_CASE_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    BECAUSE_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_URL_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_DIGEST_FIELD_NUMBER: _ClassVar[int]
    MODEL_DIGEST_FIELD_NUMBER: _ClassVar[int]
    DATASET_DIGEST_FIELD_NUMBER: _ClassVar[int]
    INPUTS_DIGEST_FIELD_NUMBER: _ClassVar[int]
    TRAINED_ROWS_FIELD_NUMBER: _ClassVar[int]
    ROW_EPOCHS_FIELD_NUMBER: _ClassVar[int]
    FITTED_ROWS_FIELD_NUMBER: _ClassVar[int]
    CLOCK_US_FIELD_NUMBER: _ClassVar[int]
    SINCE_US_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    GATES_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    LABEL_SCALE_FIELD_NUMBER: _ClassVar[int]
    CANDIDATE_FIELD_NUMBER: _ClassVar[int]
    HELD_OUT_GAINS_FIELD_NUMBER: _ClassVar[int]
    HELD_OUT_ROWS_FIELD_NUMBER: _ClassVar[int]
    HELD_OUT_FROM_US_FIELD_NUMBER: _ClassVar[int]
    HELD_OUT_TO_US_FIELD_NUMBER: _ClassVar[int]
    HELD_OUT_CHAMPION_LOSS_FIELD_NUMBER: _ClassVar[int]
    use_case: str
    id: str
    request_id: str
    outcome: Outcome
    because: str
    bundle_url: str
    bundle_digest: str
    model_digest: str
    dataset_digest: str
    inputs_digest: str
    trained_rows: int
    row_epochs: int
    fitted_rows: int
    clock_us: int
    since_us: int
    metrics: _containers.ScalarMap[str, float]
    gates: _containers.RepeatedCompositeFieldContainer[Gate]
    device: str
    label_scale: float
    candidate: str
    held_out_gains: _containers.RepeatedScalarFieldContainer[float]
    held_out_rows: int
    held_out_from_us: int
    held_out_to_us: int
    held_out_champion_loss: float
    def __init__(self, use_case: _Optional[str] = ..., id: _Optional[str] = ..., request_id: _Optional[str] = ..., outcome: _Optional[_Union[Outcome, str]] = ..., because: _Optional[str] = ..., bundle_url: _Optional[str] = ..., bundle_digest: _Optional[str] = ..., model_digest: _Optional[str] = ..., dataset_digest: _Optional[str] = ..., inputs_digest: _Optional[str] = ..., trained_rows: _Optional[int] = ..., row_epochs: _Optional[int] = ..., fitted_rows: _Optional[int] = ..., clock_us: _Optional[int] = ..., since_us: _Optional[int] = ..., metrics: _Optional[_Mapping[str, float]] = ..., gates: _Optional[_Iterable[_Union[Gate, _Mapping]]] = ..., device: _Optional[str] = ..., label_scale: _Optional[float] = ..., candidate: _Optional[str] = ..., held_out_gains: _Optional[_Iterable[float]] = ..., held_out_rows: _Optional[int] = ..., held_out_from_us: _Optional[int] = ..., held_out_to_us: _Optional[int] = ..., held_out_champion_loss: _Optional[float] = ...) -> None: ...
