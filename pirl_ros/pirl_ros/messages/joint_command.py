"""What a position controller makes of a JointTrajectory message: names checked, first point taken."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pirl_contract.schema import Vector


def first_positions(message: Any, names: Sequence[str]) -> Vector:
    """Return the first point's positions [J] float32 in the order of `names`. ValueError: other joints, bad numbers."""
    if sorted(message.joint_names) != sorted(names):
        raise ValueError(f"command for {', '.join(message.joint_names) or 'no joint'}; this is {', '.join(names)}")
    if not message.points or len(message.points[0].positions) != len(names):
        raise ValueError(f"command must hold a point of {len(names)} positions")
    by_name = dict(zip(message.joint_names, message.points[0].positions))
    positions = np.array([by_name[name] for name in names], np.float32)
    if not np.isfinite(positions).all():
        raise ValueError(f"command is not finite: {positions.tolist()}")
    return positions
