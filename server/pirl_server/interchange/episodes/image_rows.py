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
    shape = (count, height, width, 3)
    rows: NDArray[np.uint8]
    if int(np.prod(shape)) <= IN_MEMORY:
        rows = np.empty(shape, np.uint8)
    else:
        with tempfile.TemporaryFile() as file:
            rows = np.memmap(file, np.uint8, "w+", shape=shape)
    for number, image in enumerate(images):
        if image.shape != shape[1:]:
            raise ValueError(f"image {number} is {image.shape}, {shape[1:]} is expected")
        rows[number] = image
    return rows
