"""JPEG and PNG images: encoded by the client, decoded by the server, with OpenCV or Pillow.

Neither is needed to drive a robot: without them images travel raw. A file is opened only after its own header has been
read here, so that a small message cannot make the decoder allocate more than the declared size, and only in the plain
forms that cost a bounded time: baseline JPEG of one scan, and PNG of 8 bits per channel without text, profiles or
animation. Neither may have more pixels than its bytes can hold, nor many more bytes than its pixels need: data between
or behind the pixels (blocks without content, marks in a row) costs a decoder time as well.
"""

from __future__ import annotations

import importlib
import io
import math
import struct
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pirl_contract.v1 import policy_pb2 as pb
from pirl_contract.wire.jpeg_stream import MAX_SEGMENTS, read_header

PictureFormat = Literal["jpeg", "png"]
JPEG_QUALITY = 90
PNG_RGB: Mapping[int, int] = {2: 3}
"""channels by PNG's colour type"""
DEFLATE_MOST = 1040
"""bytes out of one: the format itself allows 1032"""
SURPLUS_BYTES = 128 * 1024
"""of a file above twice its pixels: two full segments for Exif or a colour profile. Noise in JPEG of quality 100 takes
1.4 times as much as its pixels."""

_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_PNG_CHUNKS = frozenset({b"IHDR", b"IDAT", b"IEND", b"gAMA", b"sRGB", b"cHRM", b"pHYs", b"sBIT"})


def available() -> bool:
    """Whether JPEG and PNG can be made and opened here."""
    return library("cv2") is not None or library("PIL.Image") is not None


def encode(image: NDArray[np.uint8], form: PictureFormat) -> bytes:
    """Return the file of a uint8 RGB image. Raises ValueError when neither OpenCV nor Pillow is installed.

    The image is [height, width, 3].
    """
    if cv2 := library("cv2"):
        bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
        flags = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if form == "jpeg" else [cv2.IMWRITE_PNG_COMPRESSION, 1]
        done, data = cv2.imencode(f".{form}", bgr, flags)
        assert done
        return bytes(data)
    pillow, file = _pillow(), io.BytesIO()
    settings = {"quality": JPEG_QUALITY} if form == "jpeg" else {"compress_level": 1}
    pillow.fromarray(image).save(file, form, **settings)
    return file.getvalue()


def decode(data: bytes, form: PictureFormat, height: int, width: int) -> NDArray[np.uint8]:
    """Return the image [height, width, 3] uint8 RGB.

    Raises ValueError when the file is damaged, not of the plain form or of another size than declared. Allocates only
    after the header has been seen to say that size; bounding the size itself is the caller's part.
    """
    if len(data) > (most := 6 * height * width + SURPLUS_BYTES):
        raise ValueError(f"the {form} file has {len(data)} bytes, {most} are accepted for {height}x{width} pixels")
    found = jpeg_size(data) if form == "jpeg" else png_size(data)
    if found != (height, width):
        raise ValueError(f"the {form} file is {found[0]}x{found[1]}, declared as {height}x{width}")
    image = _opened(data, form)
    if image is None or image.shape != (height, width, 3) or image.dtype != np.uint8:
        raise ValueError(f"the {form} file is damaged")
    return image


def jpeg_size(data: bytes) -> tuple[int, int]:
    """Height and width as the frame header of a baseline JPEG says (ITU-T T.81, B.2.2).

    Raises ValueError for a file that is no complete baseline JPEG of one scan and three channels.
    """
    header = read_header(data)
    if len(header.components) != 3:
        raise ValueError(f"the JPEG file has {len(header.components)} channel, three are read")
    return header.height, header.width


def png_size(data: bytes, colours: Mapping[int, int] = PNG_RGB) -> tuple[int, int]:
    """Height and width as the header of a plain PNG says (W3C PNG, 11.2.2); each chunk's name and checksum is checked.

    `colours` are the accepted colour types with their channels. Raises ValueError for a file that is no complete 8-bit
    PNG of them without interlacing, that holds more than pixels, or that is too short for its size.
    """
    if data[:8] != _PNG_MAGIC or data[12:16] != b"IHDR" or len(data) < 33:
        raise ValueError("not a PNG file")
    width, height, depth, colour, _, _, interlace = struct.unpack(">IIBBBBB", data[16:29])
    if depth != 8 or colour not in colours or interlace:
        raise ValueError(
            f"a PNG file of {depth} bits, colour type {colour}{', interlaced' if interlace else ''}: 8 bits per channel"
            f" and colour type {' or '.join(map(str, colours))} are read, not interlaced"
        )
    if height * (1 + width * colours[colour]) > DEFLATE_MOST * len(data):
        raise ValueError(f"the PNG file lost data: {len(data)} bytes are too few for {height}x{width} pixels")
    _check_chunks(data)
    return height, width


def _check_chunks(data: bytes) -> None:
    at = 8
    for _ in range(MAX_SEGMENTS):
        length, name = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        if len(name) < 4:
            break
        if name not in _PNG_CHUNKS:
            raise ValueError(f"the PNG file holds {name!r}: only pixels are accepted")
        content, at = memoryview(data)[at + 4 : at + 8 + length], at + 12 + length
        if at > len(data) or zlib.crc32(content) != int.from_bytes(data[at - 4 : at], "big"):
            raise ValueError(f"the PNG file is damaged: the checksum of {name.decode()} is wrong")
        if name == b"IEND" and at == len(data):
            return
    raise ValueError("the PNG file is damaged: it has no end")


def _opened(data: bytes, form: PictureFormat) -> NDArray[np.uint8] | None:
    if cv2 := library("cv2"):
        try:
            bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        except cv2.error:
            return None
        return None if bgr is None else cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
    pillow = _pillow()
    try:
        with pillow.open(io.BytesIO(data), formats=(form,)) as file:
            return np.array(file.convert("RGB"))
    except (OSError, SyntaxError, ValueError, pillow.DecompressionBombError):
        return None


def _pillow() -> Any:
    if pillow := library("PIL.Image"):
        return pillow
    raise ValueError("JPEG and PNG need opencv-python or pillow, neither is installed: send raw images ('rgb8')")


def library(name: str) -> Any:
    """An optional library, imported when it is first needed: None where it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


@dataclass(frozen=True)
class WireImage:
    """An image as it travels: everything but its bytes, and its bytes."""

    header: pb.Image
    data: bytes | memoryview = b""


MAX_IMAGE_PIXELS = 4096 * 4096
"""of one observation, all cameras together"""
MAX_CAMERAS = 16
MAX_DECODE_S = 2.0
"""for the images of one request"""

ReadShared = Callable[[pb.SharedMemory, int, int], NDArray[np.uint8]]
"""(where, height, width) -> a copy of those pixels; ValueError when there are none"""

_FORMS: dict[int, PictureFormat] = {pb.IMAGE_ENCODING_JPEG: "jpeg", pb.IMAGE_ENCODING_PNG: "png"}


def images_from_proto(
    images: Mapping[str, pb.Image], read_shared: ReadShared | None = None, deadline: float = math.inf
) -> dict[str, NDArray[np.uint8]]:
    """Return uint8 RGB [height, width, 3] by camera; `deadline` is a `time.monotonic()` value.

    Raises ValueError when there are too many images or too large ones together, before a pixel is decoded, and for an
    image that is damaged. One image takes a time that its size bounds; all of them together take no more than
    `MAX_DECODE_S`: TimeoutError.
    """
    if len(images) > MAX_CAMERAS:
        raise ValueError(f"images: {len(images)} cameras, at most {MAX_CAMERAS} are accepted")
    total = sum(pixels_of(image, name) for name, image in images.items())
    if total > MAX_IMAGE_PIXELS:
        raise ValueError(f"images: {total} pixels in total, at most {MAX_IMAGE_PIXELS} are accepted")
    limit, decoded = min(deadline, time.monotonic() + MAX_DECODE_S), dict[str, NDArray[np.uint8]]()
    for name, image in images.items():
        if time.monotonic() > limit:
            raise TimeoutError(f"image '{name}' was not decoded: the request's time, or {MAX_DECODE_S:g} s, were over")
        decoded[name] = image_from_proto(image, name, read_shared)
    return decoded


def pixels_of(image: pb.Image, name: str) -> int:
    """Declared size in pixels. Raises ValueError when it is nothing or more than any observation may hold."""
    pixels: int = image.height * image.width
    if not 0 < pixels <= MAX_IMAGE_PIXELS:
        raise ValueError(f"image '{name}': {image.height}x{image.width} is not an accepted size")
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
            return decode(data, form, image.height, image.width)
        if image.encoding == pb.IMAGE_ENCODING_SHARED_MEMORY and read_shared is not None:
            return read_shared(image.shared, image.height, image.width)
    except ValueError as error:
        raise ValueError(f"image '{name}': {error}") from None
    raise ValueError(f"image '{name}': encoding {image.encoding} is not accepted; GetInfo lists the accepted ones")
