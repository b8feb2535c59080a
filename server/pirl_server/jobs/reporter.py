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

RESULT, ERROR = "result.json", "error.txt"


class Reporter:
    """Writes what the server shows of this job. Made in the main thread: it takes over SIGTERM.

    Numbers also go to the series of the job and to `sinks`, which are closed at the end. As a context manager it turns
    an exception into one line for the user (`error.txt`), leaves the traceback in the log and ends the process with
    status 1.
    """

    def __init__(self, job_dir: Path, sinks: Sequence[DetachedSink] = ()) -> None:
        self._directory, self._sinks = job_dir, tuple(sinks)
        self._closing = ExitStack()
        self._events, self._series = EventLog(job_dir), self._closing.enter_context(MetricLog(job_dir))
        for sink in self._sinks:
            self._closing.callback(sink.close)
        self._cancelled = False
        signal.signal(signal.SIGTERM, self._on_terminate)

    @property
    def cancelled(self) -> bool:
        """True once the server has asked this process to stop: save what is worth saving and return."""
        return self._cancelled

    def progress(self, done: int, total: int, message: str = "") -> None:
        """Say how far the job is."""
        self._events.append("progress", {"done": done, "total": total, "message": message})

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
            if error is None or isinstance(error, SystemExit):
                return
            traceback.print_exception(kind, error, trace)
            lines = str(error).strip().splitlines()
            text = lines[0] if lines else "no further explanation"
            # a ValueError's text is written for the user; other errors are ours and carry their type
            (self._directory / ERROR).write_text(text if kind is ValueError else f"{type(error).__name__}: {text}")
        raise SystemExit(1) from error

    def _on_terminate(self, *_: object) -> None:
        self._cancelled = True


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
