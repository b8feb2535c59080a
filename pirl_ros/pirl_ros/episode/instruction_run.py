"""One running instruction: its label, and when and why it ends. Does not import ROS; times are monotonic s."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

Outcome = Literal["unlabeled", "success", "failure", "discard"]
LABELS = ("success", "failure", "discard", "undo")


@dataclass(frozen=True)
class RunLimits:
    """How long a run may take, s."""

    duration_s: float
    """after this the episode ends, whatever its state"""
    undo_window_s: float
    """how long a label that ended the episode can be taken back"""
    patience_s: float
    """how long the policy may give no chunk, or a node be silent"""
    signal_source: Literal["sim", "classifier"] = "sim"
    """what judges by the success topic: a simulator, or a program that looks at a real task; stored with the label"""


@dataclass(frozen=True)
class Ending:
    """Why an episode ends. `code` names a constant of ExecuteInstruction's result."""

    code: str
    reason: str
    message: str = ""

    @property
    def fault(self) -> bool:
        """Whether it was interrupted by a fault."""
        return self.code not in ("NONE", "TIME_LIMIT", "CANCELED")

    @property
    def end_reason(self) -> str:
        """The word that is stored with the episode: success | time_limit | operator | fault."""
        words = {"signal": "success", "label": "operator", "canceled": "operator", "time_limit": "time_limit"}
        return words.get(self.reason, "fault")


class EpisodeRun:
    """Collects what happens from a goal's acceptance to its end. For one thread.

    A label that ends the episode stops the motion at once; for `undo_window_s` it can still be replaced or undone.
    """

    def __init__(self, limits: RunLimits) -> None:
        self.limits = limits
        self.episode_id = ""
        self.outcome: Outcome = "unlabeled"
        self.label_source = "operator"
        self._has_signal = self._armed = False
        self._began_s: float | None = None
        self._policy_s = self._arm_s = 0.0
        self._policy_problem = ""
        self._labelled_s: float | None = None
        self._ending: Ending | None = None

    def begin(self, episode_id: str, now_s: float) -> None:
        """The episode has started: time limits count from here."""
        self.episode_id = episode_id
        self._began_s = self._policy_s = self._arm_s = now_s

    @property
    def paused(self) -> bool:
        """Whether nothing of the policy is to be played any more: a label is waiting for its undo window."""
        return self._labelled_s is not None

    def elapsed_s(self, now_s: float) -> float:
        """Return the time since the start; 0 before it."""
        return 0.0 if self._began_s is None else now_s - self._began_s

    def mark(self, label: str, end: bool, now_s: float) -> None:
        """Take an operator's label; 'undo' takes it back; what it ended still ends. ValueError: no such label."""
        if label not in LABELS:
            raise ValueError(f"label '{label}' is not known: use {', '.join(LABELS)}")
        if label == "undo" and self.outcome == "unlabeled":
            raise ValueError("there is no label to retract")
        self.outcome = "unlabeled" if label == "undo" else label  # type: ignore[assignment]
        self.label_source = "operator"
        if end and label != "undo" and self._ending is None:
            self._labelled_s = now_s

    def signal(self, success: bool) -> None:
        """What the task itself reports. Success ends the episode, once a False of this episode was seen before it."""
        self._has_signal = True
        if self._began_s is None or not success:
            self._armed = self._began_s is not None
        elif self._armed and self._ending is None and not self.paused:
            if self.outcome == "unlabeled":
                self.outcome, self.label_source = "success", self.limits.signal_source
            self._ending = Ending("NONE", "signal")

    def end(self, ending: Ending) -> None:
        """End it; the first ending counts."""
        self._ending = self._ending or ending

    def supersede(self, ending: Ending) -> None:
        """Closing the episode failed. A fault that ended it is the cause, so it stays and the words are added."""
        if self._ending is not None and self._ending.fault:
            words = "; ".join(filter(None, [self._ending.message, ending.message]))
            self._ending = replace(self._ending, message=words)
        else:
            self._ending = ending

    def hurry(self, patience_s: float) -> None:
        """Wait no longer than this for another node from now on."""
        self.limits = replace(self.limits, patience_s=min(patience_s, self.limits.patience_s))

    def policy_reported(self, reason: str, now_s: float) -> None:
        """The policy node says why no chunk comes; '' when all is well."""
        self._policy_problem = reason
        if not reason:
            self._policy_s = now_s

    def arm_reported(self, emergency_stop: bool, latched: bool, reason: str, now_s: float) -> None:
        """The arm node says whether it plays."""
        self._arm_s = now_s
        if emergency_stop:
            self.end(Ending("EMERGENCY_STOP", "emergency_stop", reason))
        elif latched:
            self.end(Ending("LINK_LOST", "link_lost", reason))

    def ending(self, now_s: float) -> Ending | None:
        """Return why it is over, or None while it runs."""
        if self._ending is None:
            self._ending = self._over(now_s)
            late = self._ending is not None and self._ending.reason == "time_limit"
            if late and self._has_signal and self.outcome == "unlabeled":
                self.outcome, self.label_source = "failure", self.limits.signal_source
        return self._ending

    def _over(self, now_s: float) -> Ending | None:
        limits = self.limits
        if self._began_s is None:
            return None
        if self._labelled_s is not None:
            return Ending("NONE", "label") if now_s - self._labelled_s >= limits.undo_window_s else None
        if now_s - self._began_s >= limits.duration_s:
            return Ending("TIME_LIMIT", "time_limit", f"{limits.duration_s:g} s elapsed")
        if now_s - self._arm_s >= limits.patience_s:
            return Ending("NODE_LOST", "node_lost", f"no message from arm_node for {limits.patience_s:g} s")
        if now_s - self._policy_s >= limits.patience_s:
            problem = self._policy_problem
            if problem:
                return Ending("LINK_LOST", "link_lost", problem)
            return Ending("NODE_LOST", "node_lost", f"no message from policy_node for {limits.patience_s:g} s")
        return None
