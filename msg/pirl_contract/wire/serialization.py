"""Serialises a request with its images to one byte string, each pixel copied once.

A message that carries another is serialised by copying the inner one at every level: for three small cameras most of
a request's time. Protobuf lets the fields of one message stand in any order and merges a submessage that comes in
parts (its encoding guide, "last one wins": embedded messages are merged), so the images can simply be put behind the
rest. The receiver cannot distinguish them; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pirl_contract.v1 import policy_pb2 as pb

Data = bytes | memoryview

_LENGTH_DELIMITED = 2
_OBSERVATION = pb.InferRequest.DESCRIPTOR.fields_by_name["observation"].number
_IN_SESSION = pb.SessionRequest.DESCRIPTOR.fields_by_name["infer"].number
_IMAGES = pb.Observation.DESCRIPTOR.fields_by_name["images"].number
_DATA = pb.Image.DESCRIPTOR.fields_by_name["data"].number
_KEY, _VALUE = 1, 2  # of a map's entry, by the protobuf specification


@dataclass(frozen=True)
class WireImage:
    """An image as it travels: everything but its bytes, and its bytes."""

    header: pb.Image
    data: Data = b""


def infer_bytes(request: pb.InferRequest, wire_images: Mapping[str, WireImage]) -> bytes:
    """Serialise an InferRequest whose observation has no images, with these."""
    return _framed(request, (_OBSERVATION,), wire_images)


def session_bytes(request: pb.SessionRequest, wire_images: Mapping[str, WireImage]) -> bytes:
    """Serialise a SessionRequest that asks to infer and whose observation has no images, with these."""
    return _framed(request, (_IN_SESSION, _OBSERVATION), wire_images)


def _framed(request: Any, way: Sequence[int], wire_images: Mapping[str, WireImage]) -> bytes:
    head = request.SerializeToString()
    if not wire_images:
        return bytes(head)
    parts: list[Data] = []
    for name, image in wire_images.items():
        parts += _entry(name, image)
    size = sum(len(part) for part in parts)
    frame = b""
    for field in reversed(way):
        frame = _prefix(field, size + len(frame)) + frame
    return b"".join([head, frame, *parts])


def _entry(name: str, image: WireImage) -> list[Data]:
    key = name.encode()
    header = image.header.SerializeToString() + (_prefix(_DATA, len(image.data)) if len(image.data) else b"")
    inner = _prefix(_KEY, len(key)) + key + _prefix(_VALUE, len(header) + len(image.data)) + header
    return [_prefix(_IMAGES, len(inner) + len(image.data)) + inner, image.data]


def _prefix(field: int, length: int) -> bytes:
    """Tag and length of a length-delimited field, both as base-128 varints."""
    return _varint(field << 3 | _LENGTH_DELIMITED) + _varint(length)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
