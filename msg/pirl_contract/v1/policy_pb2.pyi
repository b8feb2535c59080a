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

class Image(_message.Message):
    __slots__ = ("encoding", "height", "width", "data")
    ENCODING_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    encoding: ImageEncoding
    height: int
    width: int
    data: bytes
    def __init__(self, encoding: _Optional[_Union[ImageEncoding, str]] = ..., height: _Optional[int] = ..., width: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

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
    __slots__ = ("alias",)
    ALIAS_FIELD_NUMBER: _ClassVar[int]
    alias: str
    def __init__(self, alias: _Optional[str] = ...) -> None: ...

class GetInfoReply(_message.Message):
    __slots__ = ("contract_json", "contract_hash", "policy_version", "policy_name", "horizon", "execute_horizon", "server_version", "instructions")
    CONTRACT_JSON_FIELD_NUMBER: _ClassVar[int]
    CONTRACT_HASH_FIELD_NUMBER: _ClassVar[int]
    POLICY_VERSION_FIELD_NUMBER: _ClassVar[int]
    POLICY_NAME_FIELD_NUMBER: _ClassVar[int]
    HORIZON_FIELD_NUMBER: _ClassVar[int]
    EXECUTE_HORIZON_FIELD_NUMBER: _ClassVar[int]
    SERVER_VERSION_FIELD_NUMBER: _ClassVar[int]
    INSTRUCTIONS_FIELD_NUMBER: _ClassVar[int]
    contract_json: str
    contract_hash: str
    policy_version: str
    policy_name: str
    horizon: int
    execute_horizon: int
    server_version: str
    instructions: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, contract_json: _Optional[str] = ..., contract_hash: _Optional[str] = ..., policy_version: _Optional[str] = ..., policy_name: _Optional[str] = ..., horizon: _Optional[int] = ..., execute_horizon: _Optional[int] = ..., server_version: _Optional[str] = ..., instructions: _Optional[_Iterable[str]] = ...) -> None: ...

class InferRequest(_message.Message):
    __slots__ = ("robot_id", "episode_id", "sequence", "contract_hash", "alias", "mode", "observation", "outcomes")
    ROBOT_ID_FIELD_NUMBER: _ClassVar[int]
    EPISODE_ID_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    CONTRACT_HASH_FIELD_NUMBER: _ClassVar[int]
    ALIAS_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    OBSERVATION_FIELD_NUMBER: _ClassVar[int]
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    robot_id: str
    episode_id: str
    sequence: int
    contract_hash: str
    alias: str
    mode: SamplingMode
    observation: Observation
    outcomes: _containers.RepeatedCompositeFieldContainer[StepOutcome]
    def __init__(self, robot_id: _Optional[str] = ..., episode_id: _Optional[str] = ..., sequence: _Optional[int] = ..., contract_hash: _Optional[str] = ..., alias: _Optional[str] = ..., mode: _Optional[_Union[SamplingMode, str]] = ..., observation: _Optional[_Union[Observation, _Mapping]] = ..., outcomes: _Optional[_Iterable[_Union[StepOutcome, _Mapping]]] = ...) -> None: ...

class InferReply(_message.Message):
    __slots__ = ("sequence", "chunk_id", "actions", "dt_s", "policy_version", "seed", "start_time_ns", "timings_ms", "execute_horizon")
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
    sequence: int
    chunk_id: str
    actions: Tensor
    dt_s: float
    policy_version: str
    seed: int
    start_time_ns: int
    timings_ms: _containers.ScalarMap[str, float]
    execute_horizon: int
    def __init__(self, sequence: _Optional[int] = ..., chunk_id: _Optional[str] = ..., actions: _Optional[_Union[Tensor, _Mapping]] = ..., dt_s: _Optional[float] = ..., policy_version: _Optional[str] = ..., seed: _Optional[int] = ..., start_time_ns: _Optional[int] = ..., timings_ms: _Optional[_Mapping[str, float]] = ..., execute_horizon: _Optional[int] = ...) -> None: ...

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
