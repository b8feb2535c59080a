"""How long tests wait: limits are of a machine that has nothing else to do, and grow with what else it does.

A limit only decides when something that never comes is given up, so none says anything about speed.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

LOAD = Path("/proc/loadavg")
LOOK_EVERY_S = 5.0
"""at the load, within one blocking call"""


def slowdown() -> float:
    """How many times longer than alone a task takes: runnable threads per core, now or over the last minute."""
    minute, _, _, now, _ = LOAD.read_text().split()
    return max(1.0, max(float(minute), float(now.partition("/")[0])) / len(os.sched_getaffinity(0)))


def patient(limit_s: float) -> float:
    """A limit for a call that takes one, by the load at this moment."""
    return limit_s * slowdown()


class Patience:
    """A limit that is still running; the largest slowdown that was seen counts for all of it."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s, self._began_s, self._slowdown = limit_s, time.monotonic(), 1.0

    @property
    def left_s(self) -> float:
        """Seconds that remain; at most 0 when they are used up."""
        self._slowdown = max(self._slowdown, slowdown())
        return self._limit_s * self._slowdown - (time.monotonic() - self._began_s)


def until(
    holds: Callable[[], object], what: str | Callable[[], object] = "", limit_s: float = 30.0, every_s: float = 0.01
) -> None:
    """Wait for a condition. Fails with `what`, or what it returns then."""
    patience = Patience(limit_s)
    while not holds():
        assert patience.left_s > 0, f"waited in vain: {what() if callable(what) else what}"
        time.sleep(every_s)


def output_of(process: subprocess.Popen[Any], limit_s: float) -> tuple[Any, Any]:
    """Wait for a process and return what it wrote. Raises TimeoutExpired after the limit."""
    patience = Patience(limit_s)
    while True:
        try:
            return process.communicate(timeout=max(0.0, min(patience.left_s, LOOK_EVERY_S)))
        except subprocess.TimeoutExpired:
            if patience.left_s <= 0:
                raise


def completed(
    command: Sequence[str | Path], limit_s: float, check: bool = False, **options: Any
) -> subprocess.CompletedProcess[str]:
    """`subprocess.run` that keeps the output as text, and kills the command after the limit.

    Raises TimeoutExpired; with `check` AssertionError that holds what the command wrote on stderr.
    """
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options) as process:
        try:
            output, errors = output_of(process, limit_s)
        except BaseException:
            process.kill()
            raise
    assert not (check and process.returncode), f"{command} ended with status {process.returncode}: {errors}"
    return subprocess.CompletedProcess(command, process.returncode, output, errors)
