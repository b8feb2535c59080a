"""Offset of the server's clock to the robot's, from the four stamps of each call.

The robot's clock is the reference: times of observations and actions are its own, the server's are translated. Both
clocks are monotonic, so that neither is ever set; a restarted server is another clock.
"""

from __future__ import annotations

import itertools
from collections import deque
from dataclasses import dataclass

WINDOW = 8
"""samples that are chosen among: the stages of RFC 5905's clock filter"""
DRIFT = 15e-6
"""seconds per second by which two clocks may drift apart: RFC 5905's PHI"""


@dataclass(frozen=True)
class ClockSample:
    """What one call says about the two clocks, in nanoseconds."""

    offset_ns: float
    """server's clock minus the robot's"""
    delay_ns: int
    """time on the wire, there and back"""
    taken_ns: int
    """robot's clock when the reply came"""

    def error_ns(self, now_ns: int) -> float:
        """Bound of the offset's error: half the delay, all of it on one way; and what has drifted since."""
        return self.delay_ns / 2 + DRIFT * (now_ns - self.taken_ns)


class ClockSync:
    """Keeps the last samples and believes the one with the smallest error bound (RFC 5905, section 10). One thread."""

    def __init__(self) -> None:
        # error at time 0, a number that breaks ties, sample: errors grow alike, so that their order stays
        self._samples: deque[tuple[float, int, ClockSample]] = deque(maxlen=WINDOW)
        self._numbers = itertools.count()

    def add(self, sent_ns: int, received_ns: int, replied_ns: int, returned_ns: int) -> bool:
        """Take in one call: sent and returned by the robot's clock, received and replied by the server's.

        False, and nothing is kept, when the stamps contradict themselves. A sample that cannot be true together with
        the best one means that the server's clock is another one now: the older samples are forgotten.
        """
        delay = (returned_ns - sent_ns) - (replied_ns - received_ns)
        if returned_ns < sent_ns or replied_ns < received_ns or delay < 0:
            return False
        sample = ClockSample(((received_ns - sent_ns) + (replied_ns - returned_ns)) / 2, delay, returned_ns)
        best = self.best()
        if best is not None:
            apart = abs(sample.offset_ns - best.offset_ns)
            if apart > sample.error_ns(returned_ns) + best.error_ns(returned_ns):
                self._samples.clear()
        self._samples.append((sample.error_ns(0), next(self._numbers), sample))
        return True

    def best(self) -> ClockSample | None:
        """Return the sample to be believed, at any time; None before the first."""
        return min(self._samples)[2] if self._samples else None

    def to_robot_ns(self, server_ns: int, now_ns: int) -> int:
        """Translate a time of the server's clock. Raises ValueError before the first sample."""
        best = self.best()
        if best is None:
            raise ValueError("no call has completed yet: the server's clock offset is unknown")
        return round(server_ns - best.offset_ns)
