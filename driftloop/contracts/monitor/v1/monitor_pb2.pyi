from driftloop.contracts.serving.v1 import scored_pb2 as _scored_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class LabelState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LABEL_STATE_UNSPECIFIED: _ClassVar[LabelState]
    LABEL_STATE_MATCHED: _ClassVar[LabelState]
    LABEL_STATE_NEVER: _ClassVar[LabelState]
    LABEL_STATE_CORRECTED: _ClassVar[LabelState]

class SeriesKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SERIES_KIND_UNSPECIFIED: _ClassVar[SeriesKind]
    SERIES_KIND_ERROR: _ClassVar[SeriesKind]
    SERIES_KIND_INPUT: _ClassVar[SeriesKind]
    SERIES_KIND_PREDICTION: _ClassVar[SeriesKind]

class DecisionKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DECISION_KIND_UNSPECIFIED: _ClassVar[DecisionKind]
    DECISION_KIND_RETRAIN: _ClassVar[DecisionKind]
    DECISION_KIND_NOT_NOW: _ClassVar[DecisionKind]
    DECISION_KIND_FIRST_MODEL: _ClassVar[DecisionKind]
    DECISION_KIND_SHADOW: _ClassVar[DecisionKind]
    DECISION_KIND_CANARY: _ClassVar[DecisionKind]
    DECISION_KIND_PROMOTE: _ClassVar[DecisionKind]
    DECISION_KIND_DROP_CHALLENGER: _ClassVar[DecisionKind]
    DECISION_KIND_ROLL_BACK: _ClassVar[DecisionKind]
    DECISION_KIND_MODEL_REFUSED: _ClassVar[DecisionKind]
    DECISION_KIND_BUNDLE_REFUSED: _ClassVar[DecisionKind]
    DECISION_KIND_KEEP: _ClassVar[DecisionKind]
    DECISION_KIND_AB: _ClassVar[DecisionKind]
    DECISION_KIND_AWAIT_APPROVAL: _ClassVar[DecisionKind]
    DECISION_KIND_APPROVE: _ClassVar[DecisionKind]
    DECISION_KIND_REJECT: _ClassVar[DecisionKind]
    DECISION_KIND_PIN: _ClassVar[DecisionKind]
    DECISION_KIND_UNPIN: _ClassVar[DecisionKind]
    DECISION_KIND_PAUSE: _ClassVar[DecisionKind]
    DECISION_KIND_RESUME: _ClassVar[DecisionKind]
    DECISION_KIND_DRAIN: _ClassVar[DecisionKind]
    DECISION_KIND_COMMAND_REFUSED: _ClassVar[DecisionKind]
    DECISION_KIND_GUARDRAIL: _ClassVar[DecisionKind]
    DECISION_KIND_AB_END: _ClassVar[DecisionKind]
    DECISION_KIND_WAIT: _ClassVar[DecisionKind]

class RetrainReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RETRAIN_REASON_UNSPECIFIED: _ClassVar[RetrainReason]
    RETRAIN_REASON_BOOTSTRAP: _ClassVar[RetrainReason]
    RETRAIN_REASON_DRIFT: _ClassVar[RetrainReason]
    RETRAIN_REASON_DECAY: _ClassVar[RetrainReason]
    RETRAIN_REASON_NEW_DATA: _ClassVar[RetrainReason]
    RETRAIN_REASON_SCHEDULE: _ClassVar[RetrainReason]
    RETRAIN_REASON_MANUAL: _ClassVar[RetrainReason]
    RETRAIN_REASON_FOLLOW_UP: _ClassVar[RetrainReason]

class CommandKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    COMMAND_KIND_UNSPECIFIED: _ClassVar[CommandKind]
    COMMAND_KIND_RETRAIN: _ClassVar[CommandKind]
    COMMAND_KIND_ROLL_BACK: _ClassVar[CommandKind]
    COMMAND_KIND_BUNDLE_REFUSED: _ClassVar[CommandKind]
    COMMAND_KIND_APPROVE: _ClassVar[CommandKind]
    COMMAND_KIND_REJECT: _ClassVar[CommandKind]
    COMMAND_KIND_PIN: _ClassVar[CommandKind]
    COMMAND_KIND_SILENCE: _ClassVar[CommandKind]
    COMMAND_KIND_UNPIN: _ClassVar[CommandKind]
    COMMAND_KIND_PAUSE: _ClassVar[CommandKind]
    COMMAND_KIND_RESUME: _ClassVar[CommandKind]
    COMMAND_KIND_DRAIN: _ClassVar[CommandKind]
    COMMAND_KIND_GUARDRAIL: _ClassVar[CommandKind]
    COMMAND_KIND_AB_START: _ClassVar[CommandKind]
    COMMAND_KIND_AB_STOP: _ClassVar[CommandKind]
    COMMAND_KIND_AB_REPORT: _ClassVar[CommandKind]

class Role(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ROLE_UNSPECIFIED: _ClassVar[Role]
    ROLE_CHAMPION: _ClassVar[Role]
    ROLE_SHADOW: _ClassVar[Role]
    ROLE_CANARY: _ClassVar[Role]
    ROLE_PREVIOUS: _ClassVar[Role]
    ROLE_AB: _ClassVar[Role]
    ROLE_STANDBY: _ClassVar[Role]
LABEL_STATE_UNSPECIFIED: LabelState
LABEL_STATE_MATCHED: LabelState
LABEL_STATE_NEVER: LabelState
LABEL_STATE_CORRECTED: LabelState
SERIES_KIND_UNSPECIFIED: SeriesKind
SERIES_KIND_ERROR: SeriesKind
SERIES_KIND_INPUT: SeriesKind
SERIES_KIND_PREDICTION: SeriesKind
DECISION_KIND_UNSPECIFIED: DecisionKind
DECISION_KIND_RETRAIN: DecisionKind
DECISION_KIND_NOT_NOW: DecisionKind
DECISION_KIND_FIRST_MODEL: DecisionKind
DECISION_KIND_SHADOW: DecisionKind
DECISION_KIND_CANARY: DecisionKind
DECISION_KIND_PROMOTE: DecisionKind
DECISION_KIND_DROP_CHALLENGER: DecisionKind
DECISION_KIND_ROLL_BACK: DecisionKind
DECISION_KIND_MODEL_REFUSED: DecisionKind
DECISION_KIND_BUNDLE_REFUSED: DecisionKind
DECISION_KIND_KEEP: DecisionKind
DECISION_KIND_AB: DecisionKind
DECISION_KIND_AWAIT_APPROVAL: DecisionKind
DECISION_KIND_APPROVE: DecisionKind
DECISION_KIND_REJECT: DecisionKind
DECISION_KIND_PIN: DecisionKind
DECISION_KIND_UNPIN: DecisionKind
DECISION_KIND_PAUSE: DecisionKind
DECISION_KIND_RESUME: DecisionKind
DECISION_KIND_DRAIN: DecisionKind
DECISION_KIND_COMMAND_REFUSED: DecisionKind
DECISION_KIND_GUARDRAIL: DecisionKind
DECISION_KIND_AB_END: DecisionKind
DECISION_KIND_WAIT: DecisionKind
RETRAIN_REASON_UNSPECIFIED: RetrainReason
RETRAIN_REASON_BOOTSTRAP: RetrainReason
RETRAIN_REASON_DRIFT: RetrainReason
RETRAIN_REASON_DECAY: RetrainReason
RETRAIN_REASON_NEW_DATA: RetrainReason
RETRAIN_REASON_SCHEDULE: RetrainReason
RETRAIN_REASON_MANUAL: RetrainReason
RETRAIN_REASON_FOLLOW_UP: RetrainReason
COMMAND_KIND_UNSPECIFIED: CommandKind
COMMAND_KIND_RETRAIN: CommandKind
COMMAND_KIND_ROLL_BACK: CommandKind
COMMAND_KIND_BUNDLE_REFUSED: CommandKind
COMMAND_KIND_APPROVE: CommandKind
COMMAND_KIND_REJECT: CommandKind
COMMAND_KIND_PIN: CommandKind
COMMAND_KIND_SILENCE: CommandKind
COMMAND_KIND_UNPIN: CommandKind
COMMAND_KIND_PAUSE: CommandKind
COMMAND_KIND_RESUME: CommandKind
COMMAND_KIND_DRAIN: CommandKind
COMMAND_KIND_GUARDRAIL: CommandKind
COMMAND_KIND_AB_START: CommandKind
COMMAND_KIND_AB_STOP: CommandKind
COMMAND_KIND_AB_REPORT: CommandKind
ROLE_UNSPECIFIED: Role
ROLE_CHAMPION: Role
ROLE_SHADOW: Role
ROLE_CANARY: Role
ROLE_PREVIOUS: Role
ROLE_AB: Role
ROLE_STANDBY: Role

class Score(_message.Message):
    __slots__ = ("use_case", "entity", "prediction_id", "predicted_for_us", "matured_at_us", "state", "label", "label_known_at_us", "model_id", "arm", "as_of_us", "scores", "slices", "label_event_id", "incident", "answered", "answered_class_probabilities")
    class SlicesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    USE_CASE_FIELD_NUMBER: _ClassVar[int]
    ENTITY_FIELD_NUMBER: _ClassVar[int]
    PREDICTION_ID_FIELD_NUMBER: _ClassVar[int]
    PREDICTED_FOR_US_FIELD_NUMBER: _ClassVar[int]
    MATURED_AT_US_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    LABEL_KNOWN_AT_US_FIELD_NUMBER: _ClassVar[int]
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    ARM_FIELD_NUMBER: _ClassVar[int]
    AS_OF_US_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    SLICES_FIELD_NUMBER: _ClassVar[int]
    LABEL_EVENT_ID_FIELD_NUMBER: _ClassVar[int]
    INCIDENT_FIELD_NUMBER: _ClassVar[int]
    ANSWERED_FIELD_NUMBER: _ClassVar[int]
    ANSWERED_CLASS_PROBABILITIES_FIELD_NUMBER: _ClassVar[int]
    use_case: str
    entity: str
    prediction_id: str
    predicted_for_us: int
    matured_at_us: int
    state: LabelState
    label: float
    label_known_at_us: int
    model_id: str
    arm: str
    as_of_us: int
    scores: _containers.RepeatedCompositeFieldContainer[_scored_pb2.Scored]
    slices: _containers.ScalarMap[str, str]
    label_event_id: str
    incident: Incident
    answered: float
    answered_class_probabilities: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, use_case: _Optional[str] = ..., entity: _Optional[str] = ..., prediction_id: _Optional[str] = ..., predicted_for_us: _Optional[int] = ..., matured_at_us: _Optional[int] = ..., state: _Optional[_Union[LabelState, str]] = ..., label: _Optional[float] = ..., label_known_at_us: _Optional[int] = ..., model_id: _Optional[str] = ..., arm: _Optional[str] = ..., as_of_us: _Optional[int] = ..., scores: _Optional[_Iterable[_Union[_scored_pb2.Scored, _Mapping]]] = ..., slices: _Optional[_Mapping[str, str]] = ..., label_event_id: _Optional[str] = ..., incident: _Optional[_Union[Incident, _Mapping]] = ..., answered: _Optional[float] = ..., answered_class_probabilities: _Optional[_Iterable[float]] = ...) -> None: ...

class Drift(_message.Message):
    __slots__ = ("use_case", "id", "series", "kind", "detector", "clock_us", "since_us", "before", "after", "labels_since", "alpha", "model_id")
    USE_CASE_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    SERIES_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    DETECTOR_FIELD_NUMBER: _ClassVar[int]
    CLOCK_US_FIELD_NUMBER: _ClassVar[int]
    SINCE_US_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    LABELS_SINCE_FIELD_NUMBER: _ClassVar[int]
    ALPHA_FIELD_NUMBER: _ClassVar[int]
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    use_case: str
    id: str
    series: str
    kind: SeriesKind
    detector: str
    clock_us: int
    since_us: int
    before: float
    after: float
    labels_since: int
    alpha: float
    model_id: str
    def __init__(self, use_case: _Optional[str] = ..., id: _Optional[str] = ..., series: _Optional[str] = ..., kind: _Optional[_Union[SeriesKind, str]] = ..., detector: _Optional[str] = ..., clock_us: _Optional[int] = ..., since_us: _Optional[int] = ..., before: _Optional[float] = ..., after: _Optional[float] = ..., labels_since: _Optional[int] = ..., alpha: _Optional[float] = ..., model_id: _Optional[str] = ...) -> None: ...

class Decision(_message.Message):
    __slots__ = ("use_case", "id", "kind", "model_id", "because", "evidence", "clock_us")
    class EvidenceEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    USE_CASE_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    BECAUSE_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    CLOCK_US_FIELD_NUMBER: _ClassVar[int]
    use_case: str
    id: str
    kind: DecisionKind
    model_id: str
    because: str
    evidence: _containers.ScalarMap[str, float]
    clock_us: int
    def __init__(self, use_case: _Optional[str] = ..., id: _Optional[str] = ..., kind: _Optional[_Union[DecisionKind, str]] = ..., model_id: _Optional[str] = ..., because: _Optional[str] = ..., evidence: _Optional[_Mapping[str, float]] = ..., clock_us: _Optional[int] = ...) -> None: ...

class Incident(_message.Message):
    __slots__ = ("use_case", "id", "source", "what", "clock_us", "rule", "event_type", "event_source", "stops_training", "from_us", "to_us", "field", "entity")
    USE_CASE_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    WHAT_FIELD_NUMBER: _ClassVar[int]
    CLOCK_US_FIELD_NUMBER: _ClassVar[int]
    RULE_FIELD_NUMBER: _ClassVar[int]
    EVENT_TYPE_FIELD_NUMBER: _ClassVar[int]
    EVENT_SOURCE_FIELD_NUMBER: _ClassVar[int]
    STOPS_TRAINING_FIELD_NUMBER: _ClassVar[int]
    FROM_US_FIELD_NUMBER: _ClassVar[int]
    TO_US_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    ENTITY_FIELD_NUMBER: _ClassVar[int]
    use_case: str
    id: str
    source: str
    what: str
    clock_us: int
    rule: str
    event_type: str
    event_source: str
    stops_training: bool
    from_us: int
    to_us: int
    field: str
    entity: str
    def __init__(self, use_case: _Optional[str] = ..., id: _Optional[str] = ..., source: _Optional[str] = ..., what: _Optional[str] = ..., clock_us: _Optional[int] = ..., rule: _Optional[str] = ..., event_type: _Optional[str] = ..., event_source: _Optional[str] = ..., stops_training: _Optional[bool] = ..., from_us: _Optional[int] = ..., to_us: _Optional[int] = ..., field: _Optional[str] = ..., entity: _Optional[str] = ...) -> None: ...

class RetrainRequest(_message.Message):
    __slots__ = ("use_case", "id", "reason", "because", "clock_us", "since_us", "champion_id", "champion_bundle_url", "champion_bundle_digest", "seed", "recent_rows", "evidence_rows", "block_rows", "rows_max", "archive", "affected")
    USE_CASE_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    BECAUSE_FIELD_NUMBER: _ClassVar[int]
    CLOCK_US_FIELD_NUMBER: _ClassVar[int]
    SINCE_US_FIELD_NUMBER: _ClassVar[int]
    CHAMPION_ID_FIELD_NUMBER: _ClassVar[int]
    CHAMPION_BUNDLE_URL_FIELD_NUMBER: _ClassVar[int]
    CHAMPION_BUNDLE_DIGEST_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    RECENT_ROWS_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_ROWS_FIELD_NUMBER: _ClassVar[int]
    BLOCK_ROWS_FIELD_NUMBER: _ClassVar[int]
    ROWS_MAX_FIELD_NUMBER: _ClassVar[int]
    ARCHIVE_FIELD_NUMBER: _ClassVar[int]
    AFFECTED_FIELD_NUMBER: _ClassVar[int]
    use_case: str
    id: str
    reason: RetrainReason
    because: str
    clock_us: int
    since_us: int
    champion_id: str
    champion_bundle_url: str
    champion_bundle_digest: str
    seed: int
    recent_rows: int
    evidence_rows: int
    block_rows: int
    rows_max: int
    archive: _containers.RepeatedCompositeFieldContainer[Archived]
    affected: _containers.RepeatedCompositeFieldContainer[Affected]
    def __init__(self, use_case: _Optional[str] = ..., id: _Optional[str] = ..., reason: _Optional[_Union[RetrainReason, str]] = ..., because: _Optional[str] = ..., clock_us: _Optional[int] = ..., since_us: _Optional[int] = ..., champion_id: _Optional[str] = ..., champion_bundle_url: _Optional[str] = ..., champion_bundle_digest: _Optional[str] = ..., seed: _Optional[int] = ..., recent_rows: _Optional[int] = ..., evidence_rows: _Optional[int] = ..., block_rows: _Optional[int] = ..., rows_max: _Optional[int] = ..., archive: _Optional[_Iterable[_Union[Archived, _Mapping]]] = ..., affected: _Optional[_Iterable[_Union[Affected, _Mapping]]] = ...) -> None: ...

class Affected(_message.Message):
    __slots__ = ("from_us", "to_us", "because")
    FROM_US_FIELD_NUMBER: _ClassVar[int]
    TO_US_FIELD_NUMBER: _ClassVar[int]
    BECAUSE_FIELD_NUMBER: _ClassVar[int]
    from_us: int
    to_us: int
    because: str
    def __init__(self, from_us: _Optional[int] = ..., to_us: _Optional[int] = ..., because: _Optional[str] = ...) -> None: ...

class Archived(_message.Message):
    __slots__ = ("model_id", "bundle_url", "bundle_digest")
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_URL_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_DIGEST_FIELD_NUMBER: _ClassVar[int]
    model_id: str
    bundle_url: str
    bundle_digest: str
    def __init__(self, model_id: _Optional[str] = ..., bundle_url: _Optional[str] = ..., bundle_digest: _Optional[str] = ...) -> None: ...

class Command(_message.Message):
    __slots__ = ("use_case", "id", "kind", "who", "why", "model_id", "at_us", "arms")
    USE_CASE_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    WHO_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    AT_US_FIELD_NUMBER: _ClassVar[int]
    ARMS_FIELD_NUMBER: _ClassVar[int]
    use_case: str
    id: str
    kind: CommandKind
    who: str
    why: str
    model_id: str
    at_us: int
    arms: _containers.RepeatedCompositeFieldContainer[Arm]
    def __init__(self, use_case: _Optional[str] = ..., id: _Optional[str] = ..., kind: _Optional[_Union[CommandKind, str]] = ..., who: _Optional[str] = ..., why: _Optional[str] = ..., model_id: _Optional[str] = ..., at_us: _Optional[int] = ..., arms: _Optional[_Iterable[_Union[Arm, _Mapping]]] = ...) -> None: ...

class Arm(_message.Message):
    __slots__ = ("model_id", "bundle_url", "bundle_digest", "role", "share", "name", "recalibration")
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_URL_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_DIGEST_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    SHARE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    RECALIBRATION_FIELD_NUMBER: _ClassVar[int]
    model_id: str
    bundle_url: str
    bundle_digest: str
    role: Role
    share: float
    name: str
    recalibration: Recalibration
    def __init__(self, model_id: _Optional[str] = ..., bundle_url: _Optional[str] = ..., bundle_digest: _Optional[str] = ..., role: _Optional[_Union[Role, str]] = ..., share: _Optional[float] = ..., name: _Optional[str] = ..., recalibration: _Optional[_Union[Recalibration, _Mapping]] = ...) -> None: ...

class Recalibration(_message.Message):
    __slots__ = ("scalings", "labels")
    SCALINGS_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    scalings: _containers.RepeatedCompositeFieldContainer[Scaling]
    labels: int
    def __init__(self, scalings: _Optional[_Iterable[_Union[Scaling, _Mapping]]] = ..., labels: _Optional[int] = ...) -> None: ...

class Scaling(_message.Message):
    __slots__ = ("weight", "slope", "intercepts")
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    SLOPE_FIELD_NUMBER: _ClassVar[int]
    INTERCEPTS_FIELD_NUMBER: _ClassVar[int]
    weight: float
    slope: float
    intercepts: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, weight: _Optional[float] = ..., slope: _Optional[float] = ..., intercepts: _Optional[_Iterable[float]] = ...) -> None: ...

class Release(_message.Message):
    __slots__ = ("use_case", "revision", "champion", "arms", "pending_retrain", "because", "clock_us", "decision_id", "pinned", "paused", "awaiting_approval")
    USE_CASE_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    CHAMPION_FIELD_NUMBER: _ClassVar[int]
    ARMS_FIELD_NUMBER: _ClassVar[int]
    PENDING_RETRAIN_FIELD_NUMBER: _ClassVar[int]
    BECAUSE_FIELD_NUMBER: _ClassVar[int]
    CLOCK_US_FIELD_NUMBER: _ClassVar[int]
    DECISION_ID_FIELD_NUMBER: _ClassVar[int]
    PINNED_FIELD_NUMBER: _ClassVar[int]
    PAUSED_FIELD_NUMBER: _ClassVar[int]
    AWAITING_APPROVAL_FIELD_NUMBER: _ClassVar[int]
    use_case: str
    revision: int
    champion: Arm
    arms: _containers.RepeatedCompositeFieldContainer[Arm]
    pending_retrain: str
    because: str
    clock_us: int
    decision_id: str
    pinned: str
    paused: bool
    awaiting_approval: str
    def __init__(self, use_case: _Optional[str] = ..., revision: _Optional[int] = ..., champion: _Optional[_Union[Arm, _Mapping]] = ..., arms: _Optional[_Iterable[_Union[Arm, _Mapping]]] = ..., pending_retrain: _Optional[str] = ..., because: _Optional[str] = ..., clock_us: _Optional[int] = ..., decision_id: _Optional[str] = ..., pinned: _Optional[str] = ..., paused: _Optional[bool] = ..., awaiting_approval: _Optional[str] = ...) -> None: ...
