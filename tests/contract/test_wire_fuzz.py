"""Damaged messages end in words, and cost no more than they carry; and the search sees a decoder that fails."""

from __future__ import annotations

import contextlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from pirl_contract.v1 import policy_pb2 as pb


@pytest.fixture(scope="module")
def fuzz_wire() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[2] / "bench"))
        import fuzz_wire

        return fuzz_wire


def test_damaged_messages_are_refused_and_cost_little(fuzz_wire: ModuleType) -> None:
    figures = fuzz_wire.fuzz(3000, seed=1)
    assert min(figures["refused"], figures["no_message"], figures["decoded"]) > 300, "each kind of end is reached"
    assert 0 < figures["worst_allocation_of_bound"] < 1


@given(st.binary(max_size=400), st.sampled_from([b"r", b"q"]))
def test_noise_is_refused(fuzz_wire: ModuleType, noise: bytes, reader: bytes) -> None:
    with contextlib.suppress(ValueError, DecodeError):
        fuzz_wire.decode(reader + noise)


def images_of(data: bytes) -> list[pb.Image]:
    if data[:1] != b"q":
        return []
    return list(pb.SessionRequest.FromString(data[1:]).infer.observation.images.values())


def test_the_search_sees_a_decoder_that_trusts_a_size(fuzz_wire: ModuleType) -> None:
    def trusting(data: bytes) -> None:
        for image in images_of(data):
            if image.height * image.width < 10**9:
                np.zeros((image.height, image.width, 3), np.uint8)

    with pytest.raises(AssertionError, match="allocated"):
        fuzz_wire.fuzz(3000, seed=2, decoder=trusting)


def test_the_search_sees_a_decoder_that_crashes(fuzz_wire: ModuleType) -> None:
    def crashing(data: bytes) -> None:
        for image in images_of(data):
            [pb.IMAGE_ENCODING_RGB8, pb.IMAGE_ENCODING_JPEG, pb.IMAGE_ENCODING_PNG][image.encoding - 1]

    with pytest.raises(AssertionError, match="IndexError"):
        fuzz_wire.fuzz(3000, seed=3, decoder=crashing)
