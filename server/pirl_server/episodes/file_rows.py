"""An array stored row by row in a plain file, read a slice at a time.

Read, not mapped: a mapping kills the process that touches it when its file was cut short or the disk fails.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class FileRows:
    """Stands in for an array of that shape where only slices of its first axis are read: the writer of a store."""

    path: Path
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def ndim(self) -> int:
        """How many dimensions."""
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> NDArray[Any]:
        """Read rows. Raises OSError when the file ends before them."""
        start, stop, step = rows.indices(len(self))
        assert step == 1
        row = int(np.prod(self.shape[1:], dtype=np.int64))
        count = max(0, stop - start) * row
        read = np.fromfile(self.path, self.dtype, count, offset=start * row * self.dtype.itemsize)
        if read.size != count:
            raise OSError(f"{self.path} ends before row {stop}: it was cut short")
        return read.reshape(-1, *self.shape[1:])
