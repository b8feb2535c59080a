"""The two transports for clients with threads: unary calls, or one stream that receives server-pushed events.

A call is known by its name in `SessionRequest`. Every carrier raises RefusedError and nothing else when there is no
reply, and never sends a request twice.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Mapping, Sequence
from queue import Empty, SimpleQueue
from typing import Any, Protocol

import grpc

from pirl_contract.v1 import policy_pb2 as pb
from pirl_contract.wire.errors import RefusedError, of_error, of_refusal
from pirl_contract.wire.grpc_options import SERVICE_PATH, SESSION_PATH
from pirl_contract.wire.image_codec import WireImage

NO_IMAGES: Mapping[str, WireImage] = {}
UNARY: Mapping[str, tuple[str, Any]] = {
    "get_info": ("GetInfo", pb.GetInfoReply),
    "infer": ("Infer", pb.InferReply),
    "start_episode": ("StartEpisode", pb.StartEpisodeReply),
    "end_episode": ("EndEpisode", pb.EndEpisodeReply),
    "report_outcomes": ("ReportOutcomes", pb.ReportOutcomesReply),
    "label_episode": ("LabelEpisode", pb.LabelEpisodeReply),
}


class Transport(Protocol):
    """Carries one call at a time."""

    def call(self, name: str, request: Any, timeout_s: float, wire_images: Mapping[str, WireImage] = NO_IMAGES) -> Any:
        """Return the reply. Raises RefusedError."""

    def close(self) -> None:
        """Abandon what is under way. Calling it twice changes nothing."""


class UnaryTransport:
    """Each call on its own. The channel belongs to the client."""

    def __init__(self, channel: Any, metadata: Sequence[tuple[str, str]]) -> None:
        self._metadata = tuple(metadata)
        self._methods = {
            name: channel.unary_unary(
                SERVICE_PATH + method, request_serializer=None, response_deserializer=reply.FromString
            )
            for name, (method, reply) in UNARY.items()
        }

    def call(self, name: str, request: Any, timeout_s: float, wire_images: Mapping[str, WireImage] = NO_IMAGES) -> Any:
        """Return the reply. Raises RefusedError."""
        data = unary_bytes(request, wire_images)
        try:
            return self._methods[name](data, timeout=timeout_s, metadata=self._metadata)
        except grpc.RpcError as error:
            raise of_error(error) from None

    def close(self) -> None:
        """Nothing is kept between calls."""


# A message that carries another is serialised by copying the inner one at every level: for three small cameras most of
# a request's time. Protobuf lets the fields of one message stand in any order and merges a submessage that comes in
# parts (its encoding guide, "last one wins": embedded messages are merged), so the images can simply be put behind the
# rest, each pixel copied once. The receiver cannot distinguish them; a test compares the two.

_LENGTH_DELIMITED = 2
_OBSERVATION = pb.InferRequest.DESCRIPTOR.fields_by_name["observation"].number
_IN_SESSION = pb.SessionRequest.DESCRIPTOR.fields_by_name["infer"].number
_IMAGES = pb.Observation.DESCRIPTOR.fields_by_name["images"].number
_DATA = pb.Image.DESCRIPTOR.fields_by_name["data"].number
_KEY, _VALUE = 1, 2  # of a map's entry, by the protobuf specification


def unary_bytes(request: Any, wire_images: Mapping[str, WireImage]) -> bytes:
    """Serialise a unary request; an InferRequest whose observation has no images, with these."""
    return _framed(request, (_OBSERVATION,), wire_images)


def session_bytes(id: int, name: str, request: Any, timeout_s: float, wire_images: Mapping[str, WireImage]) -> bytes:
    """Serialise a request within a session; one that asks to infer, whose observation has no images, with these."""
    wrapped = pb.SessionRequest(id=id, timeout_ms=max(1, round(1000 * timeout_s)), **{name: request})
    return _framed(wrapped, (_IN_SESSION, _OBSERVATION), wire_images)


def _framed(request: Any, way: Sequence[int], wire_images: Mapping[str, WireImage]) -> bytes:
    head = request.SerializeToString()
    if not wire_images:
        return bytes(head)
    parts: list[bytes | memoryview] = []
    for name, image in wire_images.items():
        parts += _entry(name, image)
    size = sum(len(part) for part in parts)
    frame = b""
    for field in reversed(way):
        frame = _prefix(field, size + len(frame)) + frame
    return b"".join([head, frame, *parts])


def _entry(name: str, image: WireImage) -> list[bytes | memoryview]:
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


# Carries calls on one stream and receives server-pushed events; opens the stream again when it breaks.
# gRPC's own thread sends, one of ours reads. A reply is handed to the call of its id; one that comes after its call has
# timed out has no caller and is dropped. When a stream breaks, every call that waits is rejected with the reason;
# nothing is sent again. The next call opens a new stream at once; without one the reader does, ever less often, so that
# events still arrive.

BACKOFF_S = (0.1, 0.2, 0.5, 1.0, 2.0)
"""waits between attempts of the reader; the last one is repeated"""
HELLO_TIMEOUT_S = 10.0
HELLO = 1
"""the id of each stream's first request"""
_Slot = SimpleQueue[pb.SessionReply | RefusedError]


class SessionTransport:
    """Keeps one stream for one robot.

    `hello()` makes the GetInfo that each stream begins with, so that the server knows whose it is; `on_hello(reply)`
    and `on_event(event)` are called by the reading thread.
    """

    def __init__(
        self,
        channel: Any,
        metadata: Sequence[tuple[str, str]],
        hello: Callable[[], pb.GetInfoRequest],
        on_hello: Callable[[pb.GetInfoReply], None],
        on_event: Callable[[pb.ServerEvent], None] | None,
    ) -> None:
        self._metadata, self._hello, self._on_hello, self._on_event = tuple(metadata), hello, on_hello, on_event
        self._method = channel.stream_stream(
            SESSION_PATH, request_serializer=None, response_deserializer=pb.SessionReply.FromString
        )
        self._lock = threading.Lock()
        self._stream: _Stream | None = None
        self._attempt = 0
        self._closed = threading.Event()

    def call(self, name: str, request: Any, timeout_s: float, wire_images: Mapping[str, WireImage] = NO_IMAGES) -> Any:
        """Return the reply. Raises RefusedError."""
        reply = self._open().ask(name, request, timeout_s, wire_images)
        if reply.HasField("error"):
            raise of_refusal(reply.error)
        return getattr(reply, name)

    def close(self) -> None:
        """Abandon what is under way. Calling it twice changes nothing."""
        self._closed.set()
        with self._lock:
            stream, self._stream = self._stream, None
        if stream is not None:
            stream.end()

    def _open(self) -> _Stream:
        with self._lock:
            if self._closed.is_set():
                raise RefusedError(grpc.StatusCode.FAILED_PRECONDITION, "the client is closed")
            if self._stream is None:
                self._stream = _Stream(self._method, self._metadata)
                self._stream.outgoing.put(session_bytes(HELLO, "get_info", self._hello(), HELLO_TIMEOUT_S, NO_IMAGES))
                threading.Thread(target=self._read, args=(self._stream,), name="pirl-session", daemon=True).start()
            return self._stream

    def _read(self, stream: _Stream) -> None:
        lost = stream.read(self._take)
        with self._lock:
            if self._stream is stream:
                self._stream = None
        stream.fail(lost)
        if lost.code is grpc.StatusCode.UNIMPLEMENTED:
            return
        wait_s = BACKOFF_S[min(self._attempt, len(BACKOFF_S) - 1)]
        self._attempt += 1
        if not self._closed.wait(wait_s) and self._stream is None:
            self._reopen()

    def _reopen(self) -> None:
        try:
            self._open()
        except (RefusedError, ValueError):  # closed meanwhile, it or its channel
            return

    def _take(self, reply: pb.SessionReply) -> None:
        """See to what no call waits for."""
        self._attempt = 0
        if reply.HasField("event") and self._on_event is not None:
            self._on_event(reply.event)
        elif reply.id == HELLO and reply.HasField("get_info"):
            self._on_hello(reply.get_info)


class _Stream:
    """One stream, from its opening to its end."""

    def __init__(self, method: Any, metadata: Sequence[tuple[str, str]]) -> None:
        self.outgoing: SimpleQueue[bytes | None] = SimpleQueue()
        self._ids = itertools.count(HELLO + 1)
        self._waiting: dict[int, _Slot] = {}
        self._lost: RefusedError | None = None
        self._call = method(iter(self.outgoing.get, None), metadata=metadata)

    def ask(self, name: str, request: Any, timeout_s: float, wire_images: Mapping[str, WireImage]) -> pb.SessionReply:
        """Send and wait. Raises RefusedError when no reply comes in time."""
        id, slot = next(self._ids), _Slot()
        self._waiting[id] = slot
        if self._lost is not None:  # it broke before the slot was there
            slot.put(self._lost)
        try:
            self.outgoing.put(session_bytes(id, name, request, timeout_s, wire_images))
            reply = slot.get(timeout=timeout_s)
        except Empty:
            raise RefusedError(grpc.StatusCode.DEADLINE_EXCEEDED, "no reply in time") from None
        finally:
            self._waiting.pop(id, None)
        if isinstance(reply, RefusedError):
            raise reply
        return reply

    def read(self, other: Callable[[pb.SessionReply], None]) -> RefusedError:
        """Hand out replies until the stream ends; return why it did."""
        try:
            for reply in self._call:
                slot = self._waiting.get(reply.id)
                if slot is not None:
                    slot.put(reply)
                else:
                    other(reply)
        except grpc.RpcError as error:
            return of_error(error)
        finally:
            self.outgoing.put(None)
        return RefusedError(grpc.StatusCode.UNAVAILABLE, "the server ended the session")

    def fail(self, lost: RefusedError) -> None:
        """Reject what waits, and what may still come."""
        self._lost = lost
        for slot in list(self._waiting.values()):
            slot.put(lost)

    def end(self) -> None:
        """Hang up."""
        self.outgoing.put(None)
        self._call.cancel()
