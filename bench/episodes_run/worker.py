"""One layout in a process of its own: reads requests as JSON lines, answers each with seconds.

python worker.py LAYOUT FOLDER STEPS SIDE
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from scene import CAMERAS, Size, episode

WINDOW, BATCH = 16, 8
MODULES = {"pirl": "ours", "pirl-jpeg": "ours", "before": "before", "lerobot": "lerobot_itself"}
"""layout -> module with a class `Layout`; the others are in `habits`"""


class Layout(Protocol):
    """How one layout is written and read."""

    def prepare(self, number: int, data: dict[str, np.ndarray]) -> None:
        """What was done when the calls came, or the steps."""

    def write(self, number: int, data: dict[str, np.ndarray]) -> None:
        """Return when the episode is on the disk."""

    def seal(self) -> None:
        """Written for the last time."""

    def images(self, number: int, start: int, stop: int) -> np.ndarray:
        """Images [cameras * (stop - start), side, side, 3] and the states with them, checked as the layout does."""

    def whole(self, number: int) -> None:
        """Read all of an episode into memory."""


def batches(layout: Layout, count: int, size: Size, written: int) -> float:
    """Seconds for `count` batches of random windows, with two workers."""
    if (own := getattr(layout, "batches", None)) is not None:
        return float(own(count, WINDOW, BATCH, written))
    random = np.random.default_rng(0)
    chosen = [(int(random.integers(written)), int(random.integers(size.steps - WINDOW))) for _ in range(count * BATCH)]
    with ThreadPoolExecutor(2) as pool:
        began = time.perf_counter()
        for _ in pool.map(lambda each: layout.images(each[0], each[1], each[1] + WINDOW), chosen):
            pass
        return time.perf_counter() - began


def timed(act: Callable[[], Any]) -> tuple[float, float]:
    """Wall and CPU seconds."""
    began, cpu = time.perf_counter(), time.process_time()
    act()
    return time.perf_counter() - began, time.process_time() - cpu


def used(folder: Path) -> tuple[int, int]:
    """Bytes on the disk and directory entries below a folder."""
    found = list(folder.rglob("*"))
    return sum(each.stat().st_blocks * 512 for each in found), len(found)


def answer(layout: Layout, request: dict[str, Any], size: Size, folder: Path) -> Any:
    number, random = request.get("number", 0), np.random.default_rng(request.get("seed", 0))
    start = int(random.integers(size.steps - WINDOW))
    match request["do"]:
        case "write":
            data = episode(number, size)
            before = timed(lambda: layout.prepare(number, data))[0]
            return (*timed(lambda: layout.write(number, data)), before)
        case "seal":
            layout.seal()
            return used(folder)
        case "check":
            expected = episode(number, size)[CAMERAS[0]][start]
            found = layout.images(number, start, start + 1)[0]
            return float(np.abs(expected.astype(int) - found.astype(int)).mean())
        case "image":
            return timed(lambda: layout.images(number, start, start + 1))
        case "window":
            return timed(lambda: layout.images(number, start, start + WINDOW))
        case "whole":
            return timed(lambda: layout.whole(number))
        case "batches":
            return batches(layout, request["count"], size, request["written"]), 0.0
        case "small":
            return layout.small(request["turn"])  # type: ignore[attr-defined]
        case other:
            return getattr(layout, other)()


def main() -> None:
    name, folder, size = sys.argv[1], Path(sys.argv[2]), Size(int(sys.argv[3]), int(sys.argv[4]))
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a library prints is no reply
    module = importlib.import_module(MODULES.get(name, "habits"))
    layout: Layout = module.make(name, folder, size)
    print(json.dumps("ready"), file=replies)
    for line in sys.stdin:
        print(json.dumps(answer(layout, json.loads(line), size, folder)), file=replies)


if __name__ == "__main__":
    main()
