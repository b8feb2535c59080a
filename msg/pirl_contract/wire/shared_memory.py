"""Images for a server on the same host: written once to shared memory; only their location is sent.

The client owns one POSIX shared memory block with a ring of slots, one slot per request. Before each image stand 8
bytes, its generation: the server reads them before and after it has copied the pixels, and rejects the image when they
are not those of the message (a seqlock with one writer). A slot is written again after `SLOTS` requests; by then the
server has answered, or has dropped the request for a newer one.

Both sides use reads and writes of the file below /dev/shm, not a mapping: touching a mapping kills the process when
the memory has run out or the other side has shortened the file; a read or write merely fails.
Client data is untrusted: `read_shared` opens no name but a client's, and of the server's own user only. Python's own
SharedMemory is not used there, because before 3.13 its resource tracker would unlink the client's block when the
server ends.

The block is given back by `close`, by the end of the process, and after a crash by Python's resource tracker, which
outlives it. Works on Linux.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import struct
import uuid
import weakref
from collections.abc import Mapping
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pirl_contract.v1 import policy_pb2 as pb
from pirl_contract.wire.image_codec import WireImage

FOLDER = Path("/dev/shm")
PREFIX = "pirl-images-"
"""of every block; the server opens no other name"""
GENERATION = struct.Struct("<Q")
_NAME = re.compile(re.escape(PREFIX) + "[0-9a-f]{32}")
_OVERWRITTEN = "the image was overwritten by the next request before it was read"
SLOTS = 4

_PAGE = 64  # a cache line: pixels of two images never share one


def host_id() -> str:
    """Name what a peer must have in common to share memory with this process; '' where it cannot be shared.

    The running kernel, the very /dev/shm (containers each have their own) and the user, whose blocks are private.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        folder = FOLDER.stat()
    except OSError:
        return ""
    facts = f"{boot} {folder.st_dev} {folder.st_ino} {os.geteuid()}"
    return hashlib.sha256(facts.encode()).hexdigest()[:32]


class SharedImages:
    """The client's block. One thread at a time; recreated when the cameras change their sizes."""

    def __init__(self) -> None:
        self._sizes: dict[str, tuple[int, ...]] = {}
        self._block: _Block | None = None
        self._generation = 0

    def place(self, images: Mapping[str, NDArray[np.uint8]]) -> dict[str, WireImage]:
        """Write the images into the next slot and return their location for the server. OSError: no memory left.

        Each is uint8 RGB [height, width, 3].
        """
        sizes = {name: image.shape for name, image in images.items()}
        if self._block is None or sizes != self._sizes:
            self.close()
            self._block, self._sizes = _Block(SLOTS * sum(_room(image) for image in images.values())), sizes
        self._generation += 1
        slot = self._generation % SLOTS
        at = slot * sum(_room(image) for image in images.values())
        placed = {}
        for name, image in images.items():
            offset = at + _PAGE
            self._block.write(np.ascontiguousarray(image), offset, self._generation)
            placed[name] = WireImage(self._header(image, offset))
            at += _room(image)
        return placed

    def close(self) -> None:
        """Give the block back. Calling it twice changes nothing."""
        if self._block is not None:
            self._block.close()
            self._block = None

    def _header(self, image: NDArray[np.uint8], offset: int) -> pb.Image:
        assert self._block is not None
        shared = pb.SharedMemory(name=self._block.name, offset=offset, generation=self._generation)
        height, width = image.shape[:2]
        return pb.Image(encoding=pb.IMAGE_ENCODING_SHARED_MEMORY, height=height, width=width, shared=shared)


class _Block:
    """The memory and a file descriptor to it."""

    def __init__(self, size: int) -> None:
        memory = SharedMemory(PREFIX + uuid.uuid4().hex, create=True, size=size)
        self.name = memory.name
        self._file = os.open(FOLDER / memory.name, os.O_RDWR | os.O_CLOEXEC)
        self.close = weakref.finalize(self, _release, memory, self._file)

    def write(self, image: NDArray[np.uint8], offset: int, generation: int) -> None:
        """Put the pixels at `offset`; a concurrent reader finds a generation that no message names."""
        before = offset - GENERATION.size
        os.pwrite(self._file, GENERATION.pack(0), before)
        if os.pwrite(self._file, image.data, offset) != image.nbytes:
            raise OSError("the shared memory is full")
        os.pwrite(self._file, GENERATION.pack(generation), before)


def _release(memory: SharedMemory, file: int) -> None:
    os.close(file)
    memory.close()
    memory.unlink()


def _room(image: NDArray[np.uint8]) -> int:
    """Bytes for one image and its generation, in whole cache lines."""
    return _PAGE + -(-image.nbytes // _PAGE) * _PAGE


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
