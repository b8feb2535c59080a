"""One robot's session: many calls on one stream, replies in any order, and server-pushed events.

Two threads serve it. One reads requests and hands them on; gRPC's own draws the replies out of `replies` and sends
them. Ends of episodes wait for the disk, so they are worked off beside it. When `MAX_IN_FLIGHT` calls have no reply
yet, nothing more is read: a client that does not take its replies holds up only itself.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Generic, NoReturn, TypeVar

from google.protobuf.message import DecodeError, Message

from pirl_contract.names import check_robot_id
from pirl_contract.v1 import policy_pb2 as pb
from pirl_server.serving.connections import RobotConnections
from pirl_server.serving.grpc_status import refusal
from pirl_server.serving.infer_handler import Caller, PendingChunk
from pirl_server.serving.router import MAX_WAIT_S

MAX_IN_FLIGHT = 32
HELLO_S = 10.0
"""a stream on which nothing is said for so long gives its seat back"""
Incoming = pb.SessionRequest | pb.SessionReply
"""a reply in place of a request: an interceptor has rejected that request, and the session passes its reply on"""


@dataclass(frozen=True)
class Calls:
    """What a session can be asked: functions from request to reply, by the names of the proto; any may raise."""

    at_once: Mapping[str, Callable[[Any], Message]]
    """in the thread that reads"""
    beside: Mapping[str, Callable[[Any], Message]]
    """those that wait for the disk"""
    begin: Callable[[pb.InferRequest, Caller, float], PendingChunk]
    """for infer: request, caller, deadline"""
    finish: Callable[[PendingChunk], pb.InferReply]
    """the reply to infer, once it is there"""


def parsed(data: bytes) -> pb.SessionRequest:
    """Read a message of a session; bytes that are none become one without a call, to be rejected.

    gRPC itself never ends a stream whose request can't be parsed: its call stays in the server for good.
    """
    try:
        return pb.SessionRequest.FromString(data)
    except DecodeError:
        return pb.SessionRequest()


class Session:
    """Serves one stream. `replies` is what gRPC iterates over; it ends when nothing is said in the first seconds.

    `on_close()` is called once, by the first `close`.
    """

    def __init__(
        self,
        calls: Calls,
        attendance: RobotConnections,
        beside: Executor,
        address: str,
        on_close: Callable[[], object] = lambda: None,
    ) -> None:
        self._calls, self._attendance, self._beside, self._on_close = calls, attendance, beside, on_close
        self._caller = Caller(address, uuid.uuid4().hex)
        self._out: ReplyQueue[Callable[[], pb.SessionReply]] = ReplyQueue()
        self._room = threading.Semaphore(MAX_IN_FLIGHT)
        self._lock = threading.Lock()
        self._pending: dict[int, PendingChunk | None] = {}
        self._lines: dict[str, deque[Callable[[], None]]] = {}
        """of episodes with a call that waits for the disk: those behind it"""
        self._robot_id = ""
        self._ended = False
        self._begun = threading.Event()

    def replies(self, requests: Iterator[Incoming]) -> Iterator[pb.SessionReply]:
        """Give the replies as they are ready, until the client is done and everything is answered, or it is gone."""
        reader = threading.Thread(target=self._read, args=(requests,), name="session", daemon=True)
        reader.start()
        try:
            if not self._begun.wait(HELLO_S):
                return
            for reply in self._out:
                yield reply()
        finally:
            self.close()

    def close(self) -> None:
        """The client is gone: what waits for the device is given up. Any thread; twice changes nothing."""
        with self._lock:
            if self._ended:
                return
            self._ended, given_up = True, [pending for pending in self._pending.values() if pending]
            robot_id = self._robot_id
        try:
            for pending in given_up:
                pending.answer.cancel()
            if robot_id:
                self._attendance.leave(robot_id, self.hear)
        finally:
            self._room.release()
            self._begun.set()
            self._out.close()
            self._on_close()

    def hear(self, event: pb.ServerEvent) -> None:
        """Send a `pb.ServerEvent`. Any thread."""
        self._out.put(lambda: pb.SessionReply(event=event))

    def _read(self, requests: Iterator[Incoming]) -> None:
        try:
            for request in requests:
                self._begun.set()
                self._room.acquire()
                if self._ended:
                    return
                self._take(request)
        except Exception:  # gRPC raises its own kinds when a stream breaks; what is left is seen to by `close`
            self._out.close()
        else:
            self._out.finish()
        finally:
            self._begun.set()

    def _take(self, request: Incoming) -> None:
        if isinstance(request, pb.SessionReply):  # an interceptor has answered in our place
            self._out.put(lambda: self._passed_on(request))
            return
        with self._lock:
            known = request.id in self._pending
            self._pending.setdefault(request.id, None)
        self._out.expect()
        try:
            if known or not request.id:
                raise ValueError(f"id {request.id}: ids of a session are above 0, and each is used once")
            self._start(request)
        except Exception as error:
            failure = error
            self._answer(request.id, lambda: _raise(failure), forget=not known)

    def _passed_on(self, reply: pb.SessionReply) -> pb.SessionReply:
        self._room.release()
        return reply

    def _start(self, request: pb.SessionRequest) -> None:
        kind = request.WhichOneof("call")
        if kind is None:
            raise ValueError("the message holds no call that this server knows")
        call = getattr(request, kind)
        self._meet(getattr(call, "robot_id", ""))
        if kind == "infer":
            self._infer(request)
        elif kind in self._calls.beside:
            self._start_beside(request.id, kind, call)
        else:
            reply = self._calls.at_once[kind](call)
            self._answer(request.id, lambda: {kind: reply})

    def _start_beside(self, id: int, kind: str, call: Any) -> None:
        """Work it off after the calls of the same episode before it: a label must not overtake the end before it."""

        def begin() -> None:
            done = self._beside.submit(self._calls.beside[kind], call)
            done.add_done_callback(lambda done: self._answer(id, lambda: {kind: done.result()}))
            done.add_done_callback(lambda _: self._begin_next(call.episode_id))

        with self._lock:
            if (line := self._lines.get(call.episode_id)) is not None:
                line.append(begin)
                return
            self._lines[call.episode_id] = deque()
        begin()

    def _begin_next(self, episode_id: str) -> None:
        with self._lock:
            line = self._lines[episode_id]
            begin = line.popleft() if line else None
            if begin is None:
                del self._lines[episode_id]
        if begin is not None:
            begin()

    def _infer(self, request: pb.SessionRequest) -> None:
        wait_s = min(request.timeout_ms / 1000 or MAX_WAIT_S, MAX_WAIT_S)
        pending = self._calls.begin(request.infer, self._caller, time.monotonic() + wait_s)
        with self._lock:
            self._pending[request.id] = pending
        if self._ended:
            pending.answer.cancel()
        finish = self._calls.finish
        pending.answer.add_done_callback(lambda _: self._answer(request.id, lambda: {"infer": finish(pending)}))

    def _meet(self, robot_id: str) -> None:
        """Learn whose session this is from the first call that says so.

        Raises ValueError for an id that no stop could reach, BusyError when there are too many robots.
        """
        if not robot_id or robot_id == self._robot_id:
            return
        if self._robot_id:
            raise ValueError(f"this session belongs to robot '{self._robot_id}': open one session per robot")
        check_robot_id(robot_id)
        with self._lock:
            if self._ended:
                return
            self._attendance.join(robot_id, self._caller.address, self.hear)
            self._robot_id = robot_id

    def _answer(self, id: int, make: Callable[[], dict[str, Any]], forget: bool = True) -> None:
        """Queue a reply; `make` is called by the thread that sends it, so that no other one waits for that work."""

        def reply() -> pb.SessionReply:
            try:
                return pb.SessionReply(id=id, **make())
            except Exception as error:
                return pb.SessionReply(id=id, error=refusal(error))
            finally:
                if forget:
                    with self._lock:
                        self._pending.pop(id, None)
                self._room.release()

        self._out.put_expected(reply)


def _raise(error: Exception) -> NoReturn:
    raise error


Item = TypeVar("Item")


class ReplyQueue(Generic[Item]):
    """Any thread puts, one takes. What is put after the end is dropped: there is no receiver."""

    def __init__(self) -> None:
        self._items: SimpleQueue[Item | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._expected = 0
        self._finishing = False

    def put(self, item: Item) -> None:
        """Send this too."""
        self._items.put(item)

    def expect(self) -> None:
        """Announce one `put_expected`."""
        with self._lock:
            self._expected += 1

    def put_expected(self, item: Item) -> None:
        """Send what was announced."""
        self._items.put(item)
        with self._lock:
            self._expected -= 1
            last = self._finishing and not self._expected
        if last:
            self.close()

    def finish(self) -> None:
        """Nothing more will be announced: end when the rest has been sent."""
        with self._lock:
            self._finishing = True
            last = not self._expected
        if last:
            self.close()

    def close(self) -> None:
        """End after what was put so far."""
        self._items.put(None)

    def __iter__(self) -> Iterator[Item]:
        while (item := self._items.get()) is not None:
            yield item
