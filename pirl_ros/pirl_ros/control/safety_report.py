"""State of the arm's safety logic, for a topic and for diagnostics. Software, not safety-rated."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from pirl_contract.schema import Alteration


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
    played: int
    altered: int
    """of the played ones, changed or held"""
    dropped: int
    """chunks rejected"""
    alteration_counts: tuple[int, ...]
    """actions altered for each reason, in the order of the bits of `Alteration`"""


class Tally:
    """Counts actions, alterations and rejected chunks."""

    def __init__(self) -> None:
        self.played = self.altered = self.dropped = 0
        self.age_s = 0.0
        """from the observation to the newest command made of it"""
        self._by_bit = dict.fromkeys((bit for bit in Alteration if bit), 0)

    def count(self, alterations: Alteration) -> None:
        """Take in one action."""
        self.played += 1
        self.altered += bool(alterations)
        for bit in self._by_bit:
            self._by_bit[bit] += bool(alterations & bit)

    @property
    def by_bit(self) -> tuple[int, ...]:
        """In the order of the bits."""
        return tuple(self._by_bit.values())
