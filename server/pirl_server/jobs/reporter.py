"""Reports from the job's process: progress, metrics, result, failure; and receives the cancel request.

with Reporter(job_dir) as report:
    for step in range(total):
        if report.cancelled: break
        report.progress(step, total, "collecting")
"""

from __future__ import annotations

import math
import signal
import time
import traceback
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from pirl_server.atomic_files import write_json
from pirl_server.jobs.events import EventLog
from pirl_server.jobs.metric_store import MetricLog
from pirl_server.jobs.metrics_sink import DetachedSink
from pirl_server.jobs.outcome import ERROR, RESULT
from pirl_server.jobs.verdict import AGAIN, CANCEL

CRASHES = (OSError, MemoryError, RuntimeError)
"""what may not happen again: a full disk, no memory, a worker that died, a GPU's errors"""


class PausedError(Exception):
    """The job has stopped at a checkpoint, from which another attempt continues."""


class Reporter:
    """Writes what the server shows of this job. Made in the main thread: it takes over SIGTERM.

    Numbers also go to the series of the job and to `sinks`, which are closed at the end. As a context manager it turns
    an exception into one line for the user (`error.txt`), leaves the traceback in the log and ends the process with
    status 1, or with `AGAIN` where another attempt may do better: after `PausedError`, and what the machine did rather
    than the request (`CRASHES`). `resumable`: the job continues from checkpoints.
    """

    def __init__(self, job_dir: Path, sinks: Sequence[DetachedSink] = (), resumable: bool = False) -> None:
        self._directory, self._sinks, self._resumable = job_dir, tuple(sinks), resumable
        self._closing = ExitStack()
        self._events, self._series = EventLog(job_dir), self._closing.enter_context(MetricLog(job_dir))
        for sink in self._sinks:
            self._closing.callback(sink.close)
        self._stopped = False
        self._began: tuple[float, int] | None = None
        signal.signal(signal.SIGTERM, self._on_terminate)

    @property
    def cancelled(self) -> bool:
        """True once this process is to end: save what is worth saving and return. A resumable job's pause is none."""
        return self._stopped and not (self._resumable and self.paused)

    @property
    def paused(self) -> bool:
        """True once this process is to end so that another attempt continues."""
        return self._stopped and not (self._directory / CANCEL).exists()

    def progress(self, done: int, total: int, message: str = "") -> None:
        """Say how far the job is; the time that is left is estimated from how fast this attempt was."""
        said = {"done": done, "total": total, "message": message, "eta_s": self._eta_s(done, total)}
        self._events.append("progress", said)

    def metrics(self, **values: float) -> None:
        """Report numbers by name. NaN and infinity, which JSON has no word for, become null."""
        numbers = {name: _number(value) for name, value in values.items()}
        finite = {name: value for name, value in numbers.items() if value is not None}
        step = self._series.step_of(finite)
        self._series.append(step, time.time(), numbers)
        self._events.append("metrics", numbers)
        for sink in self._sinks:
            sink.log(int(step), finite)

    def result(self, result: dict[str, Any]) -> None:
        """Say what came out: plain JSON values, shown with the job when it has succeeded."""
        write_json(self._directory / RESULT, result)
        self._events.append("result", result)

    def __enter__(self) -> Reporter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._closing:  # a sink may take its time: what the server shows is written before
            if error is None and self.paused and not self._resumable:
                raise SystemExit(AGAIN)
            if error is None or isinstance(error, SystemExit):
                return
            if isinstance(error, PausedError):
                raise SystemExit(AGAIN) from error
            traceback.print_exception(kind, error, trace)
            lines = str(error).strip().splitlines()
            text = lines[0] if lines else "no further explanation"
            # a ValueError's text is written for the user; other errors are ours and carry their type
            (self._directory / ERROR).write_text(text if kind is ValueError else f"{type(error).__name__}: {text}")
        raise SystemExit(AGAIN if isinstance(error, CRASHES) else 1) from error

    def _on_terminate(self, *_: object) -> None:
        self._stopped = True

    def _eta_s(self, done: int, total: int) -> float | None:
        now = time.monotonic()
        if self._began is None or done < self._began[1]:
            self._began = now, done  # another phase
        began_s, began = self._began
        return round((now - began_s) * (total - done) / (done - began), 1) if done > began else None


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
