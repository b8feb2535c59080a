"""A TCP proxy that cuts each connection after so many bytes of what the server sends."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import suppress


class CuttingProxy:
    """`limits` has the bytes per connection, in order; after the last one nothing is cut. A context."""

    def __init__(self, port: int, limits: Iterator[int]) -> None:
        self.connections = 0
        self._port, self._limits = port, limits
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> CuttingProxy:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self.connections += 1
                server = socket.create_connection(("127.0.0.1", self._port))
                threading.Thread(target=_pass, args=(client, server, 2**60), daemon=True).start()
                limit = next(self._limits, 2**60)
                threading.Thread(target=_pass, args=(server, client, limit), daemon=True).start()


def _pass(source: socket.socket, sink: socket.socket, limit: int) -> None:
    with suppress(OSError):
        while limit and (data := source.recv(min(limit, 65536))):
            sink.sendall(data)
            limit -= len(data)
        if not limit:  # a reset, as of a network that is gone
            sink.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    for each in (source, sink):
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
        each.close()
