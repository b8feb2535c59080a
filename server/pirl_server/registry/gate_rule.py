"""How much worse a candidate may be, and how sure the gate must be that it is not."""

from __future__ import annotations

from dataclasses import dataclass

MIN_EPISODES = 50
MAX_MARGIN = 0.2
MAX_ALPHA = 0.2


@dataclass(frozen=True)
class GateRule:
    """Of the promotion gate. Raises ValueError beyond the bounds."""

    margin: float = 0.05
    """a candidate that is worse by this success rate is rejected, on the same initial states"""
    robot_margin: float = 0.15
    """the same by labelled episodes of robots, which are fewer and not of the same states"""
    alpha: float = 0.05
    """highest probability that a version which is worse by the margin passes"""
    episodes: int = MIN_EPISODES
    """least initial states of a comparison"""

    def __post_init__(self) -> None:
        for name in ("margin", "robot_margin"):
            if not 0.0 < getattr(self, name) <= MAX_MARGIN:
                raise ValueError(f"{name} {getattr(self, name)} must be above 0 and at most {MAX_MARGIN}")
        if not 0.0 < self.alpha <= MAX_ALPHA:
            raise ValueError(f"alpha {self.alpha} must be above 0 and at most {MAX_ALPHA}")


USUAL_RULE = GateRule()
