"""Encodes the images of an observation: encoding chosen once with the server, applied to each request."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pirl_contract.contract import Contract
from pirl_contract.v1 import policy_pb2 as pb
from pirl_contract.wire import image_codec
from pirl_contract.wire.image_codec import WireImage
from pirl_contract.wire.shared_memory import SharedImages, host_id

Encoding = Literal["auto", "rgb8", "jpeg", "png", "shared_memory"]
ENCODINGS: tuple[Encoding, ...] = ("auto", "rgb8", "jpeg", "png", "shared_memory")
_LOG = logging.getLogger(__name__)
_FORMS = {"jpeg": pb.IMAGE_ENCODING_JPEG, "png": pb.IMAGE_ENCODING_PNG}


class ImageSender:
    """`auto`: shared memory when the server is on this host, else raw. JPEG is a choice, since it changes pixels."""

    def __init__(self, encoding: Encoding, resize: bool) -> None:
        if encoding not in ENCODINGS:
            raise ValueError(f"encoding '{encoding}' is not known: use one of {', '.join(ENCODINGS)}")
        if encoding in _FORMS and not image_codec.available():
            raise ValueError(f"encoding '{encoding}' needs opencv-python or pillow, neither is installed")
        if encoding == "shared_memory" and not host_id():
            raise ValueError("encoding 'shared_memory' needs Linux with /dev/shm: use 'auto'")
        self._encoding, self._resize = encoding, resize
        self._sizes: dict[str, tuple[int, int]] = {}
        self._shared = SharedImages()
        self._same_host = False

    def agree(self, info: pb.GetInfoReply) -> None:
        """Take in what the server can read; called at each new connection."""
        offered = pb.IMAGE_ENCODING_SHARED_MEMORY in info.encodings
        self._same_host = offered and bool(info.host_id) and info.host_id == host_id()

    def fit(self, contract: Contract) -> None:
        """Take in the sizes of the cameras, for `resize`."""
        self._sizes = {camera.name: (camera.height, camera.width) for camera in contract.cameras}

    def wire_images(self, images: Mapping[str, NDArray[np.uint8]]) -> dict[str, WireImage]:
        """Make what travels. Raises ValueError when shared memory is requested and cannot be had.

        Each image is uint8 RGB [height, width, 3].
        """
        if self._resize:
            images = {name: letterbox(image, *self._sizes.get(name, image.shape[:2])) for name, image in images.items()}
        if self._encoding in ("jpeg", "png"):
            return {name: self._file(image) for name, image in images.items()}
        if images and self._encoding != "rgb8" and (self._same_host or self._encoding == "shared_memory"):
            placed = self._place(images)
            if placed is not None:
                return placed
        return {name: _raw(image) for name, image in images.items()}

    def close(self) -> None:
        """Give the shared memory back. Calling it twice changes nothing."""
        self._shared.close()

    def _place(self, images: Mapping[str, NDArray[np.uint8]]) -> dict[str, WireImage] | None:
        if not self._same_host:
            raise ValueError("unknown whether the server is on this host: call info() first, or use encoding 'auto'")
        try:
            return self._shared.place(images)
        except OSError as error:
            if self._encoding == "shared_memory":
                raise ValueError(f"shared memory is unavailable ({error}): use encoding 'auto'") from None
            _LOG.warning("shared memory is unavailable (%s): images are sent raw", error)
            self._same_host = False
            self._shared.close()
            return None

    def _file(self, image: NDArray[np.uint8]) -> WireImage:
        assert self._encoding in ("jpeg", "png")
        header = pb.Image(encoding=_FORMS[self._encoding], height=image.shape[0], width=image.shape[1])
        return WireImage(header, image_codec.encode(image, self._encoding))


def _raw(image: NDArray[np.uint8]) -> WireImage:
    header = pb.Image(encoding=pb.IMAGE_ENCODING_RGB8, height=image.shape[0], width=image.shape[1])
    return WireImage(header, np.ascontiguousarray(image).data.cast("B"))


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
