"""Real-time chunking on the robot: the previous chunk and the inference delay of a request. Does not import ROS.

Real-time chunking (arXiv 2506.07339): the arm plays on while the server thinks. The actions from the observation's
capture on travel with the question; as many of them as will have been played when the answer comes return unchanged.

Stamps are on the clock of the robot's messages, ages monotonic. S = entries of the state.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence

from pirl_contract.schema import ActionChunk, Alteration, PreviousChunk, StepOutcome, Vector

Rebase = Callable[[Vector, Vector, Vector], Vector]
"""actions [H, D] that answer the first state [S] to those that would answer the second one"""

_REMEMBERED = 16
"""answers whose age counts"""
_MANY = 8
"""from so many on, the slowest one of them is ignored as an outlier"""
_SPARE_STEPS = 1
"""between an answer and the control period that plays it; one action held too many costs less than a torn seam"""


class LatencyEstimate:
    """How old observations have been when their answers came.

    The first one of a session counts only until there is another: it waited for a connection, and for a policy that
    had to warm up.
    """

    def __init__(self) -> None:
        self._ages_ns: deque[int] = deque(maxlen=_REMEMBERED)
        self._first = True

    def add(self, age_ns: int) -> None:
        """An answer came, this long after its observation was captured."""
        if self._first and self._ages_ns:
            self._ages_ns.clear()
            self._first = False
        self._ages_ns.append(age_ns)

    def expected_ns(self) -> int:
        """The greatest of late; among many the second: one outlier is ignored so that a single slow reply does not
        inflate the delay.

        0 before the first answer.
        """
        slowest = sorted(self._ages_ns)[-2:]
        return 0 if not slowest else slowest[0] if len(self._ages_ns) >= _MANY else slowest[-1]


class RtcTracker:
    """Follows the chunk being played by what the arm reports."""

    def __init__(self, rebase: Rebase | None = None) -> None:
        """`rebase`: for actions that count from the observation of their chunk; None: they count from nothing."""
        self.age = LatencyEstimate()
        self._rebase = rebase
        self._chunk: ActionChunk | None = None
        self._played: StepOutcome | None = None
        self._state: Vector | None = None

    def begin(self, chunk: ActionChunk | None = None, state: Vector | None = None) -> None:
        """This chunk comes next, the answer to an observation with `state` [S]; None: nothing is played."""
        self._chunk, self._played, self._state = chunk, None, state

    def report(self, outcome: StepOutcome) -> None:
        """Take in what the arm did. Whatever is not of this chunk ends it: a person, a stop, a rejection."""
        if self._chunk is None:
            return
        if outcome.chunk_id == self._chunk.chunk_id and not outcome.alterations & Alteration.STALE:
            self._played = outcome
        elif self._played is not None:
            self.begin()

    def from_stamp(self, stamp_ns: int, methods: Sequence[str], state: Vector | None = None) -> PreviousChunk | None:
        """What is commanded from an observation with this stamp and `state` [S] on. None: it can't be continued.

        Actions that count from an observation are counted from this one: the server knows no other.

        Of the methods that the server offers the cheaper one, which needs a policy trained for it, is asked for.
        """
        chunk, played = self._chunk, self._played
        if not methods or chunk is None or played is None:
            return None
        # An outcome has the stamp of the state after its action. By time: the newest report may be of another state.
        start = played.index + 1 + round((stamp_ns - played.time_ns) / 1e9 / chunk.dt_s)
        actions = chunk.actions[max(0, start) :]
        if not len(actions):
            return None
        if self._rebase is not None:
            if self._state is None or state is None:
                return None
            actions = self._rebase(actions, self._state, state)
        late = math.ceil(self.age.expected_ns() / 1e9 / chunk.dt_s) + _SPARE_STEPS
        # All of them given would leave nothing to draw where the chunk has just begun.
        delay = min(late, len(actions), len(chunk.actions) - 1)
        return PreviousChunk(actions, delay, "prefix" if "prefix" in methods else "guided", chunk.chunk_id)
