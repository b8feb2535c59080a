"""Where a job's numbers go besides its own folder: the seam to TensorBoard and other trackers.

A sink may be slow or fail without the job noticing: it is called in a thread of its own, and what it can't take in time
is dropped.
"""

from __future__ import annotations

import queue
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Protocol

WAITING = 1000
"""updates that wait for a slow sink; more are dropped"""
CLOSE_S = 10.0
"""how long the end of a job waits for a sink"""
FAILURES = 3
"""in a row, after which a sink gets no more"""


class MetricsSink(Protocol):
    """Takes scalars. Both methods are called from one thread, and may raise anything."""

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """Take finite numbers by name; a resumed job repeats steps."""

    def close(self) -> None:
        """Pass on what is kept; nothing follows."""


class DetachedSink:
    """Opens and calls a sink in a thread of its own. `name` is for messages on stderr, which is the job's log."""

    def __init__(self, name: str, open_sink: Callable[[], MetricsSink]) -> None:
        self._name, self._open = name, open_sink
        self._waiting: queue.Queue[tuple[int, Mapping[str, float]] | None] = queue.Queue(WAITING)
        self._dropped = 0
        self._thread = threading.Thread(target=self._work, name=f"metrics to {name}", daemon=True)
        self._thread.start()

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """Hand numbers over. Never waits, never raises."""
        try:
            self._waiting.put_nowait((step, dict(scalars)))
        except queue.Full:
            self._dropped += 1

    def close(self) -> None:
        """Wait a little until all is passed on. Never raises."""
        try:
            self._waiting.put(None, timeout=CLOSE_S)
            self._thread.join(CLOSE_S)
        except queue.Full:
            self._dropped += 1
        if self._thread.is_alive() or self._dropped:
            self._say(f"{self._dropped} updates were dropped, or are still on their way")

    def _work(self) -> None:
        try:
            sink = self._open()
        except Exception as error:
            self._say(f"can't be opened: {error}")
            self._drain()
            return
        failures = 0
        while (item := self._waiting.get()) is not None:
            if failures == FAILURES:
                continue
            try:
                sink.log(*item)
                failures = 0
            except Exception as error:
                failures += 1
                ending = ", and gets no more" if failures == FAILURES else ""
                self._say(f"failed at step {item[0]}{ending}: {type(error).__name__}: {error}")
        try:
            sink.close()
        except Exception as error:
            self._say(f"can't be closed: {type(error).__name__}: {error}")

    def _drain(self) -> None:
        while self._waiting.get() is not None:
            pass

    def _say(self, what: str) -> None:
        print(f"metrics sink {self._name}: {what}", file=sys.stderr, flush=True)
