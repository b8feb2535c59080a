"""How the images of a camera are stored: raw pixels, or files of JPEG, one per call.

The policy acts on what is stored: a codec is applied before the policy is called. Encoding and decoding are OpenCV's
(libjpeg-turbo), whose decoder gives the same pixels for the same bytes. C = policy calls.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, overload

import cv2
import numpy as np
from numpy.typing import NDArray

CodecName = Literal["raw", "jpeg"]
JPEG_QUALITY = 95
ROWS_AT_ONCE = 16
"""images that are checked at a time"""
_SETTING = re.compile(r"(?P<name>raw|jpeg)(?::(?P<quality>[0-9]{1,3}))?")
Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class ImageCodec:
    """How one camera's images are stored."""

    name: CodecName = "raw"
    quality: int = JPEG_QUALITY
    """of JPEG, 1 to 100"""

    @classmethod
    def parse(cls, text: str) -> ImageCodec:
        """Parse `raw`, `jpeg` or `jpeg:QUALITY`. Raises ValueError for anything else, video by name."""
        found = _SETTING.fullmatch(text)
        quality = int(found["quality"] or JPEG_QUALITY) if found else 0
        if text.partition(":")[0] in ("video", "h264", "av1"):
            raise ValueError(f"image codec '{text}': a policy can't act on video yet; write jpeg, and export video")
        if found is None or not 1 <= quality <= 100 or (found["name"] == "raw" and found["quality"]):
            raise ValueError(f"image codec '{text}' is not known: write raw, jpeg or jpeg:QUALITY with 1 to 100")
        return cls("jpeg" if found["name"] == "jpeg" else "raw", quality)


RAW = ImageCodec()


def encode_jpeg(image: Pixels, quality: int) -> bytes:
    """Return the JPEG file of an RGB image [height, width, 3]."""
    done, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done
    return bytes(data)


def decode_jpeg(data: bytes, height: int, width: int) -> Pixels:
    """Return the RGB image [height, width, 3] of a JPEG file. Raises ValueError for one of another size, or of none."""
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    bgr = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
    if bgr is None or bgr.shape != (height, width, 3):
        raise ValueError(f"a JPEG file of {len(data)} bytes is no image of {height}x{width} pixels")
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)


class ImageArray:
    """Images [C, height, width, 3] uint8 of one camera that lie elsewhere: rows are read, and decoded, when indexed.

    Stands in for an array where rows are read, by number, slice or list of numbers; `np.asarray` reads all. Whatever
    reading raises (`zip_members.ChangedError`, OSError) comes from there.
    """

    ndim, dtype = 4, np.dtype(np.uint8)

    def __init__(self, shape: tuple[int, ...], read: Callable[[int, int], Pixels]) -> None:
        """`read(start, stop)` returns rows [stop - start, height, width, 3]."""
        self.shape, self._read = shape, read

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def nbytes(self) -> int:
        """Of all pixels."""
        return int(np.prod(self.shape, dtype=np.int64))

    @overload
    def __getitem__(self, rows: int) -> Pixels: ...
    @overload
    def __getitem__(self, rows: slice | NDArray[np.int64] | Sequence[int]) -> Pixels: ...
    def __getitem__(self, rows: Any) -> Pixels:
        """Read rows, each on its own where they do not follow each other."""
        if isinstance(rows, slice):
            start, stop, step = rows.indices(len(self))
            if step == 1:
                return self._read(start, max(start, stop))
            rows = range(start, stop, step)
        elif np.ndim(rows) == 0:
            row = range(len(self))[int(rows)]
            image: Pixels = self._read(row, row + 1)[0]
            return image
        found = np.empty((len(rows), *self.shape[1:]), np.uint8)
        for number, row in enumerate(rows):
            found[number] = self[int(row)]
        return found

    def check(self) -> None:
        """Read all, a few at a time, and keep nothing. Raises as reading does."""
        for start in range(0, len(self), ROWS_AT_ONCE):
            self._check(start, min(len(self), start + ROWS_AT_ONCE))

    def _check(self, start: int, stop: int) -> None:
        self._read(start, stop)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[:], dtype)


class EncodedImages(ImageArray):
    """Images of one camera as the JPEG files that are stored."""

    def __init__(
        self, shape: tuple[int, ...], codec: ImageCodec, sizes: NDArray[np.int64], files: Callable[[int, int], bytes]
    ) -> None:
        """`sizes` [C] of the files; `files(start, stop)` returns those of some rows, one after the other."""
        super().__init__(shape, self._decoded)
        self.codec, self.sizes, self.files = codec, sizes, files

    @classmethod
    def of(cls, files: Sequence[bytes | memoryview], height: int, width: int, codec: ImageCodec) -> EncodedImages:
        """Of files that are in memory."""
        sizes = np.array([len(each) for each in files], np.int64)
        shape = (len(files), height, width, 3)
        return cls(shape, codec, sizes, lambda start, stop: b"".join(files[start:stop]))

    def _check(self, start: int, stop: int) -> None:
        self.files(start, stop)

    def _decoded(self, start: int, stop: int) -> Pixels:
        found, data, at = np.empty((stop - start, *self.shape[1:]), np.uint8), self.files(start, stop), 0
        for number, size in enumerate(self.sizes[start:stop].tolist()):
            found[number] = decode_jpeg(data[at : at + size], *self.shape[1:3])
            at += size
        return found
