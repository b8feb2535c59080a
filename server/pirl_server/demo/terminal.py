"""Progress on the terminal: a bar that rewrites itself; in a log a line now and then, when there is news."""

from __future__ import annotations

import sys
import time

WIDTH = 28
PLAIN_EVERY_S = 15.0


def heading(text: str) -> None:
    """Announce a stage."""
    print(f"\n== {text}", flush=True)


class Bar:
    """One stage's progress."""

    def __init__(self, title: str) -> None:
        self._title, self._start, self._last = title, time.monotonic(), -PLAIN_EVERY_S
        self._shown: tuple[int, int, str] | None = None

    def show(self, done: int, total: int, message: str = "") -> None:
        """Draw `done` of `total`; in a log what is the same as before is not printed again."""
        share = min(1.0, done / total) if total else 1.0
        now = time.monotonic()
        bar = "#" * round(share * WIDTH)
        line = f"{self._title} [{bar:{WIDTH}}] {100 * share:3.0f} % {now - self._start:4.0f} s  {message}"
        if sys.stdout.isatty():
            print(f"\r\x1b[K{line}", end="\n" if share == 1.0 else "", flush=True)
        elif (done, total, message) != self._shown and (share == 1.0 or now - self._last > PLAIN_EVERY_S):
            self._last, self._shown = now, (done, total, message)
            print(line, flush=True)
