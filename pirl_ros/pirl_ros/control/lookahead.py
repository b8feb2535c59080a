"""The governed rest of a chunk, for controllers that take a whole trajectory and not one command per period.

Method: forward simulation of `ActionMapper` and its governor on a copy, period by period, with an arm that follows at
once; then the governor's own stop. So the plan keeps the limits for the reason that single commands do. Velocities are
central differences. J = joints, N = rows, D = action dimensions.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from pirl_contract.schema import Alteration, Vector
from pirl_ros.control.action_mapping import ActionMapper
from pirl_ros.control.kinematics import Array


@dataclass(frozen=True)
class Ahead:
    """Commands to come; row 0 is the newest one, row i is due i periods later, the last is at rest. N rows."""

    positions: Array
    """[N, J] rad"""
    velocities: Array
    """[N, J] rad/s, slope through the neighbours, so that a later chunk joins without a step; the last is 0"""
    period_s: float
    before: Array
    """[J] rad, what precedes row 0: the arm comes from there"""

    def of_arm(self, joints: slice) -> Ahead:
        """Return what of it is for one of several arms."""
        return Ahead(self.positions[:, joints], self.velocities[:, joints], self.period_s, self.before[joints])


def look_ahead(
    motion: ActionMapper, actions: Iterable[Vector], reference: Array | None, period_s: float
) -> Ahead | None:
    """Play `actions` [D] on a copy of `motion` as if the arm followed at once, then stop. None: nothing was sent.

    `reference` [J] rad as for `ActionMapper.step`.
    """
    start, before = motion.position, motion.copy()
    preceding = motion.previous
    if start is None or preceding is None:
        return None
    rows = [start]
    for action in actions:
        command = before.step(action, rows[-1], 0.0, 0.0, reference)
        assert command.joints is not None
        rows.append(command.joints)
    while not before.at_rest:
        command = before.brake(Alteration.NONE)
        assert command.joints is not None
        rows.append(command.joints)
    positions = np.stack(rows)
    velocities = np.gradient(positions, period_s, axis=0) if len(rows) > 1 else np.zeros_like(positions)
    velocities[-1] = 0.0
    return Ahead(positions, velocities, period_s, preceding)
