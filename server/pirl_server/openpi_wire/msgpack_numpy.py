"""msgpack with openpi's encoding of numpy arrays, from untrusted clients: no evaluation, sizes checked first.

An array is the map {b"__ndarray__": True, b"data", b"dtype", b"shape"}, a numpy scalar {b"__npgeneric__": True,
b"data", b"dtype"}. Dtypes are numbers, booleans and strings; objects and structures are rejected.
"""

from __future__ import annotations

import math
import re
from typing import Any

import msgpack
import numpy as np
from numpy.typing import NDArray

MAX_ENTRIES = 256
"""of one map or list: a header that claims more is rejected before room is made for it"""
MAX_TEXT_BYTES = 65536
MAX_DEPTH, MAX_DIMENSIONS = 8, 8
_DTYPE = re.compile(r"[<|=]?(?:[biu]1|[iuf][248])")
_STRINGS = re.compile(r"[<|=]?[US][1-9]\d{0,4}")


def pack(message: dict[str, Any]) -> bytes:
    """Encode a map of numbers, strings, maps, lists and arrays."""
    packed: bytes = msgpack.packb(message, default=_pack_array)
    return packed


def unpack(data: bytes) -> Any:
    """Decode one message; arrays are read-only views of its bytes. Raises ValueError, naming the fault."""
    try:
        raw = msgpack.unpackb(
            data, raw=False, max_str_len=MAX_TEXT_BYTES, max_ext_len=0, max_array_len=MAX_ENTRIES,
            max_map_len=MAX_ENTRIES,
        )  # fmt: skip
    except (ValueError, msgpack.exceptions.UnpackException) as error:
        raise ValueError(f"not a msgpack message: {error or type(error).__name__}") from None
    return _unpacked(raw, 0)


def _pack_array(value: Any) -> Any:
    if isinstance(value, np.ndarray) and _DTYPE.fullmatch(value.dtype.str):
        data = value.tobytes()  # C order, whatever the array's own
        return {b"__ndarray__": True, b"data": data, b"dtype": value.dtype.str, b"shape": value.shape}
    raise TypeError(f"{type(value).__name__} is not supported by the openpi protocol")


def _unpacked(value: Any, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise ValueError(f"maps and lists are nested more than {MAX_DEPTH} deep")
    if isinstance(value, list):
        return [_unpacked(entry, depth + 1) for entry in value]
    if not isinstance(value, dict):
        return value
    if b"__ndarray__" in value:
        return _array(value)
    if b"__npgeneric__" in value:
        return _scalar(value)
    return {key: _unpacked(entry, depth + 1) for key, entry in value.items()}


def _array(fields: dict[Any, Any]) -> NDArray[Any]:
    data, dtype = fields.get(b"data"), _dtype(fields.get(b"dtype"))
    if not isinstance(data, bytes):
        raise ValueError(f"the data of an array are bytes, not {type(data).__name__}")
    shape = _sides(fields.get(b"shape"))
    expected = math.prod(shape) * dtype.itemsize
    if expected != len(data):
        raise ValueError(f"an array of {dtype} {shape} has {expected} bytes, got {len(data)}")
    # an array with a side of zero may still claim sides that no address reaches
    return np.frombuffer(data, dtype).reshape(shape if data else (0,))


def _sides(shape: Any) -> list[int]:
    if not isinstance(shape, list) or not all(type(side) is int and side >= 0 for side in shape):
        raise ValueError(f"the shape of an array is a list of sizes, not {str(shape)[:80]}")
    if len(shape) > MAX_DIMENSIONS:
        raise ValueError(f"an array has at most {MAX_DIMENSIONS} dimensions, not {len(shape)}")
    return shape


def _scalar(fields: dict[Any, Any]) -> Any:
    value, dtype = fields.get(b"data"), _dtype(fields.get(b"dtype"))
    if dtype.kind in "US" and isinstance(value, (str, bytes)):
        return value
    if dtype.kind in "US" or not isinstance(value, (bool, int, float)):
        raise ValueError(f"a numpy scalar holds a number, not {type(value).__name__}")
    try:
        return dtype.type(value)
    except OverflowError:
        raise ValueError(f"{value} is no {dtype}") from None


def _dtype(name: Any) -> np.dtype[Any]:
    if not isinstance(name, str) or not (_DTYPE.fullmatch(name) or _STRINGS.fullmatch(name)):
        raise ValueError(f"dtype {str(name)[:40]!r} is rejected: send numbers, booleans or text in little endian")
    return np.dtype(name)
