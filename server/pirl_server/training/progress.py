"""The progress protocol of a training loop: job process, command line and tests implement it."""

from __future__ import annotations

import sys
from typing import Protocol


class Progress(Protocol):
    """Called by the loop between two updates; implementations must return quickly."""

    @property
    def cancelled(self) -> bool:
        """True once someone asked the loop to stop; it then keeps what it has and returns."""

    def progress(self, done: int, total: int, message: str) -> None:
        """`done` of `total` (env steps, gradient steps, episodes) and a few words."""

    def metrics(self, **values: float) -> None:
        """Numbers of one update, by name."""


class Printed:
    """Progress on the terminal, one line that rewrites itself."""

    cancelled = False

    def progress(self, done: int, total: int, message: str) -> None:
        """Rewrite the line."""
        end = "\n" if done >= total else ""
        print(f"\r\x1b[K{min(done, total)}/{total} {message}", end=end, file=sys.stderr, flush=True)

    def metrics(self, **values: float) -> None:
        """Print nothing: the line says enough."""
