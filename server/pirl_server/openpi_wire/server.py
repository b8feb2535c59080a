"""The port for openpi clients: one event loop in its own thread, which never runs the policy.

Every connection is a handler of its own, so many robots share a batch and none waits for another's reply.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from http import HTTPStatus
from weakref import WeakKeyDictionary

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode
from websockets.http11 import Request, Response

from pirl_contract.names import check_robot_id
from pirl_contract.v1 import policy_pb2 as pb
from pirl_contract.wire.grpc_options import MAX_MESSAGE_BYTES
from pirl_server.openpi_wire.handler import Answerer, metadata
from pirl_server.openpi_wire.observation_keys import Keys
from pirl_server.security.connection_limits import BACKLOG, REQUEST_S, Seats, listen
from pirl_server.security.file_limits import current_limit, shares
from pirl_server.serving.errors import BusyError, ExpiredError, NoPolicyError, StoppedError
from pirl_server.serving.router import Dispatcher

CLOSE_S = 1.0
"""time to wait for a client that does not close its connection"""

Check = Callable[[str | None, str], str]
"""(Authorization header, address) -> name of the robot. Raises PermissionError, whose text the client reads."""


class OpenpiServer:
    """A running port; made by `start_openpi`."""

    def __init__(self, dispatcher: Dispatcher, keys: Keys, check: Check | None) -> None:
        self.port = 0
        self._dispatcher, self._keys, self._check = dispatcher, keys, check
        self._robots: WeakKeyDictionary[ServerConnection, str] = WeakKeyDictionary()
        self._numbers, self._seats = itertools.count(1), Seats("openpi's clients", shares(current_limit()).openpi)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._servers: list[Server] = []
        self._thread: threading.Thread | None = None

    def start(self, host: str, port: int, tls: ssl.SSLContext | None) -> None:
        """Listen. Raises OSError when the address cannot be bound."""
        listening = listen(host, port, self._seats)
        self.port = listening[0].getsockname()[1]
        started: Future[None] = Future()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._run(listening, tls, started)), name="openpi", daemon=True
        )
        self._thread.start()
        started.result()

    def close(self) -> None:
        """Close every connection and end the thread. Calling it twice changes nothing."""
        if self._loop is not None and not self._loop.is_closed():
            for server in self._servers:
                self._loop.call_soon_threadsafe(server.close)
        if self._thread is not None:
            self._thread.join()

    async def _run(self, listening: Sequence[socket.socket], tls: ssl.SSLContext | None, started: Future[None]) -> None:
        # One waiting message per connection: the client of this wire sends the next after the reply.
        self._servers = [
            await serve(
                self._converse, sock=each, ssl=tls, process_request=self._admit, compression=None,
                max_size=MAX_MESSAGE_BYTES, max_queue=1, open_timeout=REQUEST_S,
                close_timeout=CLOSE_S, backlog=BACKLOG,
                logger=logging.getLogger("pirl.openpi_wire"),
            )
            for each in listening  # one for each address of the host
        ]  # fmt: skip
        self._loop = asyncio.get_running_loop()
        started.set_result(None)
        for server in self._servers:
            await server.wait_closed()

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        """Answer /healthz, reject who may not in; None continues the handshake."""
        if request.path == "/healthz":
            return connection.respond(HTTPStatus.OK, "OK\n")
        if request.headers.get("Origin") is not None:  # browsers always send it, and no page is served here
            return connection.respond(HTTPStatus.FORBIDDEN, "requests from web pages are rejected\n")
        robot_id = f"openpi-{next(self._numbers)}"
        try:
            if self._check is not None:
                robot_id = check_robot_id(self._check(request.headers.get("Authorization"), _address(connection)))
            self._dispatcher.policy(robot_id)
        except ValueError as error:
            return connection.respond(HTTPStatus.FORBIDDEN, f"{error}\n")
        except PermissionError as error:
            return connection.respond(HTTPStatus.UNAUTHORIZED, f"{error}\n")
        except NoPolicyError as error:
            return connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, f"{error}\n")
        self._robots[connection] = robot_id
        if (seat := self._seats.at(connection.transport.get_extra_info("socket").fileno())) is not None:
            seat.work()  # from now on it is taken
        return None

    async def _converse(self, connection: ServerConnection) -> None:
        robot_id, address = self._robots[connection], _address(connection)
        connections = self._dispatcher.connections
        over: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()
        answerer = Answerer(self._dispatcher, self._keys, robot_id, f"{robot_id}/{address}", over)
        gone = asyncio.ensure_future(connection.wait_closed())
        gone.add_done_callback(lambda _: _settle(over, ExpiredError("the client has disconnected")))
        notify = _notifier(over)
        try:
            # connecting is how a client of this wire restarts after a stop
            connections.lift_stop(robot_id, address)
            connections.join(check_robot_id(robot_id), address, notify)
        except BusyError as error:
            gone.cancel()
            await connection.close(CloseCode.TRY_AGAIN_LATER, str(error))
            return
        try:
            policy = self._dispatcher.policy(robot_id)
            await connection.send(metadata(policy, self._keys, self._dispatcher.known_instructions(policy)))
            async for message in connection:
                if (ended := self._denied(connection, robot_id)) is not None:
                    await connection.send(ended)
                    await connection.close(CloseCode.POLICY_VIOLATION, ended)
                    return
                reply = await answerer.reply(message)
                connections.seen(robot_id, address, answerer.version)
                await connection.send(reply)
        except ConnectionClosed:
            pass  # in the middle of a reply: there is no receiver
        finally:
            connections.leave(robot_id, notify)
            gone.cancel()

    def _denied(self, connection: ServerConnection, robot_id: str) -> str | None:
        """Say why the connection may not continue: a token may be revoked, or given to another robot, at any time."""
        if self._check is None:
            return None
        assert connection.request is not None
        try:
            now = self._check(connection.request.headers.get("Authorization"), _address(connection))
        except PermissionError as error:
            return str(error)
        return None if now == robot_id else "the token is for another robot now: reconnect"


def _notifier(over: asyncio.Future[Exception]) -> Callable[[pb.ServerEvent], None]:
    """Return what ends a conversation when its robot is stopped: every request is rejected until it reconnects."""
    loop = over.get_loop()

    def notify(event: pb.ServerEvent) -> None:
        if not event.HasField("emergency_stop"):
            return
        stop = event.emergency_stop
        words = f"emergency stop by {stop.by or 'unknown user'} on the policy server: {stop.reason}"
        refusal = StoppedError(f"{words}; when the arm may move again, reconnect")
        if not loop.is_closed():
            loop.call_soon_threadsafe(_settle, over, refusal)

    return notify


def _settle(over: asyncio.Future[Exception], why: Exception) -> None:
    if not over.done():
        over.set_result(why)


def _address(connection: ServerConnection) -> str:
    """In gRPC's words."""
    host, port = connection.remote_address[:2]
    return f"ipv6:[{host}]:{port}" if ":" in host else f"ipv4:{host}:{port}"


def start_openpi(
    dispatcher: Dispatcher,
    host: str,
    port: int,
    *,
    keys: Keys | None = None,
    check: Check | None = None,
    tls: ssl.SSLContext | None = None,
) -> OpenpiServer:
    """Serve openpi's wire at `host:port` (port 0: a free one); stop it with `close`.

    `check` None: any client may connect, and each connection is a robot of its own. Raises ValueError when the address
    cannot be bound or when `keys` names a camera that the served contract lacks.
    """
    keys = keys or Keys()
    keys.check(dispatcher.policy("").contract)
    server = OpenpiServer(dispatcher, keys, check)
    try:
        server.start(host, port, tls)
    except OSError as error:
        raise ValueError(f"cannot listen on {host}:{port} for openpi clients: {error.strerror or error}") from None
    return server
