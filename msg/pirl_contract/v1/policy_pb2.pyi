from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DTYPE_UNSPECIFIED: _ClassVar[DType]
    DTYPE_FLOAT32: _ClassVar[DType]
    DTYPE_UINT8: _ClassVar[DType]
    DTYPE_INT64: _ClassVar[DType]

class ImageEncoding(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    IMAGE_ENCODING_UNSPECIFIED: _ClassVar[ImageEncoding]
    IMAGE_ENCODING_RGB8: _ClassVar[ImageEncoding]
    IMAGE_ENCODING_JPEG: _ClassVar[ImageEncoding]
    IMAGE_ENCODING_PNG: _ClassVar[ImageEncoding]
    IMAGE_ENCODING_SHARED_MEMORY: _ClassVar[ImageEncoding]

class SamplingMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SAMPLING_MODE_UNSPECIFIED: _ClassVar[SamplingMode]
    SAMPLING_MODE_DETERMINISTIC: _ClassVar[SamplingMode]
    SAMPLING_MODE_EXPLORE: _ClassVar[SamplingMode]

class Outcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OUTCOME_UNLABELED: _ClassVar[Outcome]
    OUTCOME_SUCCESS: _ClassVar[Outcome]
    OUTCOME_FAILURE: _ClassVar[Outcome]
DTYPE_UNSPECIFIED: DType
DTYPE_FLOAT32: DType
DTYPE_UINT8: DType
DTYPE_INT64: DType
IMAGE_ENCODING_UNSPECIFIED: ImageEncoding
IMAGE_ENCODING_RGB8: ImageEncoding
IMAGE_ENCODING_JPEG: ImageEncoding
IMAGE_ENCODING_PNG: ImageEncoding
IMAGE_ENCODING_SHARED_MEMORY: ImageEncoding
SAMPLING_MODE_UNSPECIFIED: SamplingMode
SAMPLING_MODE_DETERMINISTIC: SamplingMode
SAMPLING_MODE_EXPLORE: SamplingMode
OUTCOME_UNLABELED: Outcome
OUTCOME_SUCCESS: Outcome
OUTCOME_FAILURE: Outcome

class Tensor(_message.Message):
    __slots__ = ("dtype", "shape", "data")
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    dtype: DType
    shape: _containers.RepeatedScalarFieldContainer[int]
    data: bytes
    def __init__(self, dtype: _Optional[_Union[DType, str]] = ..., shape: _Optional[_Iterable[int]] = ..., data: _Optional[bytes] = ...) -> None: ...

class SharedMemory(_message.Message):
    __slots__ = ("name", "offset", "generation")
    NAME_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    name: str
    offset: int
    generation: int
    def __init__(self, name: _Optional[str] = ..., offset: _Optional[int] = ..., generation: _Optional[int] = ...) -> None: ...

class Image(_message.Message):
    __slots__ = ("encoding", "height", "width", "data", "shared")
    ENCODING_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    SHARED_FIELD_NUMBER: _ClassVar[int]
    encoding: ImageEncoding
    height: int
    width: int
    data: bytes
    shared: SharedMemory
    def __init__(self, encoding: _Optional[_Union[ImageEncoding, str]] = ..., height: _Optional[int] = ..., width: _Optional[int] = ..., data: _Optional[bytes] = ..., shared: _Optional[_Union[SharedMemory, _Mapping]] = ...) -> None: ...

class Observation(_message.Message):
    __slots__ = ("images", "state", "instruction", "capture_time_ns")
    class ImagesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: Image
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Image, _Mapping]] = ...) -> None: ...
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    INSTRUCTION_FIELD_NUMBER: _ClassVar[int]
    CAPTURE_TIME_NS_FIELD_NUMBER: _ClassVar[int]
    images: _containers.MessageMap[str, Image]
    state: Tensor
    instruction: str
    capture_time_ns: int
    def __init__(self, images: _Optional[_Mapping[str, Image]] = ..., state: _Optional[_Union[Tensor, _Mapping]] = ..., instruction: _Optional[str] = ..., capture_time_ns: _Optional[int] = ...) -> None: ...

class StepOutcome(_message.Message):
    __slots__ = ("chunk_id", "index", "executed", "state", "reward", "alterations", "source", "time_ns")
    CHUNK_ID_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    EXECUTED_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REWARD_FIELD_NUMBER: _ClassVar[int]
    ALTERATIONS_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    TIME_NS_FIELD_NUMBER: _ClassVar[int]
    chunk_id: str
    index: int
    executed: _containers.RepeatedScalarFieldContainer[float]
    state: _containers.RepeatedScalarFieldContainer[float]
    reward: float
    alterations: int
    source: int
    time_ns: int
    def __init__(self, chunk_id: _Optional[str] = ..., index: _Optional[int] = ..., executed: _Optional[_Iterable[float]] = ..., state: _Optional[_Iterable[float]] = ..., reward: _Optional[float] = ..., alterations: _Optional[int] = ..., source: _Optional[int] = ..., time_ns: _Optional[int] = ...) -> None: ...

class GetInfoRequest(_message.Message):
    __slots__ = ("alias", "robot_id", "wire")
    ALIAS_FIELD_NUMBER: _ClassVar[int]
    ROBOT_ID_FIELD_NUMBER: _ClassVar[int]
    WIRE_FIELD_NUMBER: _ClassVar[int]
    alias: str
    robot_id: str
    wire: int
    def __init__(self, alias: _Optional[str] = ..., robot_id: _Optional[str] = ..., wire: _Optional[int] = ...) -> None: ...

class GetInfoReply(_message.Message):
    __slots__ = ("contract_json", "contract_hash", "policy_version", "policy_name", "horizon", "execute_horizon", "server_version", "instructions", "wire", "encodings", "max_message_bytes", "host_id", "continuations")
    CONTRACT_JSON_FIELD_NUMBER: _ClassVar[int]
    CONTRACT_HASH_FIELD_NUMBER: _ClassVar[int]
    POLICY_VERSION_FIELD_NUMBER: _ClassVar[int]
    POLICY_NAME_FIELD_NUMBER: _ClassVar[int]
    HORIZON_FIELD_NUMBER: _ClassVar[int]
    EXECUTE_HORIZON_FIELD_NUMBER: _ClassVar[int]
    SERVER_VERSION_FIELD_NUMBER: _ClassVar[int]
    INSTRUCTIONS_FIELD_NUMBER: _ClassVar[int]
    WIRE_FIELD_NUMBER: _ClassVar[int]
    ENCODINGS_FIELD_NUMBER: _ClassVar[int]
    MAX_MESSAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    HOST_ID_FIELD_NUMBER: _ClassVar[int]
    CONTINUATIONS_FIELD_NUMBER: _ClassVar[int]
    contract_json: str
    contract_hash: str
    policy_version: str
    policy_name: str
    horizon: int
    execute_horizon: int
    server_version: str
    instructions: _containers.RepeatedScalarFieldContainer[str]
    wire: int
    encodings: _containers.RepeatedScalarFieldContainer[ImageEncoding]
    max_message_bytes: int
    host_id: str
    continuations: _containers.RepeatedScalarFieldContainer[Continuation.Method]
    def __init__(self, contract_json: _Optional[str] = ..., contract_hash: _Optional[str] = ..., policy_version: _Optional[str] = ..., policy_name: _Optional[str] = ..., horizon: _Optional[int] = ..., execute_horizon: _Optional[int] = ..., server_version: _Optional[str] = ..., instructions: _Optional[_Iterable[str]] = ..., wire: _Optional[int] = ..., encodings: _Optional[_Iterable[_Union[ImageEncoding, str]]] = ..., max_message_bytes: _Optional[int] = ..., host_id: _Optional[str] = ..., continuations: _Optional[_Iterable[_Union[Continuation.Method, str]]] = ...) -> None: ...

class Continuation(_message.Message):
    __slots__ = ("method", "actions", "delay", "chunk_id")
    class Method(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        METHOD_UNSPECIFIED: _ClassVar[Continuation.Method]
        METHOD_GUIDED: _ClassVar[Continuation.Method]
        METHOD_PREFIX: _ClassVar[Continuation.Method]
    METHOD_UNSPECIFIED: Continuation.Method
    METHOD_GUIDED: Continuation.Method
    METHOD_PREFIX: Continuation.Method
    METHOD_FIELD_NUMBER: _ClassVar[int]
    ACTIONS_FIELD_NUMBER: _ClassVar[int]
    DELAY_FIELD_NUMBER: _ClassVar[int]
    CHUNK_ID_FIELD_NUMBER: _ClassVar[int]
    method: Continuation.Method
    actions: Tensor
    delay: int
    chunk_id: str
    def __init__(self, method: _Optional[_Union[Continuation.Method, str]] = ..., actions: _Optional[_Union[Tensor, _Mapping]] = ..., delay: _Optional[int] = ..., chunk_id: _Optional[str] = ...) -> None: ...

class InferRequest(_message.Message):
    __slots__ = ("robot_id", "episode_id", "sequence", "contract_hash", "alias", "mode", "observation", "outcomes", "sent_time_ns", "continuation", "traceparent")
    ROBOT_ID_FIELD_NUMBER: _ClassVar[int]
    EPISODE_ID_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    CONTRACT_HASH_FIELD_NUMBER: _ClassVar[int]
    ALIAS_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    OBSERVATION_FIELD_NUMBER: _ClassVar[int]
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    SENT_TIME_NS_FIELD_NUMBER: _ClassVar[int]
    CONTINUATION_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    robot_id: str
    episode_id: str
    sequence: int
    contract_hash: str
    alias: str
    mode: SamplingMode
    observation: Observation
    outcomes: _containers.RepeatedCompositeFieldContainer[StepOutcome]
    sent_time_ns: int
    continuation: Continuation
    traceparent: str
    def __init__(self, robot_id: _Optional[str] = ..., episode_id: _Optional[str] = ..., sequence: _Optional[int] = ..., contract_hash: _Optional[str] = ..., alias: _Optional[str] = ..., mode: _Optional[_Union[SamplingMode, str]] = ..., observation: _Optional[_Union[Observation, _Mapping]] = ..., outcomes: _Optional[_Iterable[_Union[StepOutcome, _Mapping]]] = ..., sent_time_ns: _Optional[int] = ..., continuation: _Optional[_Union[Continuation, _Mapping]] = ..., traceparent: _Optional[str] = ...) -> None: ...

class InferReply(_message.Message):
    __slots__ = ("sequence", "chunk_id", "actions", "dt_s", "policy_version", "seed", "start_time_ns", "timings_ms", "execute_horizon", "sent_time_ns", "received_time_ns", "replied_time_ns", "continued")
    class TimingsMsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    CHUNK_ID_FIELD_NUMBER: _ClassVar[int]
    ACTIONS_FIELD_NUMBER: _ClassVar[int]
    DT_S_FIELD_NUMBER: _ClassVar[int]
    POLICY_VERSION_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    START_TIME_NS_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_MS_FIELD_NUMBER: _ClassVar[int]
    EXECUTE_HORIZON_FIELD_NUMBER: _ClassVar[int]
    SENT_TIME_NS_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_TIME_NS_FIELD_NUMBER: _ClassVar[int]
    REPLIED_TIME_NS_FIELD_NUMBER: _ClassVar[int]
    CONTINUED_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    chunk_id: str
    actions: Tensor
    dt_s: float
    policy_version: str
    seed: int
    start_time_ns: int
    timings_ms: _containers.ScalarMap[str, float]
    execute_horizon: int
    sent_time_ns: int
    received_time_ns: int
    replied_time_ns: int
    continued: int
    def __init__(self, sequence: _Optional[int] = ..., chunk_id: _Optional[str] = ..., actions: _Optional[_Union[Tensor, _Mapping]] = ..., dt_s: _Optional[float] = ..., policy_version: _Optional[str] = ..., seed: _Optional[int] = ..., start_time_ns: _Optional[int] = ..., timings_ms: _Optional[_Mapping[str, float]] = ..., execute_horizon: _Optional[int] = ..., sent_time_ns: _Optional[int] = ..., received_time_ns: _Optional[int] = ..., replied_time_ns: _Optional[int] = ..., continued: _Optional[int] = ...) -> None: ...

class StartEpisodeRequest(_message.Message):
    __slots__ = ("robot_id", "contract_json", "instruction", "alias", "mode", "metadata")
    class MetadataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ROBOT_ID_FIELD_NUMBER: _ClassVar[int]
    CONTRACT_JSON_FIELD_NUMBER: _ClassVar[int]
    INSTRUCTION_FIELD_NUMBER: _ClassVar[int]
    ALIAS_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    robot_id: str
    contract_json: str
    instruction: str
    alias: str
    mode: SamplingMode
    metadata: _containers.ScalarMap[str, str]
    def __init__(self, robot_id: _Optional[str] = ..., contract_json: _Optional[str] = ..., instruction: _Optional[str] = ..., alias: _Optional[str] = ..., mode: _Optional[_Union[SamplingMode, str]] = ..., metadata: _Optional[_Mapping[str, str]] = ...) -> None: ...

class StartEpisodeReply(_message.Message):
    __slots__ = ("episode_id", "policy_version")
    EPISODE_ID_FIELD_NUMBER: _ClassVar[int]
    POLICY_VERSION_FIELD_NUMBER: _ClassVar[int]
    episode_id: str
    policy_version: str
    def __init__(self, episode_id: _Optional[str] = ..., policy_version: _Optional[str] = ...) -> None: ...

class EndEpisodeRequest(_message.Message):
    __slots__ = ("episode_id", "outcome", "label_source", "end_reason", "discard", "outcomes", "final_observation")
    EPISODE_ID_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    LABEL_SOURCE_FIELD_NUMBER: _ClassVar[int]
    END_REASON_FIELD_NUMBER: _ClassVar[int]
    DISCARD_FIELD_NUMBER: _ClassVar[int]
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    FINAL_OBSERVATION_FIELD_NUMBER: _ClassVar[int]
    episode_id: str
    outcome: Outcome
    label_source: str
    end_reason: str
    discard: bool
    outcomes: _containers.RepeatedCompositeFieldContainer[StepOutcome]
    final_observation: Observation
    def __init__(self, episode_id: _Optional[str] = ..., outcome: _Optional[_Union[Outcome, str]] = ..., label_source: _Optional[str] = ..., end_reason: _Optional[str] = ..., discard: bool = ..., outcomes: _Optional[_Iterable[_Union[StepOutcome, _Mapping]]] = ..., final_observation: _Optional[_Union[Observation, _Mapping]] = ...) -> None: ...

class EndEpisodeReply(_message.Message):
    __slots__ = ("path", "steps")
    PATH_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    path: str
    steps: int
    def __init__(self, path: _Optional[str] = ..., steps: _Optional[int] = ...) -> None: ...

class ReportOutcomesRequest(_message.Message):
    __slots__ = ("episode_id", "outcomes")
    EPISODE_ID_FIELD_NUMBER: _ClassVar[int]
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    episode_id: str
    outcomes: _containers.RepeatedCompositeFieldContainer[StepOutcome]
    def __init__(self, episode_id: _Optional[str] = ..., outcomes: _Optional[_Iterable[_Union[StepOutcome, _Mapping]]] = ...) -> None: ...

class ReportOutcomesReply(_message.Message):
    __slots__ = ("steps",)
    STEPS_FIELD_NUMBER: _ClassVar[int]
    steps: int
    def __init__(self, steps: _Optional[int] = ...) -> None: ...

class LabelEpisodeRequest(_message.Message):
    __slots__ = ("episode_id", "outcome", "label_source", "note")
    EPISODE_ID_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    LABEL_SOURCE_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    episode_id: str
    outcome: Outcome
    label_source: str
    note: str
    def __init__(self, episode_id: _Optional[str] = ..., outcome: _Optional[_Union[Outcome, str]] = ..., label_source: _Optional[str] = ..., note: _Optional[str] = ...) -> None: ...

class LabelEpisodeReply(_message.Message):
    __slots__ = ("previous",)
    PREVIOUS_FIELD_NUMBER: _ClassVar[int]
    previous: Outcome
    def __init__(self, previous: _Optional[_Union[Outcome, str]] = ...) -> None: ...

class SessionRequest(_message.Message):
    __slots__ = ("id", "get_info", "infer", "start_episode", "end_episode", "report_outcomes", "label_episode", "timeout_ms")
    ID_FIELD_NUMBER: _ClassVar[int]
    GET_INFO_FIELD_NUMBER: _ClassVar[int]
    INFER_FIELD_NUMBER: _ClassVar[int]
    START_EPISODE_FIELD_NUMBER: _ClassVar[int]
    END_EPISODE_FIELD_NUMBER: _ClassVar[int]
    REPORT_OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    LABEL_EPISODE_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    id: int
    get_info: GetInfoRequest
    infer: InferRequest
    start_episode: StartEpisodeRequest
    end_episode: EndEpisodeRequest
    report_outcomes: ReportOutcomesRequest
    label_episode: LabelEpisodeRequest
    timeout_ms: int
    def __init__(self, id: _Optional[int] = ..., get_info: _Optional[_Union[GetInfoRequest, _Mapping]] = ..., infer: _Optional[_Union[InferRequest, _Mapping]] = ..., start_episode: _Optional[_Union[StartEpisodeRequest, _Mapping]] = ..., end_episode: _Optional[_Union[EndEpisodeRequest, _Mapping]] = ..., report_outcomes: _Optional[_Union[ReportOutcomesRequest, _Mapping]] = ..., label_episode: _Optional[_Union[LabelEpisodeRequest, _Mapping]] = ..., timeout_ms: _Optional[int] = ...) -> None: ...

class Refusal(_message.Message):
    __slots__ = ("code", "message", "retry_after_ms")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    code: int
    message: str
    retry_after_ms: int
    def __init__(self, code: _Optional[int] = ..., message: _Optional[str] = ..., retry_after_ms: _Optional[int] = ...) -> None: ...

class ServerEvent(_message.Message):
    __slots__ = ("emergency_stop", "policy_changed", "draining")
    EMERGENCY_STOP_FIELD_NUMBER: _ClassVar[int]
    POLICY_CHANGED_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    emergency_stop: EmergencyStopEvent
    policy_changed: PolicyChangedEvent
    draining: DrainingEvent
    def __init__(self, emergency_stop: _Optional[_Union[EmergencyStopEvent, _Mapping]] = ..., policy_changed: _Optional[_Union[PolicyChangedEvent, _Mapping]] = ..., draining: _Optional[_Union[DrainingEvent, _Mapping]] = ...) -> None: ...

class EmergencyStopEvent(_message.Message):
    __slots__ = ("reason", "by")
    REASON_FIELD_NUMBER: _ClassVar[int]
    BY_FIELD_NUMBER: _ClassVar[int]
    reason: str
    by: str
    def __init__(self, reason: _Optional[str] = ..., by: _Optional[str] = ...) -> None: ...

class PolicyChangedEvent(_message.Message):
    __slots__ = ("policy_version",)
    POLICY_VERSION_FIELD_NUMBER: _ClassVar[int]
    policy_version: str
    def __init__(self, policy_version: _Optional[str] = ...) -> None: ...

class DrainingEvent(_message.Message):
    __slots__ = ("grace_s",)
    GRACE_S_FIELD_NUMBER: _ClassVar[int]
    grace_s: float
    def __init__(self, grace_s: _Optional[float] = ...) -> None: ...

class SessionReply(_message.Message):
    __slots__ = ("id", "error", "get_info", "infer", "start_episode", "end_episode", "report_outcomes", "label_episode", "event")
    ID_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    GET_INFO_FIELD_NUMBER: _ClassVar[int]
    INFER_FIELD_NUMBER: _ClassVar[int]
    START_EPISODE_FIELD_NUMBER: _ClassVar[int]
    END_EPISODE_FIELD_NUMBER: _ClassVar[int]
    REPORT_OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    LABEL_EPISODE_FIELD_NUMBER: _ClassVar[int]
    EVENT_FIELD_NUMBER: _ClassVar[int]
    id: int
    error: Refusal
    get_info: GetInfoReply
    infer: InferReply
    start_episode: StartEpisodeReply
    end_episode: EndEpisodeReply
    report_outcomes: ReportOutcomesReply
    label_episode: LabelEpisodeReply
    event: ServerEvent
    def __init__(self, id: _Optional[int] = ..., error: _Optional[_Union[Refusal, _Mapping]] = ..., get_info: _Optional[_Union[GetInfoReply, _Mapping]] = ..., infer: _Optional[_Union[InferReply, _Mapping]] = ..., start_episode: _Optional[_Union[StartEpisodeReply, _Mapping]] = ..., end_episode: _Optional[_Union[EndEpisodeReply, _Mapping]] = ..., report_outcomes: _Optional[_Union[ReportOutcomesReply, _Mapping]] = ..., label_episode: _Optional[_Union[LabelEpisodeReply, _Mapping]] = ..., event: _Optional[_Union[ServerEvent, _Mapping]] = ...) -> None: ...
