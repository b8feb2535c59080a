"""Protobuf messages to contract values and back. Every message is checked before anything is allocated from it.

A malformed message raises ValueError with the field's name: the service answers INVALID_ARGUMENT with that text.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pirl_contract.contract import Contract
from pirl_contract.schema import (
    ActionChunk,
    Alteration,
    ContinuationMethod,
    ControlSource,
    Observation,
    PreviousChunk,
    StepOutcome,
)
from pirl_contract.v1 import policy_pb2 as pb
from pirl_contract.wire.image_codec import ReadShared, images_from_proto

MAX_OUTCOMES = 4096

_DTYPES: dict[int, np.dtype[np.generic]] = {
    pb.DTYPE_FLOAT32: np.dtype("<f4"),
    pb.DTYPE_UINT8: np.dtype("u1"),
    pb.DTYPE_INT64: np.dtype("<i8"),
}
CONTINUATIONS: Mapping[ContinuationMethod, pb.Continuation.Method] = {
    "guided": pb.Continuation.METHOD_GUIDED,
    "prefix": pb.Continuation.METHOD_PREFIX,
}
"""how a way to continue is called on the wire"""
_METHODS: Mapping[int, ContinuationMethod] = {number: method for method, number in CONTINUATIONS.items()}
_EXPLORE: Mapping[int, bool | None] = {
    pb.SAMPLING_MODE_UNSPECIFIED: None,
    pb.SAMPLING_MODE_DETERMINISTIC: False,
    pb.SAMPLING_MODE_EXPLORE: True,
}
_ENUM_OF_KIND = {"f4": pb.DTYPE_FLOAT32, "u1": pb.DTYPE_UINT8, "i8": pb.DTYPE_INT64}


def tensor_to_proto(array: NDArray[np.generic]) -> pb.Tensor:
    """Encode a float32, uint8 or int64 array of any shape. ValueError: another dtype."""
    kind = array.dtype.str.lstrip("<|>=")
    if kind not in _ENUM_OF_KIND:
        raise ValueError(f"tensor dtype {array.dtype} is not supported: use float32, uint8 or int64")
    return pb.Tensor(dtype=_ENUM_OF_KIND[kind], shape=array.shape, data=np.ascontiguousarray(array).tobytes())


def array_from_proto(tensor: pb.Tensor, name: str, shape: Sequence[int | None] | None = None) -> NDArray[np.generic]:
    """Decode a tensor of any shape into a read-only view of its bytes.

    `shape` gives the expected sizes, None for any. Raises ValueError when dtype, shape and length do not agree.
    """
    dtype = _DTYPES.get(tensor.dtype)
    if dtype is None:
        raise ValueError(f"{name}: unknown dtype {tensor.dtype}")
    sizes = tuple(tensor.shape)
    if any(size < 0 for size in sizes) or len(sizes) > 4:
        raise ValueError(f"{name}: shape {sizes} must have up to four sizes above 0")
    expected_bytes = dtype.itemsize
    for size in sizes:  # Python integers: a hostile shape cannot overflow
        expected_bytes *= size
    if expected_bytes != len(tensor.data):
        raise ValueError(f"{name}: shape {sizes} needs {expected_bytes} bytes, the message carries {len(tensor.data)}")
    if shape is not None and (len(shape) != len(sizes) or any(e not in (None, s) for e, s in zip(shape, sizes))):
        wanted = ", ".join("any" if size is None else str(size) for size in shape)
        raise ValueError(f"{name}: expected shape ({wanted}), got {sizes}")
    return np.frombuffer(tensor.data, dtype=dtype).reshape(sizes)


def observation_to_proto(observation: Observation) -> pb.Observation:
    """Encode an observation; images travel raw. `transport` writes the same bytes with one copy of the pixels."""
    message = state_to_proto(observation)
    for name, image in observation.images.items():
        entry = message.images[name]
        entry.encoding, entry.data = pb.IMAGE_ENCODING_RGB8, image.tobytes()
        entry.height, entry.width = image.shape[:2]
    return message


def state_to_proto(observation: Observation) -> pb.Observation:
    """Encode an observation without its images."""
    return pb.Observation(
        state=tensor_to_proto(observation.state),
        instruction=observation.instruction,
        capture_time_ns=observation.capture_time_ns,
    )


def observation_from_proto(
    message: pb.Observation, robot_id: str, read_shared: ReadShared | None = None
) -> Observation:
    """Decode and check an observation; `read_shared` copies images out of shared memory, None rejects those.

    Raises ValueError with the field at fault.
    """
    images = images_from_proto(message.images, read_shared)
    return Observation(images, _state(message), message.instruction, robot_id, message.capture_time_ns)


def _state(message: pb.Observation) -> NDArray[np.float32]:
    state = array_from_proto(message.state, "state", (None,))
    if state.dtype != np.float32:
        raise ValueError(f"state: must be float32, got {state.dtype}")
    return state.astype(np.float32, copy=False)


def continuation_to_proto(continuation: PreviousChunk) -> pb.Continuation:
    """Encode what the robot still plays."""
    return pb.Continuation(
        method=CONTINUATIONS[continuation.method],
        actions=tensor_to_proto(continuation.actions),
        delay=continuation.inference_delay,
        chunk_id=continuation.chunk_id,
    )


def continuation_from_proto(message: pb.Continuation) -> PreviousChunk:
    """Decode and check what the robot still plays. Raises ValueError with the field at fault."""
    if message.method not in _METHODS:
        raise ValueError(f"continuation.method: {message.method} is not known")
    actions = array_from_proto(message.actions, "continuation.actions", (None, None))
    if actions.dtype != np.float32 or not np.isfinite(actions).all():
        raise ValueError("continuation.actions: must be float32 and finite")
    chunk = actions.astype(np.float32, copy=False)
    return PreviousChunk(chunk, message.delay, _METHODS[message.method], message.chunk_id)


def outcomes_to_proto(outcomes: Iterable[StepOutcome]) -> list[pb.StepOutcome]:
    """Encode step outcomes."""
    return [
        pb.StepOutcome(
            chunk_id=outcome.chunk_id,
            index=outcome.index,
            executed=outcome.executed.tolist(),
            state=outcome.state.tolist(),
            reward=outcome.reward,
            alterations=int(outcome.alterations),
            source=int(outcome.source),
            time_ns=outcome.time_ns,
        )
        for outcome in outcomes
    ]


def outcomes_from_proto(messages: Iterable[pb.StepOutcome]) -> list[StepOutcome]:
    """Decode step outcomes. Raises ValueError for values that are not finite or an unknown source."""
    outcomes: list[StepOutcome] = []
    for message in messages:
        if len(outcomes) == MAX_OUTCOMES:
            raise ValueError(f"outcomes: more than {MAX_OUTCOMES} at once")
        executed = np.asarray(message.executed, dtype=np.float32)
        state = np.asarray(message.state, dtype=np.float32)
        if not (np.isfinite(executed).all() and np.isfinite(state).all() and np.isfinite(message.reward)):
            raise ValueError(f"outcome {message.index} of chunk {message.chunk_id}: a value is not finite")
        outcomes.append(
            StepOutcome(
                chunk_id=message.chunk_id,
                index=message.index,
                executed=executed,
                state=state,
                reward=message.reward,
                alterations=Alteration(message.alterations),
                source=ControlSource(message.source),
                time_ns=message.time_ns,
            )
        )
    return outcomes


@dataclass(slots=True)  # not frozen: for each request that costs microseconds
class InferCall:
    """A decoded and checked InferRequest."""

    observation: Observation
    outcomes: list[StepOutcome]
    """of earlier chunks"""
    previous_chunk: PreviousChunk | None
    explore: bool | None
    """None: the server's default for this robot"""


def decode_infer(
    request: pb.InferRequest, contract: Contract, read_shared: ReadShared | None = None, deadline: float = math.inf
) -> InferCall:
    """Decode a request for a policy with this contract; `read_shared` as in `observation_from_proto`.

    Raises ValueError with the field at fault. What is cheap comes first: no image is decoded before all declared sizes
    match the contract, and none after the deadline, a `time.monotonic()` value: TimeoutError.
    """
    message = request.observation
    state, outcomes = _state(message), outcomes_from_proto(request.outcomes)
    previous = continuation_from_proto(request.continuation) if request.HasField("continuation") else None
    explore = explore_from_proto(request.mode)
    contract.check_state(state)
    images: dict[str, NDArray[np.uint8]] = {}
    if contract.cameras or message.images:
        contract.check_sizes({name: (image.height, image.width) for name, image in message.images.items()})
        images = images_from_proto(message.images, read_shared, deadline)
    observation = Observation(images, state, message.instruction, request.robot_id, message.capture_time_ns)
    return InferCall(observation, outcomes, previous, explore)


def explore_from_proto(mode: pb.SamplingMode) -> bool | None:
    """Whether to sample stochastically; None: the server's default. Raises ValueError for an unknown mode."""
    if mode not in _EXPLORE:
        raise ValueError(f"mode {mode} is not known")
    return _EXPLORE[mode]


def chunk_to_proto(chunk: ActionChunk, sequence: int) -> pb.InferReply:
    """Encode the answer to request number `sequence`; the stamps of the clock are the caller's to set."""
    return pb.InferReply(
        sequence=sequence,
        chunk_id=chunk.chunk_id,
        actions=tensor_to_proto(chunk.actions),
        dt_s=chunk.dt_s,
        policy_version=chunk.policy_version,
        seed=chunk.seed,
        start_time_ns=chunk.start_time_ns,
        timings_ms=dict(chunk.timings_ms),
        execute_horizon=chunk.execute_horizon,
        continued=chunk.continued,
    )


def chunk_from_proto(reply: pb.InferReply) -> ActionChunk:
    """Decode and check an action chunk. Raises ValueError with the field at fault."""
    actions = array_from_proto(reply.actions, "actions", (None, None))
    if actions.dtype != np.float32:
        raise ValueError(f"actions: must be float32, got {actions.dtype}")
    if not 0 < reply.execute_horizon <= actions.shape[0]:
        raise ValueError(f"execute_horizon: {reply.execute_horizon} of {actions.shape[0]} actions")
    if reply.continued > actions.shape[0]:
        raise ValueError(f"continued: {reply.continued} of {actions.shape[0]} actions")
    return ActionChunk(
        actions=actions.astype(np.float32),
        dt_s=reply.dt_s,
        chunk_id=reply.chunk_id,
        policy_version=reply.policy_version,
        seed=reply.seed,
        execute_horizon=reply.execute_horizon,
        start_time_ns=reply.start_time_ns,
        timings_ms=dict(reply.timings_ms),
        continued=reply.continued,
    )
