"""Camera images to the contract's size on the robot, so that only those pixels travel."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pirl_contract.wire import image_codec

Pixels = NDArray[np.uint8]


def letterbox(image: Pixels, height: int, width: int) -> Pixels:
    """Fit uint8 RGB [h, w, 3] into [height, width, 3]: aspect kept, antialiased, centred between black bars.

    An image of that size is returned as it is. Raises ValueError when neither OpenCV nor Pillow is installed.
    """
    if image.shape[:2] == (height, width):
        return image
    ratio = max(image.shape[0] / height, image.shape[1] / width)
    size = max(1, int(image.shape[0] / ratio)), max(1, int(image.shape[1] / ratio))
    top, left = (height - size[0]) // 2, (width - size[1]) // 2
    out = np.zeros((height, width, 3), np.uint8)
    out[top : top + size[0], left : left + size[1]] = _scaled(image, *size)
    return out


def _scaled(image: Pixels, height: int, width: int) -> Pixels:
    if pillow := image_codec.library("PIL.Image"):  # the filter of the servers' own transforms, so it is preferred
        return np.asarray(pillow.fromarray(image).resize((width, height), pillow.Resampling.BILINEAR))
    if cv2 := image_codec.library("cv2"):
        smaller = height < image.shape[0]
        scaled: Pixels = cv2.resize(
            image, (width, height), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
        )
        return scaled
    raise ValueError("resizing needs pillow or opencv-python, neither is installed: send images of the contract's size")
