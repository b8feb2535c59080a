"""A port for emergency stops only, with its own thread, event loop and connections, independent of the REST port.

Its requests are tiny and answered at once, so a connection that is not is the first to go when seats run out. A few
descriptors are held back for it, to be used when the process has no other left.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from fastapi import FastAPI

from pirl_server.api.application import create_stop_api
from pirl_server.api.rest_listener import Listener, make_listener
from pirl_server.security.connection_limits import Seats, listen
from pirl_server.security.file_limits import current_limit, shares
from pirl_server.security.tls import TlsFiles

SPARE_DESCRIPTORS = 4


@contextmanager
def stop_door(
    host: str, port: int, tls: TlsFiles | None = None, rest_port: int = 0
) -> Iterator[Callable[[FastAPI], None]]:
    """Claim the port now; call what this yields with the REST application to open it. It closes with the context.

    Port 0: there is no such door. Pages of `rest_port` on the same host may call it. Raises ValueError for a port that
    is taken.
    """
    if not port:
        yield lambda api: None
        return
    total = shares(current_limit()).stop
    seats = Seats("emergency stops", total, per_peer=total, spare=SPARE_DESCRIPTORS)
    running: list[tuple[Listener, threading.Thread]] = []
    try:
        claimed = listen(host, port, seats)
    except OSError:
        seats.close()
        raise ValueError(f"port {port} for emergency stops is in use: choose another one with --stop-port") from None

    def start(api: FastAPI) -> None:
        listener = make_listener(create_stop_api(api, rest_port), claimed, tls)
        thread = threading.Thread(target=listener.run, name="emergency stops", daemon=True)
        thread.start()
        running.append((listener, thread))

    try:
        yield start
    finally:
        for listener, thread in running:
            listener.should_exit = True
            thread.join()
        for each in claimed:
            each.close()
        seats.close()
