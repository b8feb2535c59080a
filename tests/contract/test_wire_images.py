"""Images on the wire: files and their headers, resizing, one copy of the pixels."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from pirl_contract import Camera, Contract, Observation
from pirl_contract.v1 import policy_pb2 as pb
from pirl_contract.wire import codec, image_codec, transport
from pirl_contract.wire.image_encoder import ImageSender, letterbox

IMAGES = hnp.arrays(np.uint8, st.tuples(st.integers(1, 6), st.integers(1, 6), st.just(3)))
SIDE = 16


def smooth() -> np.ndarray:
    rows, columns = np.mgrid[0:SIDE, 0:SIDE]
    return np.stack([8 * rows, 8 * columns, np.full_like(rows, 60)], axis=2).astype(np.uint8)


@pytest.fixture(params=["cv2", "PIL.Image"])
def only(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of the two libraries is not installed."""
    real = image_codec.library
    monkeypatch.setattr(image_codec, "library", lambda name: real(name) if name == request.param else None)


@pytest.mark.usefixtures("only")
@pytest.mark.parametrize(("form", "most"), [("png", 0), ("jpeg", 10)])
def test_files_come_back_and_red_stays_red(form: image_codec.PictureFormat, most: int) -> None:
    image = smooth()
    found = image_codec.decode(image_codec.encode(image, form), form, SIDE, SIDE)
    assert np.abs(found.astype(int) - image).max() <= most


def test_without_either_library_there_are_only_raw_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_codec, "library", lambda name: None)
    with pytest.raises(ValueError, match="opencv-python or pillow"):
        ImageSender("jpeg", resize=False)
    with pytest.raises(ValueError, match="pillow or opencv-python"):
        letterbox(smooth(), 4, 4)
    assert ImageSender("auto", resize=False).wire_images({"a": smooth()})["a"].data == smooth().tobytes()


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, *, depth: int = 8, colour: int = 2, extra: bytes = b"", rows: int = 0) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(b"\0" * rows * (3 * width + 1)))
    return b"\x89PNG\r\n\x1a\n" + header + extra + body + chunk(b"IEND", b"")


def saved(**settings: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(smooth()).save(file, "jpeg", **settings)
    return file.getvalue()


def declaring(data: bytes, height: int, width: int) -> bytes:
    """A JPEG whose frame header says another size."""
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]


@pytest.mark.parametrize(
    ("form", "make"),
    [
        ("jpeg", lambda: declaring(saved(), 60000, 60000)),
        ("jpeg", lambda: saved(progressive=True)),
        ("jpeg", lambda: saved()[:-40]),
        ("jpeg", lambda: saved()[:60] + b"\xff\xd9"),
        ("jpeg", lambda: saved() + b"tail"),
        ("jpeg", lambda: bytes(cv2.imencode(".jpeg", smooth()[:, :, 0])[1])),
        ("jpeg", lambda: png(SIDE, SIDE, rows=SIDE)),
        ("jpeg", lambda: b""),
        ("jpeg", lambda: b"\xff\xd8" + b"\xff\xe0\x00\x02" * 70_000 + b"\xff\xd9"),
        ("png", lambda: png(60000, 60000)),
        ("png", lambda: png(SIDE, SIDE, depth=16)),
        ("png", lambda: png(SIDE, SIDE, colour=6)),
        ("png", lambda: png(SIDE, SIDE, rows=3)),
        ("png", lambda: png(SIDE, SIDE, rows=SIDE)[:-12]),
        ("png", lambda: png(SIDE, SIDE, rows=SIDE, extra=b"\0\0\0\0zTXt\0\0\0\0")),
        ("png", lambda: saved()),
        ("png", lambda: b""),
    ],
)
def test_files_that_are_not_plain_or_not_of_the_declared_size_are_refused(
    form: image_codec.PictureFormat, make: Callable[[], bytes]
) -> None:
    with pytest.raises(ValueError, match=r"(?i)jpeg|png"):
        image_codec.decode(make(), form, SIDE, SIDE)


def test_a_plain_file_made_by_hand_is_accepted() -> None:
    """Else the refusals above would prove nothing."""
    assert image_codec.decode(png(SIDE, SIDE, rows=SIDE), "png", SIDE, SIDE).shape == (SIDE, SIDE, 3)
    assert image_codec.decode(saved(), "jpeg", SIDE, SIDE).shape == (SIDE, SIDE, 3)


def test_the_camera_s_orientation_note_turns_nothing() -> None:
    """Width and height were checked before; a decoder that obeyed Exif would swap them."""
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    Image.fromarray(smooth()[:8]).save(file, "jpeg", exif=exif)
    assert image_codec.decode(file.getvalue(), "jpeg", 8, SIDE).shape == (8, SIDE, 3)


@given(st.dictionaries(st.text(max_size=8), IMAGES, max_size=3), st.integers(0, 2**40), st.booleans())
def test_framed_bytes_are_the_message(images: dict[str, np.ndarray], sequence: int, explore: bool) -> None:
    """Byte for byte another order, message for message the same: unary and in a session."""
    observation = Observation(images, np.ones(3, np.float32), "push", capture_time_ns=4)
    whole = pb.InferRequest(
        sequence=sequence, mode=int(explore), observation=codec.observation_to_proto(observation), traceparent="t"
    )
    bare = pb.InferRequest(
        sequence=sequence, mode=int(explore), observation=codec.state_to_proto(observation), traceparent="t"
    )
    sent = ImageSender("rgb8", resize=False).wire_images(images)
    assert pb.InferRequest.FromString(transport.unary_bytes(bare, sent)) == whole
    framed = transport.session_bytes(5, "infer", bare, 0.007, sent)
    assert pb.SessionRequest.FromString(framed) == pb.SessionRequest(id=5, infer=whole, timeout_ms=7)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 12), st.integers(1, 12))
@settings(max_examples=50)
def test_letterbox_fits_and_keeps_the_aspect(h: int, w: int, height: int, width: int) -> None:
    """A white image becomes one white rectangle between black bars, a pixel off at most, as openpi rounds."""
    out = letterbox(np.full((h, w, 3), 255, np.uint8), height, width)
    assert out.shape == (height, width, 3)
    lit = np.argwhere(out[:, :, 0] > 127)
    inner = lit.max(axis=0) - lit.min(axis=0) + 1
    assert len(lit) == inner.prod()
    scale = min(height / h, width / w)
    assert abs(inner[0] - max(1, h * scale)) <= 1
    assert abs(inner[1] - max(1, w * scale)) <= 1
    assert inner[0] >= height - 1 or inner[1] >= width - 1


def test_images_travel_at_the_contract_s_size_when_asked() -> None:
    contract = Contract("r", (Camera("wrist", 4, 6),), (), (), 10.0)
    image = np.full((8, 12, 3), 9, np.uint8)
    plain, resizing = ImageSender("rgb8", resize=False), ImageSender("rgb8", resize=True)
    for sender in (plain, resizing):
        sender.fit(contract)
    assert len(plain.wire_images({"wrist": image})["wrist"].data) == image.size
    sent = resizing.wire_images({"wrist": image})["wrist"]
    assert (sent.header.height, sent.header.width, bytes(sent.data)) == (4, 6, b"\x09" * 72)


def test_images_are_bounded_together() -> None:
    """Sixteen small files may not become sixteen large pictures."""
    side = 2048
    file = image_codec.encode(np.zeros((side, side, 3), np.uint8), "jpeg")
    message = pb.Observation()
    for name in "abcde":
        entry = message.images[name]
        entry.encoding, entry.height, entry.width, entry.data = pb.IMAGE_ENCODING_JPEG, side, side, file
    with pytest.raises(ValueError, match="pixels in total"):
        image_codec.images_from_proto(message.images)
    del message.images["e"]
    assert len(image_codec.images_from_proto(message.images)) == 4


def scans(count: int) -> bytes:
    """A baseline JPEG whose image is coded again and again: each scan costs a decoder the time of the whole image."""
    file = saved()
    scan = file[file.index(b"\xff\xda") : -2]
    return file[:-2] + scan * (count - 1) + b"\xff\xd9"


def padded(form: image_codec.PictureFormat, surplus: int) -> bytes:
    """A whole file with data that is no pixel: empty deflate blocks, or restart marks behind the image."""
    if form == "jpeg":
        return saved()[:-2] + b"\xff\xd0" * (surplus // 2) + b"\xff\xd9"
    whole = zlib.compress(b"\0" * SIDE * (3 * SIDE + 1))
    blocks = b"\0\0\0\xff\xff" * (surplus // 5)
    plain = png(SIDE, SIDE)
    return plain[:33] + chunk(b"IDAT", whole[:2] + blocks + whole[2:]) + chunk(b"IEND", b"")


def sixteen_bits() -> bytes:
    return bytes(cv2.imencode(".png", np.full((SIDE, SIDE, 3), 900, np.uint16))[1])


@pytest.mark.parametrize(
    ("form", "make", "words"),
    [
        ("jpeg", lambda: scans(3), "several scans"),
        ("jpeg", lambda: declaring(saved(), 4096, 4096), "bytes are too few for 4096x4096 pixels"),
        ("jpeg", lambda: declaring(saved(), 0, SIDE), "no size before its image"),
        ("jpeg", lambda: saved().replace(b"\xff\xc0\x00\x11\x08", b"\xff\xc0\x00\x11\x0c"), "12 bits per channel"),
        ("jpeg", lambda: saved(progressive=True), "not a baseline JPEG"),
        ("jpeg", lambda: bytes(cv2.imencode(".jpeg", smooth()[:, :, 0])[1]), "1 channel, three are read"),
        ("jpeg", lambda: saved()[:-2], "truncated: no end mark"),
        ("png", lambda: png(4096, 4096, rows=1), "bytes are too few for 4096x4096 pixels"),
        ("png", lambda: sixteen_bits(), "16 bits, colour type 2"),
        ("jpeg", lambda: padded("jpeg", 200_000), "bytes, [0-9]+ are accepted for"),
        ("png", lambda: padded("png", 200_000), "bytes, [0-9]+ are accepted for"),
        (
            "png",
            lambda: png(SIDE, SIDE, rows=SIDE)[:45] + b"\x00" + png(SIDE, SIDE, rows=SIDE)[46:],
            "checksum of IDAT",
        ),
    ],
)
def test_files_that_would_cost_too_long_or_lost_something_are_named(
    form: image_codec.PictureFormat, make: Callable[[], bytes], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the header alone: no decoder sees them."""
    monkeypatch.setattr(image_codec, "_opened", lambda data, form: pytest.fail("it was decoded"))
    with pytest.raises(ValueError, match=words):
        image_codec.decode(make(), form, SIDE, SIDE)


@pytest.mark.parametrize("form", ["jpeg", "png"])
def test_the_flattest_image_is_dense_and_still_read(form: image_codec.PictureFormat) -> None:
    """Negative control of the bound on pixels per byte."""
    flat = np.zeros((1024, 1024, 3), np.uint8)
    settings = [cv2.IMWRITE_JPEG_OPTIMIZE, 1] if form == "jpeg" else [cv2.IMWRITE_PNG_COMPRESSION, 9]
    data = bytes(cv2.imencode(f".{form}", flat, settings)[1])
    np.testing.assert_array_equal(image_codec.decode(data, form, 1024, 1024), flat)


@pytest.mark.parametrize("form", ["jpeg", "png"])
def test_the_noisiest_image_and_a_little_surplus_are_still_read(form: image_codec.PictureFormat) -> None:
    """Negative control of the bound on bytes per pixel."""
    noise = np.random.default_rng(0).integers(0, 256, (512, 512, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, form, **({"quality": 100, "subsampling": 0} if form == "jpeg" else {}))
    assert len(file.getvalue()) > noise.size
    assert image_codec.decode(file.getvalue(), form, 512, 512).shape == noise.shape
    assert image_codec.decode(padded(form, 100_000), form, SIDE, SIDE).shape == (SIDE, SIDE, 3)


def test_no_image_is_decoded_when_the_request_s_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    contract = Contract("r", (Camera("a", SIDE, SIDE), Camera("b", SIDE, SIDE)), (), (), 10.0)
    images = {name: smooth() for name in ("a", "b")}
    sent = ImageSender("jpeg", resize=False).wire_images(images)
    bare = pb.InferRequest(observation=codec.state_to_proto(Observation(images, np.zeros(0, np.float32), "push")))
    request = pb.InferRequest.FromString(transport.unary_bytes(bare, sent))
    assert set(codec.decode_infer(request, contract).observation.images) == {"a", "b"}
    now, decoded = [0.0], []

    def slow(data: bytes, form: object) -> np.ndarray:
        decoded.append(form)
        now[0] += 1.5
        return smooth()

    monkeypatch.setattr(image_codec, "_opened", slow)
    monkeypatch.setattr(image_codec.time, "monotonic", lambda: now[0])
    codec.decode_infer(request, contract, deadline=10.0)
    assert len(decoded) == 2, "within the limit for all images both are decoded"
    now[0] = 9.0
    with pytest.raises(TimeoutError, match="image 'b' was not decoded"):
        codec.decode_infer(request, contract, deadline=10.0)
    assert len(decoded) == 3
    monkeypatch.setattr(image_codec, "MAX_DECODE_S", 1.0)
    with pytest.raises(TimeoutError, match=r"or 1 s, were over"):
        codec.decode_infer(request, contract)
