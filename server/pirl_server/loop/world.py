"""What a loop sees and what it may do: plain values, so that its decisions need no server, and the seam to one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from pirl_server.config.jobs import Evaluate, FinetuneEpisodes
from pirl_server.config.success import SuccessModel
from pirl_server.loop.state import LoopState
from pirl_server.registry.gate_rule import USUAL_RULE, GateRule


@dataclass(frozen=True)
class EpisodeFacts:
    """One published episode of the loop's task that reached an arm."""

    id: str
    robot_id: str
    version: str
    """the policy version of all its chunks; empty when there were several"""
    success: bool | None
    """its label"""
    created: str
    seconds: float
    policy_steps: int = 0
    altered_steps: int = 0
    """of those, how many a limit of the robot altered"""
    human_steps: int = 0
    """that a human drove"""
    proposed: bool | None = None
    """without a label, what the loop's success model is sure enough of: to learn from, evidence for nothing"""
    fault: str = ""
    """a fault, an emergency stop, or actions that are not finite; empty: none of them"""


@dataclass(frozen=True)
class Child:
    """The job that a loop waits for."""

    ended: bool
    version: str | None = None
    """what it made or evaluated; None: nothing"""
    error: str = ""
    """why it has not succeeded; empty: it has, or still runs"""
    interrupted: bool = False
    """it ended with the server, through no fault of its own"""
    too_few_episodes: bool = False
    """it needs more episodes than there were"""
    offline: str = ""
    """what held-out episodes say of the version; empty: none were held out"""
    model_labels: int = 0
    """outcomes by a success model among those that the version was learnt from"""
    offline_refusal: str = ""
    """why they speak against it; empty: they do not"""


@dataclass(frozen=True)
class View:
    """What a loop sees at one moment."""

    now: str
    """UTC in ISO 8601"""
    production: str
    canary: str = ""
    """the version that robots of a canary get; empty: there is no canary"""
    pinned: frozenset[str] = frozenset()
    """robots that stay on a version of their own"""
    episodes: Sequence[EpisodeFacts] = ()
    """by time: those since the loop began, and earlier ones of production that may be compared with"""
    child: Child | None = None
    outcomes: tuple[tuple[bool, ...], tuple[bool, ...]] | None = None
    """of base and candidate on the round's initial states, once both were evaluated"""
    rejection: str = ""
    """why the promotion gate would reject the candidate; empty: it would not, or it is too early to ask it"""
    rule: GateRule = USUAL_RULE
    """of the promotion gate"""
    not_finite: int = 0
    """chunks of the candidate that the server rejected since it was loaded"""
    paused: bool = False


@dataclass(frozen=True)
class Submit:
    """Queue a job; the same key is never queued twice."""

    spec: FinetuneEpisodes | Evaluate | SuccessModel
    key: str


@dataclass(frozen=True)
class StartCanary:
    """Let these robots get the version from their next episode on."""

    version: str
    robots: tuple[str, ...]
    reason: str


@dataclass(frozen=True)
class Promote:
    """Make the version production, through the promotion gate."""

    version: str
    reason: str


@dataclass(frozen=True)
class Withdraw:
    """End the canary of the version, if there is one, and its alias: its robots get production at once."""

    version: str
    reason: str


@dataclass(frozen=True)
class RollBack:
    """Bring back the version that was in production before this one."""

    version: str
    reason: str


@dataclass(frozen=True)
class CancelChild:
    """Stop the job that is waited for."""

    job: str


Action: TypeAlias = Submit | StartCanary | Promote | Withdraw | RollBack | CancelChild


class World(Protocol):
    """The server, to one loop. Called by the loop's thread only."""

    def view(self, state: LoopState) -> View:
        """Look. Raises OSError when the disk can't be read at this moment."""

    def act(self, action: Action) -> str:
        """Do it, and return what it made: the id of a job, else an empty text. Doing it twice is as doing it once.

        Raises RejectedError when the server does not allow it, OSError when the disk does not.
        """

    def explore(self, share: float | None) -> None:
        """Let so many episodes explore, of robots that request no sampling mode; None: as the server was started."""


class RejectedError(ValueError):
    """The server does not allow an action; the text says why."""
