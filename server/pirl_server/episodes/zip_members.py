"""Members of an uncompressed ZIP file: written one after the other, read at their offsets.

A ZIP file keeps a CRC-32 of every member. Reading a member whole compares it: a changed byte raises `ChangedError`
before any of it is used.
"""

from __future__ import annotations

import os
import struct
import weakref
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

_HEADER = struct.Struct("<4sHHHHHIIIHH")
"""of a member in the file: signature, five numbers, CRC, two sizes, lengths of name and extra field (APPNOTE 4.3.7)"""
_WHEN = (1980, 1, 1, 0, 0, 0)
"""of every member: equal episodes make equal files"""
MAX_PARTS = 1024
"""buffers that one system call fills (IOV_MAX)"""


class ChangedError(ValueError):
    """What was read is not what was written."""


class MemberWriter:
    """Writes a new file. Not thread-safe."""

    def __init__(self, file: BinaryIO) -> None:
        self._archive = zipfile.ZipFile(file, "w", zipfile.ZIP_STORED)

    def add(self, name: str, blocks: Iterable[Any]) -> None:
        """Add a member: bytes or C-contiguous arrays, one after the other. Less than 4 GiB together."""
        entry = zipfile.ZipInfo(name, _WHEN)
        entry.external_attr = 0o644 << 16
        with self._archive.open(entry, "w") as member:
            for block in blocks:
                member.write(block)

    def close(self) -> None:
        """Write the table of contents, without which the file can't be read."""
        self._archive.close()

    def abandon(self) -> None:
        """Let go of a file that will not be whole; its end is written as far as the disk takes it."""
        with suppress(OSError, ValueError):
            self._archive.close()
        self._archive.fp = None  # else it is tried again when the object goes, after the file was closed


class MemberReader:
    """Reads members of a file. Any thread; holds one file descriptor until it is closed or let go."""

    def __init__(self, path: Path) -> None:
        """Read the table of contents. Raises ChangedError for a file that has none, OSError."""
        self.path = path
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.close = weakref.finalize(self, os.close, descriptor)
        """nothing can be read from here on"""
        self._descriptor = descriptor
        try:
            with open(descriptor, "rb", closefd=False) as file, zipfile.ZipFile(file) as archive:
                self._entries = {entry.filename: entry for entry in archive.infolist()}
        except (zipfile.BadZipFile, ValueError, NotImplementedError, struct.error) as error:
            self.close()
            raise ChangedError(f"'{path}' is no ZIP file, or its table of contents was changed: {error}") from None

    def __enter__(self) -> MemberReader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def names(self) -> list[str]:
        """Every member, in the order of the table of contents."""
        return list(self._entries)

    def size(self, name: str) -> int:
        """Bytes of a member. Raises ChangedError when there is none."""
        return self._entry(name).file_size

    def read_into(self, name: str, target: NDArray[Any]) -> None:
        """Fill a C-contiguous array of any shape with a member. ChangedError: another length, or another CRC-32."""
        entry = self._entry(name)
        if entry.file_size != target.nbytes:
            raise self._changed(name, f"it has {entry.file_size} bytes, its shape says {target.nbytes}")
        flat = target.reshape(-1).view(np.uint8)
        self._fill(entry, 0, [flat])
        if zlib.crc32(flat.data) != entry.CRC:
            raise self._changed(name, "CRC-32 differs")

    def read(self, name: str) -> bytes:
        """Return a member. Raises ChangedError."""
        target = np.empty(self._entry(name).file_size, np.uint8)
        self.read_into(name, target)
        return target.tobytes()

    def read_parts(self, name: str, offset: int, parts: Sequence[NDArray[np.uint8]]) -> None:
        """Fill arrays [bytes] with what lies one after the other from `offset` of a member; its CRC-32 is not compared.

        Raises ChangedError where the member ends before.
        """
        entry = self._entry(name)
        if offset < 0 or offset + sum(part.nbytes for part in parts) > entry.file_size:
            raise self._changed(name, f"it has {entry.file_size} bytes, too few")
        for start in range(0, len(parts), MAX_PARTS - 1):
            some = parts[start : start + MAX_PARTS - 1]
            self._fill(entry, offset, some)
            offset += sum(part.nbytes for part in some)

    def _entry(self, name: str) -> zipfile.ZipInfo:
        entry = self._entries.get(name)
        if entry is None:
            raise self._changed(name, "it is missing")
        if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
            raise self._changed(name, "it is compressed")
        return entry

    def _fill(self, entry: zipfile.ZipInfo, offset: int, parts: Sequence[NDArray[np.uint8]]) -> None:
        if not self.close.alive:  # another file may have its descriptor by now
            raise ValueError(f"'{self.path}' was closed")
        name = entry.orig_filename.encode()
        data = self._data_offset(entry, name)
        wanted = sum(part.nbytes for part in parts)
        if wanted and os.preadv(self._descriptor, [part.data for part in parts], data + offset) != wanted:
            raise self._changed(entry.filename, "the file ends before it")

    def _data_offset(self, entry: zipfile.ZipInfo, name: bytes) -> int:
        head = os.pread(self._descriptor, _HEADER.size + len(name), entry.header_offset)
        if len(head) < _HEADER.size + len(name):
            raise self._changed(entry.filename, "the file ends before it")
        signature, *_, named, extra = _HEADER.unpack(head[: _HEADER.size])
        if signature != b"PK\3\4" or named != len(name) or head[_HEADER.size :] != name:
            raise self._changed(entry.filename, "its header is another one")
        return entry.header_offset + _HEADER.size + len(name) + int(extra)

    def _changed(self, name: str, why: str) -> ChangedError:
        return ChangedError(f"'{self.path}': '{name}' was changed after publishing ({why})")
