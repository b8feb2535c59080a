"""The limited rest of a chunk, for controllers that take a whole trajectory."""

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
    gripper_m: Array
    """[N]"""
    period_s: float
    before: Array
    """[J] rad, what precedes row 0: the arm comes from there"""


def look_ahead(
    motion: ActionMapper, actions: Iterable[Vector], reference: Array | None, period_s: float
) -> Ahead | None:
    """Play `actions` [D] on a copy of `motion` as if the arm followed at once, then stop. None: nothing was sent."""
    start, before = motion.position, motion.copy()
    preceding = motion.previous
    if start is None or preceding is None:
        return None
    rows, fingers = [start], [motion.gripper_m]
    for action in actions:
        command = before.step(action, rows[-1], 0.0, 0.0, reference)
        assert command.joints is not None
        rows.append(command.joints)
        fingers.append(command.gripper_m)
    while not before.at_rest:
        command = before.brake(Alteration.NONE)
        assert command.joints is not None
        rows.append(command.joints)
        fingers.append(command.gripper_m)
    positions = np.stack(rows)
    velocities = np.gradient(positions, period_s, axis=0) if len(rows) > 1 else np.zeros_like(positions)
    velocities[-1] = 0.0
    return Ahead(positions, velocities, np.array(fingers), period_s, preceding)
