"""The messages of openpi's wire and its resize, each against openpi's own; bytes of strangers end in ValueError."""

from __future__ import annotations

import contextlib
import math
import struct

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pirl_server.openpi_wire.image_fitting import letterboxed
from pirl_server.openpi_wire.msgpack_numpy import MAX_DEPTH, MAX_ENTRIES, pack, unpack

pytest.importorskip("openpi_client", reason="openpi-client is not installed: docker/install_python.sh installs it")
from openpi_client import image_tools, msgpack_numpy

DTYPES = ["|u1", "|i1", "|b1", "<i4", "<i8", "<u2", "<f2", "<f4", "<f8"]


def array(**changes: object) -> bytes:
    """One array message, with one thing wrong."""
    good = {b"__ndarray__": True, b"data": bytes(24), b"dtype": "<f4", b"shape": [2, 3]}
    packed: bytes = msgpack.packb(good | {key.encode(): value for key, value in changes.items()})
    return packed


@given(arrays.arrays(st.sampled_from(DTYPES), arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)))
def test_arrays_cross_the_wire_in_both_directions(value: np.ndarray) -> None:
    theirs = msgpack_numpy.packb({"x": value, "n": {"y": [value]}})
    np.testing.assert_array_equal(unpack(theirs)["x"].reshape(value.shape), value)
    np.testing.assert_array_equal(unpack(theirs)["n"]["y"][0].reshape(value.shape), value)
    np.testing.assert_array_equal(msgpack_numpy.unpackb(pack({"x": value}))["x"], value)


def test_numpy_scalars_are_read() -> None:
    message = unpack(msgpack_numpy.packb({"x": np.float32(1.5), "n": np.int64(-3), "b": np.bool_(True)}))
    assert message == {"x": 1.5, "n": -3, "b": True}
    assert isinstance(message["x"], np.float32)


def test_what_was_read_cannot_be_written_to() -> None:
    assert not unpack(array()).flags.writeable


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (array(shape=[2, 4]), "has 32 bytes, got 24"),
        (array(shape=[2**40, 2**40]), "got 24"),
        (array(shape=[-2, -3]), "list of sizes"),
        (array(shape=[2.0, 3]), "list of sizes"),
        (array(shape=[True, 6]), "list of sizes"),
        (array(shape=[1] * 9 + [6]), "at most 8 dimensions"),
        (array(shape=None), "list of sizes"),
        (array(data="text"), "are bytes, not str"),
        (array(dtype="|O"), "rejected"),
        (array(dtype="O8"), "rejected"),
        (array(dtype=">f4"), "rejected"),
        (array(dtype="<c8"), "rejected"),
        (array(dtype="|V24"), "rejected"),
        (array(dtype=">U1"), "rejected"),
        (array(dtype="<U0"), "rejected"),
        (array(dtype="<U99999"), "got 24"),
        (msgpack.packb({b"__npgeneric__": True, b"data": 3, b"dtype": "<U4"}), "holds a number"),
        (array(dtype="<M8[s]"), "rejected"),
        (array(dtype="f4,f4"), "rejected"),
        (array(dtype=["a", "<f4"]), "rejected"),
        (msgpack.packb({b"__npgeneric__": True, b"data": 2**70 >> 7, b"dtype": "|u1"}), "no uint8"),
        (msgpack.packb({b"__npgeneric__": True, b"data": b"x", b"dtype": "<f4"}), "holds a number"),
        (msgpack.packb(msgpack.ExtType(5, b"x")), "not a msgpack message"),
        (msgpack.packb(list(range(MAX_ENTRIES + 1))), "not a msgpack message"),
        (msgpack.packb({str(i): i for i in range(MAX_ENTRIES + 1)}), "not a msgpack message"),
        (b"\xdd" + struct.pack(">I", 2**32 - 1), "not a msgpack message"),
        (b"\xdf" + struct.pack(">I", 2**31), "not a msgpack message"),
        (b"\xc6" + struct.pack(">I", 2**32 - 1), "not a msgpack message"),
        (b"\x91" * 5000 + b"\x01", "not a msgpack message"),
        (b"\x91" * (MAX_DEPTH + 1) + b"\x01", "nested more than"),
        (b"\xa2\xff\xfe", "not a msgpack message"),
        (b"", "not a msgpack message"),
        (b"\x01\x01", "not a msgpack message"),
    ],
)
def test_a_lie_is_refused_by_name(data: bytes, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        unpack(data)


def test_an_empty_array_with_endless_sides_is_empty() -> None:
    assert unpack(array(data=b"", shape=[0, 2**62, 2**62])).size == 0


@settings(max_examples=500)
@given(st.binary(max_size=200), st.integers(0, 60), st.integers(1, 255))
def test_garbage_ends_in_value_error_or_a_small_message(garbage: bytes, at: int, flip: int) -> None:
    good = bytearray(msgpack_numpy.packb({"state": np.ones(3, np.float32), "prompt": "push"}))
    good[at % len(good)] ^= flip
    for data in (garbage, bytes(good)):
        with contextlib.suppress(ValueError):  # any other error fails the test
            unpack(data)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 60), st.integers(1, 60), st.integers(0, 9))
def test_the_resize_is_that_of_openpis_client(h: int, w: int, height: int, width: int, seed: int) -> None:
    ratio = max(h / height, w / width)
    if math.floor(h / ratio) < 1 or math.floor(w / ratio) < 1:
        return  # theirs fails on a side of no pixels
    image = np.random.default_rng(seed).integers(0, 256, (h, w, 3), np.uint8)
    np.testing.assert_array_equal(letterboxed(image, height, width), image_tools.resize_with_pad(image, height, width))


def test_a_thread_of_a_picture_keeps_a_pixel() -> None:
    assert letterboxed(np.full((1, 500, 3), 9, np.uint8), 10, 10).max() == 9
