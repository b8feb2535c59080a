"""The port of the REST API: uvicorn, with bounds on connections, headers and time that uvicorn itself lacks.

uvicorn 0.54 offers `limit_concurrency`, which is looked at when a header is complete and then answers 503;
`timeout_keep_alive`, which ends at the first byte of the next request; and `h11_max_incomplete_event_size`. A client
that connects and sends half a header, or nothing, is kept for ever, any number of them, and TLS for a minute. Here

- connections are counted where they are accepted (`security.connection_limits`);
- each has ten seconds for its header, then for its body, and thirty to continue reading a response;
- a body needs a Content-Length: a chunk of one byte costs h11 some 17 microseconds, before it has parsed the
  token;
- a client whose body is not going to be read still gets its answer, then two seconds to notice;
- `X-Forwarded-For` is not believed: the audit log names who really called.
"""

from __future__ import annotations

import socket
from functools import partial
from typing import Any, cast

import h11
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from pirl_server.api.problems import MEDIA_TYPE, Problem
from pirl_server.api.request_body import BODY_S
from pirl_server.security.connection_limits import BACKLOG, REQUEST_S, Seat, SeatedSocket, Seats
from pirl_server.security.tls import TlsFiles

MAX_HEADER_BYTES = 16 * 1024
LINGER_S, WRITE_S = 2.0, 30.0
KEEP_ALIVE_S = 5
SEND_BYTES = 64 * 1024
"""the kernel keeps for a client that does not read; by itself it would take megabytes, and have them made"""


class Listener(uvicorn.Server):
    """uvicorn's server on sockets of its own; made by `make_listener`."""

    def __init__(self, config: uvicorn.Config, sockets: list[SeatedSocket], seats: Seats) -> None:
        super().__init__(config)
        self.seats, self.sockets = seats, sockets
        self.port: int = sockets[0].getsockname()[1]

    async def startup(self, sockets: Any = None) -> None:
        """Listen."""
        await super().startup(sockets=cast("Any", self.sockets))

    async def on_tick(self, counter: int) -> bool:
        """Look ten times a second for connections that took too long."""
        self.seats.sweep()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: Any = None) -> None:
        """Stop listening, then end what is open."""
        await super().shutdown(sockets=cast("Any", self.sockets))
        self.seats.close()


def make_listener(app: FastAPI, sockets: list[SeatedSocket], tls: TlsFiles | None = None) -> Listener:
    """Return a uvicorn server for sockets that `listen` made: `run` it, or `serve` in a loop of your own.

    A certificate that cannot be used is an error here, not in the loop.
    """
    seats = sockets[0].seats
    for each in sockets:
        each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BYTES)
    protocol = partial(BoundedProtocol, seats=seats)
    config = uvicorn.Config(
        app,
        http=cast("Any", protocol),
        loop="asyncio",  # uvloop accepts in C, past the seats
        backlog=BACKLOG,
        ws="none",  # an upgrade would leave the bounds
        proxy_headers=False,
        access_log=False,
        log_config=None,  # lines go where `configure_logs` sends all
        log_level="warning",
        h11_max_incomplete_event_size=MAX_HEADER_BYTES,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=1,
    )
    config.load()
    config.ssl = tls.context() if tls else None
    return Listener(config, sockets, seats)


class _Sized(h11.Connection):
    """Takes a body with a Content-Length only."""

    def next_event(self) -> Any:
        """Return the next event; raises RemoteProtocolError, with 411, for a request that announces chunks."""
        event = super().next_event()
        if isinstance(event, h11.Request) and any(name == b"transfer-encoding" for name, _ in event.headers):
            raise h11.RemoteProtocolError("a body needs a Content-Length", error_status_hint=411)
        return event


class _Transport:
    """The transport of a connection, but for `close`: that goes through the protocol, which may linger."""

    def __init__(self, transport: Any, protocol: BoundedProtocol) -> None:
        self._transport, self._protocol = transport, protocol

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def close(self) -> None:
        self._protocol.leave(self._transport)

    def is_closing(self) -> bool:
        return bool(self._protocol.leaving or self._transport.is_closing())


class BoundedProtocol(H11Protocol):
    """HTTP/1.1 of uvicorn, which notes for its seat what the client owes."""

    def __init__(self, seats: Seats, **settings: Any) -> None:
        super().__init__(**settings)
        self.conn = _Sized(h11.SERVER, MAX_HEADER_BYTES)
        self.leaving = False
        self._seats, self._lost = seats, False
        self._seat: Seat | None = None
        self._owes: object = h11.IDLE

    def connection_made(self, transport: Any) -> None:
        """Find the seat that the connection got when it was accepted."""
        self._seat = self._seats.at(transport.get_extra_info("socket").fileno())
        if self._seat is not None:
            self._seat.abort = transport.abort
        super().connection_made(cast("Any", _Transport(transport, self)))

    def connection_lost(self, exc: Exception | None) -> None:
        """End the request, if there is one."""
        self._lost = True
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Continue the request; data after the response is discarded."""
        if not self.leaving:
            super().data_received(data)
            self._note()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        self._note()

    def pause_writing(self) -> None:
        """Give a client that does not read its answer some time."""
        super().pause_writing()
        if self._seat is not None:
            self._seat.wait(WRITE_S)

    def resume_writing(self) -> None:
        """It reads again."""
        super().resume_writing()
        self._note(again=True)

    def send_400_response(self, msg: str) -> None:
        """Answer a request that is none, as a problem."""
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.close()  # in the middle of an answer
            return
        sized = "a body needs a Content-Length, a header less than 16 KiB"
        problem = Problem(type="/problems/bad-request", title="Bad request", status=400, detail=f"{msg} {sized}")
        body = problem.model_dump_json().encode()
        length, kind = str(len(body)).encode(), MEDIA_TYPE.encode()
        headers = [(b"content-type", kind), (b"content-length", length), (b"connection", b"close")]
        self.transport.write(self.conn.send(h11.Response(status_code=400, headers=headers)) or b"")
        self.transport.write(self.conn.send(h11.Data(data=body)) or b"")
        self.conn.send(h11.EndOfMessage())
        self.transport.close()

    def leave(self, transport: Any) -> None:
        """Close. A client that still sends would lose its answer to a reset: let it read first, for a while."""
        if self._lost or self._seat is None or self.conn.their_state not in (h11.SEND_BODY, h11.ERROR):
            transport.close()
        elif not self.leaving:
            self.leaving = True
            self._seat.wait(LINGER_S)
            self.flow.resume_reading()
            if transport.can_write_eof():
                transport.write_eof()

    def _note(self, again: bool = False) -> None:
        owes = self.conn.their_state
        if self._seat is None or self.leaving or (owes is self._owes and not again):
            return
        self._owes = owes
        if owes is h11.IDLE:
            self._seat.wait(REQUEST_S)
        elif owes is h11.SEND_BODY:
            self._seat.wait(BODY_S + LINGER_S)  # `Bodies` answers 408 before
        else:
            self._seat.work()
