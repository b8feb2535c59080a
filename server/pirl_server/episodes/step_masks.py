"""Which recorded steps are targets: executed on purpose, by the policy or by a human.

A step that held the arm, whatever the reason, is none. Shape letter: T steps of an episode.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pirl_contract import Alteration, ControlSource
from pirl_server.episodes.schema import Steps

NO_TARGET = {
    "dry run": Alteration.DRY_RUN,
    "emergency stop": Alteration.EMERGENCY_STOP,
    "watchdog": Alteration.WATCHDOG,
    "stale": Alteration.STALE,
    "not finite": Alteration.NOT_FINITE,
}
"""why a step is no target -> the bit that says so: the action was replaced, the arm held. Others, such as limits and
blending, changed the action, and what was executed is recorded"""
HOLD = "hold"


def masked_steps(steps: Steps) -> dict[str, NDArray[np.bool_]]:
    """Why steps are no targets -> which ones [T]; each step has the first reason that applies."""
    left, found = np.ones(len(steps.source), np.bool_), {}
    reasons = {name: (steps.alterations & int(bit)) != 0 for name, bit in NO_TARGET.items()}
    reasons["not finite"] = reasons["not finite"] | ~np.isfinite(steps.executed).all(axis=1)
    reasons[HOLD] = steps.source == int(ControlSource.HOLD)
    for name, applies in reasons.items():
        found[name], left = left & applies, left & ~applies
    return found


def targets(steps: Steps) -> NDArray[np.bool_]:
    """Which steps may be targets [T]."""
    none: NDArray[np.bool_] = np.logical_or.reduce(list(masked_steps(steps).values()))
    return ~none
