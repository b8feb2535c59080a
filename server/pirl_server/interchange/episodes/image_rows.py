"""Images of an episode that is being read: in memory or, when they are many, in an unnamed temporary file."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

IN_MEMORY = 256 * 2**20
"""bytes of one camera"""


def image_rows(images: Iterable[NDArray[np.uint8]], count: int, height: int, width: int) -> NDArray[np.uint8]:
    """Collect `count` images, each [height, width, 3], as one array [count, height, width, 3].

    Raises ValueError for an image of another size.
    """
    rows = empty_rows(count, height, width)
    for number, image in enumerate(images):
        if image.shape != rows.shape[1:]:
            raise ValueError(f"image {number} is {image.shape}, {rows.shape[1:]} is expected")
        rows[number] = image
    return rows


def empty_rows(count: int, height: int, width: int) -> NDArray[np.uint8]:
    """Return an array [count, height, width, 3] to be filled, in memory or in an unnamed file."""
    shape = (count, height, width, 3)
    if int(np.prod(shape)) <= IN_MEMORY:
        return np.empty(shape, np.uint8)
    with tempfile.TemporaryFile() as file:
        return np.memmap(file, np.uint8, "w+", shape=shape)
