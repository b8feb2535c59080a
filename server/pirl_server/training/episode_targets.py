"""Which recorded steps a policy may learn from, and what each of them led to.

A target is what was executed on purpose, by the policy or by a human. A step that held the arm, whatever the reason, is
none. A takeover says that the policy's last decisions were bad, whatever the label of the episode says.

Shape letters: T steps of an episode.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pirl_contract import ControlSource
from pirl_server.episodes.schema import Episode

TAKEOVER_MARGIN_S = 2.0
"""decisions that lie so shortly before a takeover are what it was for"""


def takeovers(episode: Episode) -> list[int]:
    """Return the steps, in order, from which on a human drove, or was to drive, in place of the policy.

    Counted from the end of the policy's last step: the arm may hold in between. An episode that a human began has none
    there.
    """
    source = episode.steps.source
    moved = np.flatnonzero(source != int(ControlSource.HOLD))
    human = source[moved] == int(ControlSource.HUMAN)
    found = [int(moved[at]) + 1 for at in np.flatnonzero(~human[:-1] & human[1:])]
    if episode.info.end_reason == "takeover" and len(moved) and not human[-1]:
        found.append(int(moved[-1]) + 1)
    return found


@dataclass(frozen=True)
class Credit:
    """What a step led to."""

    end: int
    """the first step after what it is credited with: the end of the episode, or the takeover"""
    outcome: float
    """1 success, 0 failure, NaN: not known, its value continues elsewhere"""
    before_takeover: bool
    """within the margin: a failure, whatever the label"""


def credit(episode: Episode, step: int, takeovers: Sequence[int]) -> Credit:
    """Return what the step led to; `takeovers` are the episode's.

    The policy is credited neither with the success of a human who took over nor with what came after it: earlier than
    the margin its outcome is not known.
    """
    info = episode.info
    after = [each for each in takeovers if each > step]
    if after and episode.steps.source[step] == int(ControlSource.POLICY):
        close = (after[0] - step) / info.contract.rate_hz <= TAKEOVER_MARGIN_S
        return Credit(after[0], 0.0 if close else float("nan"), close)
    outcome = float("nan") if info.success is None else float(info.success)
    return Credit(len(episode.steps.source), outcome, before_takeover=False)
