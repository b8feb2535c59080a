"""Where a loop stands: what it must know after a restart. Written to `loop.json` after every transition."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from pirl_server.atomic_files import read_json, write_json

FILE = "loop.json"


class Phase(str, Enum):
    """What a loop waits for."""

    COLLECT = "collect"
    """new labelled episodes of the production version"""
    PROPOSE = "propose"
    """the job in which a success model judges episodes without a label; only where the loop names one"""
    LEARN = "learn"
    """the job that learns from them"""
    EVALUATE_BASE = "evaluate_base"
    """the production version on this round's initial states"""
    EVALUATE_CANDIDATE = "evaluate_candidate"
    """the new version on the same states"""
    CANARY = "canary"
    """labelled episodes of the new version on a few robots"""
    WATCH = "watch"
    """episodes of all robots after the promotion"""


@dataclass(frozen=True)
class Tally:
    """Outcomes of some episodes, and how much of what the policy commanded the robot's limits altered."""

    episodes: int = 0
    successes: int = 0
    policy_steps: int = 0
    altered_steps: int = 0

    @property
    def altered_share(self) -> float:
        """Of the policy's steps; 0 without one."""
        return self.altered_steps / self.policy_steps if self.policy_steps else 0.0

    def __str__(self) -> str:
        return f"{self.successes} of {self.episodes} episodes succeeded, {self.altered_share:.0%} of the steps altered"


@dataclass(frozen=True)
class Rates:
    """Base and candidate on the same initial states, and the exact tests of `registry.paired_test`."""

    states: int
    base: int
    """successes"""
    candidate: int
    """successes"""
    p_not_worse: float
    p_better: float


@dataclass(frozen=True)
class Round:
    """What a round came to."""

    number: int
    base: str
    candidate: str
    outcome: str
    """promoted, rolled back, worse, rejected, failed or ended"""
    reason: str
    collected: Tally
    evaluation: str = ""
    canary: Tally = field(default_factory=Tally)
    compared: Tally = field(default_factory=Tally)
    """production's episodes that the canary's were compared with"""
    offline: str = ""
    rates: Rates | None = None
    """None: the task has no simulator, or the round did not come so far"""
    robot_minutes: float = 0.0
    """of the loop, up to the round's end"""
    ended: str = ""
    """UTC in ISO 8601"""
    model_labels: int = 0
    """outcomes that it learnt from and a success model proposed"""


@dataclass(frozen=True)
class LoopState:
    """All of it; times are UTC in ISO 8601, as those of episodes."""

    started: str
    since: str
    """episodes published later count in this phase"""
    round: int = 0
    phase: Phase = Phase.COLLECT
    base: str = ""
    """production version of this round"""
    target: int = 0
    """episodes after which this round learns"""
    child: str = ""
    """id of the job that is waited for"""
    attempt: int = 0
    """how often that job was submitted: those that ended with the server are submitted again"""
    candidate: str = ""
    gate_passed: bool = False
    """the candidate was not worse on the round's initial states, or there are none for this task"""
    evaluation: str = ""
    """what the comparison on the round's initial states was"""
    rates: Rates | None = None
    """the same as numbers"""
    offline: str = ""
    """what held-out episodes say of the candidate"""
    collected: Tally = field(default_factory=Tally)
    judged: str = ""
    """when the success model was last given what had no label; empty: not in this round"""
    judgings: int = 0
    """how often it was, in this round"""
    model_labels: int = 0
    """outcomes by the success model: of the round's new episodes; once learnt, of all that were learnt from"""
    compared: Tally = field(default_factory=Tally)
    """what the candidate's episodes are compared with, as it was when the canary began"""
    canary_robots: tuple[str, ...] = ()
    canary: Tally = field(default_factory=Tally)
    trial: str = ""
    """what robots' episodes show where there is no simulator, and how many more it takes"""
    robot_minutes: float = 0.0
    promotions: int = 0
    rounds: tuple[Round, ...] = ()

    @property
    def rounds_since_promotion(self) -> int:
        """Finished rounds after the last one that promoted for good; all of them when none did."""
        kept = [done.number for done in self.rounds if done.outcome == "promoted"]
        return len(self.rounds) - (kept[-1] + 1 if kept else 0)

    def shown(self) -> dict[str, Any]:
        """What the job shows as its result, while it runs too: plain JSON values."""
        raw: dict[str, Any] = _STATE.dump_python(self, mode="json")
        return {name: raw[name] for name in _SHOWN}


_SHOWN = (
    "round", "phase", "base", "candidate", "target", "collected", "model_labels", "offline", "rates", "canary_robots",
    "canary", "compared", "trial", "robot_minutes", "promotions", "rounds",
)  # fmt: skip
_STATE = TypeAdapter(LoopState)


def write_state(folder: Path, state: LoopState) -> None:
    """Replace what is on the disk in one step. Raises OSError."""
    write_json(folder / FILE, _STATE.dump_python(state, mode="json"))


def read_state(folder: Path) -> LoopState | None:
    """Return where the loop stood; None when it has not begun. Raises ValueError for a damaged file."""
    if not (folder / FILE).exists():
        return None
    raw = read_json(folder / FILE)
    try:
        return _STATE.validate_python(raw)
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"])) or "it"
        raise ValueError(f"'{folder / FILE}' can't be read: {where}: {fault['msg']}") from None
