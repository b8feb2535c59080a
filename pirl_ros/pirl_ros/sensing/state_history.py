"""Joint states by stamp, each with its arrival on this host's monotonic clock.

Message stamps may jump by an hour when a clock is set. So a stamp is never compared with the time now: it is looked up
among the states that came, each with the monotonic time of its arrival.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_KEEP = 1024
_NEAR_NS = 1_000_000_000
"""largest distance of a stamp from a known one: the clock did not jump in between"""


@dataclass(frozen=True)
class Measured:
    """One state of the arm."""

    stamp_ns: int
    received_ns: int
    joints: Array
    """[J] rad, of one arm after the other"""
    fingers: tuple[float | None, ...] = (None,)
    """position of each arm's commanded gripper joint in the gripper's unit; None: it is not measured"""


class StateHistory:
    """The last states."""

    def __init__(self) -> None:
        self._states: deque[Measured] = deque(maxlen=_KEEP)

    @property
    def newest_ns(self) -> int:
        """When the newest state came; -1 before the first."""
        return self._states[-1].received_ns if self._states else -1

    def push(self, state: Measured) -> None:
        """Remember a state. One that is already the newest is not taken twice."""
        if not self._states or self._states[-1].received_ns != state.received_ns:
            self._states.append(state)

    def at(self, stamp_ns: int, now_ns: int) -> Measured | None:
        """Return the state nearest to a stamp, its arrival moved to that stamp; None: no known state is near."""
        # The newest of equally near ones: a clock that was set back gives out the same stamps again.
        nearest = min(reversed(self._states), key=lambda state: abs(state.stamp_ns - stamp_ns), default=None)
        if nearest is None or abs(nearest.stamp_ns - stamp_ns) > _NEAR_NS:
            return None
        # Stamped after the newest state here: it came to others first, and not later than now.
        received_ns = min(nearest.received_ns + stamp_ns - nearest.stamp_ns, now_ns)
        return Measured(stamp_ns, received_ns, nearest.joints)
