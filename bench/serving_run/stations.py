"""Where the time of one Infer goes: time stamps at the stations of a session, taken by wrapping the running code.

One robot with one request at a time, so the n-th stamp of each station belongs to the n-th call. The clock of
`time.perf_counter_ns` is the same in every process of a machine. Nothing is wrapped in the processes that are compared.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

import numpy as np
from latency import Row
from rig import Rig

PAYLOAD = "state"
STAGES = (
    ("sent", "client, request", "builds and serialises the message"),
    ("arrived", "gRPC, request", "hand-over to the client's sending thread, socket, server's completion queue"),
    ("read", "server, hand-over", "gRPC's thread to the session's"),
    ("queued", "server, check and decode", "interceptor, checks, codec, recorder, queue entry"),
    ("taken", "server, hand-over", "the session's thread to the model's"),
    ("drawn", "server, batch", "queue, policy, result, counters"),
    ("finishing", "server, hand-over", "the model's thread to the sending one"),
    ("replied", "server, reply", "check for finite actions, message, serialisation"),
    ("delivered", "gRPC, reply", "server's completion queue, socket, the client's channel thread"),
    ("handed", "client, hand-over", "gRPC's thread to the one that reads"),
    ("woken", "client, hand-over", "the reading thread to the caller's"),
    ("returned", "client, reply", "decode, clock"),
)
"""station that ends it, name and content of each stage; the first one begins at `called`"""


class Stamps:
    """What a worker process has stamped."""

    def __init__(self) -> None:
        self._stamps: defaultdict[str, list[int]] = defaultdict(list)

    def take(self) -> dict[str, list[int]]:
        """Return the stamps of each station, and begin anew."""
        taken, self._stamps = dict(self._stamps), defaultdict(list)
        return taken

    def wrap(self, owner: Any, name: str, before: str = "", after: str = "") -> None:
        """Stamp a function of a class or a module, when it is called or when it returns."""
        inner = getattr(owner, name)
        setattr(owner, name, self.wrapped(inner, before, after))

    def wrapped(self, inner: Callable[..., Any], before: str = "", after: str = "") -> Callable[..., Any]:
        """The same function with stamps."""

        def stamped(*arguments: Any, **named: Any) -> Any:
            if before:
                self._stamps[before].append(time.perf_counter_ns())
            result = inner(*arguments, **named)
            if after:
                self._stamps[after].append(time.perf_counter_ns())
            return result

        return stamped

    def server(self) -> None:
        """Stamp the services that are opened from now on in this process."""
        from pirl_server.serving import engine, infer_handler, server, session

        self.wrap(server, "parsed", before="arrived")
        self.wrap(session.Session, "_take", before="read")
        self.wrap(engine.Engine, "submit", after="queued")
        self.wrap(engine.Engine, "_draw", before="taken")
        self.wrap(session.ReplyQueue, "put_expected", before="drawn")
        self.wrap(infer_handler.InferHandler, "finish", before="finishing")
        server.pb = _Messages(server.pb, SerializeToString=self.wrapped(_serialised, after="replied"))

    def client(self) -> None:
        """Stamp the clients that are made from now on in this process."""
        from pirl_contract import client
        from pirl_contract.wire import request_builder, transport

        stamps = self

        class Slot(SimpleQueue):  # type: ignore[type-arg]
            def put(self, item: Any) -> None:  # type: ignore[override]
                stamps._stamps["handed"].append(time.perf_counter_ns())
                super().put(item)

        self.wrap(client.PolicyClient, "infer", before="called", after="returned")
        self.wrap(transport, "session_bytes", after="sent")
        self.wrap(request_builder.RequestBuilder, "chunk", before="woken")
        read = self.wrapped(transport.pb.SessionReply.FromString, "delivered")
        transport.pb, transport._Slot = _Messages(transport.pb, FromString=read), Slot  # type: ignore[assignment, misc]


class _Messages:
    """The generated messages with another way to read, or to write, those of a session's replies."""

    def __init__(self, messages: Any, **changed: Callable[..., Any]) -> None:
        self._messages = messages
        self.SessionReply = type("SessionReply", (), {name: staticmethod(each) for name, each in changed.items()})

    def __getattr__(self, name: str) -> Any:
        return getattr(self._messages, name)


def _serialised(message: Any) -> bytes:
    data: bytes = message.SerializeToString()
    return data


def stations(rig: Rig, rounds: int, calls: int) -> list[Row]:
    """One row per stage: its median in microseconds, and what it holds. The sum of medians is about the p50."""
    server, robots = rig.processes["stamped_server"], rig.processes["stamped_robots"]
    server.ask("stamp")
    robots.ask("stamp")
    port = server.ask("open", payload=PAYLOAD, model_ms=0.0)["port"]
    robots.ask("connect", key="stamped", path="session", port=port, payload=PAYLOAD)
    robots.ask("calls", key="stamped", times=calls)
    for process in (server, robots):
        process.ask("stamps")
    for _ in range(rounds):
        robots.ask("calls", key="stamped", times=calls)
    stamps: dict[str, list[int]] = server.ask("stamps") | robots.ask("stamps")
    ends = {name: np.array(stamps[name]) for name, _, _ in STAGES}
    start, rows = np.array(stamps["called"]), list[Row]()
    for name, stage, content in STAGES:
        spent_us = float(np.median(ends[name] - start)) / 1e3
        rows.append({"stage": stage, "us": round(spent_us), "what it holds": content})
        start = ends[name]
    whole_us = float(np.median(ends["returned"] - np.array(stamps["called"]))) / 1e3
    return [*rows, {"stage": "the whole call, p50", "us": round(whole_us), "what it holds": f"{len(start)} calls"}]
