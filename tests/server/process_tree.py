"""Who descends from a process, and whether those very processes still live: /proc, without the code under test."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from patience import Patience
from patience import until as wait_until

LIMIT_S = 5.0
WAIT_S = 120.0


def _stat(pid: int) -> tuple[int, int] | None:
    """Parent and start time; None for one that is gone or a zombie."""
    try:
        rest = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if rest[0] in "ZX" else (int(rest[1]), int(rest[19]))


def tree(root: int) -> set[tuple[int, int]]:
    """The live descendants of a process: (pid, start time), which names one process for good."""
    found = {int(name): stat for name in os.listdir("/proc") if name.isdigit() and (stat := _stat(int(name)))}
    wanted = {root}
    while more := {pid for pid, (parent, _) in found.items() if parent in wanted} - wanted:
        wanted |= more
    return {(pid, found[pid][1]) for pid in wanted - {root}}


def marked(name: str, value: str) -> set[tuple[int, int]]:
    """The live processes that were started with this in their environment, also those whose parents are gone."""
    found, words = set(), f"{name}={value}".encode()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:
            continue  # it ended meanwhile, or is another user's
        if words in environment and (stat := _stat(int(pid))):
            found.add((int(pid), stat[1]))
    return found


def alive(processes: set[tuple[int, int]]) -> set[tuple[int, int]]:
    return {(pid, start) for pid, start in processes if (stat := _stat(pid)) and stat[1] == start}


def left_after(processes: set[tuple[int, int]]) -> set[tuple[int, int]]:
    """Those that live on, after 5 s on an idle machine and accordingly longer on a busy one."""
    patience = Patience(LIMIT_S)
    while (left := alive(processes)) and patience.left_s > 0:
        time.sleep(0.01)
    return left


def until(holds: Callable[[], object]) -> None:
    wait_until(holds, limit_s=WAIT_S)
