"""Robots that ask, in one process: one after the other for latency, side by side for load. Python's own imports only.

A path (unary, session, ...) has `connect(port, payload, number) -> ask`; `ask()` returns when the chunk is there.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

Ask = Callable[[], None]
Connect = Callable[[int, str, int], Ask]


class Robots:
    """The handlers of a client process."""

    def __init__(self, paths: dict[str, Connect]) -> None:
        self._paths, self._asks = paths, dict[str, list[Ask]]()

    def handlers(self) -> dict[str, Callable[..., Any]]:
        return {"connect": self.connect, "calls": self.calls, "crowd": self.crowd}

    def connect(self, key: str, path: str, port: int, payload: str, robots: int = 1) -> None:
        """Make robots that are then known by `key`."""
        self._asks[key] = [self._paths[path](port, payload, number) for number in range(robots)]

    def calls(self, key: str, times: int) -> list[float]:
        """Milliseconds of each of `times` calls of the first robot."""
        ask, spans = self._asks[key][0], []
        for _ in range(times):
            began = time.perf_counter()
            ask()
            spans.append(1e3 * (time.perf_counter() - began))
        return spans

    def crowd(self, key: str, robots: int, seconds: float, rate_hz: float = 0.0) -> dict[str, Any]:
        """All ask at once; `rate_hz` 0: again as soon as they are answered, else at that rate, phases spread out.

        A robot that is still waiting when its next question is due lets that one fall: it would be old.
        """
        start, runs = time.monotonic() + 0.2, [_Run() for _ in range(robots)]
        threads = [
            threading.Thread(
                target=run.play, args=(ask, start + (i / robots / rate_hz if rate_hz else 0), seconds, rate_hz)
            )
            for i, (run, ask) in enumerate(zip(runs, self._asks[key]))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        failures = sum((run.failures for run in runs), Counter[str]())
        return {"spans": [run.spans for run in runs], "failures": failures, "seconds": time.monotonic() - start}


class _Run:
    """What one robot saw."""

    def __init__(self) -> None:
        self.spans: list[float] = []
        self.failures: Counter[str] = Counter()

    def play(self, ask: Ask, start: float, seconds: float, rate_hz: float) -> None:
        due, end = start, start + seconds
        while (now := time.monotonic()) < end:
            if now < due:
                time.sleep(due - now)
            began = time.perf_counter()
            try:
                ask()
                self.spans.append(1e3 * (time.perf_counter() - began))
            except Exception as error:  # counted by its kind and reported
                self.failures[f"{type(error).__name__}: {error}"[:120]] += 1
            if rate_hz:
                periods = int((time.monotonic() - due) * rate_hz) + 1
                due += periods / rate_hz
