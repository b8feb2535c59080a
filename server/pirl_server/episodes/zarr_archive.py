"""A Zarr v3 hierarchy in one uncompressed ZIP file: a fast writer and reader of what plain zarr reads as well.

    zarr.open_group(zarr.storage.ZipStore(path, mode="r"), mode="r")

An array is one member up to 32 MiB and several of equal length beyond; lossless codecs win about a tenth on camera
noise and cost most of the time. Of a sharded array each row is a chunk of its own, with a CRC-32C: rows are read, and
checked, without the rest. Everything else is read whole and checked against the ZIP file's CRC-32 of it. So a changed
byte raises ChangedError in the read that would have returned it; what is not read is not checked.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import google_crc32c
import numpy as np
import zarr
from numpy.typing import NDArray

from pirl_server.episodes.zarr_metadata import ROOT, ArraySpec, array_document, group_document, parse_array, text
from pirl_server.episodes.zip_members import ChangedError, MemberReader, MemberWriter

BLOCK_BYTES = 32 * 2**20
"""most of an array that is one member, and held in memory for it"""
READ_BYTES = 64 * 2**20
"""most that one system call reads"""
_CRC = struct.Struct("<I")
_NONE = 2**64 - 1
"""in the index of a shard: offset and length of a row beyond the array's end"""


class ZarrWriter:
    """Writes a new file, which is whole when its context has ended without an error. Not thread-safe."""

    def __init__(self, file: BinaryIO, attributes: Mapping[str, Any]) -> None:
        self._members, self._attributes = MemberWriter(file), attributes
        self._documents: dict[str, dict[str, Any]] = {}

    def __enter__(self) -> ZarrWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if error is not None:
            self._members.abandon()
            return
        try:
            self._finish()
        except BaseException:
            self._members.abandon()
            raise

    def group(self, name: str, attributes: Mapping[str, Any] | None = None) -> None:
        """Make a group; those on the way to an array are made without being asked for."""
        self._documents[name] = group_document(attributes or {})

    def array(self, name: str, values: NDArray[Any], dims: tuple[str, ...], sharded: bool = False) -> None:
        """Write an array of any shape. Of `values`, which may be `FileRows`, only slices of the first axis are read."""
        spec = ArraySpec(values.shape, values.dtype, _rows_of_a_file(values), dims, sharded)
        for part in range(spec.parts):
            rows = values[part * spec.rows : (part + 1) * spec.rows]
            rows = np.ascontiguousarray(rows, spec.dtype.newbyteorder("<"))
            self._members.add(spec.key(name, part), _shard(spec, rows) if sharded else _chunk(spec, rows))
        self._documents[name] = array_document(spec)

    def _finish(self) -> None:
        for name in list(self._documents):
            for parent in _parents(name):
                self._documents.setdefault(parent, group_document({}))
        members = dict(sorted(self._documents.items()))
        for name, document in members.items():
            self._members.add(f"{name}/{ROOT}", [text(document)])
        nested = {name: _listed(document) for name, document in members.items()}
        self._members.add(ROOT, [text(group_document(self._attributes, nested))])
        self._members.close()


def _rows_of_a_file(values: NDArray[Any]) -> int:
    """As many as fit, and as many in each: a chunk at the edge is stored in full length."""
    count = max(1, int(values.shape[0]))
    size = math.prod(values.shape) * values.dtype.itemsize
    files = min(count, max(1, -(-size // BLOCK_BYTES)))
    return -(-count // files)


def _parents(name: str) -> Iterator[str]:
    while "/" in name:
        name = name.rpartition("/")[0]
        yield name


def _listed(document: dict[str, Any]) -> dict[str, Any]:
    """As the consolidated root has it: zarr expects of each group there that it is consolidated as well."""
    return document if document["node_type"] == "array" else group_document(document["attributes"], {})


def _chunk(spec: ArraySpec, rows: NDArray[Any]) -> Iterator[Any]:
    yield rows
    if missing := spec.rows - len(rows):
        yield bytes(missing * spec.row_bytes)


def _shard(spec: ArraySpec, rows: NDArray[Any]) -> Iterator[Any]:
    for row in rows.reshape(len(rows), -1):
        yield row
        yield _CRC.pack(google_crc32c.value(row))
    index = _index(spec, len(rows))
    yield index
    yield _CRC.pack(google_crc32c.value(index))


def _index(spec: ArraySpec, count: int) -> bytes:
    """Offset and length of each row of a shard, of which `count` are there."""
    index = np.full((spec.rows, 2), _NONE, "<u8")
    size = spec.row_bytes + _CRC.size
    index[:count, 0], index[:count, 1] = np.arange(count) * size, size
    return index.tobytes()


class ZarrReader:
    """Reads a file in parts. Any thread; holds one file descriptor until it is closed or let go."""

    def __init__(self, path: Path) -> None:
        """Read the metadata. Raises ChangedError, OSError."""
        self._members, self._ordered = MemberReader(path), set[str]()
        try:
            root = json.loads(self._members.read(ROOT))
            self.attributes: dict[str, Any] = root["attributes"]
            self._documents: dict[str, Any] = root["consolidated_metadata"]["metadata"]
        except ChangedError:
            self.close()
            raise
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            self.close()
            raise ValueError(f"'{path}' has no consolidated Zarr v3 root: {error!r}") from None

    def __enter__(self) -> ZarrReader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def __contains__(self, name: str) -> bool:
        return name in self._documents

    def close(self) -> None:
        """Nothing can be read from here on."""
        self._members.close()

    def group_attributes(self, name: str) -> dict[str, Any] | None:
        """Attributes of a group, None for an array. Raises KeyError."""
        document = self._documents[name]
        return None if document["node_type"] == "array" else dict(document["attributes"])

    def shape(self, name: str) -> tuple[int, ...]:
        """Of an array. Raises KeyError."""
        return tuple(self._documents[name]["shape"])

    def read(self, name: str) -> NDArray[Any]:
        """Return a whole array, of any shape. Raises ChangedError; KeyError when there is none."""
        spec = parse_array(self._documents[name])
        if spec is None:
            return self._by_zarr(name, slice(None))
        if spec.sharded:
            return self.rows(name, 0, spec.shape[0])
        found = np.empty(spec.shape, spec.dtype)
        for part in range(spec.parts):
            rows = found[part * spec.rows : (part + 1) * spec.rows]
            if len(rows) == spec.rows:
                self._members.read_into(spec.key(name, part), rows)
                continue
            padded = np.empty((spec.rows, *spec.row_shape), spec.dtype)
            self._members.read_into(spec.key(name, part), padded)
            rows[:] = padded[: len(rows)]
        return found

    def rows(self, name: str, start: int, stop: int) -> NDArray[Any]:
        """Return rows [stop - start, ...]; of a sharded array nothing else is read. Raises as `read`."""
        spec = parse_array(self._documents[name])
        if spec is None:
            return self._by_zarr(name, slice(start, stop))
        if not spec.sharded:
            return self.read(name)[start:stop]
        start, stop, _ = slice(start, stop).indices(spec.shape[0])
        found = np.empty((max(0, stop - start), *spec.row_shape), spec.dtype)
        at = start
        while spec.row_bytes and at < stop:
            end = min(stop, (at // spec.rows + 1) * spec.rows, at + max(1, READ_BYTES // spec.row_bytes))
            self._read_shard(name, spec, at, found[at - start : end - start])
            at = end
        return found

    def raw_bytes(self, name: str, start: int, stop: int) -> bytes:
        """Return bytes of a flat array of bytes. They are not checked: who wrote them has stored a check of each file.

        Raises ChangedError where the array ends before; KeyError when there is none.
        """
        spec = parse_array(self._documents[name])
        if spec is None or spec.sharded or len(spec.shape) != 1 or spec.dtype.itemsize != 1:
            return self.rows(name, start, stop).tobytes()
        if not 0 <= start <= stop <= spec.shape[0]:
            raise ChangedError(f"'{self._members.path}': '{name}' has no bytes {start} to {stop}")
        found, at = np.empty(stop - start, np.uint8), start
        while at < stop:
            end = min(stop, (at // spec.rows + 1) * spec.rows)
            part, first = divmod(at, spec.rows)
            self._members.read_parts(spec.key(name, part), first, [found[at - start : end - start]])
            at = end
        return found.tobytes()

    def _read_shard(self, name: str, spec: ArraySpec, start: int, found: NDArray[Any]) -> None:
        part, first = divmod(start, spec.rows)
        key = spec.key(name, part)
        self._check_order(key, spec, min(spec.rows, spec.shape[0] - part * spec.rows))
        rows = found.reshape(len(found), -1).view(np.uint8)
        checks = np.empty((len(found), _CRC.size), np.uint8)
        parts = [buffer for pair in zip(rows, checks) for buffer in pair]
        self._members.read_parts(key, first * (spec.row_bytes + _CRC.size), parts)
        for number, (row, check) in enumerate(zip(rows, checks)):
            if google_crc32c.value(row) != _CRC.unpack(check.data)[0]:
                raise ChangedError(f"'{self._members.path}': row {start + number} of '{name}' was changed (CRC-32C)")

    def _check_order(self, key: str, spec: ArraySpec, count: int) -> None:
        """Raise ChangedError when the rows of a shard do not lie where this writer puts them."""
        if key in self._ordered:
            return
        index = _index(spec, count)
        found = np.empty(len(index), np.uint8)
        self._members.read_parts(key, count * (spec.row_bytes + _CRC.size), [found])
        if found.tobytes() != index:
            raise ChangedError(f"'{self._members.path}': the index of '{key}' is not in the order of its rows")
        self._ordered.add(key)

    def _by_zarr(self, name: str, rows: slice) -> NDArray[Any]:
        """An array with codecs or chunks of other writers."""
        with zarr.storage.ZipStore(self._members.path, mode="r") as store:
            return np.asarray(zarr.open_array(store, path=name, mode="r")[rows])
