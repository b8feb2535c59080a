"""Seats of a port: who goes when they are taken, what one caller may hold, what happens without descriptors."""

from __future__ import annotations

import asyncio
import errno
import logging
import resource
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from certificates import Authority
from patience import until
from whole_server import Server

from pirl_server.security.connection_limits import Seat, SeatedSocket, Seats, listen, peer_of
from pirl_server.security.file_limits import raise_limit, shares
from pirl_server.security.tls import TlsFiles


@pytest.fixture
def ends() -> Iterator[list[socket.socket]]:
    made: list[socket.socket] = []
    yield made
    for each in made:
        each.close()


def taken(seats: Seats, address: str, ends: list[socket.socket]) -> Seat:
    """Take a seat with one end of a pair; the other one is appended to `ends`."""
    ours, theirs = socket.socketpair()
    ends.append(theirs)
    seat = seats.take(ours, (address, 1))
    assert seat is not None
    ends.append(seat)
    return seat


def test_the_longest_waiting_of_the_greediest_address_goes(ends: list[socket.socket]) -> None:
    seats = Seats("test", total=5)
    patient = taken(seats, "10.0.0.1", ends)
    greedy = [taken(seats, "10.0.0.2", ends) for _ in range(4)]
    greedy[0].work()
    taken(seats, "10.0.0.3", ends)
    assert [seat.evicted for seat in (patient, *greedy)] == [False, False, True, False, False]
    assert ends[ends.index(greedy[1]) - 1].recv(1) == b""
    greedy[1].close()
    assert len(seats) == 5


def test_what_is_at_work_stays_and_one_address_gets_half(ends: list[socket.socket]) -> None:
    seats = Seats("test", total=4)
    mine = [taken(seats, "10.0.0.1", ends) for _ in range(3)]
    for seat in mine:
        seat.work()
    assert [seat.evicted for seat in mine] == [False, False, True]
    others = [taken(seats, "10.0.0.2", ends) for _ in range(2)]
    for seat in others:
        seat.work()
    ours, theirs = socket.socketpair()
    ends.append(theirs)
    assert seats.take(ours, ("10.0.0.3", 1)) is None
    assert theirs.recv(1) == b"", "it should have been closed"


def test_who_owes_too_long_is_swept(ends: list[socket.socket]) -> None:
    seats = Seats("test", total=4)
    late, working, early = (taken(seats, "10.0.0.1", ends) for _ in range(3))
    late.wait(-1)
    working.wait(-1), working.work()
    seats.sweep()
    assert [seat.evicted for seat in (late, working, early)] == [True, False, False]


def test_an_address_is_an_ipv4_one_or_a_network_of_ipv6() -> None:
    assert peer_of(("10.0.0.1", 5)) == peer_of(("::ffff:10.0.0.1", 6, 0, 0)) == "10.0.0.1"
    assert peer_of(("2001:db8::1", 5, 0, 0)) == peer_of(("2001:db8::2", 5, 0, 0)) != peer_of(("2001:db8:0:1::1", 5))


def test_the_doors_together_leave_room() -> None:
    for limit in (256, 1024, 4096, 65536):
        assert shares(limit).total <= limit * 11 / 16
        assert min(shares(limit).stop, shares(limit).rest) >= 32


def test_the_limit_of_open_files_is_raised_to_the_hard_one() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(512, hard), hard))
        assert raise_limit() == min(hard, 65536) if hard != resource.RLIM_INFINITY else 65536
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("ours", [True, False])
def test_without_descriptors_asyncio_pauses_and_says_so_once(
    ours: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And a socket of asyncio's own does what this is for: a traceback per iteration."""
    seats = Seats("test", total=4)
    (bound,) = listen("127.0.0.1", 0, seats) if ours else [socket.create_server(("127.0.0.1", 0))]

    def none_left(_: Any) -> Any:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(asyncio.constants, "ACCEPT_RETRY_DELAY", 3600.0)

    async def serve() -> None:
        server = await asyncio.start_server(lambda reader, writer: None, sock=bound, backlog=50)
        monkeypatch.setattr(socket.socket, "accept", none_left)
        with socket.create_connection(bound.getsockname()):
            await asyncio.sleep(0.2)
        server.close()

    with caplog.at_level(logging.ERROR):
        asyncio.run(serve())
    assert len(caplog.records) == (1 if ours else 50)


def test_spare_descriptors_are_used_when_the_process_has_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    seats, accept = Seats("test", total=4, spare=2), socket.socket.accept
    (bound,) = listen("127.0.0.1", 0, seats)
    bound.listen()

    def scarce(self: SeatedSocket) -> Any:
        if len(seats._spares) == 2:
            raise OSError(errno.EMFILE, "Too many open files")
        return accept(self)

    monkeypatch.setattr(socket.socket, "accept", scarce)
    with socket.create_connection(bound.getsockname()):
        seat, _ = bound.accept()
        assert len(seats._spares) == 1
        seat.close()
    assert len(seats._spares) == 2
    seats.close(), bound.close()


def test_an_answer_on_a_kept_connection_is_sent_at_once(tmp_path: Path, make_policy: Any) -> None:
    """Head and body go out as two pieces: with Nagle's algorithm the second waits for the client, some 40 ms."""
    server = Server(tmp_path, make_policy())
    try:
        with server.web() as web:
            assert web.get("/healthz").status_code == 200
            (seat,) = server.rest.seats._taken.values()
            assert seat.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    finally:
        server.close()


def test_silent_connections_before_tls_keep_nobody_out(tmp_path: Path, make_policy: Any) -> None:
    ours = Authority(tmp_path / "ca", "ours")
    issued = ours.issue("server")
    server = Server(tmp_path, make_policy(), TlsFiles(issued.cert, issued.key))
    silent: list[socket.socket] = []
    try:
        for _ in range(3 * server.rest.seats.total):
            silent.append(socket.create_connection(("127.0.0.1", server.rest.port)))
        with server.web(verify=ssl.create_default_context(cafile=str(ours.cert))) as web:
            assert web.get("/healthz").status_code == 200
        seats = server.rest.seats
        until(lambda: len(seats) <= seats.total, "evicted connections keep their descriptors", limit_s=60)
    finally:
        for each in silent:
            each.close()
        server.close()
