"""Records the calls of this repository's functions, thread by thread, and counts files, returns and rooms."""

from __future__ import annotations

import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).parents[2]
PACKAGES = tuple(
    str(ROOT / folder) + "/" for folder in ("msg/pirl_contract", "pirl_ros/pirl_ros", "server/pirl_server", "sim")
)
GENERATED = "_pb2"

Wanted = Callable[[FrameType], bool]


class Trip:
    """One traced trip: for each thread the called functions in order, as (file below the root, name)."""

    def __init__(
        self,
        wanted: Wanted = lambda frame: True,
        until: Wanted = lambda frame: False,
        network: tuple[str, ...] = (),
        periodic: tuple[str, ...] = (),
    ) -> None:
        """`wanted`: which calls count; `network`: folders within which returns do not; `periodic`: ignored threads.

        The call of which `until` is true is the last one counted, and raises SystemExit in its thread.
        """
        self._wanted, self._until, self._network, self._periodic = wanted, until, network, periodic
        self.reached = False
        """whether `until` was true"""
        self._calls: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
        self._on = False

    @contextmanager
    def traceable(self) -> Iterator[None]:
        """Threads that are started within this are traced whenever `recording`, and so is the caller's."""
        threading.setprofile(self._profile)
        sys.setprofile(self._profile)
        try:
            yield
        finally:
            sys.setprofile(None)
            threading.setprofile(None)

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Count the calls that are made within this."""
        self._on = True
        try:
            yield
        finally:
            self._on = False

    def figures(self, keys: Iterable[str]) -> dict[str, int]:
        """Return the named figures: files, returns, moves, rooms."""
        visits = [_without_repeats([file for file, _ in calls]) for calls in self._calls.values()]
        rooms = [_without_repeats([str(Path(file).parent) for file in files]) for files in visits]
        figures = {
            "files": len({file for files in visits for file in files}),
            "returns": sum(self._returns(files) for files in visits),
            "moves": sum(len(files) - 1 for files in visits),
            "rooms": sum(len(each) for each in rooms),
        }
        return {key: figures[key] for key in keys}

    def path(self) -> str:
        """Return one line per file entered, with the functions called there; `<` marks a return."""
        lines = []
        for thread, calls in self._calls.items():
            lines.append(f"  thread {thread}")
            seen, last = set[str](), ""
            for file, name in calls:
                if file != last:
                    lines.append(f"  {'<' if file in seen else ' '} {file}:")
                lines[-1] += f" {name}"
                seen.add(file)
                last = file
        return "\n".join(lines) + "\n"

    def _returns(self, visits: list[str]) -> int:
        counted = _without_repeats([each for each in visits if not each.startswith(self._network)])
        return len(counted) - len(set(counted))

    def _profile(self, frame: FrameType, event: str, _: Any) -> None:
        if event != "call" or not self._on:
            return
        file, name = frame.f_code.co_filename, frame.f_code.co_qualname.split(".")[-1]
        # A comprehension is a call in some versions of Python only.
        if not file.startswith(PACKAGES) or GENERATED in file or (name.startswith("<") and name != "<lambda>"):
            return
        thread = threading.current_thread().name
        if thread not in self._periodic and self._wanted(frame):
            self._calls[thread].append((file.removeprefix(str(ROOT) + "/"), name))
        if self._until(frame):
            self._on, self.reached = False, True
            raise SystemExit(f"{name} was reached")


def _without_repeats(names: list[str]) -> list[str]:
    return [name for index, name in enumerate(names) if index == 0 or names[index - 1] != name]
