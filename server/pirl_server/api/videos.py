"""Videos of episodes: made in a process of their own, one at a time, and kept until newer ones need the room.

ROOT/cache/videos/<episode>.mp4   may be removed at any time
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from pirl_server.api.problems import ProblemError
from pirl_server.atomic_files import make_folder
from pirl_server.process_reaper import END, reaped

MAX_STEPS, MAX_PIXELS = 20_000, 4 * 10**9
"""of an episode that is drawn: steps, and pixels of all its images together"""
POLL_S = 0.2
MAX_WAITING, LIMIT_S, MAX_BYTES = 8, 300.0, 2 * 2**30
"""requests that wait for their turn; seconds for one video; bytes of all that are kept"""


class Videos:
    """For one event loop."""

    def __init__(self, folder: Path, stopping: Callable[[], bool]) -> None:
        """`stopping` says whether the server ends: then no video may keep it."""
        self._folder, self._stopping = folder, stopping
        self._turn = asyncio.Semaphore(1)
        self._waiting = 0

    async def of(self, episode_id: str, episode: Path) -> Path:
        """Return the video's file. Raises ProblemError when it can't be made, or too many wait already."""
        path = self._folder / f"{episode_id}.mp4"
        if self._kept(path):
            return path
        if find_spec("av") is None:
            raise ProblemError(501, "not-installed", "videos need the extra `data`: pip install 'pirl[data]'")
        if self._waiting >= MAX_WAITING:
            raise ProblemError(503, "busy", f"{MAX_WAITING} videos are waiting to be made: try again later")
        self._waiting += 1
        try:
            async with self._turn:
                if not self._kept(path):
                    await asyncio.to_thread(self._make, episode, path)
        finally:
            self._waiting -= 1
        return path

    def _kept(self, path: Path) -> bool:
        """Whether it is there; what was asked for last is removed last."""
        with suppress(FileNotFoundError):
            os.utime(path)
            return True
        return False

    def _make(self, episode: Path, path: Path) -> None:
        make_folder(self._folder)
        self._make_room()
        staged = self._folder / f".{uuid.uuid4().hex}.mp4"
        try:
            self._draw(episode, staged)
            os.replace(staged, path)
        finally:
            staged.unlink(missing_ok=True)

    def _draw(self, episode: Path, out: Path) -> None:
        command = [sys.executable, "-W", "ignore", "-m", "pirl_server.inspection.video_process", str(episode), str(out)]
        nowhere, until = subprocess.DEVNULL, time.monotonic() + LIMIT_S
        with subprocess.Popen(reaped(command), stdin=nowhere, stdout=nowhere, stderr=subprocess.PIPE) as process:
            while True:
                try:
                    _, said = process.communicate(timeout=POLL_S)
                    break
                except subprocess.TimeoutExpired:
                    if self._stopping() or time.monotonic() > until:
                        process.send_signal(END)
        if process.returncode and self._stopping():
            raise ProblemError(503, "stopping", "the server is stopping: the video was not made")
        if process.returncode and time.monotonic() > until:
            raise ProblemError(503, "busy", f"the video was not made within {LIMIT_S:g} s")
        if process.returncode:
            lines = said.decode(errors="replace").strip().splitlines() or [f"status {process.returncode}"]
            raise ProblemError(409, "conflict", f"the video can't be made: {lines[-1]}")

    def _make_room(self) -> None:
        """Remove those that were asked for longest ago, and what a killed server left of one."""
        found = []
        for path in self._folder.iterdir():
            with suppress(FileNotFoundError):
                if path.name.startswith("."):
                    path.unlink()
                else:
                    found.append((path.stat().st_mtime_ns, path.stat().st_size, path))
        left = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if left <= MAX_BYTES:
                break
            path.unlink(missing_ok=True)
            left -= size
