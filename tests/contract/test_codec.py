"""The wire codec: what goes in comes out, and nothing that is malformed becomes anything but a ValueError."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pirl_contract import (
    ActionChunk,
    Alteration,
    Camera,
    Contract,
    ControlSource,
    Field,
    Observation,
    PreviousChunk,
    StepOutcome,
)
from pirl_contract.schema import MAX_INSTRUCTION_BYTES
from pirl_contract.v1 import policy_pb2 as pb
from pirl_contract.wire import codec, image_codec

FINITE = st.floats(-1e6, 1e6, width=32)
INT64 = st.integers(-(2**63), 2**63 - 1)
IMAGES = hnp.arrays(np.uint8, st.tuples(st.integers(1, 5), st.integers(1, 5), st.just(3)))
ARRAYS = st.sampled_from([np.float32, np.uint8, np.int64]).flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
)
OBSERVATIONS = st.builds(
    Observation,
    images=st.dictionaries(st.text(max_size=8), IMAGES, max_size=3),
    state=hnp.arrays(np.float32, st.integers(0, 6), elements=FINITE),
    instruction=st.text(max_size=20),
    robot_id=st.just("arm"),
    capture_time_ns=INT64,
)
CHUNKS = st.builds(
    ActionChunk,
    actions=hnp.arrays(np.float32, st.tuples(st.integers(2, 5), st.integers(1, 4)), elements=FINITE),
    dt_s=st.floats(0.001, 1.0),
    chunk_id=st.text(max_size=8),
    policy_version=st.text(max_size=8),
    seed=st.integers(0, 2**64 - 1),
    execute_horizon=st.integers(1, 2),
    start_time_ns=INT64,
    timings_ms=st.dictionaries(st.text(max_size=5), st.floats(0, 1e3), max_size=3),
)
OUTCOMES = st.builds(
    StepOutcome,
    chunk_id=st.text(max_size=8),
    index=st.integers(0, 2**32 - 1),
    executed=hnp.arrays(np.float32, st.integers(0, 4), elements=FINITE),
    state=hnp.arrays(np.float32, st.integers(0, 4), elements=FINITE),
    reward=FINITE,
    alterations=st.integers(0, 4095).map(Alteration),
    source=st.sampled_from(ControlSource),
    time_ns=INT64,
)


def same(left: object, right: object) -> None:
    """Compare dataclasses that hold arrays, field by field."""
    assert type(left) is type(right)
    for name, value in vars(left).items():
        np.testing.assert_equal(vars(right)[name], value, err_msg=name)


@given(ARRAYS)
def test_tensors_come_back(array: np.ndarray) -> None:
    found = codec.array_from_proto(codec.tensor_to_proto(array), "x")
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize("array", [np.zeros(2), np.zeros(2, np.int32), np.zeros(2, bool), np.array(["a"])])
def test_other_dtypes_do_not_travel(array: np.ndarray) -> None:
    with pytest.raises(ValueError, match="is not supported"):
        codec.tensor_to_proto(array)


@given(OBSERVATIONS)
@settings(max_examples=50)
def test_observations_come_back(observation: Observation) -> None:
    wire = codec.observation_to_proto(observation).SerializeToString()
    same(observation, codec.observation_from_proto(pb.Observation.FromString(wire), "arm"))


@given(CHUNKS, st.integers(0, 2**64 - 1))
@settings(max_examples=50)
def test_chunks_come_back(chunk: ActionChunk, sequence: int) -> None:
    reply = pb.InferReply.FromString(codec.chunk_to_proto(chunk, sequence).SerializeToString())
    assert reply.sequence == sequence
    same(chunk, codec.chunk_from_proto(reply))


@given(st.lists(OUTCOMES, max_size=3))
@settings(max_examples=50)
def test_outcomes_come_back(outcomes: list[StepOutcome]) -> None:
    request = pb.InferRequest(outcomes=codec.outcomes_to_proto(outcomes))
    found = codec.outcomes_from_proto(pb.InferRequest.FromString(request.SerializeToString()).outcomes)
    assert len(found) == len(outcomes)
    for before, after in zip(outcomes, found):
        same(before, after)


FLOATS = np.zeros((2, 3), np.float32).tobytes()
MALFORMED_TENSORS = {
    "unknown dtype": pb.Tensor(dtype=0, shape=[2, 3], data=FLOATS),
    "dtype of a later version": pb.Tensor(dtype=99, shape=[2, 3], data=FLOATS),
    "too short": pb.Tensor(dtype=1, shape=[2, 3], data=FLOATS[:-1]),
    "too long": pb.Tensor(dtype=1, shape=[2, 3], data=FLOATS + b"\0"),
    "negative sizes": pb.Tensor(dtype=1, shape=[-2, -3], data=FLOATS),
    "product overflows to 24 bytes": pb.Tensor(dtype=1, shape=[2**62 + 2, 3, 2], data=FLOATS),
    "product overflows to 0 bytes": pb.Tensor(dtype=1, shape=[2**32, 2**32], data=b""),
    "nothing times very much": pb.Tensor(dtype=1, shape=[0, 2**63 - 1], data=b""),
    "nothing times too much": pb.Tensor(dtype=1, shape=[0, 2**63 - 1, 2**63 - 1], data=b""),
    "too many dimensions": pb.Tensor(dtype=1, shape=[1] * 40, data=FLOATS[:4]),
}


@pytest.mark.parametrize("name", MALFORMED_TENSORS)
def test_a_malformed_tensor_is_refused_with_its_name(name: str) -> None:
    with pytest.raises(ValueError, match="actions"):
        codec.array_from_proto(MALFORMED_TENSORS[name], "actions", (2, 3))


def test_the_well_formed_tensor_is_not_refused() -> None:
    """Negative control of the list above."""
    assert codec.array_from_proto(pb.Tensor(dtype=1, shape=[2, 3], data=FLOATS), "actions", (2, 3)).shape == (2, 3)


def image(**changes: object) -> pb.Observation:
    fields = {"encoding": 1, "height": 2, "width": 3, "data": bytes(18)} | changes
    state = codec.tensor_to_proto(np.zeros(2, np.float32))
    return pb.Observation(images={"wrist": pb.Image(**fields)}, state=state, instruction="go")


@pytest.mark.parametrize(
    "changes",
    [
        {"encoding": 0}, {"encoding": 9}, {"height": 0}, {"width": 0, "data": b""}, {"data": bytes(17)},
        {"data": bytes(19)}, {"height": 3}, {"height": 2**32 - 1, "width": 2**32 - 1},
        {"height": 2**16, "width": 2**16},
    ],
)  # fmt: skip
def test_a_malformed_image_is_refused_with_its_name(changes: dict[str, object]) -> None:
    assert codec.observation_from_proto(image(), "arm").images["wrist"].shape == (2, 3, 3)
    with pytest.raises(ValueError, match="wrist"):
        codec.observation_from_proto(image(**changes), "arm")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_state_that_is_not_finite_is_refused_with_its_place(bad: float) -> None:
    message = image()
    message.state.CopyFrom(codec.tensor_to_proto(np.array([0, bad], np.float32)))
    with pytest.raises(ValueError, match="entry 1"):
        codec.observation_from_proto(message, "arm")
    outcome = pb.StepOutcome(executed=[0.0], state=[bad])
    with pytest.raises(ValueError, match="not finite"):
        codec.outcomes_from_proto([outcome])


def infer_request() -> pb.InferRequest:
    """One that fits `CONTRACT`."""
    return pb.InferRequest(
        robot_id="arm",
        mode=pb.SAMPLING_MODE_EXPLORE,
        observation=image(),
        outcomes=[pb.StepOutcome(index=3)],
        continuation=codec.continuation_to_proto(PreviousChunk(np.ones((4, 2), np.float32), 1, "prefix")),
    )


CONTRACT = Contract("arm", (Camera("wrist", 2, 3),), tuple(Field(f"q{i}", "rad") for i in range(2)), (), 10.0)


def test_an_infer_request_is_decoded_once_and_whole() -> None:
    request = infer_request()
    call = codec.decode_infer(request, CONTRACT)
    same(call.observation, codec.observation_from_proto(request.observation, "arm"))
    assert [outcome.index for outcome in call.outcomes] == [3]
    assert call.previous_chunk is not None
    assert (call.previous_chunk.method, call.previous_chunk.inference_delay) == ("prefix", 1)
    modes = (pb.SAMPLING_MODE_UNSPECIFIED, pb.SAMPLING_MODE_DETERMINISTIC, pb.SAMPLING_MODE_EXPLORE)
    assert [codec.explore_from_proto(mode) for mode in modes] == [None, False, True]
    assert call.explore is True
    with pytest.raises(ValueError, match="mode 9"):
        codec.explore_from_proto(9)
    del request.outcomes[:]
    request.ClearField("continuation")
    bare = codec.decode_infer(request, CONTRACT)
    assert (bare.outcomes, bare.previous_chunk) == ([], None)


def test_an_image_of_another_size_is_refused_before_any_is_read() -> None:
    opened: list[str] = []
    request = infer_request()
    request.observation.images["wrist"].encoding = pb.IMAGE_ENCODING_SHARED_MEMORY

    def read(where: pb.SharedMemory, height: int, width: int) -> np.ndarray:
        opened.append(where.name)
        return np.zeros((height, width, 3), np.uint8)

    codec.decode_infer(request, CONTRACT, read)
    assert len(opened) == 1
    request.observation.images["wrist"].height = 3
    with pytest.raises(ValueError, match="'wrist' is 3x3, the contract says 2x3"):
        codec.decode_infer(request, CONTRACT, read)
    del request.observation.images["wrist"]
    with pytest.raises(ValueError, match="'wrist' is missing"):
        codec.decode_infer(request, CONTRACT, read)
    assert len(opened) == 1


def test_a_state_of_another_length_is_refused() -> None:
    request = infer_request()
    request.observation.state.CopyFrom(codec.tensor_to_proto(np.zeros(3, np.float32)))
    with pytest.raises(ValueError, match="state has 3 entries, the contract 2"):
        codec.decode_infer(request, CONTRACT)


def test_too_much_is_refused() -> None:
    many = image()
    for number in range(image_codec.MAX_CAMERAS):
        many.images[str(number)].CopyFrom(many.images["wrist"])
    with pytest.raises(ValueError, match="17 cameras"):
        codec.observation_from_proto(many, "arm")
    long = image()
    long.instruction = "é" * (MAX_INSTRUCTION_BYTES // 2 + 1)
    with pytest.raises(ValueError, match="instruction"):
        codec.observation_from_proto(long, "arm")


@given(st.binary(max_size=40), st.integers(0, 200), st.integers(0, 255))
@settings(max_examples=400)
def test_any_bytes_give_a_message_or_a_value_error(junk: bytes, place: int, byte: int) -> None:
    """Fuzz: random bytes, and a good message with one byte replaced. DecodeError is protobuf's, before our code."""
    good = bytearray(image().SerializeToString())
    good[place % len(good)] = byte
    for data in (junk, bytes(good)):
        with contextlib.suppress(DecodeError, ValueError):
            codec.observation_from_proto(pb.Observation.FromString(data), "arm")
        with contextlib.suppress(DecodeError, ValueError):
            codec.outcomes_from_proto([pb.StepOutcome.FromString(data)])
        with contextlib.suppress(DecodeError, ValueError):
            codec.chunk_from_proto(pb.InferReply.FromString(data))


@given(st.integers(-1, 5), st.lists(INT64 | st.integers(0, 4), max_size=6), st.binary(max_size=64))
def test_any_tensor_gives_an_array_or_a_value_error(dtype: int, shape: list[int], data: bytes) -> None:
    with contextlib.suppress(ValueError):
        found = codec.array_from_proto(pb.Tensor(dtype=dtype, shape=shape, data=data), "x")
        assert found.nbytes == len(data)


@pytest.mark.parametrize("execute", [0, 6])
def test_a_chunk_that_plays_nothing_or_more_than_it_holds_is_refused(execute: int) -> None:
    reply = codec.chunk_to_proto(ActionChunk(np.zeros((5, 1), np.float32), 0.1, "c", "v", 0, 5), 1)
    reply.execute_horizon = execute
    with pytest.raises(ValueError, match="execute_horizon"):
        codec.chunk_from_proto(reply)
