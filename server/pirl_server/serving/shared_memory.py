"""Reads images from shared memory of clients on the same host. Client data is untrusted.

A block is read like a file, never mapped: a client that shortens it makes the read come back short, where a mapping
would end this process. Python's own SharedMemory is not used, because on Python before 3.13 its resource tracker would
unlink the client's block when this process ends.
"""

from __future__ import annotations

import os
import re
import stat

import numpy as np
from numpy.typing import NDArray

from pirl_contract.v1 import policy_pb2 as pb
from pirl_contract.wire.shared_memory import FOLDER, GENERATION, PREFIX

_NAME = re.compile(re.escape(PREFIX) + "[0-9a-f]{32}")
_OVERWRITTEN = "the image was overwritten by the next request before it was read"


def read_shared(where: pb.SharedMemory, height: int, width: int) -> NDArray[np.uint8]:
    """Return a copy [height, width, 3] uint8 of what stands there; the caller has bounded height and width.

    Raises ValueError when the name is not one of ours, when there is no such block of this user, when the image does
    not lie within it, and when it was written again meanwhile.
    """
    if not _NAME.fullmatch(where.name):
        raise ValueError("the shared memory name does not follow the naming of pirl clients")
    try:
        file = os.open(FOLDER / where.name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise ValueError(f"the shared memory cannot be opened ({error.strerror}): send the image itself") from None
    try:
        return _read(file, where, height, width)
    finally:
        os.close(file)


def _read(file: int, where: pb.SharedMemory, height: int, width: int) -> NDArray[np.uint8]:
    status, size = os.fstat(file), 3 * height * width
    if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
        raise ValueError("the shared memory does not belong to the server's user")
    before = where.offset - GENERATION.size
    if not 0 <= before <= status.st_size - GENERATION.size - size:
        raise ValueError(f"{size} bytes at {where.offset} exceed the {status.st_size} bytes of the block")
    generation, image = bytearray(GENERATION.size), np.empty((height, width, 3), np.uint8)
    got = os.preadv(file, [generation, image.data], before)
    after = os.pread(file, GENERATION.size, before)
    wanted = GENERATION.pack(where.generation)
    if got != GENERATION.size + size or generation != wanted or after != wanted:
        raise ValueError(_OVERWRITTEN)
    return image
