"""Two builds of the robot side, the one here and that of a commit, in turns on one machine.

Both are up all the time and take turns of a few seconds at the same load, in the order A B B A, so that what else the
machine does meets both. Times and CPU of one build are given next to the ratio to the other: single figures are those
of a machine at an hour.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rig import ROOT, Rig

SETTLE_S = 0.5
"""for sensor streams that rested to be complete again"""


@contextmanager
def tree_of(commit: str, folder: Path) -> Iterator[Path]:
    """Check a commit out for as long as the context lasts. Ends the process when its messages are other ones."""
    same = subprocess.run(
        ["git", "-C", ROOT, "diff", "--quiet", commit, "--", "msg/msg", "msg/srv", "msg/action"], check=False
    )
    if same.returncode:
        sys.exit(f"--base {commit}: not a commit, or its ROS messages differ from those built here: name a later one")
    tree = folder / "base"
    subprocess.run(["git", "-C", ROOT, "worktree", "add", "--quiet", "--detach", tree, commit], check=True)
    try:
        yield tree
    finally:
        subprocess.run(["git", "-C", ROOT, "worktree", "remove", "--force", tree], check=True)


@dataclass
class Turns:
    """What one build did in all of its turns."""

    chunk_ms: list[np.ndarray] = field(default_factory=list)
    command_ms: list[np.ndarray] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    """CPU seconds of the robot side per second"""
    idle_cpu: list[float] = field(default_factory=list)


def ratios(here: Turns, base: Turns) -> dict[str, float]:
    """Return p50, p99 and CPU of both builds, and the first to the second: medians of the ratios of single turns.

    A turn has too few chunks for a p99: that of all turns together is compared.
    """
    figures: dict[str, float] = {"chunks here": len(np.concatenate(here.command_ms))}
    figures["chunks base"] = len(np.concatenate(base.command_ms))
    for what in ("chunk", "command"):
        mine, other = (getattr(each, f"{what}_ms") for each in (here, base))
        middles = [np.median(a) / np.median(b) for a, b in zip(mine, other) if len(a) and len(b)]
        for share in (50, 99):
            now, before = (float(np.percentile(np.concatenate(times), share)) for times in (mine, other))
            ratio = float(np.median(middles)) if share == 50 else now / before
            figures |= {f"camera to {what} p{share} ms, here": round(now, 1)}
            figures |= {f"camera to {what} p{share} ms, base": round(before, 1)}
            figures |= {f"camera to {what} p{share}, here / base": round(ratio, 2)}
    for what, mine, other in (("playing", here.cpu, base.cpu), ("idle", here.idle_cpu, base.idle_cpu)):
        figures |= {f"CPU {what} % of one core, here": round(100 * float(np.mean(mine)), 1)}
        figures |= {f"CPU {what} % of one core, base": round(100 * float(np.mean(other)), 1)}
        figures |= {f"CPU {what}, here / base": round(float(np.median(np.divide(mine, other))), 2)}
    return figures


def take_turn(rig: Rig, seconds: float, turns: Turns) -> None:
    """Idle, then play, for `seconds` together."""
    rig.spin(SETTLE_S)
    before_s, idle_s = sum(rig.cpu_s().values()), 0.25 * seconds
    rig.spin(idle_s)
    turns.idle_cpu.append((sum(rig.cpu_s().values()) - before_s) / idle_s)
    goal = rig.start_goal(seconds + 30)
    rig.commands.clear()
    rig.until(lambda: len(rig.chunks) > 0 and len(rig.commands) > 0, "the first command")
    rig.spin(SETTLE_S)
    rig.forget()
    before_s, played_s = sum(rig.cpu_s().values()), 0.75 * seconds
    rig.spin(played_s)
    turns.cpu.append((sum(rig.cpu_s().values()) - before_s) / played_s)
    chunk_ms, command_ms = rig.latencies_ms()
    turns.chunk_ms.append(chunk_ms)
    turns.command_ms.append(command_ms)
    over = goal.get_result_async()
    goal.cancel_goal_async()
    rig.until(over.done, "the end of the goal")


def compare(here: Rig, base: Rig, rounds: int, seconds: float) -> dict[str, float]:
    """Let both take turns, `rounds` times each."""
    turns = {here.name: Turns(), base.name: Turns()}
    for number in range(rounds):
        for rig in (here, base) if number % 2 else (base, here):
            take_turn(rig, seconds, turns[rig.name])
    return ratios(turns[here.name], turns[base.name])
