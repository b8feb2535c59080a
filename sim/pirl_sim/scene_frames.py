"""Messages between a scene's process and its user: a name or a JSON object, and arrays, as length-prefixed bytes.

Nothing is unpickled. NumPy alone, of any version: both ends run in environments of their own.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[Any]]
LENGTH = struct.Struct("<I")


def send(pipe: IO[bytes], header: Mapping[str, Any], arrays: Arrays | None = None) -> None:
    """Write one message. `header`: what JSON can say; `arrays`: of any shape, by name. Raises OSError."""
    arrays = arrays or {}
    layout = [[name, array.dtype.str, array.shape] for name, array in arrays.items()]
    text = json.dumps({"header": header, "arrays": layout}).encode()
    body = b"".join(array.tobytes() for array in arrays.values())
    pipe.write(LENGTH.pack(len(text)) + text + body)
    pipe.flush()


def receive(pipe: IO[bytes]) -> tuple[dict[str, Any], dict[str, NDArray[Any]]] | None:
    """Return the next message's header and its arrays, of any shape, by name; None when the other end is closed."""
    start = pipe.read(LENGTH.size)
    if len(start) < LENGTH.size:
        return None
    message = json.loads(pipe.read(*LENGTH.unpack(start)))
    arrays = {}
    for name, kind, shape in message["arrays"]:
        dtype = np.dtype(kind)
        raw = pipe.read(dtype.itemsize * int(np.prod(shape, dtype=np.int64)))
        arrays[name] = np.frombuffer(raw, dtype).reshape(shape).copy()
    return message["header"], arrays
