"""Limits the open connections of a port at accept, before TLS and before a byte is read.

A server of asyncio calls `accept` of the listening socket that it is given. The one made here counts what it accepts,
until its descriptor is closed, so the same bound serves every protocol. When all seats are taken, the connection
goes that has waited longest for its own request to be complete, of the address that holds most: a client that sends a
request at once is served, however many others do not. New ones are then accepted at a pace that leaves each 50 ms for
its request.

asyncio itself accepts without a bound, and when descriptors run out it logs a traceback per iteration, `backlog` times
per attempt, and schedules as many further attempts (CPython 3.11).
"""

from __future__ import annotations

import errno
import ipaddress
import logging
import os
import socket
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

_LOG = logging.getLogger(__name__)
REQUEST_S = 10.0
"""for TLS and the header of the first request"""
BATCH = 16
"""accepted at once, before those accepted earlier are read from"""
CHANCE_S = 0.05
"""how long a connection may at least wait for its request while all seats are taken"""
BACKLOG = 256
"""connections that the kernel keeps until they are accepted: a longer line would make all of it wait"""
OUT_OF_DESCRIPTORS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
PAUSE_S = 0.9
"""less than the second after which asyncio tries again"""


class Seat(socket.socket):
    """An accepted connection. It may be closed for another one while it `waits`; it leaves when it is closed."""

    def __init__(self, connection: socket.socket, address: Any, seats: Seats) -> None:
        super().__init__(connection.family, connection.type, connection.proto, connection.detach())
        self.peer, self._seats = peer_of(address), seats
        self.deadline: float | None = 0.0
        self.evicted = False
        self.abort: Callable[[], None] = self._shut
        """ends the connection at once; its protocol may put in its own way"""
        self.wait(REQUEST_S)

    def wait(self, seconds: float) -> None:
        """Note that the client has this long, from now, for what it owes; until then others may need the seat more."""
        self.deadline = time.monotonic() + seconds

    def work(self) -> None:
        """Note that it is our turn: from now on the seat is taken. One caller's share of them is bounded."""
        self.deadline = None
        if self._seats.at_work(self.peer) > self._seats.per_peer:
            self._seats.refused(self)
            self.evict()

    def evict(self) -> None:
        """End it."""
        self.evicted = True
        self.abort()

    def close(self) -> None:
        """Close the descriptor and leave the seat."""
        super().close()
        self._seats.leave(self)

    def _shut(self) -> None:
        try:
            self.shutdown(socket.SHUT_RDWR)  # its transport reads the end and closes
        except OSError:
            self.evicted = True  # gone already


class Seats:
    """The connections of one port. Used by the thread of its event loop only.

    `total` at once; of those at work `per_peer` for one address (an IPv6 network counts as one), half by default.
    `spare` descriptors are held open, to be given up for a connection when the process has no other left.
    """

    def __init__(self, name: str, total: int, per_peer: int | None = None, spare: int = 0) -> None:
        self.total, self.per_peer = total, per_peer or max(1, total // 2)
        self._name, self._taken, self._spares = name, dict[int, Seat](), list[int]()
        self._spare = spare
        self._keep_spares()

    def __len__(self) -> int:
        return len(self._taken)

    def at(self, descriptor: int) -> Seat | None:
        """Return the connection with this descriptor."""
        return self._taken.get(descriptor)

    @property
    def crowded(self) -> bool:
        """Whether so many evicted ones are still to be closed that no more should be accepted now."""
        return len(self._taken) >= self.total + 3 * BATCH

    @property
    def full(self) -> bool:
        """Whether one must go before another can come."""
        return len(self._staying()) >= self.total

    def at_work(self, peer: str) -> int:
        """Return the seats that this address occupies."""
        return sum(seat.peer == peer and seat.deadline is None for seat in self._staying())

    def take(self, connection: socket.socket, address: Any) -> Seat | None:
        """Give the connection a seat; None, and it is closed, when every seat is at work."""
        if self.full and not self._make_room():
            self.refused(connection)
            connection.close()
            return None
        seat = Seat(connection, address, self)
        self._taken[seat.fileno()] = seat
        return seat

    def refused(self, connection: socket.socket) -> None:
        """Log that the connection is not served."""
        _LOG.warning("%s: connection limit reached, in total or for one address", self._name)

    def leave(self, seat: Seat) -> None:
        """Free the seat."""
        for descriptor in [key for key, value in self._taken.items() if value is seat]:
            del self._taken[descriptor]
        self._keep_spares()

    def sweep(self) -> None:
        """End the connections that did not send what they owe in time."""
        now = time.monotonic()
        late = [seat for seat in self._taken.values() if seat.deadline is not None and seat.deadline < now]
        for seat in late:
            if not seat.evicted:
                seat.evict()

    def give_up_spare(self) -> bool:
        """Close one spare descriptor; say whether there was one."""
        if not self._spares:
            return False
        os.close(self._spares.pop())
        return True

    def close(self) -> None:
        """Close the spare descriptors."""
        self._spare = 0
        while self.give_up_spare():
            pass

    def _staying(self) -> list[Seat]:
        return [seat for seat in self._taken.values() if not seat.evicted]

    def _make_room(self) -> bool:
        """End the one that has waited longest, of the address that has most waiting; False when all are at work."""
        waiting = [seat for seat in self._staying() if seat.deadline is not None]
        if not waiting:
            return False
        greediest = Counter(seat.peer for seat in waiting).most_common(1)[0][0]
        min((seat for seat in waiting if seat.peer == greediest), key=lambda seat: seat.deadline or 0.0).evict()
        return True

    def _keep_spares(self) -> None:
        while len(self._spares) < self._spare:
            try:
                self._spares.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
            except OSError:  # none left: tried again when the next connection has gone
                return


class SeatedSocket(socket.socket):
    """A listening socket for asyncio whose `accept` keeps to the seats."""

    def __init__(self, family: int, seats: Seats) -> None:
        # named, since asyncio sends small pieces at once (TCP_NODELAY) on such sockets only: else an answer takes 40 ms
        super().__init__(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self.seats = seats
        self._batch, self._paused_until, self._last = 0, 0.0, 0.0

    def accept(self) -> tuple[socket.socket, Any]:
        """Accept the next connection that gets a seat. Raises BlockingIOError where asyncio is to do other things."""
        while self._may_accept():
            try:
                connection, address = self._next()
            except OSError:
                self._batch = 0
                raise
            self._batch, self._last = self._batch + 1, time.monotonic()
            if (seat := self.seats.take(connection, address)) is not None:
                return seat, address
        self._batch = 0
        raise BlockingIOError(errno.EAGAIN, "later")

    def _may_accept(self) -> bool:
        now, full = time.monotonic(), self.seats.full
        if self._batch >= (1 if full else BATCH) or self.seats.crowded or now < self._paused_until:
            return False
        if full and (early := self._last + CHANCE_S / self.seats.total - now) > 0:
            time.sleep(early)  # a millisecond: asyncio would come back at once, and spin
        return True

    def _next(self) -> tuple[socket.socket, Any]:
        while True:
            try:
                return super().accept()
            except OSError as error:
                if error.errno not in OUT_OF_DESCRIPTORS:
                    raise
                if not self.seats.give_up_spare():
                    # asyncio pauses for a second; the rest of its loop must not find this error again
                    self._paused_until = time.monotonic() + PAUSE_S
                    raise


def listen(host: str, port: int, seats: Seats) -> list[SeatedSocket]:
    """Bind every address of the host (port 0: a free one, the same for all), IPv4 first. Raises OSError."""
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    made: list[SeatedSocket] = []
    try:
        for family, *_, address in sorted(set(found), key=lambda each: (each[0] != socket.AF_INET, each)):
            made.append(listening := SeatedSocket(family, seats))
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            port = port or (made[0].getsockname()[1] if len(made) > 1 else 0)
            listening.bind((address[0], port, *address[2:]))
    except OSError:
        for each in made:
            each.close()
        raise
    return made


def peer_of(address: Any) -> str:
    """Return what counts as one caller: an IPv4 address, or the first half of one of IPv6, which is one network."""
    try:
        ip = ipaddress.ip_address(str(address[0]).partition("%")[0])
    except (ValueError, IndexError):
        return "local"
    if isinstance(ip, ipaddress.IPv6Address):
        mapped = ip.ipv4_mapped
        return str(mapped or ipaddress.ip_network((ip, 64), strict=False))
    return str(ip)
