"""Images as openpi's robots send them, to uint8 RGB of the contract's size."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]
MAX_PIXELS = 4096 * 4096


def to_rgb8(picture: Any, key: str) -> Pixels:
    """uint8 or float in [0, 1], [h, w, 3] or channels first -> uint8 [h, w, 3]. ValueError, naming `key`, otherwise."""
    if not isinstance(picture, np.ndarray) or picture.ndim != 3 or 3 not in (picture.shape[0], picture.shape[2]):
        raise ValueError(f"'{key}' must be an image [height, width, 3] or [3, height, width], got {_form(picture)}")
    if not 0 < picture.size // 3 <= MAX_PIXELS:
        raise ValueError(f"'{key}' has {picture.size // 3} pixels, allowed are 1 to {MAX_PIXELS}")
    if picture.shape[2] != 3:
        picture = picture.transpose(1, 2, 0)
    if picture.dtype == np.uint8:
        return np.ascontiguousarray(picture)
    if picture.dtype.kind != "f":
        raise ValueError(f"'{key}' must be uint8, or float in [0, 1], got {picture.dtype}")
    if not (picture.min() >= 0.0 and picture.max() <= 1.0):  # false for NaN too
        raise ValueError(f"'{key}' is {picture.dtype} and outside [0, 1]: send uint8, or divide by 255")
    return np.ascontiguousarray(255 * picture).astype(np.uint8)


def letterboxed(image: Pixels, height: int, width: int) -> Pixels:
    """Fit the whole image into `height` x `width` between black bars, as openpi's clients resize theirs."""
    if image.shape[:2] == (height, width):
        return image
    # By division, and cut off: multiplying by the inverse rounds a pixel away here and there.
    ratio = max(image.shape[0] / height, image.shape[1] / width)
    inner_height, inner_width = max(1, int(image.shape[0] / ratio)), max(1, int(image.shape[1] / ratio))
    shrunk = Image.fromarray(image).resize((inner_width, inner_height), Image.Resampling.BILINEAR)
    top, left = (height - inner_height) // 2, (width - inner_width) // 2
    out = np.zeros((height, width, 3), np.uint8)
    out[top : top + inner_height, left : left + inner_width] = np.asarray(shrunk)
    return out


def _form(value: Any) -> str:
    return f"{value.dtype} {list(value.shape)}" if isinstance(value, np.ndarray) else type(value).__name__
