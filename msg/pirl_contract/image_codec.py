"""One image of the wire to pixels: raw, JPEG, PNG, or in shared memory of the same host."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pirl_contract.v1 import policy_pb2 as pb
from pirl_contract.wire import image_codec

MAX_IMAGE_PIXELS = 4096 * 4096
"""of one observation, all cameras together"""

ReadShared = Callable[[pb.SharedMemory, int, int], NDArray[np.uint8]]
"""(where, height, width) -> a copy of those pixels; ValueError when there are none"""

_FORMS: dict[int, image_codec.PictureFormat] = {pb.IMAGE_ENCODING_JPEG: "jpeg", pb.IMAGE_ENCODING_PNG: "png"}


def pixels_of(image: pb.Image, name: str) -> int:
    """Declared size in pixels. Raises ValueError when it is nothing or more than any observation may hold."""
    pixels: int = image.height * image.width
    if not 0 < pixels <= MAX_IMAGE_PIXELS:
        raise ValueError(f"image '{name}': {image.height}x{image.width} is not a size that is accepted")
    return pixels


def image_from_proto(image: pb.Image, name: str, read_shared: ReadShared | None = None) -> NDArray[np.uint8]:
    """Return uint8 RGB [height, width, 3]; a raw image is a read-only view. Raises ValueError that names the image."""
    pixels, data = pixels_of(image, name), image.data
    if image.encoding == pb.IMAGE_ENCODING_RGB8:
        if len(data) != 3 * pixels:
            raise ValueError(f"image '{name}': {image.height}x{image.width} RGB does not fit {len(data)} bytes")
        return np.frombuffer(data, dtype=np.uint8).reshape(image.height, image.width, 3)
    try:
        if form := _FORMS.get(image.encoding):
            return image_codec.decode(data, form, image.height, image.width)
        if image.encoding == pb.IMAGE_ENCODING_SHARED_MEMORY and read_shared is not None:
            return read_shared(image.shared, image.height, image.width)
    except ValueError as error:
        raise ValueError(f"image '{name}': {error}") from None
    raise ValueError(f"image '{name}': encoding {image.encoding} is not accepted here; GetInfo says which are")
