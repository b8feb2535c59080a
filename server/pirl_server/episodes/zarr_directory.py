"""Reads episodes of schema version 1: a Zarr v3 group that is a directory with a file for each array and document."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

EARLIER_VERSION = 1


class DirectoryReader:
    """Any thread. Nothing is checked here: the manifest has the SHA-256 of every file."""

    def __init__(self, path: Path) -> None:
        self._group = zarr.open_group(path, mode="r")
        self.attributes: dict[str, Any] = dict(self._group.attrs)

    def __contains__(self, name: str) -> bool:
        return name in self._group

    def close(self) -> None:
        """Nothing is held."""

    def group_attributes(self, name: str) -> dict[str, Any] | None:
        """Attributes of a group, None for an array. Raises KeyError."""
        found = self._group[name]
        return None if isinstance(found, zarr.Array) else dict(found.attrs)

    def shape(self, name: str) -> tuple[int, ...]:
        """Of an array. Raises KeyError, and ValueError for what is none."""
        return self._array(name).shape

    def read(self, name: str) -> NDArray[Any]:
        """Return a whole array, of any shape. Raises as `shape`."""
        return np.asarray(self._array(name)[...])

    def rows(self, name: str, start: int, stop: int) -> NDArray[Any]:
        """Return rows [stop - start, ...]. Raises as `shape`."""
        return np.asarray(self._array(name)[start:stop])

    def raw_bytes(self, name: str, start: int, stop: int) -> bytes:
        """Return bytes of a flat array. Raises as `shape`."""
        return self.rows(name, start, stop).tobytes()

    def _array(self, name: str) -> zarr.Array[Any]:
        found = self._group[name]
        if not isinstance(found, zarr.Array):
            raise ValueError(f"{self._group.store_path}: '{name}' is not an array")
        return found
