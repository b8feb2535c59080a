"""The JSON documents of a Zarr v3 hierarchy as this store writes them, and what is read of them.

Written here, not by the zarr package: into a ZIP file that package writes the consolidated root twice, and takes a
millisecond for each array. Its reader is what tests compare with.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

ROOT = "zarr.json"
_LITTLE = {"name": "bytes", "configuration": {"endian": "little"}}
_CRC = {"name": "crc32c"}


@dataclass(frozen=True)
class ArraySpec:
    """An array: one that is cut into chunks of whole rows, or into shards with a chunk and its CRC-32C for each row."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    rows: int
    """of the first axis in one file of the hierarchy"""
    dims: tuple[str, ...]
    sharded: bool = False

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Of one row."""
        return self.shape[1:]

    @property
    def row_bytes(self) -> int:
        """Of one row."""
        return math.prod(self.row_shape) * self.dtype.itemsize

    @property
    def parts(self) -> int:
        """Files that it has; none for an array without an entry."""
        return -(-self.shape[0] // self.rows) if math.prod(self.shape) else 0

    def key(self, name: str, part: int) -> str:
        """Name of one of its files."""
        return "/".join([name, "c", str(part), *["0"] * len(self.row_shape)])


def array_document(spec: ArraySpec) -> dict[str, Any]:
    """What `zarr.json` of an array says."""
    row = [max(1, size) for size in spec.row_shape]
    codecs: list[dict[str, Any]] = [_bytes(spec.dtype)]
    if spec.sharded:
        sharding = {
            "chunk_shape": [1, *row],
            "codecs": [*codecs, _CRC],
            "index_codecs": [_LITTLE, _CRC],
            "index_location": "end",
        }
        codecs = [{"name": "sharding_indexed", "configuration": sharding}]
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(spec.shape),
        "data_type": spec.dtype.name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [spec.rows, *row]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": False if spec.dtype.kind == "b" else 0,
        "codecs": codecs,
        "attributes": {},
        "dimension_names": list(spec.dims),
        "storage_transformers": [],
    }


def _bytes(dtype: np.dtype[Any]) -> dict[str, Any]:
    return {"name": "bytes"} if dtype.itemsize == 1 else _LITTLE


def group_document(attributes: Mapping[str, Any], members: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What `zarr.json` of a group says; with `members`, those of all that is below it: consolidated."""
    document: dict[str, Any] = {"zarr_format": 3, "node_type": "group", "attributes": dict(attributes)}
    if members is not None:
        consolidated = {"kind": "inline", "must_understand": False, "metadata": dict(members)}
        document["consolidated_metadata"] = consolidated
    return document


def text(document: Mapping[str, Any]) -> bytes:
    """Return it as the bytes that are stored. Raises ValueError for NaN and infinity, which are no JSON."""
    return json.dumps(document, separators=(",", ":"), allow_nan=False).encode()


def parse_array(document: Mapping[str, Any]) -> ArraySpec | None:
    """Return what `array_document` was given, None for an array that is stored in another way, as zarr may.

    Raises KeyError, TypeError and ValueError for what is no array.
    """
    shape: Sequence[int] = document["shape"]
    (rows, *_), codecs = document["chunk_grid"]["configuration"]["chunk_shape"], document["codecs"]
    sharded = codecs[0]["name"] == "sharding_indexed"
    dims = tuple(document.get("dimension_names") or [""] * len(shape))
    spec = ArraySpec(tuple(shape), np.dtype(document["data_type"]), rows, dims, sharded)
    ours = array_document(spec)
    same = ("chunk_grid", "chunk_key_encoding", "codecs", "data_type")
    return spec if all(ours[name] == document[name] for name in same) else None
