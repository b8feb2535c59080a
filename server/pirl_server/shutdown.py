"""Shutdown of a server: what a signal starts and in which order.

first signal    not ready (readyz, gRPC health), robots are notified; requests are answered until no robot is connected
                any more, or for the drain time; then the listeners close, and `app.build` takes down the rest
second signal   the process ends at once; its job is ended by the job's reaper

uvicorn's own handlers are not used: since 0.29 it raises a captured SIGTERM again when it has ended, and the default
action of that ends the process before anything else is taken down. Outside the main thread it installs none.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from types import FrameType, TracebackType
from typing import Any, Protocol

SIGNALS = {signal.SIGTERM: 0, signal.SIGINT: 130}
"""exit status after each, when all went well"""
POLL_S = 0.05
UNREADY_S = 1.0
"""the listeners stay at least so long, within the drain time, so that who asks for readiness is answered 503"""
LISTENER_S = 5.0
"""a listener that has not ended so long after its signal is abandoned: episodes come first"""


class Stopping:
    """How far the end has come; it only moves forward.

    `notify(seconds)` says to robots that the server will be gone, `busy()` whether one is still connected.
    """

    def __init__(
        self, notify: Callable[[float], None] = lambda seconds: None, busy: Callable[[], bool] = lambda: False
    ) -> None:
        self._notify, self._busy = notify, busy
        self.draining = False
        """not ready any more"""
        self.closing = False
        """endless streams end now"""

    def drain(self, seconds: float) -> None:
        """Be not ready, and return after so many seconds, or earlier when no robot is connected any more."""
        self.draining = True
        self._notify(seconds)
        began = time.monotonic()
        while (waited := time.monotonic() - began) < seconds and (waited < UNREADY_S or self._busy()):
            time.sleep(POLL_S)

    def close(self) -> None:
        """End the streams."""
        self.closing = True


class Listener(Protocol):
    """What uvicorn.Server is to us."""

    should_exit: bool

    def run(self) -> None:
        """Listen until `should_exit` is true."""


class Signals:
    """Takes SIGTERM and SIGINT over while its context is open; for the main thread.

    Until `serve` is called a signal ends the process as it stands: nothing is kept yet that would have to be published,
    and an exception out of the handler could come up anywhere in the loading of a policy.
    """

    def __init__(self) -> None:
        self._received: SimpleQueue[int | None] = SimpleQueue()  # unlike an Event, it may be put to in a handler
        self._first: int | None = None
        self._serving = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        self._before = {number: signal.signal(number, self._on_signal) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def serve(self, listener: Listener, stopping: Stopping, drain_s: float) -> int:
        """Listen until a signal, drain, stop listening; return the exit status.

        Raises RuntimeError when the listener ended by itself.
        """
        self._serving = True
        thread = threading.Thread(target=self._listen, args=(listener,), name="rest", daemon=True)
        thread.start()
        if (number := self._received.get()) is None:
            raise RuntimeError("the REST listener has ended: see the log")
        stopping.drain(drain_s)
        stopping.close()
        listener.should_exit = True
        thread.join(LISTENER_S)
        return SIGNALS[signal.Signals(number)]

    def _listen(self, listener: Listener) -> None:
        try:
            listener.run()
        finally:
            self._received.put(None)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._first is not None:
            os._exit(128 + number)
        if not self._serving:
            os._exit(SIGNALS[signal.Signals(number)])
        self._first = number
        self._received.put(number)
