"""State of the arm's safety logic, for a topic and for diagnostics. Software, not safety-rated."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Mode(str, Enum):
    """What the arm does."""

    IDLE = "idle"
    """no episode: nothing is sent"""
    PLAYING = "playing"
    """a chunk"""
    DRAINING = "draining"
    """the rest of a chunk, since no newer one came"""
    DECELERATING = "decelerating"
    """on the way to rest"""
    HOLDING = "holding"
    """at rest, waiting for a chunk or for the hand"""
    STOPPED = "stopped"
    """at rest and latched"""
    HUMAN = "human"
    """a person drives"""


@dataclass(frozen=True)
class SafetyReport:
    """A snapshot."""

    mode: Mode
    reason: str
    """why it is not playing; empty when all is well"""
    emergency_stop: bool
    latched: bool
    last_act: str
    """source of the last stop, clear, engage or takeover; empty: none"""
    control_source: str
    """policy | human | hold"""
    episode_id: str
    queue_depth: int
    """actions not yet played"""
    action_age_s: float
    """from the observation to the newest command made of it; 0 before the first"""
    speed_scale: float
    """part of the joints' velocity limits that is used: the profile's times the parameter's or the goal's"""
    played: int
    altered: int
    """of the played ones, changed or held"""
    dropped: int
    """chunks rejected"""
    alteration_counts: tuple[int, ...]
    """actions altered for each reason, in the order of the bits of `Alteration`"""
