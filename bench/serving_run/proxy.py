"""A wire that misbehaves: forwards one port to another, then lets replies trickle, or nothing through at all."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress

TRICKLE_BYTES, TRICKLE_S = 256, 0.05
"""5 kB/s: a chunk of 6.4 kB takes more than a second"""


class Proxy:
    """Listens on `port`. mode: forward; slow (replies trickle); silent (open sockets, nothing passes: half-open)."""

    def __init__(self, target: int) -> None:
        self.mode = "forward"
        self._target, self._sockets = target, list[socket.socket]()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Close all connections; new ones are taken."""
        while self._sockets:
            with suppress(OSError):
                self._sockets.pop().close()

    def _accept(self) -> None:
        while True:
            near, _ = self._listener.accept()
            far = socket.create_connection(("127.0.0.1", self._target))
            # The kernel must not swallow what the robot does not read.
            near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            self._sockets += [near, far]
            threading.Thread(target=self._pump, args=(near, far, False), daemon=True).start()
            threading.Thread(target=self._pump, args=(far, near, True), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, reply: bool) -> None:
        with suppress(OSError):
            while True:
                while self.mode == "silent":
                    time.sleep(0.05)
                slow = reply and self.mode == "slow"
                data = source.recv(TRICKLE_BYTES if slow else 65536)
                if not data:
                    break
                if slow:
                    time.sleep(TRICKLE_S)
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
