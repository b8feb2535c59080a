"""The numbers of a job as series: one file per name, only ever appended, read in milliseconds however long it is.

P is points of a series.

JOB/metrics/<name>.series   records of step, time and value, each a little-endian 64-bit float

A record that a kill cut short is passed over, and removed by the next writer. A job that was resumed repeats steps: the
later records of a step, and of those after it, replace the earlier ones. Jobs of earlier versions have their numbers in
their events only, which are read instead.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from urllib.parse import quote, unquote

import numpy as np
from numpy.typing import NDArray

from pirl_server.jobs.events import EventTail

FOLDER, SUFFIX = "metrics", ".series"
RECORD = np.dtype([("step", "<f8"), ("time", "<f8"), ("value", "<f8")])
STEP_NAMES = ("step", "env_steps", "env_step")
"""numbers that say where a job is"""


@dataclass(frozen=True)
class Series:
    """One number over a job. P points, in the order of their steps."""

    name: str
    records: NDArray[np.void]
    """[P] of `RECORD`; a value that was not finite is NaN"""
    count: int
    """points before they were thinned out"""


class MetricLog:
    """Appends to the series of the job in `directory`, from one process at a time."""

    def __init__(self, directory: Path) -> None:
        self._folder = directory / FOLDER
        self._files: dict[str, int] = {}
        self._step, self._counts = 0.0, True

    def step_of(self, values: Mapping[str, float]) -> float:
        """Return the step that these numbers are of: where none of them says it, the one before.

        A job that never says it counts its updates.
        """
        said = next((float(values[name]) for name in STEP_NAMES if name in values), None)
        self._counts &= said is None
        self._step = said if said is not None else self._step + self._counts
        return self._step

    def append(self, step: float, time: float, values: Mapping[str, float | None]) -> None:
        """Append a point to each series; `time` in seconds since 1970. Raises OSError when the disk is full."""
        for name, value in values.items():
            record = np.array((step, time, np.nan if value is None else value), RECORD).tobytes()
            file = self._file(name)
            if os.write(file, record) < len(record):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._folder / name))

    def __enter__(self) -> MetricLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._files:
            os.close(self._files.popitem()[1])

    def _file(self, name: str) -> int:
        if name not in self._files:
            self._folder.mkdir(exist_ok=True)
            path = self._folder / f"{quote(name, safe='')}{SUFFIX}"
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            os.ftruncate(file, os.fstat(file).st_size // RECORD.itemsize * RECORD.itemsize)
            self._files[name] = file
        return self._files[name]


def names(directory: Path) -> list[str]:
    """Return the names of the series of the job in `directory`, sorted."""
    if not (directory / FOLDER).is_dir():
        return sorted(_from_events(directory))
    return sorted(unquote(path.name.removesuffix(SUFFIX)) for path in (directory / FOLDER).glob(f"*{SUFFIX}"))


def read(directory: Path, chosen: Sequence[str] | None, after: float | None, points: int) -> list[Series]:
    """Return series of the job in `directory`, all or those `chosen` that there are, with up to so many points each.

    `after` is a step: only what is of a later one.
    """
    earlier = None if (directory / FOLDER).is_dir() else _from_events(directory)
    found = []
    for name in names(directory) if chosen is None else dict.fromkeys(chosen):
        records = earlier.get(name) if earlier is not None else _read(directory / FOLDER, name)
        if records is None:
            continue
        records = without_repeats(records)
        if after is not None:
            records = records[records["step"] > after]
        found.append(Series(name, thinned(records, points), len(records)))
    return found


def without_repeats(records: NDArray[np.void]) -> NDArray[np.void]:
    """Return those of the records [P] whose step, or an earlier one, was not written again later [P']: steps rise."""
    if len(records) < 2:
        return records
    later = np.minimum.accumulate(records["step"][::-1])[::-1]
    once = np.append(later[1:] > records["step"][:-1], True)
    kept: NDArray[np.void] = records[once]
    return kept


def thinned(records: NDArray[np.void], points: int) -> NDArray[np.void]:
    """Return up to so many, at least 4, of the records [P]: lowest and highest of each stretch, first and last [P'].

    A single outlier stays visible, and so does a value that is not finite where a stretch has no other.
    """
    if len(records) <= points:
        return records
    inner = records["value"][1:-1]
    stretches = max(1, (points - 2) // 2)
    width = -(-len(inner) // stretches)
    padded = np.pad(inner, (0, stretches * width - len(inner)), constant_values=np.nan).reshape(stretches, width)
    first, finite = np.arange(stretches) * width, np.isfinite(padded)
    lowest = first + np.where(finite, padded, np.inf).argmin(axis=1)
    highest = first + np.where(finite, padded, -np.inf).argmax(axis=1)
    found = np.concatenate([[-1], lowest, highest, [len(inner)]])
    kept: NDArray[np.void] = records[np.unique(found.clip(max=len(inner))) + 1]
    return kept


def _read(folder: Path, name: str) -> NDArray[np.void] | None:
    try:
        raw = (folder / f"{quote(name, safe='')}{SUFFIX}").read_bytes()
    except OSError:  # it is not there, or no file can have such a name
        return None
    return np.frombuffer(raw[: len(raw) // RECORD.itemsize * RECORD.itemsize], RECORD)


def _from_events(directory: Path) -> dict[str, NDArray[np.void]]:
    rows = dict[str, list[tuple[float, float, float]]]()
    tail, log = EventTail(directory), MetricLog(directory)
    while events := tail.read():
        for event in events:
            if event.type != "metrics":
                continue
            numbers = {name: value for name, value in event.data.items() if isinstance(value, int | float)}
            step = log.step_of(numbers)
            for name in event.data:
                rows.setdefault(name, []).append((step, event.time, numbers.get(name, np.nan)))
    return {name: np.array(each, RECORD) for name, each in rows.items()}
